"""map_raw.py refuses what does not fit, and loses nothing."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import map_raw
from data.sensor import Sensor

from .two_cameras import (
    CAMERAS,
    Doubling,
    dng_of,
    fit,
    names,
    profiles,
    write_folders,
    write_plain_folders,
)


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    return write_folders(tmp_path)


@pytest.fixture
def plain(tmp_path) -> dict[str, Path]:
    return write_plain_folders(tmp_path)


@pytest.fixture
def trained(tmp_path, monkeypatch) -> tuple[Path, Doubling]:
    """(a checkpoint, the mapper that is opened from it)."""
    path = tmp_path / "step.pt"
    path.write_bytes(b"weights")
    mapper = Doubling(str(path))
    monkeypatch.setitem(sys.modules, "tasks.mapping", SimpleNamespace(open_mapper=lambda source, device: mapper))
    return path, mapper


# --- files that do not fit -------------------------------------------------------------------------------------------


def test_a_bad_file_and_one_of_another_camera_do_not_stop_the_others(call, folders, tmp_path):
    (folders["a"] / "1.dng").write_bytes((folders["a"] / "1.dng").read_bytes()[:1000])
    assert call(map_raw, "--save", tmp_path / "m.json", *fit({"a": folders["b"], "b": tmp_path / "no"}))[0] == 2
    good = tmp_path / "good"
    good.mkdir()
    for seed in range(3):
        (good / f"{seed}.dng").write_bytes(dng_of("a", 50 + seed))
    (folders["a"] / "2.dng").write_bytes(dng_of("b", 3))
    options = ("--input", folders["a"], "--output", tmp_path / "o", *fit({"a": good, "b": folders["b"]}))
    status, printed = call(map_raw, *options)
    assert status == 1 and "cannot read" in printed and "1.dng" in printed
    assert "2.dng has the CFA order grbg, but camera a has rggb: it is of another camera, leave it out" in printed
    assert "mapped 8 of 10 files" in printed and "2 of 10 files could not be mapped" in printed
    assert len(names(tmp_path / "o")) == 8


def test_files_of_another_model_get_a_note(call, folders, tmp_path):
    (tmp_path / "x.dng").write_bytes(dng_of("a", 60, camera=("Maker", "Three")))
    status, printed = call(map_raw, "--input", tmp_path / "x.dng", "--output", tmp_path / "o", *fit(folders))
    assert status == 0
    assert "note: 1 of 1 files are of Maker Three, and the map is of Maker One: colours may be wrong" in printed


@pytest.mark.parametrize("side", ("a", "b"))
def test_plain_mosaics_without_a_profile_are_refused(call, plain, tmp_path, side):
    given = profiles({camera: folder for camera, folder in plain.items() if camera != side})
    status, printed = call(map_raw, "--input", plain["a"], "--output", tmp_path / "o", *fit(plain), *given)
    assert status == 2 and f"holds plain mosaics, which do not note their levels: give --camera-{side}" in printed
    assert not (tmp_path / "o").exists()


def test_a_profile_of_camera_files_has_no_effect_and_is_refused(call, folders, tmp_path):
    status, printed = call(map_raw, "--save", tmp_path / "m.json", *fit(folders), "--camera-a", "x.json")
    assert status == 2 and "note their levels: leave out --camera-a" in printed


def test_one_folder_is_not_two_cameras(call, folders, tmp_path):
    status, printed = call(map_raw, "--save", tmp_path / "m.json", *fit({"a": folders["a"], "b": folders["a"]}))
    assert status == 2 and "is the folder of both cameras" in printed
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in folders["a"].iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    status, printed = call(map_raw, "--save", tmp_path / "m.json", *fit({"a": folders["a"], "b": copied}))
    assert status == 2 and "cameras a and b have a picture in common" in printed


def test_a_camera_of_more_than_16_bits_cannot_be_written(call, folders, trained, tmp_path):
    trained[1].sensors = CAMERAS | {"b": Sensor("grbg", (0.0,) * 4, 100_000.0)}
    options = ("--input", folders["a"], "--output", tmp_path / "o", "--to", "b", "--checkpoint", trained[0])
    status, printed = call(map_raw, *options)
    assert status == 2 and "white level is 100000, but files are written with 16 bits" in printed
    assert not (tmp_path / "o").exists()


# --- the output folder -----------------------------------------------------------------------------------------------


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(call, folders, tmp_path):
    one = ("--input", folders["a"], "--output", tmp_path / "o", *fit(folders))
    assert call(map_raw, *one)[0] == 0
    (tmp_path / "o" / "1.dng").write_bytes(b"precious")
    (tmp_path / "o" / "2.dng").unlink()
    status, printed = call(map_raw, *one)
    assert status == 0 and "9 of 10 mosaics are there already and are kept" in printed and "mapped 1 of 10" in printed
    assert (tmp_path / "o" / "1.dng").read_bytes() == b"precious" and (tmp_path / "o" / "2.dng").exists()
    assert call(map_raw, *one, "--overwrite")[0] == 0
    assert (tmp_path / "o" / "1.dng").read_bytes() != b"precious"


def test_a_folder_of_something_else_is_refused(call, folders, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "1.dng").write_bytes(b"precious")
    one = ("--input", folders["a"], "--output", tmp_path / "o", *fit(folders), "--overwrite")
    status, printed = call(map_raw, *one)
    assert status == 2 and "holds files that map_raw.py did not write, such as 1.dng" in printed
    assert names(tmp_path / "o") == ["1.dng"] and (tmp_path / "o" / "1.dng").read_bytes() == b"precious"


def test_mosaics_of_two_maps_do_not_mix(call, folders, tmp_path):
    one = ("--input", folders["a"], "--output", tmp_path / "o", "--n", 2)
    assert call(map_raw, *one, *fit(folders))[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    status, printed = call(map_raw, *one, *fit(folders, "identity"), "--overwrite")
    assert status == 2 and "holds mosaics of another map or other settings" in printed
    assert {path: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before


def test_the_input_folder_is_not_the_output_folder(call, folders):
    before = names(folders["a"])
    status, printed = call(map_raw, "--input", folders["a"], "--output", folders["a"], *fit(folders), "--overwrite")
    assert status == 2 and "lies in, a folder of the input" in printed and names(folders["a"]) == before
    below = folders["a"] / "mapped" / "here"
    status, printed = call(map_raw, "--input", folders["a"], "--output", below, *fit(folders))
    assert status == 2 and "lies in, a folder of the input" in printed and names(folders["a"]) == before


def test_an_attempt_that_made_nothing_leaves_the_output_free(call, folders, tmp_path):
    one = ("--output", tmp_path / "o", "--input")
    status, printed = call(map_raw, *one, tmp_path / "no", *fit(folders))
    assert status == 2 and f"no file or folder {tmp_path / 'no'}" in printed and not (tmp_path / "o").exists()
    (tmp_path / "bad.dng").write_bytes(b"no camera file")
    assert call(map_raw, *one, tmp_path / "bad.dng", *fit(folders))[0] == 1 and not names(tmp_path / "o")
    assert call(map_raw, *one, folders["a"], *fit(folders, "identity"))[0] == 0
    assert len(names(tmp_path / "o")) == 10


def test_files_that_are_of_the_wanted_camera_already_get_a_note(call, plain, tmp_path):
    options = (*fit(plain, to="a"), *profiles(plain))
    status, printed = call(map_raw, "--input", plain["b"], "--output", tmp_path / "right", *options)
    assert status == 0 and "darker than black" not in printed
    status, printed = call(map_raw, "--input", plain["a"], "--output", tmp_path / "wrong", *options)
    assert status == 0 and "6 of 6 files are darker than black, or than half of white, of camera b" in printed
    assert "are they of camera a?" in printed
    options = (*fit(plain, to="b"), *profiles(plain))
    status, printed = call(map_raw, "--input", plain["b"], "--output", tmp_path / "bright", *options)
    assert status == 1 and "outside 0 to the white level 1023: it is of another camera, leave it out" in printed


def test_a_folder_is_shared_among_jobs(call, folders, tmp_path):
    for remainder, expected in ((1, ["1.dng", "4.dng", "7.dng"]), (0, ["0.dng", "1.dng", "3.dng", "4.dng"])):
        one = ("--input", folders["a"], "--output", tmp_path / "o", "--n", 3, "--remainder", remainder, *fit(folders))
        assert call(map_raw, *one)[0] == 0
        assert names(tmp_path / "o")[: len(expected)] == expected


def test_two_files_that_would_become_one_are_refused(call, folders, tmp_path):
    (tmp_path / "0.dng").write_bytes((folders["a"] / "0.dng").read_bytes())
    one = ("--input", folders["a"], tmp_path / "0.dng", "--output", tmp_path / "o", *fit(folders))
    status, printed = call(map_raw, *one)
    assert status == 2 and "would both become" in printed and "map them apart" in printed


@pytest.mark.parametrize(
    ("options", "sentence"),
    (
        (("--checkpoint", "x"), "--checkpoint and --method exclude each other"),
        (("--map", "x"), "--method and --map exclude each other"),
        (("--downsample", "2"), "--downsample has no effect on --method and --map"),
        (("--step", "2"), "--step needs a run"),
        (("--remainder", "1"), "--remainder needs --n"),
        (("--n", "0"), "--n must be at least 1"),
        (("--n", "2", "--remainder", "2"), "--remainder must lie between 0 and --n - 1"),
        (("--save", ""), "an option is empty"),
    ),
)
def test_options_that_do_not_fit_are_refused(call, folders, tmp_path, options, sentence):
    one = ("--input", folders["a"], "--output", tmp_path / "o", *fit(folders))
    status, printed = call(map_raw, *one, *options)
    assert status == 2 and sentence in printed and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    (
        (("--input", "x", "--output", "y", "--method", "gains"), "--method needs both folders, --a and --b"),
        (
            ("--input", "x", "--output", "y", "--map", "m", "--a", "x"),
            "--a, --b, --camera-a, --camera-b and --save need",
        ),
        (("--input", "x", "--map", "m"), "--input and --output belong together"),
        (("--map", "m"), "--input and --output are missing"),
        (("--save", "m", "--method", "gains", "--a", "x", "--b", "y", "--n", "2"), "--n and --format need --input"),
        (("--save", "m", "--method", "gains", "--a", "x", "--b", "y"), "--save needs a name that ends in .json"),
        (
            ("--input", "x", "--output", "y", "--checkpoint", "c", "--downsample", "0"),
            "--downsample must be at least 1",
        ),
    ),
)
def test_missing_options_are_named(call, options, sentence):
    status, printed = call(map_raw, "--to", "b", *options)
    assert status == 2 and sentence in printed
