"""The mosaics that exports are compared on."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.files import Reader
from data.sensor import SENSORS
from errors import UserError
from exporting.scenes import Scene, evenly, read_scene, synthetic_scenes

from .conftest import OTHER

READER = Reader(SENSORS["fujifilm"])


@pytest.fixture
def pair(tmp_path):
    """A mosaic whose numbers are its rows times 20 and its columns, 30x26, and a photograph that says the same."""
    rows, columns = np.mgrid[:30, :26]
    iio.imwrite(tmp_path / "a.png", (20 * rows + columns).astype(np.uint16))
    iio.imwrite(tmp_path / "b.png", np.stack((rows, columns, 0 * rows), -1).astype(np.uint8))
    return tmp_path / "a.png", tmp_path / "b.png"


def test_the_middle_of_a_large_mosaic_on_the_same_cfa(pair):
    scene = read_scene(READER, *pair, largest=(12, 40))
    assert scene.name == "a.png" and scene.mosaic.shape == (1, 1, 12, 26) and scene.target.shape == (3, 12, 26)
    first = int(scene.target[0, 0, 0])
    assert first == 8 and scene.mosaic[0, 0, 0, 1] == 20 * first + 1  # even: (30 - 12) / 2 = 9, rounded down
    assert scene.target[1, 0, 1] == 1


def test_a_small_mosaic_is_whole(pair):
    scene = read_scene(READER, pair[0], None, largest=(1088, 1920))
    assert scene.mosaic.shape == (1, 1, 30, 26) and scene.target is None


def test_a_photograph_of_another_size_is_refused(pair, tmp_path):
    iio.imwrite(tmp_path / "c.png", np.zeros((30, 28, 3), np.uint8))
    with pytest.raises(UserError, match="30x28.*30x26"):
        read_scene(READER, pair[0], tmp_path / "c.png", (100, 100))


def test_tiling_keeps_the_cfa_order():
    mosaic = torch.arange(4.0).view(1, 1, 2, 2).repeat(1, 1, 2, 3)
    scene = Scene("x", mosaic, torch.zeros(3, 4, 6, dtype=torch.uint8))
    tiled = scene.of_size((6, 10))
    assert torch.equal(tiled.mosaic, torch.arange(4.0).view(1, 1, 2, 2).repeat(1, 1, 3, 5)) and tiled.target is None
    assert scene.of_size((4, 6)) is scene


def test_some_of_many_are_spread_over_all():
    assert evenly(range(10), 4) == [0, 2, 5, 7] and evenly("ab", 4) == ["a", "b"]


@pytest.mark.parametrize("sensor", (SENSORS["fujifilm"], OTHER), ids=("fujifilm", "other"))
def test_made_up_mosaics_are_the_same_each_time_and_cover_the_range(sensor):
    first, again = list(synthetic_scenes(sensor)), list(synthetic_scenes(sensor))
    assert all(torch.equal(a.mosaic, b.mosaic) for a, b in zip(first, again, strict=True))
    assert [scene.name for scene in synthetic_scenes(sensor, 158)] == ["synthetic 0", "synthetic 1"]
    for scene in first:
        assert not any(side % 2 for side in scene.mosaic.shape[-2:])
        assert min(sensor.black_level) <= scene.mosaic.min() and scene.mosaic.max() <= sensor.white_level
        assert scene.mosaic.std() > 0.1 * sensor.white_level
