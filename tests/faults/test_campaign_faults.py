"""Faults that a second campaign of bad input found: silent results, tracebacks, hangs."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fit
import inference
import process_set
import storage
from config import load, open_run
from data.cache import Files, OnDisk, cached_files
from data.cuts import refuse_existing
from data.files import Reader
from data.folders import open_dataset
from data.loader import whole_files
from data.patches import Patches
from data.sensor import SENSORS
from data.simulate import simulate_folder
from data.unprocess import Camera
from errors import UserError, run_cli
from evaluation.evaluators import PairedEvaluator
from evaluation.metrics import psnr
from evaluation.rendering import ImageFormat
from evaluation.tables import Table, read_table
from pretrained.zoo import open_checkpoint
from tasks.data import open_data
from tasks.model import open_model
from tasks.scoring import open_tables

from ..fit_runs import vary

# --- silent results --------------------------------------------------------------------------------------------------


def test_scores_without_pairs_are_stale_when_the_photographs_change(make_run):
    run = make_run()
    _, config = open_run(str(run.parent), run.name)
    before = open_tables(run, config, "unpaired", "paper").facts
    photo = next((Path(config.data.root) / "train" / "fujifilm").iterdir())
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert open_tables(run, config, "unpaired", "paper").facts != before


def test_an_output_that_is_not_finite_has_no_score():
    outputs, target = torch.rand(3, 3, 8, 8), torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    outputs[1, 0, 0, 0] = torch.nan
    scores = PairedEvaluator({"psnr": psnr}).evaluate(outputs, target)["psnr"]
    assert scores.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("camera", "options"),
    (
        ({"cfa": "bggr"}, "--data.cfa bggr"),
        ({"white": 511}, "--data.white-level 511"),
        ({"black": [0, 0, 0, 0]}, "--data.black-level 0 0 0 0"),
    ),
)
def test_a_simulated_dataset_of_another_camera_is_refused(small_config, tmp_path, make_pairs, camera, options):
    make_pairs(tmp_path / "train" / "mediatek_raw", tmp_path / "train" / "fujifilm", 2, 0)
    file, config = tmp_path / "camera.json", vary(small_config, data={"root": str(tmp_path)})
    own = {"cfa": "rggb", "black": [58, 60, 61, 62], "white": 1023}
    file.write_text(json.dumps({"camera": own}))
    open_data(config)
    open_data(vary(config, data={"black_level": (63.0,) * 4}))  # RMFA-Net's
    file.write_text(json.dumps({"camera": own | camera}))
    with pytest.raises(UserError, match=f"camera.json says that the mosaics have another CFA order.*{options}"):
        open_data(config)


def test_a_checkpoint_called_ranking_does_not_replace_the_ranking(make_run, call):
    run = make_run(count=1)
    (own,) = (run / "checkpoints").glob("*.pt")
    copy = run.parent / "ranking.pt"
    copy.write_bytes(own.read_bytes())
    options = (f"--runs={run.parent}", f"--run={run.name}", "--device=cpu")
    assert call(inference, "--all", *options)[0] == 0 and call(process_set, "--rank", *options[:2])[0] == 0
    ranking = (run / "scores" / "ranking.csv").read_bytes()
    assert call(inference, "--checkpoint", copy, *options)[0] == 0
    assert (run / "scores" / "ranking.csv").read_bytes() == ranking


@pytest.mark.parametrize("content", ("{}x", '{"other": 1}', "[]"))
def test_a_config_json_of_something_else_is_not_replaced(tmp_path, content):
    file = tmp_path / "mine" / "config.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(UserError, match="config.json is not a valid config"):
        fit.parse(["--runs", str(tmp_path), "--run", "mine"])
    assert file.read_text() == content


def test_a_log_of_something_else_is_kept(tmp_path):
    from training.folder import claim_folder

    (tmp_path / "log.jsonl").write_text("mine, one line")
    with claim_folder(tmp_path, resume=False):
        pass
    assert (tmp_path / "log.previous.jsonl").read_text() == "mine, one line"


def test_random_weights_of_a_measure_are_told(make_run, call):
    run = make_run(count=1)
    output = call(inference, "--all", f"--runs={run.parent}", "--run=tiny", "--device=cpu", "--measures", "lpips")[1]
    assert "note: lpips was computed with random weights" in output


@pytest.mark.parametrize("separator", ("\u2028", "\x0c", "\x85"))
def test_a_table_with_odd_names_is_read_as_it_was_written(tmp_path, separator):
    table = Table({"a": "b"}, ("psnr",), {f"x{separator}y.png": {"psnr": 1.0}}, {"psnr": 1.0})
    table.write(tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv") == table


@pytest.mark.parametrize(
    ("pairs", "photos", "reason"),
    (("yes", "Fujifilm", "it has no folder fujifilm"), ("no", "fujifilm", "--data.pairs no says")),
)
def test_validation_files_that_are_not_used_are_told(tmp_path, make_pairs, capsys, pairs, photos, reason):
    make_pairs(tmp_path / "train" / "mediatek_raw", tmp_path / "train" / "fujifilm", 4, 0)
    make_pairs(tmp_path / "val" / "mediatek_raw", tmp_path / "val" / photos, 2, 1)
    assert not open_dataset("fujifilm", str(tmp_path), "", "", pairs, val=0, test=0)["val"]
    assert f"note: {tmp_path / 'val'} is not used: {reason}" in capsys.readouterr().err


@pytest.mark.parametrize(("orientation", "fine"), ((1, True), (3, False), (6, False)))
def test_a_turned_photograph_of_a_pair_is_refused(tmp_path, make_pairs, orientation, fine):
    make_pairs(tmp_path / "raws", tmp_path / "photos", 2, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for file in (tmp_path / "photos").iterdir():
        Image.open(file).save(file.with_suffix(".jpg"), exif=exif)
        file.unlink()
    folders = str(tmp_path / "raws"), str(tmp_path / "photos")
    split = open_dataset("folders", "", *folders, "yes", val=0, test=0)["train"]
    reader = Reader(SENSORS["fujifilm"])
    for read in (lambda: list(whole_files(split, reader)), lambda: Patches(split, Files(reader), 32, 0)[0]):
        if fine:
            read()
        else:
            with pytest.raises(UserError, match=r"is flagged as turned \(EXIF orientation\), and its mosaic is not"):
                read()


# --- tracebacks and hangs --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("restored", "cached_networks")
def test_an_infinite_psnr_can_be_summarised(cheap_config, monkeypatch):
    """An image that equals its target, such as a black one."""
    monkeypatch.setattr("tasks.run_data.psnr", lambda image, target: torch.tensor([torch.inf]))
    folder = fit.train(cheap_config)
    assert json.loads((folder / "summary.json").read_text())["val_psnr"]["final"] == "inf"


@pytest.mark.parametrize("where", ("config.json", "table.csv"))
def test_a_pipe_in_the_place_of_a_file_is_not_read(tmp_path, quick, where):
    os.mkfifo(tmp_path / where)
    if where == "table.csv":
        assert read_table(tmp_path / where) is None
    else:
        with pytest.raises(UserError, match="config.json is not a file"):
            load(tmp_path / where)


@pytest.mark.parametrize("fields", ({"run": "a\udcff"}, {"runs": "b\udcff"}))
def test_names_that_are_not_utf_8_are_refused_for_training(cheap_config, fields):
    with pytest.raises(UserError, match="the name of a run and its folder must be UTF-8"):
        fit.train(vary(cheap_config, **fields))


@pytest.mark.parametrize("damage", ("no files", "other files", "a huge offset", "text"))
def test_a_damaged_cache_is_made_anew(tmp_path, pairs, damage):
    split = open_dataset("folders", "", *map(str, pairs), "yes", val=0, test=0)["train"]
    files, folder = Files(Reader(SENSORS["fujifilm"])), tmp_path / "cache"

    def cached() -> Files:
        return cached_files(split, files, "disk", folder, draws=1000)

    assert isinstance(cached(), OnDisk)
    (index,) = folder.glob("*.json")
    content = json.loads(index.read_text())
    if damage == "no files":
        del content["files"]
    elif damage == "other files":
        content["files"] = content["files"][:1]
    elif damage == "a huge offset":
        content["files"][0][1] = 1 << 60
    index.write_text("[" if damage == "text" else json.dumps(content))
    again = cached()
    assert all(np.array_equal(again.photo(path), files.photo(path)) for path in split.photos)


@pytest.mark.parametrize("dtype", (torch.float8_e4m3fn, torch.float8_e5m2))
def test_weights_of_8_bits_are_refused(make_files, dtype):
    path, _, _ = make_files()
    storage.save(path, {name: value.to(dtype) for name, value in torch.load(path).items()})
    with pytest.raises(UserError, match="float8"):
        open_checkpoint(str(path))


def test_an_image_that_a_format_cannot_hold_is_named(tmp_path):
    with pytest.raises(UserError, match="x.jpg of 2x70000 cannot be written"):
        ImageFormat("jpg", 95).write(tmp_path / "x.jpg", np.zeros((2, 70000, 3), np.uint8))


def test_a_loop_of_links_ends_in_a_sentence(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="leads to itself"):
        refuse_existing(tmp_path / "a")


def test_a_link_to_a_missing_folder_is_not_replaced(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "absent")
    with pytest.raises(UserError, match="is a link to a folder that is missing"):
        refuse_existing(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()


def test_a_simulated_dataset_among_the_photographs_is_not_read_as_photographs(tmp_path):
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "a.png")
    for name in ("one", "two"):
        simulate_folder(tmp_path, tmp_path / name, Camera.random(0), 0, 32, 32, (1.0,), 0, 0)
    (tmp_path / "camera.json").write_text("{}")  # of something else, beside the photographs
    simulate_folder(tmp_path, tmp_path / "three", Camera.random(0), 0, 32, 32, (1.0,), 0, 0)
    counts = [len(list((tmp_path / name / "train" / "fujifilm").iterdir())) for name in ("one", "two", "three")]
    assert counts == [4, 4, 4]


@pytest.mark.parametrize("text, sentence", fit.RUNTIME_ERRORS.items())
def test_what_torch_reports_as_a_runtime_error_ends_in_a_sentence(monkeypatch, call, text, sentence):
    def fail(*_):
        raise RuntimeError(f"in torch: {text} 123) is killed by signal: Killed.")

    monkeypatch.setattr(fit, "train", fail)
    assert call(fit, "demo", "--run", "x") == (2, f"error: {sentence}\n")


def test_the_demo_is_not_written_to_a_mistyped_root():
    with pytest.raises(UserError, match="dtaa would get the demo dataset: name the preset demo for that"):
        fit.parse(["--data.root", "dtaa"])
    assert fit.parse(["demo", "--data.root", "dtaa"])[0].data.root == "dtaa"


@pytest.mark.parametrize("largest, fine", ((1.0, True), (1.0005, False), (2.0, False), (900.0, True)))
def test_real_numbers_just_above_1_are_refused(tmp_path, largest, fine):
    np.save(tmp_path / "a.npy", np.linspace(0, largest, 64, dtype=np.float32).reshape(8, 8))
    reader = Reader(SENSORS["fujifilm"])
    if fine:
        assert reader.mosaic(tmp_path / "a.npy").max() > 800
    else:
        with pytest.raises(UserError, match="neither fractions of white, which end at 1, nor digital numbers"):
            reader.mosaic(tmp_path / "a.npy")


def test_files_of_equal_size_and_other_content_make_scores_stale(make_run):
    run = make_run()
    _, config = open_run(str(run.parent), run.name)
    before = open_tables(run, config, "paired", "paper").facts
    photo = next((Path(config.data.root) / "val" / "fujifilm").iterdir())
    photo.write_bytes(photo.read_bytes()[:-1] + b"\0")
    assert open_tables(run, config, "paired", "paper").facts != before


def test_a_model_whose_images_are_not_finite_is_refused(make_files):
    path, _, _ = make_files()
    storage.save(path, {name: torch.full_like(value, 3e38) for name, value in torch.load(path).items()})
    model = open_model(str(path), torch.device("cpu"))
    with pytest.raises(UserError, match="gives values that are not finite"):
        model.develop(torch.rand(1, 1, 32, 32), model.sensor)


def test_closed_output_does_not_end_a_command(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    run_cli(lambda: print("nobody reads this", file=sys.stderr))
