"""One camera's files become another's with map_raw.py."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import map_raw
from data.camera import camera_notes
from data.files import Reader
from data.planes import to_planes
from data.sensor import mosaic_tensor
from tasks import closed_form

from .dng import dng
from .two_cameras import (
    CAMERAS,
    NAMES,
    SIZE,
    Doubling,
    dng_of,
    fit,
    mosaic_of,
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


def planes_as_b(camera: str, seed: int) -> torch.Tensor:
    """The planes of a file of camera a, from its second column on: there its order is camera b's."""
    mosaic = mosaic_of(camera, seed)
    mosaic = np.concatenate((mosaic[:, 1:], mosaic[:, -2:-1]), 1)
    return to_planes(mosaic_tensor(mosaic, CAMERAS["a"])[None], replace(CAMERAS["a"], cfa=CAMERAS["b"].cfa))


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ("a", "b"))
def test_files_have_levels_colours_and_name_of_the_other_camera(call, folders, tmp_path, to):
    source, out = folders["b" if to == "a" else "a"], tmp_path / "out"
    status, printed = call(map_raw, "--input", source, "--output", out, *fit(folders, to=to))
    assert status == 0 and f"mapped 10 of 10 files to camera {to} with gains: {out}" in printed
    assert names(out) == [f"{seed}.dng" for seed in range(10)]
    notes = camera_notes(out / "3.dng")
    assert notes.sensor == CAMERAS[to] and (notes.make, notes.model) == NAMES[to] and notes.size == SIZE


def test_pixels_are_those_of_the_map(call, folders, tmp_path):
    done = call(
        map_raw, "--input", folders["a"], "--output", tmp_path / "o", "--save", tmp_path / "m.json", *fit(folders)
    )
    assert done[0] == 0
    fitted = closed_form.load(tmp_path / "m.json").fitted
    planes = planes_as_b("a", 2)
    found = Reader(CAMERAS["b"]).recorded(tmp_path / "o" / "2.dng")
    found = to_planes(mosaic_tensor(found, CAMERAS["b"])[None], CAMERAS["b"])
    torch.testing.assert_close(found, fitted(planes).clamp(0, 1), atol=0.6 / 3839, rtol=0)
    matrix = np.array(fitted.matrix)
    assert np.array_equal(matrix, np.diag(np.diag(matrix))) and not np.allclose(matrix, np.eye(3), atol=0.05)


def test_the_moment_is_kept_and_grey_stays_grey(call, folders, tmp_path):
    """Gains of the map change the mosaic's light: the gains that were noted change with it."""
    (tmp_path / "one.dng").write_bytes(dng_of("a", 40, iso=800, orientation=6, gains=(2.0, 1.5)))
    options = ("--input", tmp_path / "one.dng", "--output", tmp_path / "out", "--save", tmp_path / "m.json")
    assert call(map_raw, *options, *fit(folders))[0] == 0
    notes, fitted = camera_notes(tmp_path / "out" / "one.dng"), closed_form.load(tmp_path / "m.json").fitted
    red, green, blue = np.diag(fitted.matrix)
    assert (notes.iso, notes.orientation) == (800, 6)
    assert notes.gains == pytest.approx((2.0 / red * green, 1.5 / blue * green), rel=2e-3)


def test_plain_mosaics_stay_of_their_format(call, plain, tmp_path):
    done = call(map_raw, "--input", plain["a"], "--output", tmp_path / "o", *fit(plain), *profiles(plain))
    assert done[0] == 0 and names(tmp_path / "o") == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.npy"]
    for name in ("0.png", "5.npy"):
        mosaic = Reader(CAMERAS["b"]).recorded(tmp_path / "o" / name)
        assert mosaic.dtype == np.uint16 and mosaic.shape == SIZE and mosaic.min() >= 256 and mosaic.max() > 1023


@pytest.mark.parametrize("kind", ("dng", "png", "npy"))
def test_any_format_holds_the_same_pixels(call, folders, tmp_path, kind):
    options = ("--input", folders["a"] / "1.dng", *fit(folders))
    for each in ("dng", kind):
        assert call(map_raw, *options, "--output", tmp_path / each, "--format", each)[0] == 0
    found = [Reader(CAMERAS["b"]).recorded(tmp_path / each / f"1.{each}") for each in ("dng", kind)]
    assert np.array_equal(*found)


def test_a_map_is_better_than_none(call, folders, tmp_path):
    """On a scene that neither side has shown, against what camera b would have recorded from the second column on."""
    (tmp_path / "new.dng").write_bytes(dng_of("a", 77))
    errors = {}
    for method in ("identity", "statistics"):
        options = ("--input", tmp_path / "new.dng", "--output", tmp_path / method, *fit(folders, method))
        assert call(map_raw, *options)[0] == 0
        found = Reader(CAMERAS["b"]).recorded(tmp_path / method / "new.dng").astype(float)
        errors[method] = np.abs(found - mosaic_of("b", 77, first=1))[:, :-2].mean()
    assert errors["statistics"] < 0.6 * errors["identity"]


# --- maps in files ---------------------------------------------------------------------------------------------------


def test_a_saved_map_gives_the_same_mosaics(call, folders, tmp_path):
    saved = tmp_path / "map.json"
    assert call(map_raw, "--save", saved, *fit(folders, "statistics"))[0] == 0
    one = ("--input", folders["a"] / "1.dng", "--to", "b")
    assert call(map_raw, *one, "--output", tmp_path / "saved", "--map", saved)[0] == 0
    assert call(map_raw, *one, "--output", tmp_path / "fitted", *fit(folders, "statistics"))[0] == 0
    assert (tmp_path / "saved" / "1.dng").read_bytes() == (tmp_path / "fitted" / "1.dng").read_bytes()
    status, printed = call(map_raw, "--input", folders["b"], "--output", tmp_path / "x", "--to", "a", "--map", saved)
    assert status == 2 and "is a map to camera b, not a: fit another" in printed and not (tmp_path / "x").exists()


def test_a_saved_map_is_not_lost_and_nothing_else_is_replaced(call, folders, tmp_path):
    saved, other = tmp_path / "map.json", tmp_path / "other.json"
    other.write_text("{}")
    status, printed = call(map_raw, "--save", other, *fit(folders))
    assert status == 2 and "is there already and is no map of map_raw.py" in printed and other.read_text() == "{}"
    assert call(map_raw, "--save", saved, *fit(folders))[0] == 0
    before = saved.read_bytes()
    status, printed = call(map_raw, "--save", saved, *fit(folders, "transport"))
    assert status == 2 and "--overwrite replaces it" in printed and saved.read_bytes() == before
    assert call(map_raw, "--save", saved, "--overwrite", *fit(folders, "transport"))[0] == 0
    assert json.loads(saved.read_text())["method"] == "transport"


@pytest.mark.parametrize("damage", (b"", b"[]", b"{", b'{"kind": "map between two cameras"}', b"\xff\xfe"))
def test_a_damaged_map_is_refused_by_name(call, folders, tmp_path, damage):
    (tmp_path / "m.json").write_bytes(damage)
    options = ("--input", folders["a"], "--output", tmp_path / "o", "--to", "b", "--map", tmp_path / "m.json")
    status, printed = call(map_raw, *options)
    assert status == 2 and "m.json is not a map of two cameras: write it with map_raw.py --save" in printed


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_maps_at_its_own_levels(call, folders, trained, tmp_path):
    path, mapper = trained
    options = ("--input", folders["a"] / "0.dng", "--output", tmp_path / "o", "--to", "b", "--checkpoint", path)
    status, printed = call(map_raw, *options, "--downsample", 4)
    assert status == 0 and "to camera b with mapper" in printed
    assert mapper.seen == [((1, 4, SIZE[0] // 2, SIZE[1] // 2), "b", 4)]
    found = Reader(CAMERAS["b"]).recorded(tmp_path / "o" / "0.dng")
    planes = planes_as_b("a", 0)
    wanted = to_planes(mosaic_tensor(found, CAMERAS["b"])[None], CAMERAS["b"])
    torch.testing.assert_close(wanted, (2 * planes).clamp(0, 1), atol=0.6 / 3839, rtol=0)


def test_values_that_are_not_finite_are_not_written(call, folders, trained, tmp_path):
    content = dng(np.full(SIZE, 1020, np.uint16), "rggb", CAMERAS["a"].black_level, 1023)
    (folders["a"] / "white.dng").write_bytes(content)
    options = ("--input", folders["a"], "--output", tmp_path / "o", "--to", "b", "--checkpoint", trained[0])
    status, printed = call(map_raw, *options)
    assert status == 1 and "gives values that are not finite" in printed and "1 of 11 files could not" in printed
    assert "white.dng" not in names(tmp_path / "o") and len(names(tmp_path / "o")) == 10
