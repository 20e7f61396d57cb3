"""Lens shading: gain maps against values computed by hand."""

import struct

import numpy as np
import pytest

from data.gain_maps import GAIN_MAP, GainMap, read_gain_maps

from ..dng import gain_maps

WHOLE = {"first": (0, 0), "last": (4, 4), "pitch": (1, 1), "spacing": (1.0, 1.0), "origin": (0.0, 0.0)}


def multiplied(signal: np.ndarray, **changes) -> np.ndarray:
    GainMap(**WHOLE | changes).multiply(signal)
    return signal


def test_gains_between_the_corners_by_hand():
    """The centres of four pixels lie at 1/8, 3/8, 5/8 and 7/8 of the side."""
    gains = np.array([[1, 5], [1, 5]], np.float32)
    found = multiplied(np.ones((4, 4), np.float32), gains=gains)
    np.testing.assert_allclose(found, np.broadcast_to((1.5, 2.5, 3.5, 4.5), (4, 4)))
    np.testing.assert_allclose(multiplied(np.ones((4, 4), np.float32), gains=gains.T), found.T)


def test_both_directions_together_by_hand():
    gains = np.array([[1, 1], [1, 9]], np.float32)  # 1 + 8 y x
    centres = np.array((1, 3, 5, 7)) / 8
    found = multiplied(np.ones((4, 4), np.float32), gains=gains)
    np.testing.assert_allclose(found, 1 + 8 * np.outer(centres, centres))


def test_only_the_pixels_of_a_map_are_multiplied():
    changes = {"first": (1, 0), "last": (3, 4), "pitch": (2, 2), "gains": np.full((2, 2), 3, np.float32)}
    expected = np.ones((4, 4))
    expected[1, [0, 2]] = 3
    np.testing.assert_allclose(multiplied(np.ones((4, 4), np.float32), **changes), expected)


def test_beyond_the_grid_its_border_counts():
    grid = {"spacing": (0.25, 0.25), "origin": (0.375, 0.375), "gains": np.array([[1, 2], [3, 4]], np.float32)}
    found = multiplied(np.ones((4, 4), np.float32), **grid)
    np.testing.assert_allclose(found, [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])


def test_an_area_larger_than_the_image_ends_with_it():
    found = multiplied(np.ones((4, 6), np.float32), last=(100, 100), gains=np.full((1, 1), 2, np.float32))
    assert (found == 2).all()


def test_maps_are_read_and_other_opcodes_left_out():
    maps = {"Gr": np.arange(6.0).reshape(2, 3), "B": np.ones((1, 1))}
    content = gain_maps("rggb", (10, 20), maps)
    other = struct.pack(">4I", 4, 0, 0, 5) + bytes(5)
    first, second = read_gain_maps(struct.pack(">I", 3) + other + content[4:])
    assert (first.first, first.last, first.pitch, first.spacing) == ((0, 1), (10, 20), (2, 2), (1.0, 0.5))
    assert np.array_equal(first.gains, maps["Gr"]) and second.first == (1, 1)
    assert read_gain_maps(struct.pack(">I", 1) + other) == []


@pytest.mark.parametrize(
    ("pitch", "points", "planes", "message"),
    (((0, 2), (1, 1), 1, "without pixels"), ((2, 2), (0, 1), 1, "without pixels"), ((2, 2), (1, 1), 3, "3 colours")),
)
def test_impossible_maps_are_refused(pitch, points, planes, message):
    content = struct.pack(">10I4dI", 0, 0, 4, 4, 0, 1, *pitch, *points, 1, 1, 0, 0, planes) + bytes(4)
    with pytest.raises(ValueError, match=message):
        read_gain_maps(struct.pack(">5I", 1, GAIN_MAP, 0, 0, len(content)) + content)


def test_a_list_that_ends_early_is_refused():
    content = gain_maps("rggb", (10, 20), {"R": np.ones((4, 4))})
    for length in (2, 10, 60, len(content) - 1):
        with pytest.raises((ValueError, struct.error)):
            read_gain_maps(content[:length])
