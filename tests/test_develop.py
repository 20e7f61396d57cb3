"""Developing files and folders with develop.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import develop
from tasks import batch
from tasks.model import open_model

from .dng import dng

ROOT = Path(develop.__file__).parent
CPU = torch.device("cpu")


@pytest.fixture
def shots(tmp_path) -> Path:
    """A folder of four camera files of one camera, the second damaged, the third a portrait."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(4):
        mosaic = np.random.default_rng(number).integers(64, 900, (64, 96)).astype(np.uint16)
        content = dng(mosaic, black=64, orientation=6 if number == 2 else 1)
        (folder / f"{number}.dng").write_bytes(content[:2000] if number == 1 else content)
    return folder


@pytest.fixture
def weights(make_files) -> Path:
    return make_files()[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_bad_file_does_not_stop_the_others(call, shots, weights, tmp_path):
    status, printed = call(develop, shots, "--checkpoint", weights, "-o", tmp_path / "out")
    assert status == 1 and "error: cannot read" in printed and "1.dng" in printed
    assert "developed 3 of 4 files" in printed and "1 of 4 files could not be developed" in printed
    assert names(tmp_path / "out") == ["0.jpg", "2.jpg", "3.jpg"]
    assert iio.imread(tmp_path / "out" / "2.jpg").shape == (96, 64, 3)


def test_a_png_holds_what_the_model_develops(call, shots, weights, tmp_path):
    assert call(develop, shots / "0.dng", "--checkpoint", weights, "-o", tmp_path, "--format", "png")[0] == 0
    model = open_model(str(weights), CPU)
    mosaic = np.random.default_rng(0).integers(64, 900, (64, 96)).astype(np.uint16)
    sensor = develop.camera.camera_notes(shots / "0.dng").sensor
    expected = model.develop(torch.from_numpy(mosaic)[None, None], sensor)[0].permute(1, 2, 0)
    assert np.array_equal(iio.imread(tmp_path / "0.png"), expected)


def test_a_released_model_says_that_it_is_of_another_camera(call, shots, weights, tmp_path):
    (shots / "1.dng").unlink()
    status, printed = call(develop, shots, "--checkpoint", weights, "-o", tmp_path / "out")
    assert status == 0 and "3 of 3 files are of Maker Phone 1, the model of a camera of " in printed
    assert "colours may be wrong" in printed
    (raws := tmp_path / "plain").mkdir()
    iio.imwrite(raws / "0.png", np.full((64, 64), 300, np.uint16))
    status, printed = call(develop, raws, "--checkpoint", weights, "-o", tmp_path / "out2")
    assert status == 0 and "colours may be wrong" not in printed  # a plain mosaic does not say of which camera it is


def test_photographs_that_are_there_are_kept(call, shots, weights, tmp_path):
    one = (develop, shots / "0.dng", shots / "3.dng", "--checkpoint", weights, "-o", tmp_path)
    (tmp_path / "0.jpg").write_bytes(b"precious")
    status, printed = call(*one)
    assert status == 0 and "1 of 2 photographs are there already and are kept" in printed
    assert (tmp_path / "0.jpg").read_bytes() == b"precious" and (tmp_path / "3.jpg").exists()
    assert call(*one, "--overwrite")[0] == 0
    assert (tmp_path / "0.jpg").read_bytes() != b"precious"


def test_a_folder_is_shared_among_jobs(call, shots, weights, tmp_path):
    (shots / "1.dng").unlink()
    for remainder, expected in ((1, ["2.jpg"]), (0, ["0.jpg", "2.jpg", "3.jpg"])):
        one = ("--n", 2, "--remainder", remainder)
        assert call(develop, shots, "--checkpoint", weights, "-o", tmp_path / "out", *one)[0] == 0
        assert names(tmp_path / "out") == expected


def test_depth_does_not_change_the_photographs(call, shots, weights, tmp_path, monkeypatch):
    (shots / "1.dng").unlink()
    for depth in (1, 3):
        monkeypatch.setattr(batch, "DEPTH", depth)
        assert call(develop, shots, "--checkpoint", weights, "-o", tmp_path / str(depth))[0] == 0
    for name in ("0.jpg", "2.jpg", "3.jpg"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_large_files_are_developed_one_by_one(tmp_path):
    def depth(size: int) -> int:
        with open(tmp_path / "x.dng", "wb") as file:
            file.truncate(size)
        return batch.depth_for([batch.Job(tmp_path / "x.dng", tmp_path / "x.jpg")])

    assert depth(200 << 20) == 1 and depth(24 << 20) == 2 and depth(1 << 20) == batch.DEPTH
    assert batch.depth_for([]) == batch.DEPTH


def test_sixteen_bits_a_page_and_plain_mosaics(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    out = tmp_path / "out"
    status, printed = call(develop, raws, "--checkpoint", weights, "-o", out, "--format", "tif16", "--page")
    assert status == 0 and f"page: {out / 'index.html'}" in printed
    assert names(out) == ["0.tif", "1.tif", "index.html"] and iio.imread(out / "0.tif").dtype == np.uint16
    page = (out / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 and 'href="0.tif"' in page and "64 x 64" in page


def test_the_page_shows_kept_photographs_too(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    one = (develop, raws, "--checkpoint", weights, "-o", tmp_path / "out")
    assert call(*one)[0] == 0
    assert call(*one, "--page")[0] == 0
    assert (tmp_path / "out" / "index.html").read_text().count("data:image/jpeg;base64,") == 2


def test_a_damaged_kept_photograph_is_left_out_of_the_page(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    out = tmp_path / "out"
    assert call(develop, raws, "--checkpoint", weights, "-o", out)[0] == 0
    (out / "1.jpg").write_bytes((out / "1.jpg").read_bytes()[:300])
    status, printed = call(develop, raws, "--checkpoint", weights, "-o", out, "--page")
    assert status == 0 and "index.html goes without a photograph: cannot read" in printed and "1.jpg" in printed
    page = (out / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1 and 'href="0.jpg"' in page


def test_a_page_of_somebody_else_is_not_replaced(call, shots, weights, tmp_path):
    out, options = tmp_path / "out", ("--checkpoint", weights, "-o", tmp_path / "out", "--page")
    out.mkdir()
    (out / "index.html").write_text("<!doctype html><title>My holidays</title>")
    status, printed = call(develop, shots / "0.dng", *options)
    assert status == 2 and "index.html exists and is no page of develop.py: move it, or leave out --page" in printed
    assert "My holidays" in (out / "index.html").read_text() and names(out) == ["index.html"]
    (out / "index.html").unlink()
    for _ in range(2):  # its own page is replaced
        assert call(develop, shots / "0.dng", *options)[0] == 0


def test_photographs_that_would_be_taken_for_mosaics_do_not_go_to_their_folder(call, shots, weights):
    before = names(shots)
    status, printed = call(develop, shots, "--checkpoint", weights, "-o", shots, "--format", "tif16")
    assert status == 2 and "tif16 files beside them would be taken for such" in printed and names(shots) == before


def test_a_profile_says_how_plain_mosaics_are_to_be_read(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    profile, own = tmp_path / "camera.json", ["--cfa", "grbg", "--black-level", "64", "64", "64", "64"]
    assert call(develop.camera, raws, "-o", profile, *own, "--white-level", 1023)[0] == 0
    for name, options in (("plain", ()), ("profile", ("--camera", profile))):
        done = call(
            develop, raws / "0.png", "--checkpoint", weights, "-o", tmp_path / name, "--format", "png", *options
        )
        assert done[0] == 0
    assert not np.array_equal(iio.imread(tmp_path / "plain" / "0.png"), iio.imread(tmp_path / "profile" / "0.png"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--wb", "warm"), "--wb warm: choose camera, trained, auto, or two gains"),
        (("--wb", "0,1"), "--wb 0,1: choose camera, trained, auto, or two gains"),
        (("--ev", "99"), "--ev must lie between -10 and 10"),
        (("--remainder", "1"), "--remainder needs --n"),
        (("--n", "2", "--remainder", "2"), "--remainder must lie between 0 and --n - 1"),
        (("--format", "png", "--quality", "90"), "--quality needs --format jpg"),
        (("--run", "x"), "--run and --checkpoint exclude each other"),
        (("--step", "10"), "--step needs a run, not --checkpoint"),
        (("--n", "0"), "--n must be at least 1"),
        (("--n", "2", "--page"), "--page is of all photographs: write it without --n"),
        (("--run", ""), "an option is empty"),
        (("--runs", ""), "an option is empty"),
        (("--camera", ""), "an option is empty"),
        (("-o", ""), "an option is empty"),
        (("--camera", "x.json"), "--camera is for mosaics that are not camera files, and there is none: leave it out"),
    ],
)
def test_options_that_do_not_fit_are_refused(call, shots, weights, tmp_path, options, sentence):
    status, printed = call(develop, shots, "--checkpoint", weights, "-o", tmp_path / "out", *options)
    assert status == 2 and sentence in printed and not (tmp_path / "out").exists()


def test_two_files_that_would_become_one_photograph_are_refused(call, shots, weights, tmp_path):
    (tmp_path / "0.dng").write_bytes((shots / "0.dng").read_bytes())
    status, printed = call(develop, shots, tmp_path / "0.dng", "--checkpoint", weights, "-o", tmp_path / "out")
    assert status == 2 and "would both become" in printed and not (tmp_path / "out").exists()


def test_a_mosaic_is_not_replaced_by_its_photograph(call, make_files):
    weights, raws, _ = make_files()
    before = (raws / "0.png").read_bytes()
    options = ("--checkpoint", weights, "-o", raws, "--format", "png", "--overwrite")
    status, printed = call(develop, raws, *options)
    assert status == 2 and "png files beside them would be taken for such" in printed
    assert (raws / "0.png").read_bytes() == before


def test_missing_files_and_folders_get_a_sentence(call, shots, weights, tmp_path):
    status, printed = call(develop, shots / "0.dng", tmp_path / "no.dng", "--checkpoint", weights, "-o", tmp_path / "o")
    assert status == 1 and f"no file {tmp_path / 'no.dng'}" in printed and names(tmp_path / "o") == ["0.jpg"]
    status, printed = call(develop, shots, "-o", tmp_path / "o", "--runs", tmp_path)
    assert status == 2 and "no run" in printed


def test_ctrl_c_leaves_whole_photographs_only(shots, weights, tmp_path):
    for number in range(4, 60):
        (shots / f"{number}.dng").write_bytes((shots / "0.dng").read_bytes())
    command = [
        sys.executable,
        str(ROOT / "develop.py"),
        str(shots),
        "--checkpoint",
        str(weights),
        "-o",
        str(tmp_path / "o"),
    ]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("o/*.jpg")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode in (130, 1) and (process.returncode == 1 or b"interrupted" in printed)  # 1: it had ended
    for path in (tmp_path / "o").glob("[!.]*"):
        assert iio.imread(path).shape[2] == 3
