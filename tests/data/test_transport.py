"""Colour maps: they recover a known map without pairs, and tell how well they fit."""

import numpy as np
import pytest
import torch

from data.sensor import SENSORS, Sensor
from data.transport import (
    ColorMap,
    TransportReference,
    camera_colors,
    fit_color_map,
    invert,
    monomials,
    quantiles,
    sample_colors,
    sliced_distance,
    transport,
)
from errors import UserError

MATRIX = np.array([[0.9, 0.1, 0.0], [0.05, 0.8, 0.1], [0.0, 0.15, 0.7]])


def colors(count: int, seed: int) -> np.ndarray:
    """Colours that are not symmetric, as those of real scenes: otherwise rotations could not be told apart."""
    return np.random.default_rng(seed).beta((1, 2, 3), (3, 2, 4), size=(count, 3))


def test_a_cubic_has_twenty_terms_and_evaluates_each():
    assert len(monomials(3)) == 20 and monomials(1) == [(), (0,), (1,), (2,)]
    coefficients = np.zeros((20, 3))
    coefficients[monomials(3).index((0, 1, 1)), 2] = 2.0
    color_map = ColorMap(tuple(map(tuple, coefficients)))
    image = torch.rand(2, 3, 4, 6, dtype=torch.float64)
    expected = 2 * image[:, 0] * image[:, 1] ** 2
    torch.testing.assert_close(color_map(image)[:, 2], expected)
    assert color_map(image)[:, :2].abs().max() == 0
    pixels = image[0].flatten(1).T.numpy()
    np.testing.assert_allclose(color_map.of_pixels(pixels)[:, 2], expected[0].flatten())


def test_transport_gives_the_target_distribution():
    source, target, rng = colors(20_000, 0) ** 2, colors(15_000, 1) @ MATRIX.T, np.random.default_rng(0)
    moved, directions = torch.from_numpy(transport(source, target, 10, rng)), torch.eye(3, dtype=torch.float64)
    source, target = torch.from_numpy(source), torch.from_numpy(target)
    assert sliced_distance(moved, target, directions) < 0.05 * sliced_distance(source, target, directions)


def test_the_map_of_a_camera_is_found_without_pairs():
    camera = colors(40_000, 0)
    fitted = fit_color_map(camera, (colors(40_000, 1) @ MATRIX.T) ** 0.8)
    error = np.abs(fitted.of_pixels(camera) - (camera @ MATRIX.T) ** 0.8).mean()
    assert error < 0.01 < np.abs(camera - (camera @ MATRIX.T) ** 0.8).mean()
    assert fitted.after < 0.1 * fitted.before and 0 < fitted.extrapolated < 1 and fitted.folded < 0.05


def test_the_same_seed_gives_the_same_map():
    maps = [fit_color_map(colors(2000, 0), colors(2000, 1) ** 2, seed) for seed in (3, 3, 4)]
    assert maps[0] == maps[1] != maps[2]


def test_a_map_that_folds_is_told():
    camera = np.random.default_rng(0).uniform(0.1, 0.9, (5000, 3))
    mirrored = ColorMap(((1.0, 1.0, 1.0), (-1.0, 0, 0), (0, -1.0, 0), (0, 0, -1.0)), degree=1)
    from data import transport as module

    assert module._folded_share(mirrored, camera) == 1
    plain = ColorMap(((0.0, 0.0, 0.0), (1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)), degree=1)
    assert module._folded_share(plain, camera) == 0


def test_grey_photographs_have_a_map_that_cannot_be_undone():
    """Their colours lie on a line, whose hull has no volume."""
    grey = np.repeat(colors(4000, 1)[:, :1], 3, axis=1)
    fitted = fit_color_map(colors(4000, 0), grey)
    assert fitted.after < fitted.before
    assert invert(fitted, colors(4000, 0)).extrapolated > 0.9
    assert fit_color_map(grey, colors(4000, 0)).extrapolated == 1


@pytest.mark.parametrize("side", ("mosaics", "photographs"))
def test_constant_colours_are_refused(side):
    sides = {"mosaics": colors(1000, 0), "photographs": colors(1000, 1)}
    sides[side][:, 1] = 0.5
    with pytest.raises(UserError, match=f"a colour of the {side} has the same value everywhere"):
        fit_color_map(*sides.values())


def test_sides_that_are_alike_already_are_refused():
    same = colors(2000, 0)
    with pytest.raises(UserError, match="no colour map brings the mosaics nearer to the photographs"):
        fit_color_map(same, same)


def test_quantiles_are_those_of_sorted_values():
    values = np.random.default_rng(0).normal(size=999)
    assert quantiles(values, np.array([0.5]))[0] == pytest.approx(np.median(values))


def test_camera_colours_subtract_each_black_level():
    sensor = Sensor("grbg", (64.0, 60.0, 66.0, 32.0), 1023.0)
    black, white = torch.tensor([64.0, 63.0, 32.0]), torch.full((3,), 1023.0)
    image = torch.stack((black, white, (black + white) / 2), dim=1)[None, :, None]
    expected = torch.tensor([0, 1, 0.5 ** (1 / 2.2)]).expand(1, 3, 1, 3)
    torch.testing.assert_close(camera_colors(image, sensor), expected)


def test_each_image_gives_the_same_number_of_colours():
    images = [torch.full((3, side, side), value) for side, value in ((8, 0.25), (400, 0.75))]
    found = sample_colors(images, 2, np.random.default_rng(0))
    assert (found == 0.25).all(1).sum() == 64 and (found == 0.75).all(1).sum() == 40_000


def test_the_rendering_of_a_patch_is_that_of_its_file():
    """A map is the same for every file, so a patch needs no span."""
    coefficients = np.zeros((20, 3))
    coefficients[1:4] = MATRIX
    demosaiced = torch.nn.UpsamplingNearest2d(scale_factor=1)
    render = TransportReference(
        SENSORS["fujifilm"], lambda mosaic, cfa: demosaiced(mosaic).expand(-1, 3, -1, -1), ColorMap(coefficients)
    )
    mosaic = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(render(mosaic)[..., 4:8, 2:6], render(mosaic[..., 4:8, 2:6]))
    assert render(mosaic).shape == (1, 3, 16, 16) and render(mosaic).min() >= 0 and render(mosaic).max() <= 1
