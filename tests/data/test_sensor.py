"""CFA geometry and levels against values worked out by hand."""

import numpy as np
import pytest
import torch

from data.sensor import CFA_ORDERS, SENSORS, Sensor, mosaic_tensor, offsets
from errors import UserError

from .by_hand import BY_HAND, LEVELS

FUJIFILM = SENSORS["fujifilm"]


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_offsets_by_hand(cfa):
    assert offsets(cfa) == BY_HAND[cfa]


@pytest.mark.parametrize("black", ((0.0, 0.0, 0.0), (0.0,) * 5))
def test_a_black_level_needs_four_values(black):
    with pytest.raises(UserError, match=f"four values .R, Gr, Gb, B., not {len(black)}"):
        Sensor("rggb", black, 100.0)


@pytest.mark.parametrize("black, white", ((100.0, 100.0), (-1.0, 100.0), (0.0, 0.0), (float("nan"), 100.0)))
def test_black_must_lie_below_white(black, white):
    with pytest.raises(UserError, match=f"white_level = {white:g}"):
        Sensor("rggb", (0.0, 0.0, 0.0, black), white)


def test_files_keep_their_black_level_and_white_becomes_one():
    tensor = mosaic_tensor(np.array([[0, 62], [1023, 341]], np.uint16), FUJIFILM)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, torch.tensor([[[0, 62 / 1023], [1, 1 / 3]]]))


@pytest.mark.parametrize(
    "mistake",
    (
        lambda: Sensor("rgbg", LEVELS, 100.0),
        lambda: offsets("RGGB"),
    ),
)
def test_an_unknown_order_lists_the_known_ones(mistake):
    with pytest.raises(UserError, match=", ".join(CFA_ORDERS)):
        mistake()
