"""align.py writes datasets that fit.py reads, and lists the misaligned pairs of others."""

import csv
import json
import re
import shlex
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest

import align
import fit
import storage
from data.demo import demo_photographs
from data.folders import open_dataset
from data.sensor import Sensor
from data.unprocess import Camera, expose, unprocess

from .dng import dng
from .faults.commands import files_of, refused

LEVELS = ("--cfa", "rggb", "--black-level", 58, 60, 61, 62, "--white-level", 1023)
SIDE = 192


def scene(index: int) -> np.ndarray:
    """A part of a photograph, with detail everywhere."""
    name, top, left = (("coffee.png", 60, 100), ("chelsea.png", 40, 100), ("motorcycle_left.png", 200, 260))[index]
    return demo_photographs()[name][top : top + SIDE, left : left + SIDE]


def mosaic(photo: np.ndarray, seed: int = 0) -> np.ndarray:
    camera = Camera.random(0)
    return expose(unprocess(photo, camera), camera, np.random.default_rng(seed))


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, Path]:
    """Folders of three mosaics and photographs, the photographs moved by a few pixels; and of the output."""
    raws, photos = tmp_path / "raws", tmp_path / "photos"
    for folder in (raws, photos):
        folder.mkdir()
    for index in range(3):
        iio.imwrite(raws / f"s{index}.png", mosaic(scene(index), index))
        matrix = np.float32([[1, 0.01, 3.5], [-0.01, 1, -2.0]])
        moved = cv2.warpAffine(scene(index), matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        iio.imwrite(photos / f"s{index}.png", moved)
    return raws, photos, tmp_path / "out"


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "align.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_dataset_is_written_that_fit_reads(call, folders):
    raws, photos, out = folders
    status, printed = call(align, *folders, *LEVELS, "--patch", 64, "--valid", 0.9)
    assert status == 0 and "3 of 3 pairs are aligned" in printed and f"--data.raw {out / 'raw'}" in printed
    split = open_dataset(
        "folders", "", str(out / "raw"), str(out / "photos"), val=0, test=0, exclude=str(out / "excluded.txt")
    )
    assert split["train"].paired and len(split["train"]) >= 6
    for raw, photo in zip(split["train"].raws, split["train"].photos, strict=True):
        name, top, left = raw.stem.split("_")
        window = slice(int(top), int(top) + 64), slice(int(left), int(left) + 64)
        assert int(top) % 2 == int(left) % 2 == 0
        assert np.array_equal(iio.imread(raw), iio.imread(raws / f"{name}.png")[window])  # never resampled
        mask = iio.imread(out / "masks" / photo.name)
        assert mask.shape == (64, 64) and set(np.unique(mask)) <= {0, 255} and (mask > 0).mean() >= 0.9
        difference = np.abs(iio.imread(photo).astype(int) - scene(int(name[1]))[window]).mean(axis=2)
        assert difference[mask > 0].mean() < 4
    rows = rows_of(out)
    assert len([row for row in rows if not row["patch"]]) == 3 and len(rows) == 3 + 3 * 9
    kept = {row["patch"] for row in rows if row["patch"] and row["kept"] == "yes"}
    assert kept == {path.stem for path in split["train"].raws}
    assert all(row["reason"] for row in rows if row["kept"] == "no")
    page = (out / "index.html").read_text()
    assert page.count('class="scene"') == 3 and "data-flicker" in page and "s1" in page


def test_whole_frames_and_rejected_patches_on_demand(call, folders, tmp_path):
    raws, photos, out = folders
    assert call(align, *folders, *LEVELS, "--patch", 0)[0] == 0
    assert [iio.imread(path).shape for path in sorted((out / "photos").iterdir())] == [(SIDE, SIDE, 3)] * 3
    every = tmp_path / "every"
    assert call(align, raws, photos, every, *LEVELS, "--patch", 64, "--write-all")[0] == 0
    rejected = [row["patch"] for row in rows_of(every) if row["patch"] and row["kept"] == "no"]
    assert rejected and (every / "excluded.txt").read_text().split() == rejected
    assert len(list((every / "raw").iterdir())) == 27


def test_jobs_of_an_array_write_what_one_process_writes_and_a_killed_one_goes_on(call, folders, tmp_path, monkeypatch):
    raws, photos, out = folders
    options = (*LEVELS, "--patch", 64)
    assert call(align, raws, photos, tmp_path / "whole", *options)[0] == 0
    for remainder in (1, 0):
        assert call(align, *folders, *options, "--n", 2, "--remainder", remainder)[0] == 0
    whole, parts = (
        {path.relative_to(folder): content for path, content in files_of(folder).items() if path.suffix != ".html"}
        for folder in (tmp_path / "whole", out)
    )
    assert whole == parts
    (out / "pairs" / "s1.json").unlink()  # the process was killed before the record was written
    (out / "raw" / next(path.name for path in (out / "raw").iterdir() if path.name.startswith("s1"))).unlink()
    status, printed = call(align, *folders, *options)
    assert status == 0 and "2 of 3 pairs are there already and are kept" in printed
    assert {
        path.relative_to(out): content for path, content in files_of(out).items() if path.suffix != ".html"
    } == parts


def test_a_pair_that_cannot_be_aligned_is_reported_and_the_others_go_on(call, folders):
    raws, photos, out = folders
    iio.imwrite(photos / "s0.png", scene(1))
    (photos / "s2.png").write_bytes((photos / "s2.png").read_bytes()[:500])
    status, printed = call(align, *folders, *LEVELS, "--patch", 64)
    assert status == 1 and "1 of 3 pairs are aligned" in printed and "2 of 3 files could not be aligned" in printed
    assert (
        f"{raws / 's0.png'} and {photos / 's0.png'}: only " in printed and f"cannot read {photos / 's2.png'}" in printed
    )
    assert {row["pair"]: row["kept"] for row in rows_of(out) if not row["patch"]} == {
        "s0": "no",
        "s1": "yes",
        "s2": "no",
    }
    assert "do not show the same scene" in (out / "index.html").read_text()
    iio.imwrite(photos / "s2.png", scene(2))  # repaired: it is tried again
    assert "2 of 3 pairs are aligned" in call(align, *folders, *LEVELS, "--patch", 64)[1]


def test_camera_files_give_their_levels_and_a_profile(call, folders, tmp_path):
    _, photos, out = folders
    raws = tmp_path / "camera"
    raws.mkdir()
    for index in range(2):
        (raws / f"s{index}.dng").write_bytes(dng(mosaic(scene(index)), black=(58, 60, 61, 62)))
    assert call(align, raws, photos, out, "--patch", 64, "--valid", 0.5)[0] == 0
    known = json.loads((out / "camera.json").read_text())
    assert known["sensor"]["black_level"] == [58, 60, 61, 62] and known["model"] == "Phone 1"
    path = next((out / "raw").iterdir())
    name, top, left = path.stem.split("_")
    window = slice(int(top), int(top) + 64), slice(int(left), int(left) + 64)
    assert np.array_equal(iio.imread(path), mosaic(scene(int(name[1])))[window])
    assert "camera files note their CFA order" in refused(call, align, raws, photos, tmp_path / "o", *LEVELS)


def test_the_command_that_trains_is_printed_and_trains(call, folders, tmp_path):
    raws, photos, out = folders
    printed = call(align, raws, photos, out, *LEVELS, "--patch", 64, "--valid", 0.9, "--write-all")[1]
    words = shlex.split(re.search(r"^train: python fit.py (.*)$", printed, re.MULTILINE)[1])
    small = ("--runs", tmp_path / "runs", "--train.steps", 1, "--data.batch", 1, "--device", "cpu")
    status, printed = call(fit, *words, *small)
    assert status == 0, printed
    data = json.loads((tmp_path / "runs" / "aligned" / "config.json").read_text())["data"]
    assert (data["cfa"], data["black_level"], data["white_level"]) == ("rggb", [58, 60, 61, 62], 1023)
    assert data["masks"] == str(out / "masks") and data["exclude"] == str(out / "excluded.txt")


def test_photographs_that_are_coarser_than_their_mosaics_are_noted(call, folders):
    photo = folders[1] / "s1.png"
    iio.imwrite(photo, cv2.resize(iio.imread(photo), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA))
    status, printed = call(align, *folders, *LEVELS, "--patch", 64)
    assert (
        status == 0
        and "1 of 3 photographs are coarser than their mosaics" in printed
        and "such as that of s1" in printed
    )


def test_a_damaged_camera_file_does_not_stop_the_others(call, folders, tmp_path):
    _, photos, out = folders
    raws = tmp_path / "camera"
    raws.mkdir()
    for index in range(3):
        content = dng(mosaic(scene(index)))
        (raws / f"s{index}.dng").write_bytes(content[: (len(content), 40_000, 200)[index]])  # no pixels, no notes
    status, printed = call(align, raws, photos, out, "--patch", 64, "--valid", 0.5)
    assert status == 1 and "1 of 3 pairs are aligned" in printed
    assert f"--data.camera {out / 'camera.json'}" in printed
    (raws / "s0.dng").unlink()
    assert f"cannot read {raws / 's1.dng'}" in refused(call, align, raws, photos, tmp_path / "none")


# --- --check ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A dataset in the layout of Fujifilm UltraISP: six pairs, of which 1 and 4 are misaligned."""
    root = tmp_path / "data"
    for name in ("mediatek_raw", "fujifilm"):
        (root / "train" / name).mkdir(parents=True)
    for index in range(6):
        photo = scene(index % 3)
        iio.imwrite(root / "train" / "mediatek_raw" / f"{index}.png", mosaic(photo, index))
        iio.imwrite(
            root / "train" / "fujifilm" / f"{index}.png", np.roll(photo, 3, axis=1) if index in (1, 4) else photo
        )
    return root


def test_misaligned_pairs_of_a_dataset_are_listed_for_exclude(call, dataset, tmp_path):
    before = files_of(dataset)
    status, printed = call(align, "--check", dataset, tmp_path / "out")
    assert status == 0 and "2 of 6 pairs are misaligned; 0 have too little detail" in printed
    assert (tmp_path / "out" / "excluded.txt").read_text() == "1\n4\n"
    split = open_dataset("fujifilm", str(dataset), val=0, test=0, exclude=str(tmp_path / "out" / "excluded.txt"))
    assert [path.stem for path in split["train"].raws] == ["0", "2", "3", "5"] and files_of(dataset) == before
    assert {row["pair"]: float(row["shift"]) for row in rows_of(tmp_path / "out")}["4"] == 3.0
    folders = (dataset / "train" / "mediatek_raw", dataset / "train" / "fujifilm")
    status, printed = call(align, "--check", *folders, tmp_path / "two", *LEVELS, "--flow", 4)
    assert status == 0 and "0 of 6 pairs are misaligned" in printed


def test_pairs_that_cannot_be_read_are_listed_for_exclude_too(call, dataset, tmp_path):
    photo = dataset / "train" / "fujifilm" / "2.png"
    photo.write_bytes(photo.read_bytes()[:500])
    status, printed = call(align, "--check", dataset, tmp_path / "out")
    assert status == 1 and "2 of 5 pairs are misaligned" in printed and "1 of 6 files could not be checked" in printed
    assert (tmp_path / "out" / "excluded.txt").read_text() == "1\n2\n4\n"


def test_a_grey_photograph_is_no_target(call, folders):
    raws, photos, out = folders
    iio.imwrite(photos / "s0.png", scene(0).mean(axis=2).astype(np.uint8))
    status, printed = call(align, *folders, *LEVELS, "--patch", 64)
    assert status == 1 and "the photograph is grey" in printed and "2 of 3 pairs are aligned" in printed


# --- bad input -------------------------------------------------------------------------------------------------------


def test_pairs_that_cannot_be_are_refused_and_nothing_is_lost(call, folders, tmp_path, monkeypatch):
    raws, photos, out = folders
    assert "does not say what camera it is from: give" in refused(call, align, *folders)
    assert "smaller than a patch of 256: lower --patch" in refused(call, align, *folders, *LEVELS)
    assert "written from other folders or with other settings" in refused(call, align, *folders, *LEVELS, "--patch", 64)
    assert "check --data.white" not in refused(call, align, raws, photos, tmp_path / "w", *LEVELS[:-1], 300)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "precious.txt").write_text("x")
    assert "holds files that align.py did not write, such as precious.txt" in refused(
        call, align, raws, photos, other, *LEVELS
    )
    assert [path.name for path in other.iterdir()] == ["precious.txt"]
    for path in photos.iterdir():
        iio.imwrite(path, np.zeros((SIDE, SIDE, 3), np.uint8))
    assert "no pair of" in refused(call, align, raws, photos, tmp_path / "black", *LEVELS, "--patch", 64)
    for path in photos.iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    assert "matches a photograph in" in refused(call, align, raws, photos, tmp_path / "n", *LEVELS)
    assert "does not note when it was taken" in refused(
        call, align, raws, photos, tmp_path / "n", *LEVELS, "--match", "time"
    )


def test_a_full_disk_ends_in_one_sentence_and_keeps_what_is_there(call, folders, monkeypatch):
    raws, photos, out = folders
    assert call(align, *folders, *LEVELS, "--patch", 64, "--n", 3, "--remainder", 0)[0] == 0
    before, write = files_of(out), storage.write_bytes

    def full(path, content):
        if path.parent.name == "photos":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(storage, "write_bytes", full)
    assert "No space left on device" in refused(call, align, *folders, *LEVELS, "--patch", 64)
    after = files_of(out)
    assert all(after[path] == content for path, content in before.items())
    assert not [path for path in (out / "pairs").glob("*.json") if path.stem != "s0"]
    monkeypatch.undo()


def test_sensor_of_the_fixture_is_the_camera():
    camera = Camera.random(0)
    assert Sensor(camera.cfa, tuple(map(float, camera.black)), camera.white) == align.levels_of(
        align.parse(["a", "b", "c", *map(str, LEVELS)])
    )
