"""Displacements of the cells, and the test whether they help."""

import cv2
import numpy as np
import pytest

from data.local_motion import CELL, REDUCTIONS, cells_of, dense, displacements, helps


@pytest.fixture
def texture() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(160, 480))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return (128 + 40 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def moved(image: np.ndarray, x: float, y: float) -> np.ndarray:
    return cv2.warpAffine(
        image,
        np.float32([[1, 0, x], [0, 1, y]]),
        image.shape[::-1],
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )


def test_a_shift_is_measured_in_pixels_with_its_sign(texture):
    inside = np.ones((10, 30), np.float32)
    field = np.zeros((10, 30, 2), np.float32)
    found = displacements(texture, moved(texture, 0.5, -0.3), inside, field, reduction=1)
    assert found[2:-2, 2:-2, 0] == pytest.approx(0.5, abs=0.1) and found[2:-2, 2:-2, 1] == pytest.approx(-0.3, abs=0.1)
    field *= 0
    for reduction in REDUCTIONS:  # coarse to fine
        field = displacements(texture, moved(texture, 4.0 - field[..., 0].mean(), 0.0), inside, field, reduction)
    assert field[..., 0].mean() == pytest.approx(4.0, abs=0.1) and field[..., 1].mean() == pytest.approx(0, abs=0.1)
    assert np.abs(field - (4.0, 0.0)).max() < 0.7


def test_cells_without_detail_follow_their_neighbours(texture):
    flat = texture.copy()
    flat[64:96, 80:112] = 128
    found = displacements(
        flat, moved(flat, 0.5, 0.0), np.ones((10, 30), np.float32), np.zeros((10, 30, 2), np.float32), 1
    )
    assert found[4:6, 5:7, 0].min() > 0.3 and found[4:6, 5:7, 0].max() < 0.6
    empty = np.full_like(flat, 128)
    assert not displacements(empty, empty, np.ones((10, 30), np.float32), np.zeros((10, 30, 2), np.float32), 1).any()


def test_only_what_raises_the_correlation_helps(texture):
    inside = np.ones((10, 30), np.float32)
    worse = moved(texture, 2.0, 0.0)
    assert helps(texture, worse, texture, inside).min() > 0.95
    assert not helps(texture, texture, worse, inside).any()
    assert not helps(texture, worse, worse, inside).any()
    noisy = (texture + np.random.default_rng(1).normal(0, 9, texture.shape)).clip(0, 255).astype(np.uint8)
    half = moved(noisy, 2.0, 0.0)
    half[:, :240] = noisy[:, :240]  # the left half is right already
    kept = helps(texture, half, noisy, inside)
    assert kept[:, 18:].min() > 0.9 and kept[:, :4].max() < 0.1


def test_values_of_cells_lie_at_the_middles_of_the_cells():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = dense(values, (2 * CELL, 3 * CELL))
    centres = found[CELL // 2 - 1 : None : CELL, CELL // 2 - 1 : None : CELL]  # half a pixel before the middles
    assert centres == pytest.approx(values, abs=0.2)
    assert np.array_equal(found[5:9], dense(values, (2 * CELL, 3 * CELL), slice(5, 9)))
    assert cells_of(found)[:, 1] == pytest.approx(values[:, 1] + (0.375, -0.375), abs=0.01)  # flat beyond the middles
