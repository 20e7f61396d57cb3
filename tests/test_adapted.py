"""Photographs of another camera than the model's: develop.py, test_model.py and fit.py with a map between the two."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import develop
import export
import fit
import map_raw
import storage
import test_model
from data.camera import to_dict
from data.sensor import SENSORS, Sensor
from errors import UserError
from evaluation.tables import read_table
from models import build_model
from tasks.model import open_model

from .adaptation import profile_of, write_map, write_mapper
from .camera_folder import ONLY_MSE
from .dng import dng, sampled
from .fit_runs import read_scores

ISP = SENSORS["fujifilm"]  # of the released weights
NEW = {cfa: Sensor(cfa, (250.0, 256.0, 255.0, 260.0), 4095.0) for cfa in ("rggb", "grbg", "bggr")}
MATRIX = ((0.8, 0.3, 0.0), (0.1, 0.9, 0.1), (0.0, 0.3, 0.9))
SIZE = (64, 96)


def scene(seed: int, axes: str = "yx") -> np.ndarray:
    """Colours between 0.05 and 0.6 of white, in blocks, that vary along these axes."""
    blocks = np.random.default_rng(seed).uniform(0.05, 0.6, (8 if "y" in axes else 1, 12 if "x" in axes else 1, 3))
    return blocks.repeat(SIZE[0] // blocks.shape[0], 0).repeat(SIZE[1] // blocks.shape[1], 1)


def recorded(seed: int, sensor: Sensor, axes: str = "yx") -> np.ndarray:
    return sampled(scene(seed, axes), sensor.cfa, sensor.black_level, int(sensor.white_level))


def shots(folder: Path, sensor: Sensor, axes: str = "yx", **notes) -> Path:
    """Three camera files of a new camera, the last a portrait."""
    folder.mkdir()
    for seed in range(3):
        levels = (sensor.cfa, sensor.black_level, int(sensor.white_level))
        turned = 6 if seed == 2 else 1
        content = dng(recorded(seed, sensor, axes), *levels, camera=("Other", "Two"), orientation=turned, **notes)
        (folder / f"{seed}.dng").write_bytes(content)
    return folder


def mosaics(folder: Path, sensor: Sensor, photos: Path | None = None) -> Path:
    """Four plain mosaics, and their photographs."""
    for place in filter(None, (folder, photos)):
        place.mkdir(parents=True)
    for seed in range(4):
        iio.imwrite(folder / f"{seed}.png", recorded(seed, sensor))
        if photos:
            iio.imwrite(photos / f"{seed}.png", (255 * scene(seed) ** (1 / 2.2)).astype(np.uint8))
    return folder


def images(folder: Path, suffix: str = ".png") -> list[np.ndarray]:
    return [iio.imread(path).astype(int) for path in sorted(folder.glob(f"*{suffix}"))]


@pytest.fixture
def weights(tmp_path) -> Path:
    """A file of weights as the authors release them, whose images have contrast."""
    torch.manual_seed(1)
    model = build_model("efficient")
    with torch.no_grad():
        for name, value in model.named_parameters():
            value *= 2 if name.endswith("weight") else 1
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


# --- develop.py ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("light", ((), ("--wb", "camera"), ("--wb", "auto"), ("--ev", "0.5")))
def test_photographs_are_those_of_mosaics_that_map_raw_mapped(call, weights, tmp_path, light):
    folder, path = shots(tmp_path / "shots", NEW["rggb"]), tmp_path / "m.json"
    write_map(path, {"a": ISP, "b": NEW["rggb"]}, "a", MATRIX)
    common = ("--checkpoint", weights, "--format", "png", *light)
    status, printed = call(develop, folder, "-o", tmp_path / "one", "--adapt", path, *common)
    assert status == 0 and f"mapped by {path} (statistics" in printed and "to camera a" in printed
    assert call(map_raw, "--input", folder, "--output", tmp_path / "mapped", "--to", "a", "--map", path)[0] == 0
    assert call(develop, tmp_path / "mapped", "-o", tmp_path / "two", *common)[0] == 0
    one, two = images(tmp_path / "one"), images(tmp_path / "two")
    assert [image.shape for image in one] == [(64, 96, 3)] * 2 + [(96, 64, 3)]
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(one, two, strict=True))
    assert call(develop, folder, "-o", tmp_path / "raw", *common)[0] == 0
    assert np.abs(one[0] - images(tmp_path / "raw")[0]).mean() > 2  # the map does something


@pytest.mark.parametrize(("cfa", "axes", "moved"), (("grbg", "y", (0, 1)), ("bggr", "", (1, 1))))
def test_so_they_are_in_another_cfa_order_but_not_moved(call, weights, tmp_path, cfa, axes, moved):
    """map_raw.py begins a row or column later. Where a scene is constant along it, mirroring gives the same values."""
    folder, path = shots(tmp_path / "shots", NEW[cfa], axes), tmp_path / "m.json"
    write_map(path, {"a": ISP, "b": NEW[cfa]}, "a", MATRIX)
    common = ("--checkpoint", weights, "--format", "png")
    assert call(develop, folder, "-o", tmp_path / "one", "--adapt", path, *common)[0] == 0
    assert call(map_raw, "--input", folder, "--output", tmp_path / "mapped", "--to", "a", "--map", path)[0] == 0
    assert call(develop, tmp_path / "mapped", "-o", tmp_path / "two", *common)[0] == 0
    for one, two in zip(images(tmp_path / "one")[:2], images(tmp_path / "two"), strict=False):
        there = np.roll(two, moved, (0, 1))
        assert np.abs(one - there)[16:-16, 16:-16].max() <= 1  # without the edges, which are padded
        assert np.abs(one - two)[16:-16, 16:-16].max() > 1


def test_files_of_another_model_than_the_maps_are_noted(call, weights, tmp_path):
    folder, path = shots(tmp_path / "shots", NEW["rggb"]), tmp_path / "m.json"
    write_map(path, {"a": ISP, "b": NEW["rggb"]}, "a", models=("One", "Three"))
    status, printed = call(develop, folder, "-o", tmp_path / "o", "--adapt", path, "--checkpoint", weights)
    assert (
        status == 0 and "3 of 3 files are of Other Two, and the map is of Maker Three: colours may be wrong" in printed
    )


def test_files_of_the_wrong_side_are_named_and_the_others_developed(call, weights, tmp_path):
    folder, path = shots(tmp_path / "shots", NEW["rggb"]), tmp_path / "m.json"
    (folder / "9.dng").write_bytes(dng(recorded(0, ISP), ISP.cfa, ISP.black_level, 1023))
    write_map(path, {"a": ISP, "b": NEW["rggb"]}, "a")
    status, printed = call(develop, folder, "-o", tmp_path / "o", "--adapt", path, "--checkpoint", weights)
    assert status == 1 and "9.dng has the white level 1023, but camera b has 4095" in printed
    assert "developed 3 of 4 files" in printed and len(images(tmp_path / "o", ".jpg")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (("--adapt-to", "a"), "--adapt-to needs --adapt"),
        (("--adapt", ""), "an option is empty"),
        (("--adapt", "m.json", "--camera", "c.json"), "--camera has no effect with --adapt"),
        (("--adapt", "gone.json"), "gone.json"),
        (("--adapt", "weights.pth"), "weights.pth is not a checkpoint of fit.py"),
    ),
)
def test_options_of_develop_that_do_not_fit_are_refused(call, weights, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    folder = shots(tmp_path / "shots", NEW["rggb"])
    status, printed = call(develop, folder, "-o", tmp_path / "o", "--checkpoint", weights, *options)
    assert status == 2 and message in printed and not (tmp_path / "o").exists()


# --- test_model.py ---------------------------------------------------------------------------------------------------


def test_scores_are_of_the_mapped_mosaics_where_they_are(call, weights, tmp_path):
    """A mapped mosaic scores as one of the ISP's own camera does; and its file is written unmoved."""
    path = write_mapper(tmp_path / "m.pt", {"a": ISP, "b": NEW["rggb"]})
    own = mosaics(tmp_path / "own", ISP, tmp_path / "shown")
    other = mosaics(tmp_path / "other", NEW["rggb"])
    common = ("--checkpoint", weights, "--target", tmp_path / "shown", "--measures", "psnr")
    assert call(test_model, "--input", own, "--output", tmp_path / "1", *common)[0] == 0
    status, printed = call(test_model, "--input", other, "--output", tmp_path / "2", "--adapt", path, *common)
    assert status == 0 and f"mapped by: {path} (mapper-plain, " in printed and "to camera a" in printed
    one, two = (images(tmp_path / name) for name in "12")
    assert all(np.abs(a - b).max() <= 2 for a, b in zip(one, two, strict=True))  # 10 bits are coarser than 12
    means = [read_table(tmp_path / name / "metrics.csv").mean["psnr"] for name in "12"]
    assert means[0] == pytest.approx(means[1], abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ("--adapt m.json", "--adapt needs --input"),
        ("--input i --output o --run r --adapt-to a", "--adapt-to needs --adapt"),
        ("--input i --output o --run r --adapt m.json --cfa rggb", "--cfa needs mosaics without --adapt, whose map"),
        (
            "--input i --output o --run r --adapt m.json --white-level 1023",
            "--white-level needs mosaics without --adapt",
        ),
    ),
)
def test_options_of_test_model_that_do_not_fit_are_refused(call, options, message):
    status, printed = call(test_model, *options.split())
    assert status == 2 and message in printed


# --- fit.py ----------------------------------------------------------------------------------------------------------


def run_of(tmp_path: Path, *options: object) -> list[str]:
    """Options of a run of two steps on pairs of a camera of order grbg, four of them."""
    folders = (tmp_path / "raws", tmp_path / "photos")
    if not folders[0].exists():
        mosaics(folders[0], NEW["grbg"], folders[1])
    settings = {"data.raw": folders[0], "data.photos": folders[1], "data.patch": 32, "data.batch": 2, "device": "cpu"}
    settings |= {"train.steps": 2, "train.content": 0, "backbones.weights": "random", "runs": tmp_path / "runs"}
    named = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    return ["camera", *named, "--data.workers", "0", "--run", "one", *ONLY_MSE, *map(str, options)]


def test_a_run_on_mapped_mosaics_is_of_the_other_camera(call, tmp_path, restored):
    path = write_map(tmp_path / "m.json", {"a": NEW["grbg"], "b": ISP}, "b", MATRIX, ("Old", "New"))
    options = run_of(tmp_path, "--data.map", path, "--data.val-count", 1)
    config = fit.parse(options)[0]
    assert (config.data.cfa, config.data.white_level, config.data.map_to) == ("grbg", 4095.0, "b")
    status, printed = call(fit, *options)
    assert status == 0, printed
    model = open_model(str(max((tmp_path / "runs" / "one" / "checkpoints").glob("*.pt"))), "cpu")
    assert model.sensor == ISP and model.camera.name == "Maker New"
    # Its score in training is that of its images, which are written as the photographs are.
    own = ("--run", "one", "--runs", tmp_path / "runs", "--split", "val", "--measures", "psnr")
    status, printed = call(test_model, *own)
    assert status == 0 and f"mapped by: {path} (statistics" in printed
    scored = read_table(next((tmp_path / "runs").glob("one/test/*/metrics.csv"))).mean["psnr"]
    assert scored == pytest.approx(read_scores(tmp_path / "runs" / "one")["final"], abs=0.01)
    # An export gets the mosaics as the network takes them, and their photographs; files that are named are not mapped.
    named = ("--run", "one", "--runs", str(tmp_path / "runs"), "--size", "64x96", "-o", "x")
    (shown,) = export.open_job(export.parse(named)).scenes
    assert np.array_equal(shown.target.permute(1, 2, 0), iio.imread(tmp_path / "photos" / shown.name)[:, ::-1])
    own = mosaics(tmp_path / "own", ISP)
    found = export.open_job(export.parse((*named, "--images", str(own), "--precision", "int8"))).scenes
    assert np.array_equal(found[0].mosaic[0, 0], recorded(0, ISP))


def test_a_resumed_run_refuses_another_map(call, tmp_path, restored):
    path = write_map(tmp_path / "m.json", {"a": NEW["grbg"], "b": ISP}, "b")
    assert call(fit, *run_of(tmp_path, "--data.map", path))[0] == 0
    more = ("--run", "one", "--runs", tmp_path / "runs", "--resume", "--train.steps", 4)
    moved = path.rename(tmp_path / "moved.json")
    status, printed = call(fit, *more, "--data.map", moved)
    assert status == 0, printed
    write_map(moved, {"a": NEW["grbg"], "b": ISP}, "b", MATRIX)
    status, printed = call(fit, *more[:-1], 6)
    assert status == 2 and "the dataset is not the one that" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (("--data.map-to", "b"), "a setting has no effect: --data.map-to is for --data.map"),
        (("--data.map", "m.json", "--data.cfa", "rggb"), "no effect: --data.map knows .* leave out data.cfa"),
        (("--data.map", "m.json", "--data.white-level", "1023"), "no effect: --data.map knows .* data.white_level"),
        (("--data.map", "m.json", "--data.levels", "file"), "no effect: --data.map knows .* data.levels"),
        (
            ("--data.map", "m.json", "--data.camera", "b.json"),
            "m.json, a map to camera b, does not seem to fit that of the run's mosaics, CFA rggb",
        ),
        (
            ("--data.map", "m.pt"),
            "both directions of m.pt seem to fit .*or say with --data.map-to a or b to which camera",
        ),
        (("--data.map", "m.json", "--data.map-to", "a"), "m.json is a map to camera b, not a: fit another"),
    ),
)
def test_settings_that_do_not_fit_a_map_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_map(Path("m.json"), {"a": NEW["grbg"], "b": ISP}, "b")
    write_mapper(Path("m.pt"), {"a": NEW["grbg"], "b": ISP})
    storage.write_json(Path("b.json"), to_dict(profile_of(ISP, size=SIZE)))
    with pytest.raises(UserError, match=message):
        fit.parse(run_of(tmp_path, *options))
