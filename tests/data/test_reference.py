"""Both demosaicing methods, and the content loss's reference, against hand-computed values and the released code."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.menon import menon2007
from data.patches import OfWhole
from data.reference import DEMOSAICERS, Reference, bilinear_opencv, render_reference
from data.sensor import CFA_ORDERS, SENSORS
from data.unprocess import mosaic as mosaic_of
from errors import UserError

FUJIFILM = SENSORS["fujifilm"]


def batch(*mosaics: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(N, 1, H, W)"""
    return torch.from_numpy(np.stack(mosaics)).to(dtype)[:, None]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- demosaicing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEMOSAICERS)
def test_images_of_a_batch_do_not_mix(name, rng):
    demosaic, mosaics = DEMOSAICERS[name], batch(*rng.integers(0, 1024, (3, 16, 24)), dtype=torch.float32)
    one_by_one = torch.cat([demosaic(mosaic[None]) for mosaic in mosaics])
    assert torch.equal(demosaic(mosaics), one_by_one)
    assert demosaic(mosaics[:0]).shape == (0, 3, 16, 24)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("name", DEMOSAICERS)
def test_a_constant_mosaic_gives_a_constant_image(name, cfa):
    mosaic = torch.full((1, 1, 8, 10), 600, dtype=torch.float64)
    torch.testing.assert_close(DEMOSAICERS[name](mosaic, cfa), mosaic.expand(1, 3, 8, 10), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", DEMOSAICERS)
def test_the_mosaic_is_not_changed_and_may_have_any_strides(name, rng):
    mosaic = batch(rng.integers(0, 1024, (8, 12))).requires_grad_()
    before = mosaic.detach().clone()
    result = DEMOSAICERS[name](mosaic)
    assert torch.equal(mosaic, before) and not result.requires_grad and result.is_contiguous()
    strided = before.mT.contiguous().mT
    assert torch.equal(DEMOSAICERS[name](strided), result)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("name", DEMOSAICERS)
@pytest.mark.parametrize("channel", (0, 2))
def test_a_uniformly_coloured_scene_keeps_its_colour(name, cfa, channel):
    scene = np.full((12, 14, 3), 200.0)
    scene[..., channel] = 800
    image = DEMOSAICERS[name](batch(mosaic_of(scene, cfa)), cfa)
    torch.testing.assert_close(image[0].permute(1, 2, 0), torch.from_numpy(scene), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "cfa, code",
    (
        ("rggb", cv2.COLOR_BayerBG2RGB),
        ("grbg", cv2.COLOR_BayerGB2RGB),
        ("gbrg", cv2.COLOR_BayerGR2RGB),
        ("bggr", cv2.COLOR_BayerRG2RGB),
    ),
)
def test_bilinear_equals_opencv(cfa, code, rng):
    integers = rng.integers(0, 1024, (6, 8)).astype(np.uint16)
    expected = torch.from_numpy(cv2.cvtColor(integers, code).astype(float)).permute(2, 0, 1)
    for dtype in (torch.float32, torch.float64):
        result = bilinear_opencv(batch(integers, dtype=dtype), cfa)
        torch.testing.assert_close(result[0], expected.to(dtype), atol=0, rtol=0)


def test_bilinear_averages_the_neighbours():
    mosaic = np.zeros((6, 6))
    mosaic[2, 2], mosaic[2, 4] = 800, 400  # two red pixels of an RGGB mosaic
    red, green, blue = bilinear_opencv(batch(mosaic))[0]
    assert red[2, 2] == 800 and red[2, 3] == 600 and red[3, 2] == 400 and red[3, 3] == 300
    assert not green.any() and not blue.any()


def test_bilinear_clips_to_16_bits():
    mosaic = torch.full((1, 1, 4, 4), 70000.0)
    assert (bilinear_opencv(mosaic) == 65535).all() and (bilinear_opencv(-mosaic) == 0).all()


@pytest.mark.parametrize("name", DEMOSAICERS)
@pytest.mark.parametrize(
    "mosaic, cfa, message",
    (
        (torch.zeros(1, 1, 8, 8), "rgbg", "'rgbg'.*" + ", ".join(CFA_ORDERS)),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int32), "rggb", "torch.int32.*convert"),
        (torch.zeros(1, 3, 8, 8), "rggb", r"\(1, 3, 8, 8\)"),
        (torch.zeros(8, 8), "rggb", r"\(8, 8\)"),
        (torch.zeros(1, 1, 8, 7), "rggb", "8x7.*even"),
        (torch.zeros(1, 1, 2, 8), "rggb", "2x8.*4 pixels"),
    ),
)
def test_an_unsuitable_mosaic_is_refused(name, mosaic, cfa, message):
    with pytest.raises(UserError, match=message):
        DEMOSAICERS[name](mosaic, cfa)


# --- rendering -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", (torch.float16, torch.float32, torch.float64))
def test_reference_by_hand(dtype):
    # Red 0.25 and 0.5 are balanced to 0.5 and 1.0; green 0.25 to 0.25; blue 0.75 to 1.5, clipped to 1. So the range is
    # 0.25 to 1, stretched to 0 to 1: red 1/3 and 1, green 0, blue 1. Gamma 2 is the square root.
    image = torch.tensor([[0.25, 0.5], [0.25, 0.25], [0.75, 0.75]], dtype=dtype).view(1, 3, 1, 2)
    expected = torch.tensor([[3**-0.5, 1], [0, 0], [1, 1]]).view(1, 3, 1, 2)
    before = image.clone()
    torch.testing.assert_close(render_reference(image, gains=(2, 1, 2), gamma=2), expected)
    assert torch.equal(image, before)


def test_each_image_is_stretched_by_its_own_range_and_a_constant_one_is_zero():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    rendered = render_reference(torch.stack((images[0], 0.5 * images[1], torch.full((3, 4, 5), 0.3))), gains=(1, 1, 1))
    torch.testing.assert_close(rendered[:1], render_reference(images[:1], gains=(1, 1, 1)))
    assert rendered[1].amin() == 0 and rendered[1].amax() == 1
    assert (rendered[2] == 0).all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_reference_equals_the_released_code(dtype, golden):
    # The integers are demosaiced and the result is divided: the other way round, 0.5 % of the pixels, ties, differ.
    demosaiced = menon2007(batch(*golden["raw"].astype(np.float32), dtype=dtype)) / 65535
    expected = torch.from_numpy(golden["demosaiced"])
    torch.testing.assert_close(render_reference(demosaiced), expected, atol=1e-6, rtol=0)


def test_a_patch_is_rendered_with_the_range_of_its_file(rng):
    reference, mosaic = Reference(FUJIFILM), batch(rng.integers(60, 1024, (40, 40)), dtype=torch.float32) / 1023
    whole, patch = reference(mosaic), reference(mosaic[..., 8:32, 8:32], reference.span(mosaic))
    # The border of a patch has no influence on pixels that are 8 or more away from it.
    torch.testing.assert_close(patch[..., 8:-8, 8:-8], whole[..., 16:24, 16:24])
    assert torch.equal(reference(mosaic, reference.span(mosaic)), whole)


def test_white_balance_clips_nothing_at_any_bit_depth():
    for white in (1023.0, 65535.0):
        mosaic = torch.full((1, 1, 8, 8), 0.9)
        mosaic[..., 0, 0] = 1.0  # red
        image = Reference(replace(FUJIFILM, black_level=(0.0,) * 4, white_level=white), bilinear_opencv)(mosaic)
        assert image[0, 0, 0, 0] == 1 and image[0, 0, 4, 4] < 1


@pytest.mark.parametrize("name", DEMOSAICERS)
def test_the_range_of_a_file_is_computed_once(name, rng):
    reference = Reference(FUJIFILM, DEMOSAICERS[name])
    mosaics = {Path(f"{i}.png"): rng.integers(60, 1024, (8, 12)).astype(np.uint16) for i in range(3)}
    calls = []

    def demosaic(mosaic: torch.Tensor, cfa: str) -> torch.Tensor:
        calls.append(mosaic.shape)
        return DEMOSAICERS[name](mosaic, cfa)

    spans = OfWhole(replace(reference, demosaic=demosaic).span, reference.sensor)
    for path, mosaic in [*mosaics.items()] * 2:
        expected = reference.span(batch(mosaic, dtype=torch.float32) / 1023)[0]
        assert expected.shape == (2,) and torch.equal(spans(path, mosaic), expected)
    assert calls == [(1, 1, 8, 12)] * 3


def test_unsuitable_images_and_values_are_refused():
    with pytest.raises(UserError, match=r"\(1, 1, 8, 8\)"):
        render_reference(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UserError, match="gamma 0"):
        render_reference(torch.zeros(1, 3, 8, 8), gamma=0)
