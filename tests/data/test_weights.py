"""Weights of photographs: the means match, chance is told from difference, and no weight is lost in resampling."""

import numpy as np
import pytest

from data.weights import balance, chance_of_gap, components, effective_number, resample
from errors import UserError


def points(count: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)) + shift


def test_balanced_points_have_the_wanted_mean():
    some, wanted = points(300), np.array([0.4, -0.3, 0.2, 0.0, 0.1, 0.5])
    weights = balance(some, wanted)
    assert weights.min() > 0 and weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights @ some, wanted, atol=1e-3)
    assert 100 < effective_number(weights) < 300


def test_points_that_have_the_mean_already_keep_equal_weights():
    some = points(200)
    np.testing.assert_allclose(balance(some, some.mean(0)), 1 / 200, rtol=1e-3)
    assert effective_number(np.full(200, 1 / 200)) == pytest.approx(200)


def test_a_mean_outside_all_points_is_refused():
    with pytest.raises(UserError, match="collect photographs of such scenes, or use --data.weights equal"):
        balance(points(50), np.full(6, 9.0))


def test_chance_is_told_from_difference():
    assert chance_of_gap(points(150), points(150, shift=0.4, seed=1)) == pytest.approx(0.001)
    alike = [chance_of_gap(points(60, seed=2 * i), points(60, seed=2 * i + 1), seed=i) for i in range(10)]
    assert np.mean(alike) > 0.25 and min(alike) > 0.001


def test_components_are_whitened_together():
    first, second = points(80) @ np.diag([5, 1, 1, 1, 1, 1]), points(40, shift=1.0, seed=1)
    both = np.concatenate(components(first, second, 3))
    assert both.shape == (120, 3)
    np.testing.assert_allclose(both.T @ both / 120, np.eye(3), atol=1e-9)


def test_constant_features_have_no_component():
    assert components(np.ones((5, 4)), np.ones((6, 4)), 3)[0].shape[1] <= 1


def test_resampling_repeats_each_item_by_its_weight():
    chosen = resample(np.array([0.5, 0.0, 0.25, 0.25]), copies=4)
    assert np.bincount(chosen, minlength=4).tolist() == [8, 0, 4, 4] and (np.diff(chosen) >= 0).all()
