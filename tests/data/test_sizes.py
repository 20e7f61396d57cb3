"""Sizes of files from their headers: those of the decoded files, and what is too small for a patch."""

import imageio.v3 as iio
import numpy as np
import pytest

from data import sizes
from data.files import read_mosaic
from data.photographs import read_photo
from data.sensor import Sensor
from data.sizes import refuse_smaller, size_of
from errors import UserError

from ..dng import dng

SENSOR = Sensor("rggb", (64.0,) * 4, 1023.0)
MOSAIC = np.random.default_rng(0).integers(64, 900, (64, 96)).astype(np.uint16)
HEADLESS = (64, 96)


@pytest.fixture
def folder(tmp_path):
    """A mosaic in every format."""
    for suffix in ("png", "tif"):
        iio.imwrite(tmp_path / f"m.{suffix}", MOSAIC)
    np.save(tmp_path / "m.npy", MOSAIC)
    np.save(tmp_path / "packed.npy", np.zeros((32, 48, 4), np.uint16))
    (tmp_path / "m.raw").write_bytes(MOSAIC.tobytes())
    (tmp_path / "m.pgm").write_bytes(b"P5\n# made by hand\n96 64\n1023\n" + MOSAIC.astype(">u2").tobytes())
    (tmp_path / "m.dng").write_bytes(dng(MOSAIC, black=64, active=(0, 0, 64, 96)))
    return tmp_path


def test_the_size_of_each_format_is_that_of_the_decoded_mosaic(folder):
    for path in folder.iterdir():
        assert size_of(path, HEADLESS) == read_mosaic(path, SENSOR, HEADLESS).shape == (64, 96), path


@pytest.mark.parametrize("suffix", ("png", "jpg", "tif", "webp"))
def test_the_size_of_a_photograph(tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    iio.imwrite(path, np.zeros((40, 60, 3), np.uint8))
    assert size_of(path) == read_photo(path).shape[:2] == (40, 60)


def test_a_file_smaller_than_a_patch_is_named(folder, tmp_path):
    paths = sorted(folder.iterdir())
    refuse_smaller(paths, 64, HEADLESS)
    refuse_smaller((), 64)
    iio.imwrite(tmp_path / "small.png", MOSAIC[:60])
    with pytest.raises(UserError, match=r"small.png is 60x96, smaller than a patch of 64: lower --data.patch"):
        refuse_smaller([*paths, tmp_path / "small.png"], 64, HEADLESS)


@pytest.mark.parametrize("name", ("m.png", "m.npy", "m.pgm", "m.dng"))
def test_damaged_and_missing_files_are_left_to_their_readers(tmp_path, name):
    (tmp_path / name).write_bytes(b"damaged")
    refuse_smaller([tmp_path / name, tmp_path / f"missing-{name}"], 64)
    with pytest.raises(UserError):
        size_of(tmp_path / name)


def test_files_of_a_large_dataset_are_looked_at_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "LOOKED_AT", 4)
    seen = []
    monkeypatch.setattr(sizes, "size_of", lambda path, headless: seen.append(path) or (64, 64))
    refuse_smaller(list(range(10)), 64)
    assert seen == [0, 3, 6, 9]
