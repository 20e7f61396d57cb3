"""Mistakes with test_model.py: options that do not fit together, damaged data, files that it must not overwrite."""

import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

import test_model as script
from pretrained import files as weight_files

# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ("--checkpoint w --input i", "--input needs --output, and --checkpoint or --run"),
        ("--input i --output o", "--input needs --output, and --checkpoint or --run"),
        ("--target t", "--target needs --input"),
        ("--cfa bggr", "--cfa needs --input"),
        ("--black-level 0 0 0 0", "--black-level needs --input"),
        ("--white-level 4095", "--white-level needs --input"),
        ("--raw-height 8", "--raw-height needs --input"),
        ("--raw-width 8", "--raw-width needs --input"),
        ("--checkpoint w --input i --output o --split val", "--split needs the dataset of a run, not --input"),
        ("--run r --input i --output o --data-root d", "--data-root needs the dataset of a run, not --input"),
        ("--checkpoint w --input i --output o --protocol paper", "--protocol needs ground truth: --target"),
        ("--checkpoint w --input i --output o --measures psnr", "--measures needs ground truth: --target"),
        ("--checkpoint w --input i --output o --weights auto", "--weights needs ground truth: --target"),
        ("--checkpoint w --step 10", "--step needs a checkpoint of a run, not --checkpoint"),
        ("--quality 90", "--quality needs --format jpg"),
        ("--format png --quality 90", "--quality needs --format jpg"),
        ("--run r --submission ntire26", "--submission needs --input"),
        ("--run r --input i --output o --submission ntire26 --format png", "--submission needs --format jpg"),
        ("--run r --input i --output o --submission ntire26 --compare b", "--submission needs one model"),
        ("--run r --input i --output o --submission none", "--submission: invalid choice"),
        ("--run r --input i --output o --extra-data", "--extra-data needs --submission"),
        ("--run r --input i --output o --description d", "--description needs --submission"),
        ("--format jpg --quality 0", "--quality: invalid choice"),
        ("--format jpg --quality 101", "--quality: invalid choice"),
    ),
)
def test_options_that_do_not_fit_together_are_refused(call, options, message):
    status, output = call(script, *options.split())
    assert status == 2 and message in output and "Traceback" not in output


def test_a_white_level_below_the_black_level_is_refused(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    options = ("--checkpoint", weights, "--input", raws, "--output", tmp_path / "out")
    status, output = call(script, *options, "--white-level=0")
    assert status == 2 and "must lie in [0, white_level" in output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("--step=15", "--split=val"), "no checkpoint of step 15"),
        (("--step=10",), "no test pairs"),
    ),
)
def test_a_checkpoint_or_split_that_a_run_does_not_have_is_named(make_run, call, arguments, message):
    run = make_run()
    status, output = call(script, f"--run={run.name}", f"--runs={run.parent}", *arguments)
    assert status == 2 and message in output and "Traceback" not in output


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda raws, photos: (photos / "1.png").unlink(), "must hold the same names"),
        (lambda raws, photos: iio.imwrite(photos / "1.png", np.zeros((60, 64, 3), np.uint8)), "are a pair, but"),
        (lambda raws, photos: (raws / "1.png").write_bytes((raws / "1.png").read_bytes()[:60]), "cannot read"),
        (lambda raws, photos: (photos / "1.png").write_bytes(b"not a photograph"), "cannot read"),
        (lambda raws, photos: iio.imwrite(raws / "1.png", np.zeros((64, 64), np.uint8)), "8 bits a pixel"),
        (lambda raws, photos: [path.unlink() for path in raws.iterdir()], "no images in"),
    ),
)
def test_damaged_data_ends_with_a_message(call, make_files, tmp_path, change, message):
    weights, raws, photos = make_files()
    change(raws, photos)
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, output = call(script, *options, "--measures", "psnr")
    assert status == 2 and message in output and "Traceback" not in output
    assert not (tmp_path / "out" / "metrics.csv").exists()


def test_a_file_that_holds_no_weights_is_refused(call, make_files, tmp_path):
    _, raws, _ = make_files()
    status, output = call(script, "--checkpoint", raws / "0.png", "--input", raws, "--output", tmp_path / "out")
    assert status == 2 and "0.png is not a readable checkpoint or weights file" in output


def test_images_too_small_for_a_measure_are_refused(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, output = call(script, *options, "--measures", "ms_ssim")
    assert status == 2 and "at least 161 pixels" in output


def test_sets_are_not_compared_by_random_features(call, make_files, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(weight_files, "TIMEOUT", 0.01)
    weights, raws, photos = make_files()
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, output = call(script, *options, "--measures", "fid", "--weights", "random")
    assert status == 2 and "pt_inception-2015-12-05-6726825d.pth" in output and not list(tmp_path.glob("out/*.png"))


def test_one_mosaic_needs_one_photograph(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    files = ("--checkpoint", weights, "--input", raws / "0.png", "--target", photos, "--output", tmp_path / "out")
    status, output = call(script, *files)
    assert status == 2 and f"--target a folder: name the photograph of {raws / '0.png'}" in output


def test_one_image_is_no_set(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    files = ("--checkpoint", weights, "--input", raws / "0.png", "--target", photos / "0.png")
    status, output = call(script, *files, "--output", tmp_path / "out", "--measures", "kid", "--weights", "random")
    assert status == 2 and "measure 'kid' compares sets of images and needs at least two, but there is 1" in output
    assert not list((tmp_path / "out").glob("*.png"))


def test_missing_weights_are_reported_before_anything_is_rendered(call, make_files, tmp_path, monkeypatch):
    weights, raws, photos = make_files()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(weight_files, "TIMEOUT", 0.01)
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, output = call(script, *options, "--measures", "psnr", "lpips")
    assert status == 2 and "network" in output and not (tmp_path / "out").exists()


# --- files that must not be overwritten ------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("output", ("raws", "photos"))
def test_the_input_files_are_not_overwritten(call, make_files, tmp_path, output):
    weights, raws, photos = make_files()
    before = content(raws), content(photos)
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / output)
    status, printed = call(script, *options)
    assert status == 2 and f"{output} holds the input files" in printed
    assert (content(raws), content(photos)) == before


def test_input_files_behind_links_are_not_overwritten(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    before = content(raws)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "0.png").symlink_to(raws / "0.png")
    status, output = call(script, "--checkpoint", weights, "--input", tmp_path / "links", "--output", raws)
    assert status == 2 and "holds the input files" in output and content(raws) == before


def test_two_rows_of_one_name_are_refused(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    shutil.copy(weights, tmp_path / "demosaiced.pth")
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, output = call(script, *options, "--measures=psnr", "--compare", tmp_path / "demosaiced.pth")
    assert status == 2 and "called 'demosaiced'" in output and not (tmp_path / "out").exists()


def test_two_models_of_one_folder_are_refused(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, output = call(script, *options, "--measures=psnr", "--compare", weights)
    assert status == 2 and "two of the models would write to" in output and not (tmp_path / "out").exists()
