"""test_model.py replaces no file that it has not written, and names what it cannot write."""

import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import test_model as script
from data.files import Reader
from data.photographs import read_photo
from data.reference import Reference, bilinear_opencv
from data.sensor import SENSORS
from evaluation.metrics import psnr, to_8_bit
from evaluation.rendering import WRITTEN

from .commands import files_of, options, refused

# --- nothing is lost -------------------------------------------------------------------------------------------------


def paired(weights: Path, raws: Path, photos: Path) -> tuple:
    return "--checkpoint", weights, "--input", raws, "--target", photos, "--measures", "psnr", "--output"


FOREIGN = ("0.png", "1.png", "report.html", "metrics.csv", "compare.csv")


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_no_test_has_written_is_not_overwritten(call, make_files, tmp_path, name):
    files, out = make_files(), tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"a photograph of mine")
    assert f"{out / name} would be overwritten" in refused(call, script, *paired(*files), out)
    assert files_of(out) == {out / name: b"a photograph of mine"}


def test_the_same_test_again_replaces_its_own_files_and_no_others(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    out = tmp_path / "out"
    assert call(script, *paired(weights, raws, photos), out)[0] == 0
    first = files_of(out)
    (out / "notes.txt").write_text("mine")
    assert call(script, *paired(weights, raws, photos), out)[0] == 0
    assert files_of(out).keys() == first.keys() | {out / "notes.txt"}
    for folder in raws, photos:
        shutil.copy(folder / "0.png", folder / "2.png")
    (out / "2.png").write_bytes(b"mine")
    output = refused(call, script, *paired(weights, raws, photos), out)
    assert f"{out / '2.png'} would be overwritten" in output and (out / "2.png").read_bytes() == b"mine"
    (out / "2.png").unlink()
    assert call(script, *paired(weights, raws, photos), out)[0] == 0


def test_files_of_an_earlier_test_that_stay_are_told(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    out = tmp_path / "out"
    call(script, *paired(weights, raws, photos), out)
    status, output = call(script, "--checkpoint", weights, "--input", raws, "--output", out)
    assert status == 0 and f"note: {out} also holds 2 files of an earlier test, such as compare.csv" in output


@pytest.mark.parametrize("note", (b"", b"[[]]", b"7", b"[" * 100_000, b"\xff"))
def test_a_damaged_note_of_the_files_written_lets_nothing_be_overwritten(call, make_files, tmp_path, note):
    files, out = make_files(), tmp_path / "out"
    out.mkdir()
    (out / "0.png").write_bytes(b"mine")
    (out / WRITTEN).write_bytes(note)
    assert "0.png would be overwritten" in refused(call, script, *paired(*files), out)


def test_an_interrupted_test_can_be_repeated(call, make_files, tmp_path, monkeypatch):
    weights, raws, photos = make_files()
    bad = (raws / "1.png").read_bytes()
    (raws / "1.png").write_bytes(bad[:60])
    refused(call, script, *paired(weights, raws, photos), tmp_path / "out")
    (raws / "1.png").write_bytes(bad)
    assert call(script, *paired(weights, raws, photos), tmp_path / "out")[0] == 0


def test_a_link_to_a_file_elsewhere_is_not_overwritten(call, make_files, tmp_path):
    files, out = make_files(), tmp_path / "out"
    out.mkdir()
    (out / "0.png").symlink_to(tmp_path / "removed disk" / "0.png")
    assert "0.png would be overwritten" in refused(call, script, *paired(*files), out)
    assert (out / "0.png").is_symlink()


def test_another_checkpoint_leaves_the_report_of_the_run(make_run, call):
    run, other = make_run(count=1), make_run("other", count=2)
    page, images = run / "report.html", run / "test" / "step_0000010"
    assert call(script, *options(run), "--step=10", "--split=val", "--measures=psnr")[0] == 0
    report, rendered = page.read_bytes(), files_of(images)
    (run / "log.jsonl").write_text('{"stage": "start", "warning": "the log of tiny"}\n')
    foreign = ("--checkpoint", other / "checkpoints" / "step_0000010.pt", "--split=val", "--measures=psnr")
    status, output = call(script, *options(run), *foreign)
    written = run / "test" / "other_step_0000010" / "report.html"
    assert status == 0 and f"report: {written}" in output
    assert page.read_bytes() == report and files_of(images) == rendered
    assert "the log of tiny" not in written.read_text()
    own = ("--checkpoint", run / "checkpoints" / "step_0000010.pt", "--split=val", "--measures=psnr")
    assert call(script, *options(run), *own)[0] == 0 and "the log of tiny" in page.read_text()


@contextmanager
def small_disk(size: int):
    """No file can be larger than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ("png", "jpg"))
def test_a_full_disk_is_one_sentence_that_names_the_folder(call, make_files, tmp_path, kind):
    weights, raws, _ = make_files()
    with small_disk(1000):
        command = ("--checkpoint", weights, "--input", raws, "--output", tmp_path / "out", f"--format={kind}")
        output = refused(call, script, *command)
    assert f"cannot write images to {tmp_path / 'out'}: File too large" in output
    assert [path.name for path in (tmp_path / "out").iterdir()] == [WRITTEN]


@pytest.mark.parametrize("place", ("a file/out", "/proc/none"))
def test_a_folder_that_cannot_be_made_is_refused_before_rendering(call, make_files, tmp_path, place, monkeypatch):
    weights, raws, _ = make_files()
    (tmp_path / "a file").write_text("")
    monkeypatch.chdir(tmp_path)
    output = refused(call, script, "--checkpoint", weights, "--input", raws, "--output", place)
    assert f"cannot write to {place}" in output and "rendered" not in output


# --- nothing is silently wrong ---------------------------------------------------------------------------------------


def test_a_run_s_own_reference_is_compared_with(make_run, make_files, call, tmp_path):
    """The row "demosaiced" is the run's reference, here by bilinear interpolation."""
    run, (_, raws, photos) = make_run(count=1, demosaic="bilinear"), make_files()
    files = ("--input", raws, "--target", photos, "--output", tmp_path / "out", "--measures=psnr")
    status, output = call(script, *options(run), "--step=10", *files)
    assert status == 0, output
    sensor, scores = SENSORS["fujifilm"], []
    for raw, photo in zip(sorted(raws.iterdir()), sorted(photos.iterdir()), strict=True):
        mosaic = Reader(sensor).mosaic_tensor(Reader(sensor).mosaic(raw))[None]
        image = to_8_bit(Reference(sensor, bilinear_opencv)(mosaic))[0]
        scores.append(float(psnr(image, torch.from_numpy(read_photo(photo).copy()).permute(2, 0, 1))))
    lines = (tmp_path / "out" / "compare.csv").read_text().splitlines()
    row = next(line for line in lines if line.startswith("demosaiced,"))
    assert float(row.split(",")[1]) == pytest.approx(np.mean(scores), abs=1e-5)
