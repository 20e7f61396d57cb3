"""`python -m data.simulate --cameras two`: impossible options are refused, and nothing is lost."""

import os
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

import storage
from data import simulate, simulate_cameras
from errors import run_cli

from .bad_files import refuse, rows

pytestmark = pytest.mark.usefixtures("quick")

OF_ONE = "two cameras have their own levels and noise, .*leave out val, test, cfa, black, white, matrix and shot"
OF_TWO = "lights and exposure are options of two cameras: leave them out, or add --cameras two"
BAD_OPTIONS = (
    ("patch 0", dict(patch=0), "patch is 0, but must be even and positive"),
    ("patch 15", dict(patch=15), "patch is 15, but must be even and positive"),
    ("seed -1", dict(seed=-1), "seed is -1, but must not be negative"),
    ("stride 0", dict(stride=0), "stride must be at least 1"),
    ("scale nan", dict(scales=(float("nan"),)), "scales must lie in"),
    ("no scale", dict(scales=()), "scales must lie in"),
    ("val", dict(val=1), OF_ONE),
    ("test", dict(test=0), OF_ONE),
    ("cfa", dict(cfa="bggr"), OF_ONE),
    ("black", dict(black=(0, 0, 0, 0)), OF_ONE),
    ("white", dict(white=4095), OF_ONE),
    ("matrix", dict(matrix=0), OF_ONE),
    ("shot", dict(shot=0.0), OF_ONE),
    ("lights of one camera", dict(cameras="one", lights="single"), OF_TWO),
    ("exposure of one camera", dict(cameras="one", exposure="fixed"), OF_TWO),
    ("root as output", dict(out=Path("/")), "/ exists; give another folder"),
    ("photographs as output", dict(out=Path("photos")), "photos exists; give another folder"),
    ("below a file", dict(out=Path("photos/0.png/out")), "cannot create .*photos/0.png/out"),
)


def make(photos: Path | str, out: Path, **options) -> None:
    simulate.simulate(str(photos), out, **{"cameras": "two", "patch": 16, **options})


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options, message", rows(BAD_OPTIONS))
@pytest.mark.parametrize("photos", ("photos", "demo"))
def test_an_impossible_option_of_two_cameras_is_refused(pairs, tmp_path, monkeypatch, photos, options, message):
    monkeypatch.chdir(tmp_path)
    if photos == "demo" and {"stride", "scales"} & options.keys():
        message = "leave these options out"
    refuse(message, make, photos, **{"out": Path("out"), **options})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "raws"]


# --- photographs -----------------------------------------------------------------------------------------------------


def test_too_few_photographs_are_refused(pairs, tmp_path):
    for path in sorted(pairs[1].iterdir())[5:]:
        path.unlink()
    refuse("two cameras need at least 6 usable photographs.*: there are only 5", make, pairs[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_photographs_that_are_too_small_or_damaged_do_not_count(pairs, tmp_path, capsys):
    for index, path in enumerate(sorted(pairs[1].iterdir())):
        if index < 4:
            path.write_bytes(path.read_bytes()[:100])
        elif index < 7:
            iio.imwrite(path, np.zeros((8, 99, 3), np.uint8))
    refuse("two cameras need at least 6 usable photographs.*: there are only 5", make, pairs[1], tmp_path / "out")
    assert "skipped 4 unreadable" in capsys.readouterr().err
    refuse("holds no usable image", make, pairs[1], tmp_path / "out", patch=128)
    refuse("absent is not a folder", make, tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dataset_among_the_photographs_is_left_out(pairs, tmp_path):
    """Mosaics are no photographs, and would be PNG files among them."""
    make(pairs[1], pairs[1] / "set")
    make(pairs[1], tmp_path / "out")
    assert (pairs[1] / "set" / "sources.txt").read_text() == (tmp_path / "out" / "sources.txt").read_text()


def test_a_photograph_that_shrinks_meanwhile_is_refused(pairs, tmp_path, monkeypatch):
    small = np.zeros((8, 8, 3), np.uint8)
    reads = []

    def read(path):
        reads.append(path)
        return small if len(reads) > 12 else iio.imread(path)  # twelve photographs are surveyed first

    monkeypatch.setattr(simulate, "read_photo", read)
    refuse("has become smaller since it was surveyed: start again", make, pairs[1], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


# --- nothing lost, nothing mixed -------------------------------------------------------------------------------------


def test_a_folder_of_the_user_with_the_name_of_the_temporary_one_is_kept(pairs, tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "thesis.txt").write_text("ten years")
    refuse(".out.partial is in the way, and not of this command: move it", make, pairs[1], tmp_path / "out")
    assert (tmp_path / ".out.partial" / "thesis.txt").read_text() == "ten years" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("record", ("camera.json", "simulation.json"))
def test_what_a_killed_process_left_is_replaced(pairs, tmp_path, record):
    (tmp_path / ".out.partial" / "unpaired" / "a").mkdir(parents=True)
    (tmp_path / ".out.partial" / record).write_text("{}")
    (tmp_path / ".out.partial" / "unpaired" / "a" / "foreign.png").write_bytes(b"half")
    make(pairs[1], tmp_path / "out")
    assert not (tmp_path / ".out.partial").exists() and not list((tmp_path / "out").rglob("foreign.png"))


def test_a_second_process_that_writes_the_same_dataset_is_refused(pairs, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "simulation.json").write_text("of the first process")
    with storage.lock(tmp_path / ".out.lock"):
        refuse("another process is writing .*out: wait for it, or give another", make, pairs[1], tmp_path / "out")
    assert contents(partial) == {partial / "simulation.json": b"of the first process"}


def test_a_complete_dataset_is_not_overwritten(pairs, tmp_path):
    make(pairs[1], tmp_path / "out")
    before = contents(tmp_path / "out")
    refuse("out exists; give another folder", make, pairs[1], tmp_path / "out")
    refuse("out exists; give another folder", make, "demo", tmp_path / "out")
    refuse("out exists; give another folder", make, pairs[1], tmp_path / "out", cameras="one")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("failing", ("write_png", "_profile"))
def test_an_error_while_writing_leaves_nothing(pairs, tmp_path, monkeypatch, failing):
    def full_disk(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(simulate_cameras, failing, full_disk)
    with pytest.raises(OSError, match="No space"):
        make(pairs[1], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "photos", "raws"]


def test_the_command_ends_with_status_2_and_one_line(pairs, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: make(pairs[1], tmp_path / "out", matrix=1))
    captured = capsys.readouterr()
    assert end.value.code == 2 and not captured.out
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
