"""Numbers about whole mosaics."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from data.conditions import normalise
from data.context import FLOOR, NUMBERS, statistics
from data.inputs import context_of
from data.patches import OfWhole
from data.sensor import CFA_ORDERS, Sensor, offsets
from models.efficient import CONTEXT

LEVELS = (58.0, 60.0, 61.0, 62.0)


def coloured(cfa: str, height: int = 64, width: int = 96) -> tuple[np.ndarray, Sensor]:
    """A mosaic that is red 0.2, green 0.4, blue 0.8 of white everywhere."""
    sensor, mosaic = Sensor(cfa, LEVELS, 1023.0), np.empty((height, width), np.float32)
    for (channel, (row, column)), black in zip(sorted_sites(cfa), LEVELS, strict=True):
        mosaic[row::2, column::2] = black + {"R": 0.2, "G": 0.4, "B": 0.8}[channel[0]] * (1023 - black)
    return mosaic, sensor


def sorted_sites(cfa: str) -> list[tuple[str, tuple[int, int]]]:
    sites = offsets(cfa)
    return [(channel, sites[channel]) for channel in ("R", "Gr", "Gb", "B")]


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_a_plain_image_by_hand(cfa):
    mosaic, sensor = coloured(cfa)
    context = context_of(torch.from_numpy(mosaic)[None, None] / 1023, sensor)[0]
    values = [math.log(x + FLOOR) for x in (0.2, 0.4, 0.8)]
    expected = torch.tensor(values + [math.log(FLOOR)] * 3 + values * 3)
    assert NUMBERS == CONTEXT == len(expected)
    torch.testing.assert_close(context, expected, atol=2e-3, rtol=0)


def test_noise_and_mirroring_hardly_change_it():
    linear = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(16, 2)
    linear = linear.repeat_interleave(16, 3)
    noisy = linear + 0.05 * torch.randn(linear.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(statistics(noisy), statistics(linear), atol=0.1, rtol=0)
    torch.testing.assert_close(statistics(linear.flip(2, 3)), statistics(linear))


def test_each_file_is_looked_at_once(monkeypatch):
    mosaic, sensor = coloured("rggb")
    contexts = OfWhole(partial(context_of, sensor=sensor), sensor)
    first = contexts(Path("a.png"), mosaic)
    assert torch.equal(contexts(Path("a.png"), np.zeros_like(mosaic)), first)
    brighter = contexts(Path("b.png"), normalise(mosaic, (2.0, 2.0, 2.0), sensor))
    assert (brighter > first)[[0, 1, 2]].all()
