"""Single files of one camera become files of the other: geometry, levels, light."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.raw_maps import LinearMap
from data.sensor import CFA_ORDERS, Sensor, offsets
from tasks.conversion import Converter, Shot, moved

CPU = torch.device("cpu")
PLAIN = Sensor("rggb", (64.0,) * 4, 1023.0)


def sampled(colours: np.ndarray, cfa: str) -> np.ndarray:
    """What a sensor records of digital numbers (H, W, 3)."""
    mosaic = np.empty(colours.shape[:2], np.uint16)
    for channel, (row, column) in offsets(cfa).items():
        mosaic[row::2, column::2] = colours[row::2, column::2, "RGB".index(channel[0])]
    return mosaic


def converter(source: Sensor, target: Sensor, fitted=LinearMap()) -> Converter:  # noqa: B008 - frozen
    mapper = SimpleNamespace(
        source="x", name="x", sensors={"a": source, "b": target}, cameras={}, map=lambda planes, to, m: fitted(planes)
    )
    return Converter(mapper, "b", 1, CPU)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("wanted", CFA_ORDERS)
def test_every_pixel_keeps_its_neighbours_in_any_pair_of_cfa_orders(cfa, wanted):
    """The mosaic is what a sensor of the wanted order records of the same scene from the next row or column on."""
    scene = np.random.default_rng(0).integers(64, 1024, (12, 16, 3))
    source, target = replace(PLAIN, cfa=cfa), replace(PLAIN, cfa=wanted)
    found = converter(source, target).convert(Shot("x", sampled(scene, cfa), source, None)).mosaic
    down, right = (int(a != b) for a, b in zip(offsets(cfa)["R"], offsets(wanted)["R"], strict=True))
    expected = sampled(np.roll(scene, (-down, -right), (0, 1)), wanted)
    assert np.array_equal(found[: 12 - down, : 16 - right], expected[: 12 - down, : 16 - right])
    assert found.shape == (12, 16)


def test_the_last_column_repeats_one_of_its_own_colours():
    mosaic = np.arange(24).reshape(4, 6)
    assert moved(mosaic, "rggb", "grbg").tolist()[0] == [1, 2, 3, 4, 5, 4]
    assert moved(mosaic, "rggb", "bggr").tolist()[3] == [13, 14, 15, 16, 17, 16]
    assert moved(mosaic, "rggb", "rggb") is mosaic


def test_levels_are_brought_to_those_of_the_other_camera():
    target = Sensor("rggb", (200.0, 210.0, 220.0, 230.0), 4095.0)
    mosaic = np.full((4, 4), 64 + 959 // 7, np.uint16)  # a seventh of the range
    found = converter(PLAIN, target).convert(Shot("x", mosaic, PLAIN, None)).mosaic
    assert found[:2, :2].tolist() == [[756, 765], [774, 782]]


def test_gains_follow_the_mean_colour():
    half = LinearMap(((0.5, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 2.0)))
    shot = Shot("x", np.full((8, 8), 300, np.uint16), PLAIN, SimpleNamespace(gains=(2.0, 1.5)))
    assert converter(PLAIN, PLAIN, half).convert(shot).gains == pytest.approx((4.0, 0.75))
    assert converter(PLAIN, PLAIN, half).convert(replace(shot, notes=SimpleNamespace(gains=None))).gains is None
