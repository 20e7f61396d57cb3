"""Bad input of the task raw2raw: one sentence with status 2, as early as possible, and nothing is written or lost.

A new case is a row of one of the tables: (what is wrong, how to make it, the expected sentence).
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fit
import storage
from data import camera
from errors import UserError
from losses import adversarial
from tasks.mapping import open_mapper
from training import cycle

from ..dng import dng
from ..mapper_runs import make_config, options, write_dataset
from ..two_cameras import dng_of, mosaic_of, write_folders, write_plain_folders
from .commands import files_of, refused

pytestmark = pytest.mark.usefixtures("restored_module")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cameras") / "data")


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, sentence",
    (
        ("--train.mode paired", "task raw2raw does not use train.mode"),
        ("--train.steps 5 --train.lr 1e-3", "task raw2raw does not use train.steps, train.lr"),
        ("--data.photos x", "task raw2raw does not use data.photos"),
        ("--data.pairs no", "task raw2raw does not use data.pairs"),
        ("--data.normalise as_shot", "task raw2raw does not use data.normalise"),
        ("--data.val-count 3", "task raw2raw does not use data.val_count"),
        ("--pretrain.steps 5", "task raw2raw does not use pretrain.steps"),
        ("--backbones.weights random", "task raw2raw does not use backbones.weights"),
        ("--released.chunks", "task raw2raw does not use released.chunks"),
        ("--compute.compile", "task raw2raw does not use compute.compile"),
        ("--data.raw x", "--data.raw and --data-b.raw need --data.layout folders"),
        ("--data-b.raw x", "--data.raw and --data-b.raw need --data.layout folders"),
        ("--data.layout lsmi", "no folder "),
        ("--mapping.channels 2", "mapping.channels must be 4 or 3, not 2"),
        ("--data.layout folders", "layout folders takes --data.raw and --data-b.raw, not --data.root"),
        ("--data.demo --data.layout raw2raw", "layout raw2raw does not use the demo dataset: add --data.no-demo"),
        ("--as-released --mapping.replay 3", "--as-released sets what the released code does"),
        ("--mapping.adversarial 0 --mapping.critic-norm instance", "no critic has --mapping.critic-norm instance"),
        ("--mapping.steps -1", "mapping.steps must not be negative"),
        ("--mapping.lr 0", "mapping.lr and mapping.critic_lr must be positive"),
        ("--mapping.beta1 1", "mapping.beta1, mapping.beta2 must lie in [0, 1)"),
        ("--mapping.adversarial 0 --mapping.cycle 0 --mapping.identity 0", "every weight of mapping is 0"),
        ("--mapping.ema 1", "mapping.ema must lie in [0, 1)"),
        ("--model resnet", "unknown mapper 'resnet'; known are: mapper, "),
        ("--model efficient", "unknown mapper 'efficient'; known are: mapper, "),
        ("--data.layout zrr", "unknown layout of two cameras 'zrr'; known are: cameras, raw2raw, folders"),
        (
            "--data.patch 32",
            "--data.patch 32 is too small: a critic of planes, which are half as large, needs at least",
        ),
        ("--data.patch 32 --data.batch 1", "--data.patch 32 is too small"),  # a single patch of 16x16 planes
    ),
)
def test_a_setting_is_refused_before_any_file_is_written(call, root, tmp_path, given, sentence):
    assert sentence in refused(call, fit, *options(root, tmp_path / "runs"), *given.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("given", ("--mapping.lr 1e-3", "--data-b.raw x", "--mapping.start gains"))
@pytest.mark.parametrize("preset", ("demo", "quick", "camera", "fujifilm-efficient"))
def test_an_isp_has_no_settings_of_mappers(call, tmp_path, preset, given):
    where = ["--runs", tmp_path / "runs", "--data.raw", "x", "--data.photos", "x"]
    name = given.split()[0].removeprefix("--").replace("-", "_")
    output = refused(call, fit, preset, *where, *given.split())
    assert f"a setting has no effect: {name} is " in output and "the task raw2raw: name its preset" in output
    assert not (tmp_path / "runs").exists()


def test_a_mapper_is_no_model_of_an_isp(call, tmp_path):
    assert "unknown model 'mapper'" in refused(
        call, fit, "zrr-efficient", "--model", "mapper", "--runs", tmp_path / "r"
    )


# --- files -----------------------------------------------------------------------------------------------------------


def one_folder(folders: dict[str, Path]) -> None:
    shutil.rmtree(folders["b"])
    folders["b"].symlink_to(folders["a"])


def one_camera(folders: dict[str, Path]) -> None:
    for number in range(10):
        (folders["b"] / f"{number}.dng").write_bytes(dng_of("a", 30 + number))


def another_camera_among_them(folders: dict[str, Path]) -> None:
    (folders["b"] / "7.dng").write_bytes(dng_of("a", 30))


def plain_among_them(folders: dict[str, Path]) -> None:
    Image.fromarray(mosaic_of("b", 30)).save(folders["b"] / "x.png")


def one_file(folders: dict[str, Path]) -> None:
    for number in range(1, 10):
        (folders["b"] / f"{number}.dng").unlink()


def no_file(folders: dict[str, Path]) -> None:
    shutil.rmtree(folders["b"])
    folders["b"].mkdir()


def no_folder(folders: dict[str, Path]) -> None:
    shutil.rmtree(folders["b"])


def no_levels(folders: dict[str, Path]) -> None:
    for path in folders["b"].iterdir():
        path.unlink()
    for number in range(4):
        Image.fromarray(mosaic_of("b", number)).save(folders["b"] / f"{number}.png")


def a_damaged_file(folders: dict[str, Path]) -> None:
    (folders["b"] / "3.dng").write_bytes((folders["b"] / "3.dng").read_bytes()[:300])


def small_files(folders: dict[str, Path]) -> None:
    for number in range(10):
        (folders["b"] / f"{number}.dng").write_bytes(
            dng(mosaic_of("b", number)[:32, :32], cfa="grbg", black=256.0, white=4095, camera=("Other", "Two"))
        )


FILES = (
    (one_folder, "is the folder of both cameras: name two"),
    (one_camera, "both folders are of the camera Maker One: give those of two cameras"),
    (another_camera_among_them, "7.dng has the camera Maker One, but"),
    (plain_among_them, "lie together, but only one of them is a camera's own file"),
    (one_file, "holds one mosaic: training needs at least 2 of each camera"),
    (no_file, "/b"),
    (no_folder, "no folder "),
    (no_levels, "the mosaics of camera b do not note their levels: write a profile with python -m data.camera"),
    (a_damaged_file, "3.dng"),
    (small_files, "is 32x32, smaller than a patch of 48: lower --data.patch"),
)


def folder_options(found: dict[str, Path], runs: Path, *more: str) -> list[str]:
    given = [*options(Path("none"), runs), "--data.layout", "folders", "--data.raw", str(found["a"])]
    place = given.index("--data.root")
    return [*given[:place], *given[place + 2 :], "--data.root", "", "--data-b.raw", str(found["b"]), *more]


@pytest.mark.parametrize("spoil, sentence", FILES, ids=lambda value: getattr(value, "__name__", None))
def test_files_that_cannot_be_trained_on_are_named(call, tmp_path, spoil, sentence):
    found = write_folders(tmp_path)
    spoil(found)
    before = files_of(tmp_path)
    output = refused(call, fit, *folder_options(found, tmp_path / "runs"))
    assert sentence in output
    after = {path: content for path, content in files_of(tmp_path).items() if path.name != ".lock"}
    assert after == before  # no config.json, no log


def test_two_folders_train_a_mapper_with_the_cameras_names(call, tmp_path):
    found = write_folders(tmp_path)
    status, output = call(fit, *folder_options(found, tmp_path / "runs", "--mapping.steps", "1"))
    assert status == 0 and "camera b is Other Two; CFA grbg" in output
    opened = open_mapper(str(tmp_path / "runs" / "tiny" / "checkpoints" / "step_0000001.pt"), CPU)
    assert opened.cameras["a"].name == "Maker One" and opened.sensors["b"].white_level == 4095


def test_a_start_from_profiles_needs_colour_matrices(call, tmp_path):
    found = write_plain_folders(tmp_path)
    named = ["--data.camera", f"{found['a']}.json", "--data-b.camera", f"{found['b']}.json"]
    output = refused(call, fit, *folder_options(found, tmp_path / "runs", *named, "--mapping.start", "profiles"))
    assert "camera a notes no colour matrix for --mapping.start profiles: try statistics" in output


def test_the_same_files_on_both_sides_are_refused(call, root, tmp_path):
    data = Path(shutil.copytree(root, tmp_path / "data"))
    shutil.copy(data / "unpaired" / "a" / "0.png", data / "unpaired" / "b" / "copy.png")
    output = refused(call, fit, *options(data, tmp_path / "runs"))
    assert "1 files are mosaics of both cameras: give different files of each" in output


def test_a_pair_without_its_partner_is_refused(call, root, tmp_path):
    data = Path(shutil.copytree(root, tmp_path / "data"))
    (data / "truth" / "b" / "0.png").unlink()
    assert "0.png has no partner of camera b" in refused(call, fit, *options(data, tmp_path / "runs"))


def test_levels_that_the_files_do_not_have_are_refused(call, root, tmp_path):
    output = refused(call, fit, *options(root, tmp_path / "runs", "--data-b.white-level", "4095"))
    assert "the mosaics of camera b have the CFA grbg" in output and "white 4095: leave its levels out" in output


def test_processes_cannot_share_kept_patches(root, tmp_path):
    from tasks.raw_to_raw import build_task
    from training.distributed import Group

    for option, parts in (("--mapping.replay", {"mapping": {"replay": 2}}), ("--as-released", {"as_released": True})):
        with pytest.raises(UserError, match=f"{option} keeps cannot be shared by several processes"):
            build_task(make_config(root, tmp_path, **parts), CPU, Group(size=2), False)


# --- diverging training ----------------------------------------------------------------------------------------------


def test_a_loss_that_is_nan_ends_the_run_and_leaves_the_last_state(call, root, tmp_path, monkeypatch):
    calls, plain = [], adversarial.least_squares

    def broken(logits, target):
        calls.append(1)
        return plain(logits, target) * (float("nan") if len(calls) > 6 else 1)  # six a step

    monkeypatch.setattr(cycle, "least_squares", broken)
    output = refused(call, fit, *options(root, tmp_path, "--mapping.steps", "4"))
    assert "loss/adversarial_a is nan at step 2 of train" in output and "untouched" in output
    state = storage.load(tmp_path / "tiny" / "last.pt")
    assert state["step"] == 1 and all(value.isfinite().all() for value in state["trainer"]["mapper"].values())
    assert not (tmp_path / "tiny" / "checkpoints" / "step_0000002.pt").exists()


def test_weights_that_are_not_finite_are_not_saved(call, root, tmp_path):
    output = refused(call, fit, *options(root, tmp_path, "--mapping.lr", "1e30", "--mapping.steps", "30"))
    assert "of train: training has diverged" in output
    states = [storage.load(path)["generator"] for path in (tmp_path / "tiny" / "checkpoints").iterdir()]
    assert all(value.isfinite().all() for state in states for value in state.values())


def test_mosaics_of_one_grey_cannot_be_fitted_and_are_trained_on_all_the_same(call, root, tmp_path):
    data = Path(shutil.copytree(root, tmp_path / "data"))
    for number, path in enumerate(sorted((data / "unpaired" / "b").iterdir())):
        Image.fromarray(np.full((64, 64), 500 + number, np.uint16)).save(path)
    given = options(data, tmp_path / "runs")
    assert "has grey pictures only" in refused(call, fit, *given, "--mapping.start", "transport")
    status, printed = call(fit, *given)  # from the identity, which needs no colours
    assert status == 0 and "transport is left out of the comparison: camera" in printed


# --- levels and profiles that contradict camera files ----------------------------------------------------------------


@pytest.fixture
def two_folders(tmp_path):
    """Camera files of two cameras, with black at 64."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = np.random.default_rng([ord(name), number]).integers(64, 1023, (64, 64)).astype(np.uint16)
            content = dng(pixels, black=64, camera=("Make", name))
            (tmp_path / name / f"{number}.dng").write_bytes(content)
    return ("raw2raw", "--data.layout", "folders", "--data.raw", tmp_path / "a", "--data-b.raw", tmp_path / "b")


@pytest.mark.parametrize("option", ("--data.black-level", "--data-b.black-level"))
def test_levels_that_camera_files_note_are_not_given_besides(call, two_folders, tmp_path, option):
    given = (*two_folders, "--runs", tmp_path / "runs", option, 0, 0, 0, 0)
    assert f"leave out {option}, or add --data.levels given" in refused(call, fit, *given)


def test_a_profile_of_another_camera_is_refused(call, two_folders, tmp_path):
    known = camera.profile_of(tuple(sorted((tmp_path / "a").iterdir())))
    storage.write_json(tmp_path / "z.json", camera.to_dict(replace(known, model="z")))
    given = (*two_folders, "--runs", tmp_path / "runs", "--data.camera", tmp_path / "z.json")
    assert "z.json is the profile of Make z rggb, but" in refused(call, fit, *given)


def test_levels_are_for_camera_files(call, root, tmp_path):
    given = ("raw2raw", "--data.layout", "cameras", "--data.root", root, "--runs", tmp_path, "--data.levels", "given")
    assert "--data.levels is for camera files" in refused(call, fit, *given)
