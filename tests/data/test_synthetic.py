"""Synthetic pairs: a photograph, and the mosaic that a camera would have recorded of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache import Files
from data.files import Reader
from data.folders import Split
from data.inputs import context_of
from data.sensor import Sensor
from data.synthetic import SyntheticCamera, SyntheticContexts, SyntheticPatches
from data.transport import GAMMA, ColorMap, camera_colors, fit_color_map, invert, round_trip_error
from errors import UserError

SENSOR = Sensor("gbrg", (58.0, 60.0, 61.0, 62.0), 1023.0)
IDENTITY = ColorMap(((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), degree=1)


def camera(inverse: ColorMap = IDENTITY, shot: float = 0.0, read: float = 0.0) -> SyntheticCamera:
    return SyntheticCamera(SENSOR, inverse, shot, read)


def test_each_site_records_its_colour_above_its_black_level():
    photo = np.tile(np.array([51, 102, 204], np.uint8), (4, 6, 1))
    mosaic = camera().record(photo, np.random.default_rng(0))
    red, green, blue = (np.array([51, 102, 204]) / 255) ** GAMMA
    expected = [[61 + green * 962, 62 + blue * 961], [58 + red * 965, 60 + green * 963]]  # Gb B / R Gr
    assert mosaic.dtype == np.uint16 and (mosaic == np.tile(np.round(expected), (2, 3))).all()


def test_what_a_camera_records_is_rendered_as_the_photograph():
    """Black levels, gamma and CFA order cancel: demosaiced by hand, the colours come back."""
    photo = np.random.default_rng(0).integers(0, 256, (1, 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    mosaic = camera().record(photo, np.random.default_rng(0)).astype(np.float32)
    demosaiced = torch.tensor([mosaic[1, 0], (mosaic[0, 0] + mosaic[1, 1]) / 2, mosaic[0, 1]]).view(1, 3, 1, 1)
    found = 255 * camera_colors(demosaiced, SENSOR).flatten()
    torch.testing.assert_close(found, torch.from_numpy(photo[0, 0]).float(), atol=1.5, rtol=0)


def test_the_noise_has_the_variance_that_is_asked_for():
    photo = np.full((400, 400, 3), 188, np.uint8)
    signal, rng = (188 / 255) ** GAMMA, np.random.default_rng(0)
    mosaic = camera(shot=1e-3, read=1e-4).record(photo, rng)[0::2, 1::2].astype(float)  # the sites of blue
    assert mosaic.std() / 961 == pytest.approx((1e-3 * signal + 1e-4) ** 0.5, rel=0.02)


def test_values_are_clipped_as_the_camera_clips():
    bright = ColorMap(((2.0, 2.0, 2.0), *[(0.0, 0.0, 0.0)] * 3), degree=1)
    dark = ColorMap(((-1.0, -1.0, -1.0), *[(0.0, 0.0, 0.0)] * 3), degree=1)
    photo = np.zeros((4, 4, 3), np.uint8)
    assert (camera(bright, read=1e-3).record(photo, np.random.default_rng(0)) <= 1023).all()
    assert (camera(dark).record(photo, np.random.default_rng(0))[1::2, 0::2] == 58).all()


def test_a_sensor_of_more_than_16_bits_is_refused():
    with pytest.raises(UserError, match="synthetic mosaics have 16 bits, but the white level is 70000"):
        SyntheticCamera(Sensor("rggb", (0.0,) * 4, 70000.0), IDENTITY, 0.0, 0.0)


def test_a_fitted_map_can_be_inverted():
    rng = np.random.default_rng(0)
    colors = rng.beta((1, 2, 3), (3, 2, 4), size=(20_000, 3))
    photographs = (
        rng.beta((1, 2, 3), (3, 2, 4), size=(20_000, 3)) @ [[0.8, 0, 0], [0.2, 0.9, 0.1], [0, 0, 0.8]]
    ) ** 0.8
    color_map = fit_color_map(colors, photographs)
    inverse = invert(color_map, colors)
    assert round_trip_error(color_map, inverse, color_map.of_pixels(colors).clip(0, 1)) < 0.01
    assert np.abs(inverse.of_pixels(color_map.of_pixels(colors)) - colors).mean() < 0.01


@pytest.fixture
def patches(tmp_path, make_pairs) -> SyntheticPatches:
    make_pairs(tmp_path / "raws", tmp_path / "photos", 6, 0)
    raws, photos = (tuple(sorted((tmp_path / name).iterdir())) for name in ("raws", "photos"))
    files = Files(Reader(SENSOR))
    return SyntheticPatches(Split(raws[:2], photos[2:], paired=False), files, camera(), 32, seed=0, stage=0, flips=True)


def test_a_patch_is_a_pair(patches):
    """Without noise, and with the identity as the map, each site has the value of its target's pixel."""
    sample = patches[3]
    assert sample["mosaic"].shape == (1, 32, 32) and sample["target"].shape == (3, 32, 32)
    red = sample["target"][0, 1::2, 0::2] ** GAMMA * (1023 - 58) + 58
    torch.testing.assert_close(sample["mosaic"][0, 1::2, 0::2] * 1023, red.round(), atol=1.01, rtol=0)


def test_a_patch_depends_on_its_number_alone(patches):
    noisy = SyntheticPatches(
        patches.split, patches.files, camera(shot=1e-2, read=1e-3), 32, seed=0, stage=0, flips=True
    )
    assert all(torch.equal(noisy[5][name], noisy[5][name]) for name in ("mosaic", "target"))
    assert not torch.equal(noisy[5]["mosaic"], patches[5]["mosaic"])
    assert torch.equal(noisy[5]["target"], patches[5]["target"])


def test_the_mosaics_of_the_split_are_not_read(patches):
    for path in patches.split.raws:
        path.unlink()
    assert patches[0]["mosaic"].shape == (1, 32, 32)


# --- normalised mosaics ----------------------------------------------------------------------------------------------

GAINS = ((2.0, 1.0, 4.0), (1.0, 0.5, 2.0))


def test_a_mosaic_is_recorded_under_its_light_and_normalised():
    """Grey under a green light: the saturated mosaic is dark in red and blue; the normalised one is grey again."""
    photo, lit = np.full((64, 64, 3), 128, np.uint8), replace(camera(), gains=GAINS)
    normalised = lit.record(photo, np.random.default_rng(0), GAINS[0])
    grey = (128 / 255) ** GAMMA
    assert normalised[1, 0] == pytest.approx(58 + grey * 965, abs=1.1)
    assert normalised[0, 1] == pytest.approx(62 + grey * 961, abs=2.1)
    bright = lit.record(np.full((4, 4, 3), 255, np.uint8), np.random.default_rng(0), GAINS[1])
    assert bright[0, 0] == pytest.approx(61 + 0.5 * 962, abs=0.6)  # saturated at half of white


def test_noise_is_that_of_the_recorded_signal():
    photo, lit = np.full((400, 400, 3), 188, np.uint8), replace(camera(shot=1e-3), gains=GAINS)
    blue = lit.record(photo, np.random.default_rng(0), (1.0, 1.0, 4.0))[0::2, 1::2]
    assert blue.std() / 961 == pytest.approx(4 * (1e-3 * (188 / 255) ** GAMMA / 4) ** 0.5, rel=0.03)


def test_each_patch_draws_the_gains_of_a_mosaic():
    rng = np.random.default_rng(0)
    drawn = {replace(camera(), gains=GAINS).draw_gains(rng) for _ in range(20)}
    assert drawn == set(GAINS) and camera().draw_gains(rng) is None


def test_the_context_of_a_photograph_is_that_of_its_mosaic():
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    lit = replace(camera(), gains=GAINS)
    for gains in (None, *GAINS):
        mosaic = torch.from_numpy(lit.record(photo, np.random.default_rng(0), gains).astype(np.float32))
        expected = context_of(mosaic[None, None] / 1023, SENSOR)[0]
        found = SyntheticContexts(lit)(Path("p.png"), photo, gains)
        torch.testing.assert_close(found, expected, atol=0.1, rtol=0)
