"""The profile of a camera: what it says, which folders are refused, and its file; also `python -m data.camera`."""

import json
import os
import re

import numpy as np
import pytest

from data import camera
from data.camera import from_dict, load, notes_of, profile_of, to_dict
from data.camera_files import CAMERA_FILES, look_at
from data.sensor import CFA_ORDERS, Sensor
from errors import UserError

from ..dng import XYZ_TO_SRGB, dng, sampled

SIZE = (64, 96)
SCENE = np.random.default_rng(0).random((*SIZE, 3))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "raws").mkdir()
    return tmp_path / "raws"


@pytest.fixture
def write(folder):
    """write(name, **options): a DNG file of the scene in the folder."""

    def write_file(name: str, scene: np.ndarray = SCENE, **options):
        levels = {key: options[key] for key in ("cfa", "black", "white") if key in options}
        (folder / name).write_bytes(dng(sampled(scene, **levels), **options))
        return folder / name

    return write_file


def refused(paths) -> str:
    with pytest.raises(UserError) as caught:
        notes_of(tuple(paths))
    return str(caught.value)


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_profile_of_a_folder(write):
    gains = ((1.8, 1.4), (2.0, 1.5), (2.4, 1.7))
    paths = [write(f"{i}.dng", iso=iso, gains=gains[i]) for i, iso in enumerate((200, 100, 800))]
    found = profile_of(tuple(paths))
    assert (found.make, found.model, found.name, found.count) == ("Maker", "Phone 1", "Maker Phone 1", 3)
    assert (found.sensor, found.size, found.iso) == (Sensor("rggb", (58.0,) * 4, 1023.0), SIZE, (100, 800))
    assert found.gains == pytest.approx((2.0, 1.0, 1.5), rel=1e-5) and found.gains_noted
    assert found.red_gain == pytest.approx((1.82, 2.0, 2.36), rel=1e-5)  # percentiles are interpolated
    assert found.black_by_iso == {}
    np.testing.assert_allclose(found.color_matrix, XYZ_TO_SRGB, atol=1e-4)


def test_black_levels_that_differ_are_told_by_iso(write):
    rows = ((100, 58), (100, 60), (1600, 90), (0, 58))  # the last one notes no ISO
    found = profile_of(tuple(write(f"{i}.dng", iso=iso, black=black) for i, (iso, black) in enumerate(rows)))
    assert found.black_by_iso == {"100": (59.0,) * 4, "1600": (90.0,) * 4}
    assert found.sensor.black_level == (59.0,) * 4 and found.iso == (100, 1600)


def test_gains_that_no_file_notes_are_estimated(write):
    scene = SCENE * (0.25, 0.5, 0.4)
    found = profile_of((write("a.dng", scene, gains=None),))
    assert not found.gains_noted and found.gains == pytest.approx((2.0, 1.0, 1.25), rel=0.05)


def test_gains_that_some_files_note_are_those_of_these(write):
    found = profile_of((write("a.dng", gains=None), write("b.dng", gains=(1.9, 1.6))))
    assert found.gains_noted and found.gains == pytest.approx((1.9, 1.0, 1.6), rel=1e-5)


def test_the_noise_is_that_of_the_pixels(write):
    """Shot noise of 1e-3 of white and read noise of 1e-5, on a smooth scene."""
    rows = np.linspace(0.02, 0.8, 512)[:, None, None]
    smooth = np.broadcast_to(rows, (512, 512, 3))
    noise = np.random.default_rng(0).normal(size=smooth.shape) * np.sqrt(1e-3 * smooth + 1e-5)
    shot, read = profile_of((write("a.dng", smooth + noise, black=600, white=16383),)).noise
    assert shot == pytest.approx(1e-3, rel=0.2) and read < 1e-4


def test_noise_that_cannot_be_estimated_is_left_open(write):
    assert profile_of((write("a.dng", np.zeros((*SIZE, 3))),)).noise is None


def test_plain_mosaics_say_nothing(tmp_path):
    assert profile_of((tmp_path / "a.png", tmp_path / "b.pgm")) is None


@pytest.mark.parametrize("order", (1, -1))
def test_a_portrait_beside_a_landscape_is_of_the_same_camera(write, order):
    paths = [write("a.dng"), write("b.dng", orientation=6)][::order]
    assert sorted(found.orientation for found in notes_of(tuple(paths))) == [1, 6]


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    (
        ({"camera": ("Maker", "Phone 2")}, "the camera Maker Phone 2, but .*0.dng has Maker Phone 1"),
        ({"camera": ("Other", "Phone 1")}, "the camera Other Phone 1, but"),
        *(({"cfa": cfa}, f"the CFA order {cfa}, but .*0.dng has rggb") for cfa in CFA_ORDERS[1:]),
        ({"white": 1000}, "the white level 1000, but .*0.dng has 1023"),
        ({"scene": SCENE[:, :64]}, "the size 64x64, but .*0.dng has 64x96"),
    ),
)
def test_a_folder_of_two_cameras_is_refused_with_the_first_file_that_differs(write, other, message):
    paths = [write("0.dng"), write("1.dng"), write("2.dng", **other), write("3.dng", **other)]

    assert re.search(r"2.dng has " + message, refused(paths))


def test_camera_files_among_plain_mosaics_are_refused(write, folder):
    np.save(folder / "b.npy", np.zeros(SIZE, np.uint16))
    for paths in ((write("a.dng"), folder / "b.npy"), (folder / "b.npy", write("a.dng"))):
        sentence = refused(paths)
        assert "a.dng" in sentence and "b.npy" in sentence and "part them" in sentence


def test_a_damaged_file_in_a_folder_is_named(write):
    paths = [write(f"{i}.dng") for i in range(20)]
    paths[13].write_bytes(paths[13].read_bytes()[:-100])
    assert refused(paths).startswith(f"cannot read {paths[13]}")


# --- its file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ({"iso": 100}, {"gains": None, "matrix": np.zeros((3, 3))}))
def test_a_profile_is_written_and_read(write, tmp_path, options):
    profile = profile_of((write("a.dng", **options), write("b.dng", black=70, **options)))
    (tmp_path / "camera.json").write_text(json.dumps(to_dict(profile)))
    assert load(tmp_path / "camera.json") == profile == from_dict(to_dict(profile), "")


def damages():
    """Each field with a value of another kind, and contents that are no profile."""
    values = {
        "sensor": [1, {}, {"cfa": "rgbg"}],
        "size": [[1], [0, 2], "ab"],
        "count": [0, "x"],
        "iso": [None, ["a", "b"]],
    }
    values |= {"red_gain": [[1, 2], [1, 0, 1], ["a", "b", "c"], [1, float("nan"), 1]], "make": [5], "noise": ["x", [1]]}
    return [(name, value) for name, several in values.items() for value in several]


@pytest.mark.parametrize(("name", "value"), damages())
def test_a_damaged_profile_is_refused(write, tmp_path, name, value):
    content = to_dict(profile_of((write("a.dng", iso=100),))) | {name: value}
    (tmp_path / "camera.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="camera.json is not a camera profile: write it with python -m data.camera"):
        load(tmp_path / "camera.json")


@pytest.mark.parametrize(
    "content", (b"", b"{", b"[]", b"3", b"{}", b'{"camera": {"cfa": "rggb"}}', b"\xff\xfe", b"[" * 9999)
)
def test_something_else_is_no_profile(tmp_path, content):
    (tmp_path / "camera.json").write_bytes(content)
    with pytest.raises(UserError, match="camera.json is not a camera profile"):
        load(tmp_path / "camera.json")
    with pytest.raises(UserError, match="no file .*absent.json"):
        load(tmp_path / "absent.json")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(call, monkeypatch, tmp_path):
    """command(*arguments): exit status and output of python -m data.camera, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for cached in (look_at, profile_of):  # another test has had other files of these names
        cached.cache_clear()
    return lambda *arguments: call(camera, *arguments)


def test_the_command_writes_and_tells_the_profile(write, command, tmp_path):
    write("a.dng", iso=100)
    write("b.dng", iso=200, gains=(2.2, 1.7))
    status, output = command("raws")
    assert status == 0 and load(tmp_path / "camera.json").count == 2
    for part in ("Maker Phone 1, 2 files, 96x64", "rggb", "black 58 58 58 58", "white 1023", "red 2.10", "100 to 200"):
        assert part in output
    assert command("raws", "-o", "camera.json")[0] == 0  # again: a profile is replaced


def test_the_command_takes_plain_mosaics_with_options(command, folder, tmp_path):
    for i in range(3):
        np.save(folder / f"{i}.npy", sampled(SCENE * (0.5, 1, 0.5), "bggr", 64, 1000))
    status, output = command("raws")
    assert status == 2 and "raws holds plain mosaics: give --cfa, --black-level and --white-level" in output
    levels = ("--cfa", "bggr", "--black-level", 64, 64, 64, 64, "--white-level", 1000)
    status, output = command("raws", *levels, "-o", "new/own.json")
    assert status == 0 and "not named" not in output and "estimated, the camera notes none" in output
    profile = load(tmp_path / "new" / "own.json")
    assert profile.sensor == Sensor("bggr", (64.0,) * 4, 1000.0) and profile.gains == pytest.approx((2, 1, 2), rel=0.05)


GOOD = dng(sampled(SCENE))


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    (
        ({}, ["absent"], "no folder absent"),
        ({}, ["raws"], "no images in raws .*it is empty"),
        ({"a.txt": b""}, ["raws"], "no images in raws .*1 files in raws are not read"),
        (
            {"a.dng": GOOD},
            ["raws", "--cfa", "rggb"],
            "the files in raws note their CFA order and levels: leave the opt",
        ),
        ({"a.dng": b"x" * 999}, ["raws"], "cannot read raws/a.dng"),
        ({"a.nef": b"II*\0" + bytes(999)}, ["raws"], "cannot read raws/a.nef"),
        (
            {"a.dng": GOOD, "o.json": b"[]"},
            ["raws", "-o", "raws/o.json"],
            "raws/o.json exists and is not a camera prof",
        ),
        ({"a.dng": GOOD}, ["raws", "-o", "raws"], "raws exists and is not a camera profile: choose another --output"),
        ({"a.dng": GOOD}, ["raws", "-o", "raws/a.dng"], "raws/a.dng exists and is not a camera profile"),
    ),
)
def test_a_mistake_ends_with_a_sentence_and_writes_nothing(command, folder, files, arguments, message):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    before = sorted(folder.parent.rglob("*"))
    output = refused_by(command, *arguments)
    assert re.search(message, output) and sorted(folder.parent.rglob("*")) == before


def refused_by(command, *arguments) -> str:
    status, output = command(*arguments)
    assert status == 2 and output.count("error: ") == 1 and "Traceback" not in output, output
    return output


def test_what_is_no_regular_file_is_refused(command, folder):
    (folder / "a.dng").symlink_to("gone")
    assert "a.dng is a link to gone, which is missing" in refused_by(command, "raws")
    (folder / "a.dng").unlink()
    (folder / "a.dng").mkdir()
    assert "a.dng is a folder" in refused_by(command, "raws")


def test_every_suffix_of_camera_files_is_known_to_the_folders(folder, write, command):
    for i, suffix in enumerate(sorted(CAMERA_FILES)):
        write(f"{i}{suffix}")  # LibRaw looks at the content
    status, output = command("raws")
    assert status == 0 and f"{len(CAMERA_FILES)} files" in output


def test_names_that_are_no_utf8_are_read_and_told(folder, write, command):

    write("a.dng")
    other = os.fsdecode(b"\xff\xfe.dng")
    write(other, camera=("B", "C"))
    status, output = command("raws")
    assert status == 2 and "has the camera" in output and output.encode("utf-8")
