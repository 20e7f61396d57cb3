"""Every stage of the simulated camera, against its inverse or a value worked out by hand."""

import numpy as np
import pytest

from data import unprocess
from data.sensor import CFA_ORDERS, SENSORS
from data.unprocess import Camera
from errors import UserError

NOISELESS = Camera.random(0, shot=0.0)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(8, 6, 3))


def test_tone_curve_and_gamma_are_inverted(image):
    assert unprocess.smoothstep(0.25) == pytest.approx(3 / 16 - 2 / 64)
    np.testing.assert_allclose(unprocess.smoothstep(unprocess.inverse_smoothstep(image)), image, atol=1e-12)
    np.testing.assert_allclose(unprocess.inverse_smoothstep(unprocess.smoothstep(image)), image, atol=1e-12)
    np.testing.assert_allclose(unprocess.gamma_compress(unprocess.gamma_expand(image)), image, atol=1e-12)


def test_the_colour_matrix_keeps_grey_and_is_inverted(image):
    np.testing.assert_allclose(unprocess.apply_matrix(np.full((1, 1, 3), 0.3), NOISELESS.rgb2cam), 0.3)
    camera = unprocess.apply_matrix(image, NOISELESS.rgb2cam)
    np.testing.assert_allclose(unprocess.apply_matrix(camera, np.linalg.inv(NOISELESS.rgb2cam)), image, atol=1e-12)


def test_gains_are_inverted_below_the_highlights_and_white_stays_white(image):
    dark = image * 0.9
    np.testing.assert_allclose(
        unprocess.apply_gains(unprocess.safe_invert_gains(dark, NOISELESS), NOISELESS), dark, atol=1e-12
    )
    np.testing.assert_allclose(unprocess.safe_invert_gains(np.ones((1, 1, 3)), NOISELESS), 1)


def test_the_forward_pipeline_inverts_unprocess(image):
    photo = 0.3 + 0.3 * image  # inside the gamut of the camera, so nothing is clipped
    linear = unprocess.unprocess(photo, NOISELESS)
    back = unprocess.apply_matrix(unprocess.apply_gains(linear, NOISELESS), np.linalg.inv(NOISELESS.rgb2cam))
    np.testing.assert_allclose(unprocess.smoothstep(unprocess.gamma_compress(back)), photo, atol=1e-9)


@pytest.mark.parametrize(
    ("cfa", "raw", "black"),
    [
        ("rggb", [[100, 201, 102, 203], [210, 311, 212, 313]], [[58, 60], [61, 62]]),
        ("bggr", [[300, 201, 302, 203], [210, 111, 212, 113]], [[62, 61], [60, 58]]),
        ("grbg", [[200, 101, 202, 103], [310, 211, 312, 213]], [[60, 58], [62, 61]]),
        ("gbrg", [[200, 301, 202, 303], [110, 211, 112, 213]], [[61, 62], [58, 60]]),
    ],
)
def test_mosaic_and_black_levels_by_hand(cfa, raw, black):
    # Hundreds: 1 red, 2 green, 3 blue; tens: row; ones: column.
    image = np.array([[[100 * c + 10 * y + x for c in (1, 2, 3)] for x in range(4)] for y in range(2)])
    assert unprocess.mosaic(image, cfa).tolist() == raw
    assert unprocess.black_levels(Camera.random(0, cfa=cfa)).tolist() == black


@pytest.mark.parametrize("white", [1023, 16383])
def test_black_and_white_are_exact_without_noise(white):
    camera, rng = Camera.random(0, shot=0.0, white=white), np.random.default_rng(0)
    black = unprocess.expose(unprocess.unprocess(np.zeros((4, 4, 3), np.uint8), camera), camera, rng)
    assert black.dtype == np.uint16
    np.testing.assert_array_equal(black, np.tile([[58, 60], [61, 62]], (2, 2)))
    full = unprocess.expose(unprocess.unprocess(np.full((4, 4, 3), 255, np.uint8), camera), camera, rng)
    np.testing.assert_array_equal(full, white)


def test_quantise_rounds_and_clips():
    raw = np.array([[0.5, -1.0], [2.0, 1e-4]])
    assert unprocess.quantise(raw, NOISELESS).tolist() == [[540, 0], [1023, 62]]  # 58 + 965 / 2 = 540.5, to even


def test_noise_has_the_specified_variance():
    noise = unprocess.add_noise(np.full((500, 500), 0.25), 4e-3, 1e-3, np.random.default_rng(0)) - 0.25
    assert noise.var() == pytest.approx(4e-3 * 0.25 + 1e-3, rel=0.02)
    assert abs(noise.mean()) < 3e-4


def test_the_camera_is_determined_by_the_seed_and_within_the_published_ranges():
    assert Camera.random(3) == Camera.random(3) != Camera.random(4)
    camera = Camera.random(3)
    np.testing.assert_allclose(np.sum(camera.rgb2cam, axis=1), 1)
    assert 1.9 <= camera.red_gain <= 2.4 and 1.5 <= camera.blue_gain <= 1.9 and 1e-5 <= camera.shot <= 1e-4
    assert Camera.random(0, matrix=2).rgb2cam == Camera.random(1, matrix=2).rgb2cam != camera.rgb2cam


def test_a_camera_has_the_levels_of_fujifilm_by_default():
    assert (NOISELESS.cfa, NOISELESS.black, NOISELESS.white) == ("rggb", (58, 60, 61, 62), 1023)
    assert all(type(level) is int for level in (*NOISELESS.black, NOISELESS.white))
    sensor = SENSORS["fujifilm"]
    assert (NOISELESS.cfa, NOISELESS.black, NOISELESS.white) == (sensor.cfa, sensor.black_level, sensor.white_level)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(cfa="rgbg"), "'rgbg'.*" + ", ".join(CFA_ORDERS)),
        (dict(black=(0, 0, 0, 1023)), "black < white"),
        (dict(white=65536), "white <= 65535"),
        (dict(shot=-1.0), "negative"),
        (dict(matrix=4), "0 to 3"),
    ],
)
def test_an_impossible_camera_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Camera.random(0, **options)
