"""Bad folders, names, levels and options: one sentence, quickly, and nothing is lost or mixed.

A new case is a row of one of the tables: (what is wrong, how to make it, the expected sentence).
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from data import simulate
from data.files import read_mosaic
from data.folders import mosaics, open_dataset
from data.notes import note
from data.photographs import read_photo
from data.sensor import SENSORS, Sensor

from ..dng import dng
from .bad_files import LARGE_RAW, RAW, RGB, png, refuse, rows, saved

pytestmark = pytest.mark.usefixtures("quick")
TEN_BITS = SENSORS["fujifilm"]

# --- what is no regular file -----------------------------------------------------------------------------------------


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone.png"))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD_FILES = (
    ("broken link", dangling, "is a link to .*gone.png, which is missing"),
    ("folder", Path.mkdir, "is a folder, but should be a file"),
    ("pipe", os.mkfifo, "is a pipe, socket or device"),
    ("device", device, "is a pipe, socket or device"),
)


@pytest.mark.parametrize("side", ("raws", "photos"))
@pytest.mark.parametrize("make, message", rows(ODD_FILES))
def test_what_is_no_regular_file_is_refused(pairs, side, make, message):
    raws, photos = pairs
    path = (raws if side == "raws" else photos) / "3.png"
    path.unlink()
    make(path)
    refuse(f"{path} {message}", open_dataset, "folders", "", str(raws), str(photos))
    refuse(f"{path} {message}", read_photo, path)
    refuse(f"{path} {message}", read_mosaic, path, TEN_BITS)
    if side == "raws":
        refuse(f"{path} {message}", mosaics, raws)


@pytest.mark.parametrize("make", [row[1] for row in ODD_FILES], ids=[row[0] for row in ODD_FILES])
def test_what_is_no_regular_file_is_skipped_among_many_photographs(pairs, make):
    make(pairs[1] / "odd.png")
    shapes, skipped = simulate.survey(pairs[1], 16)
    assert len(shapes) == 12
    assert skipped.startswith("1 unreadable (the first: ") or make is Path.mkdir  # a folder is searched


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc/self/mem, which cannot be read at 0")
@pytest.mark.parametrize("suffix", ("png", "npy", "pgm", "dng"))
def test_a_file_that_the_system_cannot_read_is_named(tmp_path, suffix):
    (tmp_path / f"m.{suffix}").symlink_to("/proc/self/mem")
    refuse(f"cannot read .*m.{suffix}: Input/output error", read_mosaic, tmp_path / f"m.{suffix}", TEN_BITS)


def test_a_file_without_permission_is_named(pairs):
    (pairs[0] / "1.png").chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        refuse("cannot read .*1.png: Permission denied", read_mosaic, pairs[0] / "1.png", TEN_BITS)
    finally:
        os.seteuid(user)


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = (b"\xff\xfe", b"line\nbreak", "h\u00e9".encode(), b"a b'\"", b"tab\t")


@pytest.fixture
def strange(tmp_path) -> tuple[Path, Path]:
    """Pairs of mosaics and photographs with strange names."""
    raws, photos = tmp_path / "raws", tmp_path / "photos"
    raws.mkdir()
    photos.mkdir()
    for name in (*NAMES, *(b"%d" % i for i in range(8))):
        (raws / os.fsdecode(name + b".png")).write_bytes(png(RAW))
        (photos / os.fsdecode(name + b".png")).write_bytes(png(RGB))
    return raws, photos


def test_strange_names_are_read_paired_and_drawn(strange):
    splits = open_dataset("folders", "", *map(str, strange), val=3, test=3)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [7, 3, 3]
    for split in splits.values():
        for raw, photo in zip(split.raws, split.photos, strict=True):
            assert raw.stem == photo.stem
            assert read_mosaic(raw, TEN_BITS).shape == (16, 16) and read_photo(photo).shape == (16, 16, 3)


@pytest.mark.parametrize("suffix", ("png", "npy", "pgm", "raw", "dng"))
def test_every_format_is_read_under_a_name_that_is_no_utf8(tmp_path, suffix):
    content = {
        "png": png(LARGE_RAW),
        "npy": saved(LARGE_RAW),
        "pgm": b"P5 64 64 1023\n" + LARGE_RAW.astype(">u2").tobytes(),
        "raw": LARGE_RAW.tobytes(),
        "dng": dng(LARGE_RAW),
    }
    path = tmp_path / os.fsdecode(b"\xff\xfe." + suffix.encode())
    path.write_bytes(content[suffix])
    assert np.array_equal(read_mosaic(path, Sensor("rggb", (58.0,) * 4, 1023.0), (64, 64)), LARGE_RAW)


def test_a_dataset_is_simulated_from_photographs_with_strange_names(strange, tmp_path, capsys):
    (strange[1] / os.fsdecode(b"\xff\n.jpg")).write_bytes(b"damaged")
    simulate.simulate(str(strange[1]), tmp_path / "out", patch=16, val=1, test=1)
    lines = (tmp_path / "out" / "sources.txt").read_text().splitlines()
    assert len(lines) == len(NAMES) + 8 and all(line.count("\t") == 2 for line in lines)
    assert "h\u00e9.png" in "".join(lines) and r"line\nbreak.png" in "".join(lines)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert line.encode() and r"\udcff\n.jpg" in line


# --- folders ---------------------------------------------------------------------------------------------------------


def empty(photos: Path) -> None:
    for path in photos.iterdir():
        path.unlink()


def only(*names: str):
    """A function that replaces a folder's files by these."""

    def change(photos: Path) -> None:
        empty(photos)
        for name in names:
            (photos / name).parent.mkdir(exist_ok=True)
            (photos / name).write_bytes(png(RGB))

    return change


BAD_FOLDERS = (
    ("empty", empty, "no images in .*photos .*: it is empty"),
    ("HEIC", only("a.heic", "b.HEIC", "c.avif"), "no images in .*: 3 files in .*photos are not read: .avif, .heic"),
    ("sub-folders", only("day1/a.png", "day2/a.png"), "no images in .*: its folders, such as day1, are not searched"),
    (
        "one missing",
        lambda photos: (photos / "7.png").unlink(),
        r"1 are in one of them .*'7' in raws\); .*--data.pairs",
    ),
    ("twice", lambda photos: (photos / "7.jpg").write_bytes(b""), "differ in their suffix only: remove one"),
)


@pytest.mark.parametrize("change, message", rows(BAD_FOLDERS))
def test_a_bad_folder_is_refused(pairs, change, message):
    change(pairs[1])
    refuse(message, open_dataset, "folders", "", *map(str, pairs))


def notes(capsys) -> list[str]:
    return [line.removeprefix("note: ") for line in capsys.readouterr().err.splitlines()]


NOTED_FOLDERS = (
    ("nothing unusual", lambda photos: None, (2, 2), ()),
    (
        "files of other formats",
        lambda photos: [(photos / name).write_bytes(b"") for name in ("a.heic", "b.HEIC", "README", ".hidden")],
        (2, 2),
        ("3 files in .*photos are not read: .heic, without a suffix",),
    ),
    (
        "several names without a partner",
        lambda photos: [(photos / f"{i}.png").unlink() for i in (5, 7)],
        (2, 2),
        (r"10 names are in both .*2 are in one of them only \(the first: '5' in raws\).* taken as unpaired",),
    ),
    (
        "other names",
        lambda photos: [path.rename(photos / f"p{path.name}") for path in list(photos.iterdir())],
        (2, 2),
        (),
    ),
    (
        "few pairs to draw from",
        lambda photos: None,
        (1024, 1024),
        (
            "3 of the 12 training pairs are drawn for 'val', because 1024 would be more than half",
            "2 of the 9 training pairs are drawn for 'test'",
        ),
    ),
    ("few photographs", only("x.png"), (2, 2), ("12 mosaics and 1 photographs are few to train on",)),
)


@pytest.mark.parametrize("change, counts, expected", rows(NOTED_FOLDERS))
def test_a_surprise_in_a_folder_is_noted_once(pairs, capsys, change, counts, expected):
    change(pairs[1])
    splits = [open_dataset("folders", "", *map(str, pairs), val=counts[0], test=counts[1]) for _ in range(2)]
    found = notes(capsys)
    assert len(found) == len(expected) and all(map(re.search, expected, found))
    assert splits[0] == splits[1]


def test_a_quarter_is_drawn_only_where_the_count_was_too_large(pairs):
    for count, drawn in ((6, 6), (7, 3), (1024, 3), (0, 0)):
        splits = open_dataset("folders", "", *map(str, pairs), val=count, test=0)
        assert (len(splits["train"]), len(splits["val"])) == (12 - drawn, drawn)


def test_a_folder_of_ground_truth_is_not_said_to_be_small_for_training(tmp_path, make_pairs, capsys):
    make_pairs(tmp_path / "raws", tmp_path / "photos", 2, 0)
    open_dataset("folders", "", str(tmp_path / "raws"), str(tmp_path / "photos"), "yes", val=0, test=0)
    assert not notes(capsys)


def test_the_order_of_files_does_not_depend_on_the_file_system(pairs, monkeypatch):
    before = open_dataset("folders", "", *map(str, pairs), val=2, test=2)
    scandir = os.scandir

    class Reversed:
        def __init__(self, folder):
            self.entries = list(scandir(folder))[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert open_dataset("folders", "", *map(str, pairs), val=2, test=2) == before
    assert before["train"].raws != before["train"].raws[::-1]


def test_a_note_is_one_line_that_every_encoding_holds(capsys):
    for _ in range(2):
        note("files of 'a\nb\udcff' are not read")
    assert capsys.readouterr().err == "note: files of 'a\\nb\\udcff' are not read\n"
