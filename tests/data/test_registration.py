"""Homographies of features, what is plausible, and what makes two pictures comparable."""

import cv2
import numpy as np
import pytest

from data.registration import (
    fit_homography,
    is_plausible,
    low_pass,
    matches,
    normalise,
    scale_of,
    scaling,
    transform,
    with_tones_of,
)


def test_a_homography_is_fitted_in_spite_of_wrong_matches():
    rng = np.random.default_rng(0)
    matrix = np.array([[1.02, 0.03, 5.0], [-0.02, 0.99, -3.0], [1e-5, 2e-5, 1.0]])
    first = rng.uniform(0, 500, (200, 2))
    second = transform(first, matrix)
    second[:60] = rng.uniform(0, 500, (60, 2))
    found, inliers = fit_homography(first, second, 1.5)
    assert np.allclose(found / found[2, 2], matrix, atol=1e-3)
    assert inliers[60:].all() and inliers[:60].sum() < 5
    assert fit_homography(first[:3], second[:3], 1.5)[0] is None


def test_matches_are_unambiguous_and_used_once():
    eye = np.eye(4, dtype=np.float32)
    first = np.concatenate((eye[:3], eye[:1] + 0.1 * eye[1:2], (eye[2:3] + eye[3:]) / 2))
    assert matches(first, eye, 0.8).tolist() == [[0, 0], [1, 1], [2, 2]]  # the 4th is farther from 0, the 5th between
    assert matches(eye[:1], eye, 0.8).shape == matches(eye, eye[:0], 0.8).shape == (0, 2)


@pytest.mark.parametrize(
    ("matrix", "plausible"),
    (
        (np.eye(3), True),
        (np.array([[0.0, -1.5, 90], [1.5, 0, 0], [0, 0, 1]]), True),  # turned by 90 degrees, larger
        (np.diag([-1.0, 1, 1]), False),  # mirrored
        (np.diag([0.01, 0.01, 1]), False),  # tiny
        (np.diag([8.0, 1, 1]), False),  # stretched
        (np.array([[1.0, 0, 0], [0, 1, 0], [-0.02, 0, 1]]), False),  # folded
        (np.full((3, 3), np.nan), False),
    ),
)
def test_what_a_camera_could_see(matrix, plausible):
    assert is_plausible(matrix, (60, 90)) is plausible


def test_scaling_keeps_the_centres_of_pixels():
    matrix = scaling((100, 200), (50, 50))
    assert transform([[0.5, 0.5], [199.5, 99.5]], matrix) == pytest.approx(np.array([[-0.25, 0.0], [49.5, 49.5]]))
    assert scale_of(matrix, (100, 200)) == pytest.approx(np.sqrt(1 / 8))


def test_normalised_images_do_not_depend_on_brightness_and_contrast():
    image = np.random.default_rng(0).integers(60, 120, (64, 64)).astype(np.float32)
    assert np.abs(normalise(2 * image + 10) - normalise(image)).max() < 0.3  # but for the share that damps noise
    assert np.abs(normalise(np.full((64, 64), 99.0))).max() < 1e-5


def test_tones_become_those_of_the_other_picture():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    curve = np.rint(255 * (np.arange(256) / 255) ** 0.5).astype(np.uint8)
    where = np.zeros((64, 64), np.uint8)
    where[:, :48] = 1
    other = curve[image]
    other[:, 48:] = 7  # not looked at
    assert np.array_equal(with_tones_of(image, other, where), curve[image])
    assert np.array_equal(with_tones_of(image, other, 0 * where), image)


def test_a_low_pass_removes_what_a_smaller_picture_cannot_show():
    stripes = np.tile(np.uint8([0, 255]), (64, 32))
    stripes = np.repeat(stripes[..., None], 3, axis=2)
    assert low_pass(stripes, 1.0) is stripes
    assert np.ptp(low_pass(stripes, 3.0)[8:-8, 8:-8]) < 12
    wide = np.repeat(np.repeat(np.uint8([[0, 255]]), 64, axis=0), 32, axis=1)
    assert np.ptp(low_pass(cv2.merge([wide] * 3), 3.0)) == 255
