"""The noise of a camera is found from its mosaics alone."""

import dataclasses

import numpy as np
import pytest

from data.demo import demo_photographs
from data.noise import estimate_noise
from data.sensor import Sensor
from data.unprocess import Camera, expose, unprocess
from errors import UserError

SENSOR = Sensor("grbg", (58.0, 60.0, 61.0, 62.0), 1023.0)


def noisy(signal: np.ndarray, shot: float, read: float, seed: int = 0) -> np.ndarray:
    """Digital numbers of a signal in [0, 1], each site with the black level of `SENSOR`."""
    rng, mosaic = np.random.default_rng(seed), signal.copy()
    mosaic += rng.normal(size=signal.shape) * np.sqrt(shot * signal + read)
    black = np.array([[60.0, 58.0], [62.0, 61.0]])  # Gr R / B Gb
    black = np.tile(black, (signal.shape[0] // 2, signal.shape[1] // 2))
    return (black + mosaic * (1023 - black)).round().clip(0, 1023).astype(np.uint16)


@pytest.mark.parametrize(("shot", "read"), ((1e-3, 0.0), (1e-3, 1e-4), (1e-4, 1e-5), (0.0, 1e-4)))
def test_the_noise_of_a_smooth_scene_is_found(shot, read):
    signal = np.add.outer(np.linspace(0.05, 0.5, 512), np.linspace(0.0, 0.3, 512))
    found = estimate_noise([noisy(signal, shot, read)], SENSOR)
    assert found == pytest.approx((shot, read), rel=0.1, abs=6e-6)


def test_the_noise_of_simulated_photographs_is_found():
    camera = dataclasses.replace(Camera.random(0), shot=1e-3, read=1e-5)
    rng = np.random.default_rng(0)
    photos = [photo[: photo.shape[0] // 2 * 2, : photo.shape[1] // 2 * 2] for photo in demo_photographs().values()]
    mosaics = [expose(unprocess(photo, camera), camera, rng) for photo in photos]
    shot, read = estimate_noise(mosaics, Sensor(camera.cfa, tuple(map(float, camera.black)), float(camera.white)))
    assert shot == pytest.approx(1e-3, rel=0.3) and read < 5e-5


def test_clipped_pixels_do_not_count():
    signal = np.add.outer(np.linspace(0.05, 0.5, 512), np.linspace(0.0, 0.3, 512))
    signal[:, 256:] = 2.0
    assert estimate_noise([noisy(signal, 1e-3, 1e-5)], SENSOR) == pytest.approx((1e-3, 1e-5), rel=0.15, abs=1e-5)


@pytest.mark.parametrize("value", (0, 1023))
def test_mosaics_without_signal_are_refused(value):
    with pytest.raises(UserError, match="the noise cannot be estimated"):
        estimate_noise([np.full((512, 512), value, np.uint16)], SENSOR)
