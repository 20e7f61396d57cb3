"""Rendering and scoring a test split or any folder of mosaics."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import inference
import process_set
import test_model as script
from build import open_model
from data.files import Reader
from data.folders import read_photo
from data.sensor import Sensor, prepare
from metrics import psnr, ssim, to_8_bit
from models import build_model
from scores import read_table

from .conftest import write_pairs

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def ranked(make_run, call, name: str = "tiny", **options) -> Path:
    run = make_run(name, **options)
    call(inference, "--all", f"--run={name}", f"--runs={run.parent}")
    call(process_set, "--rank", f"--run={name}", f"--runs={run.parent}")
    return run


def rendered(path: Path, raw: Path, sensor: Sensor | None = None) -> np.ndarray:
    """What a checkpoint makes of a mosaic, (H, W, 3) uint8, by hand."""
    model, sensor = open_model(str(path), CPU), sensor or Sensor()
    reader = Reader(sensor)
    mosaic = reader.mosaic_tensor(reader.mosaic(raw))[None]
    image = model.generator(prepare(mosaic, sensor, model.generator.input_format))
    return to_8_bit(image)[0].permute(1, 2, 0).numpy()


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None]


def test_the_best_renders_and_scores_the_split(make_run, call):
    run = ranked(make_run, call)
    status, said = call(script, f"--run={run.name}", f"--runs={run.parent}", "--split", "val")
    assert status == 0 and "demosaiced" in said and str(run / "report.html") in said
    best = script.best_checkpoint(run)
    table = read_table(run / "test" / best.stem / "metrics.csv")
    assert table.head["protocol"].startswith("paper: ") and table.head["checkpoint"].endswith(best.name)
    assert table.columns == ("psnr", "ssim") and "left out" in table.head["lpips"] and "161" in table.head["ms_ssim"]
    values = []
    for raw in sorted((run.parents[1] / "data" / "val" / "mediatek_raw").iterdir()):
        expected = rendered(best, raw)
        assert np.array_equal(iio.imread(run / "test" / best.stem / raw.name), expected)
        pair = tensor(expected), tensor(read_photo(raw.parents[1] / "fujifilm" / raw.name))
        values.append([float(measure(*pair)) for measure in (psnr, ssim)])
        assert list(table.rows[raw.name].values()) == pytest.approx(values[-1], abs=1e-6)
    assert list(table.mean.values()) == pytest.approx(np.mean(values, axis=0), abs=1e-6)
    assert not re.search(r"(src|href)=.http", (run / "report.html").read_text())


def test_several_models_side_by_side(make_run, call, tmp_path):
    run, other = ranked(make_run, call), tmp_path / "released.pth"
    second = shutil.copytree(run, run.with_name("other"))
    torch.manual_seed(7)
    torch.save(build_model("rmfa-tiny").state_dict(), other)
    options = (f"--run={run.name}", f"--runs={run.parent}", "--split=val", "--compare", second.name, other)
    status, said = call(script, *options)
    assert status == 0, said
    text = (run / "test" / "compare.csv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = {row["model"]: row for row in csv.DictReader(lines)}
    assert list(rows) == ["tiny", "other", "released", "demosaiced"]
    assert rows["tiny"]["psnr"] == rows["other"]["psnr"] != rows["released"]["psnr"]
    assert len(list((run / "test").glob("*/metrics.csv"))) == 3


def plain(tmp_path: Path, *, size=(64, 64), count: int = 2, model: str = "efficient") -> tuple[Path, Path, Path]:
    """(a file of weights as the authors release them, mosaics, photographs)."""
    torch.manual_seed(1)
    torch.save(build_model(model).state_dict(), tmp_path / "weights.pth")
    write_pairs(tmp_path / "raws", tmp_path / "photos", count, seed=4, size=size)
    return tmp_path / "weights.pth", tmp_path / "raws", tmp_path / "photos"


def test_the_plain_form_without_ground_truth(tmp_path, call):
    weights, raws, _ = plain(tmp_path)
    status, said = call(script, "--checkpoint", weights, "--input", raws, "--output", tmp_path / "out")
    assert status == 0, said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0.png", "1.png", "report.html"}
    assert np.array_equal(iio.imread(tmp_path / "out" / "1.png"), rendered(weights, raws / "1.png"))


def test_sizes_may_differ_and_the_released_levels_of_rmfa_are_its_own(tmp_path, call):
    weights, raws, photos = plain(tmp_path, model="rmfa-tiny")
    write_pairs(tmp_path / "more", tmp_path / "more photos", 3, seed=5, size=(48, 80))
    for name in range(3):
        (tmp_path / "more" / f"{name}.png").rename(raws / f"{name + 2}.png")
        (tmp_path / "more photos" / f"{name}.png").rename(photos / f"{name + 2}.png")
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    assert call(script, *options, "--measures", "psnr")[0] == 0
    sensor = Sensor(black_level=(63.0,) * 4)
    for name in range(5):
        image, expected = iio.imread(tmp_path / "out" / f"{name}.png"), rendered(weights, raws / f"{name}.png", sensor)
        difference = np.abs(image.astype(int) - expected)  # a batch's rounding may cross a level here and there
        assert difference.max() <= 1 and difference.mean() < 1e-3


def test_jpeg_scores_are_of_the_file(tmp_path, call):
    weights, raws, photos = plain(tmp_path)
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    assert call(script, *options, "--measures", "psnr", "--format", "jpg", "--quality", 30)[0] == 0
    table = read_table(tmp_path / "out" / "metrics.csv")
    read = iio.imread(tmp_path / "out" / "0.jpg")
    assert table.rows["0.png"]["psnr"] == pytest.approx(
        float(psnr(tensor(read), tensor(read_photo(photos / "0.png")))), abs=1e-6
    )
    assert not np.array_equal(read, rendered(weights, raws / "0.png"))


@pytest.mark.parametrize("protocol", ("ntire26", "pyiqa"))
def test_other_protocols_name_themselves(tmp_path, call, protocol):
    weights, raws, photos = plain(tmp_path)
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, said = call(script, *options, "--protocol", protocol, "--weights", "auto")
    assert status == 0, said
    table = read_table(tmp_path / "out" / "metrics.csv")
    assert table.head["protocol"].startswith(f"{protocol}: ") and "ssim" in table.columns
    assert ("delta_e" in table.columns) == (protocol == "ntire26")


def test_the_camera_of_other_data_is_told(tmp_path, call):
    weights, _, _ = plain(tmp_path)
    (tmp_path / "headless").mkdir()
    mosaic = np.random.default_rng(0).integers(0, 4096, (32, 48)).astype("<u2")
    mosaic.tofile(tmp_path / "headless" / "a.raw")
    options = ("--checkpoint", weights, "--input", tmp_path / "headless", "--output", tmp_path / "out")
    camera = ("--raw-height=32", "--raw-width=48", "--white-level=4095", "--black-level", 0, 0, 0, 0)
    assert call(script, *options)[0] == 2
    assert call(script, *options, *camera)[0] == 0
    model, sensor = open_model(str(weights), CPU), Sensor("rggb", (0.0,) * 4, 4095.0)
    image = model.generator(prepare(torch.from_numpy(mosaic.astype(np.float32))[None, None] / 4095, sensor, "packed"))
    assert np.array_equal(iio.imread(tmp_path / "out" / "a.png"), to_8_bit(image)[0].permute(1, 2, 0).numpy())


def test_black_levels_that_are_named_count_on_10_bits_too(tmp_path, call):
    weights, raws, _ = plain(tmp_path)
    options = ("--checkpoint", weights, "--input", raws, "--output", tmp_path / "out")
    assert call(script, *options, "--black-level", 0, 0, 0, 0)[0] == 0
    expected = rendered(weights, raws / "0.png", Sensor(black_level=(0.0,) * 4))
    assert np.array_equal(iio.imread(tmp_path / "out" / "0.png"), expected)
    assert not np.array_equal(expected, rendered(weights, raws / "0.png"))


def test_files_behind_links_are_not_overwritten(tmp_path, call):
    weights, raws, _ = plain(tmp_path)
    before = (raws / "0.png").read_bytes()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "0.png").symlink_to(raws / "0.png")
    status, said = call(script, "--checkpoint", weights, "--input", tmp_path / "links", "--output", raws)
    assert status == 2 and "holds the files to be read" in said and (raws / "0.png").read_bytes() == before


def test_two_rows_of_one_name_are_refused(tmp_path, call):
    weights, raws, photos = plain(tmp_path)
    shutil.copy(weights, tmp_path / "demosaiced.pth")
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, said = call(script, *options, "--measures=psnr", "--compare", tmp_path / "demosaiced.pth")
    assert status == 2 and "called 'demosaiced'" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ("--quality=0", "--quality=101", "--white-level=0"))
def test_a_number_out_of_range_is_refused(tmp_path, call, option):
    weights, raws, _ = plain(tmp_path)
    options = ("--checkpoint", weights, "--input", raws, "--output", tmp_path / "out")
    assert call(script, *options, "--format=jpg", option)[0] == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    (
        (lambda raws, photos: (photos / "1.png").unlink(), "must hold the same names"),
        (lambda raws, photos: iio.imwrite(photos / "1.png", np.zeros((60, 64, 3), np.uint8)), "are a pair, but"),
        (lambda raws, photos: (raws / "1.png").write_bytes((raws / "1.png").read_bytes()[:60]), "cannot read"),
        (lambda raws, photos: (photos / "1.png").write_bytes(b"no photograph"), "cannot read"),
        (lambda raws, photos: iio.imwrite(raws / "1.png", np.zeros((64, 64), np.uint8)), "8 bits a pixel"),
        (lambda raws, photos: [path.unlink() for path in raws.iterdir()], "no images in"),
    ),
)
def test_broken_data_ends_in_a_sentence(tmp_path, call, change, sentence):
    weights, raws, photos = plain(tmp_path)
    change(raws, photos)
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, said = call(script, *options, "--measures", "psnr")
    assert status == 2 and sentence in said and "Traceback" not in said
    assert not (tmp_path / "out" / "metrics.csv").exists()


def test_mistakes_end_in_a_sentence(make_run, call, tmp_path):
    run = make_run()
    weights, raws, photos = plain(tmp_path)
    of_run = (f"--run={run.name}", f"--runs={run.parent}")
    of_files = ("--checkpoint", weights, "--input", raws)
    for arguments, sentence in (
        ((*of_run, "--split=val"), "not ranked yet"),
        ((*of_run, "--step=15", "--split=val"), "no checkpoint of step 15"),
        ((*of_run, "--step=10"), "no test pairs"),
        (of_files, "--input needs --output"),
        ((*of_files, "--output", raws), "holds the files to be read"),
        ((*of_files, "--output", photos, "--target", photos), "holds the files to be read"),
        (("--checkpoint", raws / "0.png", "--input", raws, "--output", tmp_path / "out"), "no readable weights"),
        ((*of_files, "--target", photos, "--output", tmp_path / "out", "--measures", "ms_ssim"), "at least 161 pixels"),
    ):
        status, said = call(script, *arguments)
        assert status == 2 and sentence in said and "Traceback" not in said, said
    assert len(list(raws.iterdir())) == len(list(photos.iterdir())) == 2


def test_missing_weights_are_told_before_anything_is_rendered(tmp_path, call, monkeypatch):
    from pretrained import files

    weights, raws, photos = plain(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(files, "TIMEOUT", 0.01)
    options = ("--checkpoint", weights, "--input", raws, "--target", photos, "--output", tmp_path / "out")
    status, said = call(script, *options, "--measures", "psnr", "lpips")
    assert status == 2 and "network" in said and not (tmp_path / "out").exists()


def test_pytest_does_not_take_it_for_a_test():
    arguments = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_errors.py", "."]
    listing = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True).stdout
    assert "tests/test_errors.py::" in listing
    assert not any(line.startswith("test_model.py") for line in listing.splitlines())


def test_real_mosaics_with_released_weights(tmp_path, call):
    released, data = os.environ.get("ISP_RELEASED"), os.environ.get("ISP_DATA")
    if not (released and data):
        pytest.skip("ISP_RELEASED and ISP_DATA are not set: the released .pth files, and a folder with rhid_pairs")
    options = ("--checkpoint", Path(released) / "Efficient_ISP_unpaired_step_27220.pth", "--measures", "psnr")
    camera = ("--raw-height=512", "--raw-width=512", "--white-level=4095", "--black-level", 0, 0, 0, 0)
    pairs = Path(data) / "rhid_pairs"
    folders = ("--input", pairs / "raw", "--target", pairs / "rgb", "--output", tmp_path / "out")
    status, said = call(script, *options, *camera, *folders)
    assert status == 0, said
    assert len(read_table(tmp_path / "out" / "metrics.csv").rows) == 4
