"""What shows that two pictures of the same pixels agree or do not."""

import numpy as np
import pytest

from data.agreement import EDGE, correlation, inside, lost_highlights, round_trip


def test_correlation_is_that_of_the_neighbourhood():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (120, 160), np.uint8)
    second = (first // 2 + 60).astype(np.uint8)
    second[:, 80:] = rng.integers(0, 256, (120, 80), np.uint8)
    ncc, contrast = correlation(first, second)
    assert ncc[:, :60].min() > 0.97 and np.abs(ncc[20:100, 100:140]).mean() < 0.3
    flat = np.full((64, 64), 90, np.uint8)
    ncc, contrast = correlation(flat, flat)
    assert not ncc.any() and not contrast.any()
    assert correlation(flat, first[:64, :64])[1].min() > 4  # contrast in one of them is enough to compare


def test_a_flow_there_and_back_ends_where_it_began():
    there = np.zeros((40, 50, 2), np.float32) + np.float32([2.0, -1.0])
    assert round_trip(there, -there) == pytest.approx(0)
    assert round_trip(there, np.zeros_like(there)) == pytest.approx(np.sqrt(5))


def test_the_very_edge_of_the_photograph_is_outside():
    places = np.float32([[[EDGE, EDGE], [EDGE - 0.1, 30], [99 - EDGE, 49 - EDGE], [50, 50 - EDGE]]])
    assert inside(places, (50, 100, 3)).tolist() == [[True, False, True, False]]


def test_highlights_are_lost_where_only_the_sensor_is_saturated():
    white, grey = np.full((1, 1, 3), 255, np.uint8), np.full((1, 1, 3), 180, np.uint8)
    red = np.uint8([[[255, 80, 80]]])
    answers = [lost_highlights(a, b).item() for a, b in ((white, grey), (white, white), (grey, white), (red, grey))]
    assert answers == [True, False, False, False]
