"""Rendering and scoring a test split, or any folder of mosaics, with test_model.py."""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import inference
import process_set
import test_model as script
from data.files import Reader
from data.inputs import prepare
from data.photographs import read_photo
from data.sensor import SENSORS, Sensor
from evaluation.metrics import psnr, ssim, to_8_bit
from evaluation.tables import best_checkpoint, read_table
from models import build_model
from pretrained.backbones import ALEXNET_URL
from tasks.model import open_model

ROOT = Path(script.__file__).parent
CPU = torch.device("cpu")
FUJIFILM = SENSORS["fujifilm"]


def rank(run: Path, call) -> Path:
    """Score and rank all checkpoints of a run; returns the run."""
    call(inference, "--all", f"--run={run.name}", f"--runs={run.parent}")
    call(process_set, "--rank", f"--run={run.name}", f"--runs={run.parent}")
    return run


def render(path: Path, raw: Path, sensor: Sensor = FUJIFILM) -> np.ndarray:
    """The image that a checkpoint makes of a mosaic, (H, W, 3) uint8, by hand."""
    model, reader = open_model(str(path), CPU), Reader(sensor)
    mosaic = reader.mosaic_tensor(reader.mosaic(raw))[None]
    image = model.generator(prepare(mosaic, sensor, model.spec.input_format))
    return to_8_bit(image)[0].permute(1, 2, 0).numpy()


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) -> (1, 3, H, W)."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None]


def options(weights: Path, raws: Path, photos: Path) -> tuple:
    """The options to render and score the files of `make_files`, to out/ beside them."""
    return "--checkpoint", weights, "--input", raws, "--target", photos, "--output", raws.parent / "out"


# --- the dataset of a run --------------------------------------------------------------------------------------------


def test_the_best_checkpoint_renders_and_scores_the_split(make_run, call):
    run = rank(make_run(), call)
    status, output = call(script, f"--run={run.name}", f"--runs={run.parent}", "--split", "val")
    assert status == 0 and "demosaiced" in output and str(run / "report.html") in output
    best = best_checkpoint(run)
    table = read_table(run / "test" / best.stem / "metrics.csv")
    assert table.header["protocol"].startswith("paper: ") and table.header["checkpoint"].endswith(best.name)
    assert table.columns == ("psnr", "ssim")
    assert "left out" in table.header["lpips"] and "161" in table.header["ms_ssim"]
    values = []
    for raw in sorted((run.parents[1] / "data" / "val" / "mediatek_raw").iterdir()):
        expected = render(best, raw)
        assert np.array_equal(iio.imread(run / "test" / best.stem / raw.name), expected)
        pair = to_tensor(expected), to_tensor(read_photo(raw.parents[1] / "fujifilm" / raw.name))
        values.append([float(measure(*pair)) for measure in (psnr, ssim)])
        assert list(table.rows[raw.name].values()) == pytest.approx(values[-1], abs=1e-6)
    assert list(table.mean.values()) == pytest.approx(np.mean(values, axis=0), abs=1e-6)
    assert not re.search(r"(src|href)=.http", (run / "report.html").read_text())


def test_several_models_are_compared_in_one_table(make_run, call, tmp_path):
    run, other = rank(make_run(), call), tmp_path / "released.pth"
    second = shutil.copytree(run, run.with_name("other"))
    torch.manual_seed(7)
    torch.save(build_model("rmfa-tiny").state_dict(), other)
    compared = ("--compare", second.name, other)
    status, output = call(script, f"--run={run.name}", f"--runs={run.parent}", "--split=val", *compared)
    assert status == 0, output
    text = (run / "test" / "compare.csv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = {row["model"]: row for row in csv.DictReader(lines)}
    assert list(rows) == ["tiny", "other", "released", "demosaiced"]
    assert rows["tiny"]["psnr"] == rows["other"]["psnr"] != rows["released"]["psnr"]
    assert len(list((run / "test").glob("*/metrics.csv"))) == 3


# --- folders of files ------------------------------------------------------------------------------------------------


def test_a_folder_without_ground_truth_is_rendered(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    status, output = call(script, "--checkpoint", weights, "--input", raws, "--output", tmp_path / "out")
    assert status == 0, output
    written = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert written == {"0.png", "1.png", "report.html"}
    assert np.array_equal(iio.imread(tmp_path / "out" / "1.png"), render(weights, raws / "1.png"))


def test_sizes_may_differ_and_rmfa_net_uses_its_own_black_levels(call, make_files, make_pairs, tmp_path):
    weights, raws, photos = make_files("rmfa-tiny")
    make_pairs(tmp_path / "more", tmp_path / "more photos", 3, seed=5, size=(48, 80))
    for name in range(3):
        (tmp_path / "more" / f"{name}.png").rename(raws / f"{name + 2}.png")
        (tmp_path / "more photos" / f"{name}.png").rename(photos / f"{name + 2}.png")
    assert call(script, *options(weights, raws, photos), "--measures", "psnr")[0] == 0
    sensor = replace(FUJIFILM, black_level=(63.0,) * 4)
    for name in range(5):
        image, expected = iio.imread(tmp_path / "out" / f"{name}.png"), render(weights, raws / f"{name}.png", sensor)
        difference = np.abs(image.astype(int) - expected)  # a batch's rounding may cross a level here and there
        assert difference.max() <= 1 and difference.mean() < 1e-3


def test_scores_of_jpeg_files_are_those_of_the_written_files(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    jpeg = ("--measures", "psnr", "--format", "jpg", "--quality", 30)
    assert call(script, *options(weights, raws, photos), *jpeg)[0] == 0
    table = read_table(tmp_path / "out" / "metrics.csv")
    image, target = iio.imread(tmp_path / "out" / "0.jpg"), read_photo(photos / "0.png")
    assert table.rows["0.png"]["psnr"] == pytest.approx(float(psnr(to_tensor(image), to_tensor(target))), abs=1e-6)
    assert not np.array_equal(image, render(weights, raws / "0.png"))


@pytest.mark.parametrize("protocol", ("ntire26", "pyiqa"))
def test_other_protocols_score_with_their_own_measures(call, make_files, tmp_path, protocol):
    status, output = call(script, *options(*make_files()), "--protocol", protocol, "--weights", "auto")
    assert status == 0, output
    table = read_table(tmp_path / "out" / "metrics.csv")
    assert table.header["protocol"].startswith(f"{protocol}: ") and "ssim" in table.columns
    assert ("delta_e" in table.columns) == (protocol == "ntire26")


def test_sets_of_images_are_compared_beside_single_ones(call, make_files, tmp_path, monkeypatch):
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    cached = tmp_path / "home" / "hub" / "checkpoints" / ALEXNET_URL.rsplit("/", 1)[1]
    cached.parent.mkdir(parents=True)
    torch.save(alexnet(weights=None).state_dict(), cached)
    status, output = call(script, *options(*make_files()), "--measures", "ssim", "kid", "--weights", "random")
    assert status == 0 and "KID (AlexNet)" in output, output
    table = read_table(tmp_path / "out" / "metrics.csv")
    assert table.columns == ("ssim", "kid") and set(table.mean) == {"ssim", "kid"}
    assert all(set(row) == {"ssim"} for row in table.rows.values()) and table.mean["kid"] != 0
    assert "alexnet-owt-7be5be79.pth" in table.header["kid"]  # KID of random features would say nothing


def test_another_camera_is_described_by_options(call, make_files, tmp_path):
    weights, _, _ = make_files()
    (tmp_path / "headless").mkdir()
    mosaic = np.random.default_rng(0).integers(0, 4096, (32, 48)).astype("<u2")
    mosaic.tofile(tmp_path / "headless" / "a.raw")
    files = ("--checkpoint", weights, "--input", tmp_path / "headless", "--output", tmp_path / "out")
    camera = ("--raw-height=32", "--raw-width=48", "--white-level=4095", "--black-level", 0, 0, 0, 0)
    assert call(script, *files)[0] == 2
    assert call(script, *files, *camera)[0] == 0
    model, sensor = open_model(str(weights), CPU), Sensor("rggb", (0.0,) * 4, 4095.0)
    image = model.generator(prepare(torch.from_numpy(mosaic.astype(np.float32))[None, None] / 4095, sensor, "packed"))
    assert np.array_equal(iio.imread(tmp_path / "out" / "a.png"), to_8_bit(image)[0].permute(1, 2, 0).numpy())


def test_given_black_levels_override_the_model_s_own(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    files = ("--checkpoint", weights, "--input", raws, "--output", tmp_path / "out")
    assert call(script, *files, "--black-level", 0, 0, 0, 0)[0] == 0
    expected = render(weights, raws / "0.png", replace(FUJIFILM, black_level=(0.0,) * 4))
    assert np.array_equal(iio.imread(tmp_path / "out" / "0.png"), expected)
    assert not np.array_equal(expected, render(weights, raws / "0.png"))


def test_real_mosaics_with_released_weights(tmp_path, call):
    released, data = os.environ.get("ISP_RELEASED"), os.environ.get("ISP_DATA")
    if not (released and data):
        pytest.skip("ISP_RELEASED and ISP_DATA are not set: the released .pth files, and a folder with rhid_pairs")
    weights = ("--checkpoint", Path(released) / "Efficient_ISP_unpaired_step_27220.pth", "--measures", "psnr")
    camera = ("--raw-height=512", "--raw-width=512", "--white-level=4095", "--black-level", 0, 0, 0, 0)
    pairs = Path(data) / "rhid_pairs"
    folders = ("--input", pairs / "raw", "--target", pairs / "rgb", "--output", tmp_path / "out")
    status, output = call(script, *weights, *camera, *folders)
    assert status == 0, output
    assert len(read_table(tmp_path / "out" / "metrics.csv").rows) == 4


def test_pytest_does_not_collect_tests_from_the_command():
    arguments = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_errors.py", "test_model.py"]
    listing = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True).stdout
    assert "tests/test_errors.py::" in listing
    assert not any(line.startswith("test_model.py") for line in listing.splitlines())
