"""Demosaicing against the packages it stands for, and the content loss's reference against numbers worked by hand."""

import os

import cv2
import numpy as np
import pytest
import torch

from data.demosaic import DEMOSAICERS, Reference, bilinear_opencv, menon2007, render_reference
from data.sensor import CFA_ORDERS, Sensor
from errors import UserError

ORDERS = ("rggb", "bggr", "grbg", "gbrg")
SIZES = ((4, 4), (4, 10), (12, 6), (34, 48))


def mosaic_of(image: np.ndarray, cfa: str) -> np.ndarray:
    """(H, W, 3) -> (H, W): of each pixel the one colour that its filter passes."""
    mosaic = np.empty(image.shape[:2], image.dtype)
    for colour, (row, column) in zip(cfa, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        mosaic[row::2, column::2] = image[row::2, column::2, "rgb".index(colour)]
    return mosaic


def as_batch(*mosaics: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(np.stack(mosaics)).to(dtype)[:, None]


def menon_of_package(mosaic: np.ndarray, cfa: str, refine: bool = True) -> torch.Tensor:
    package = pytest.importorskip("colour_demosaicing")
    return torch.from_numpy(package.demosaicing_CFA_Bayer_Menon2007(mosaic, cfa.upper(), refine)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()[:192, 100:320]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("refine", (True, False))
@pytest.mark.parametrize("cfa", ORDERS)
def test_menon_equals_the_package_on_noise(cfa, refine, rng):
    for size in SIZES:
        mosaic = rng.random(size)
        expected = menon_of_package(mosaic, cfa, refine)
        torch.testing.assert_close(menon2007(as_batch(mosaic), cfa, refine)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("refine", (True, False))
@pytest.mark.parametrize("cfa", ORDERS)
def test_menon_equals_the_package_on_a_photograph_with_its_many_ties(cfa, refine, astronaut):
    mosaic = mosaic_of(astronaut, cfa) / 255
    expected = menon_of_package(mosaic, cfa, refine)
    torch.testing.assert_close(menon2007(as_batch(mosaic), cfa, refine)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cfa", ORDERS)
@pytest.mark.parametrize("levels", (3, 65536))
def test_menon_in_float32_decides_exactly_on_integers(cfa, levels, rng):
    mosaic = rng.integers(0, levels, (96, 128))
    if levels > 3:  # extremes, for the largest sums
        mosaic[:48] = rng.integers(0, 2, (48, 128)) * 65535
    expected = menon_of_package(mosaic.astype(np.float64), cfa)
    result = menon2007(as_batch(mosaic, dtype=torch.float32), cfa)[0].double()
    assert (result - expected).abs().max() < 1e-6 * levels


def test_menon_in_float32_is_near_float64_away_from_ties(rng):
    mosaics = as_batch(*rng.random((2, 64, 48)))
    result = menon2007(mosaics.float())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), menon2007(mosaics), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", DEMOSAICERS)
def test_images_of_a_batch_do_not_mix(name, rng):
    demosaic, mosaics = DEMOSAICERS[name], as_batch(*rng.integers(0, 1024, (3, 16, 24)), dtype=torch.float32)
    alone = torch.cat([demosaic(mosaic[None]) for mosaic in mosaics])
    assert torch.equal(demosaic(mosaics), alone)
    assert demosaic(mosaics[:0]).shape == (0, 3, 16, 24)


@pytest.mark.parametrize("cfa", ORDERS)
@pytest.mark.parametrize("name", DEMOSAICERS)
def test_a_constant_mosaic_gives_a_constant_image(name, cfa):
    mosaic = torch.full((1, 1, 8, 10), 600, dtype=torch.float64)
    torch.testing.assert_close(DEMOSAICERS[name](mosaic, cfa), mosaic.expand(1, 3, 8, 10), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", DEMOSAICERS)
def test_the_mosaic_is_left_alone_and_needs_no_layout(name, rng):
    mosaic = as_batch(rng.integers(0, 1024, (8, 12))).requires_grad_()
    before = mosaic.detach().clone()
    result = DEMOSAICERS[name](mosaic)
    assert torch.equal(mosaic, before) and not result.requires_grad and result.is_contiguous()
    strided = before.mT.contiguous().mT
    assert torch.equal(DEMOSAICERS[name](strided), result)


@pytest.mark.parametrize("cfa", ORDERS)
@pytest.mark.parametrize("name", DEMOSAICERS)
@pytest.mark.parametrize("channel", (0, 2))
def test_a_scene_of_one_colour_keeps_it(name, cfa, channel):
    scene = np.full((12, 14, 3), 200.0)
    scene[..., channel] = 800
    image = DEMOSAICERS[name](as_batch(mosaic_of(scene, cfa)), cfa)
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
def test_bilinear_is_opencv_s(cfa, code, rng):
    integers = rng.integers(0, 1024, (6, 8)).astype(np.uint16)
    expected = torch.from_numpy(cv2.cvtColor(integers, code).astype(float)).permute(2, 0, 1)
    for dtype in (torch.float32, torch.float64):
        result = bilinear_opencv(as_batch(integers, dtype=dtype), cfa)
        torch.testing.assert_close(result[0], expected.to(dtype), atol=0, rtol=0)


def test_bilinear_averages_the_neighbours():
    mosaic = np.zeros((6, 6))
    mosaic[2, 2], mosaic[2, 4] = 800, 400  # two red pixels of an RGGB mosaic
    red, green, blue = bilinear_opencv(as_batch(mosaic))[0]
    assert red[2, 2] == 800 and red[2, 3] == 600 and red[3, 2] == 400 and red[3, 3] == 300
    assert not green.any() and not blue.any()


def test_bilinear_clips():
    mosaic = torch.full((1, 1, 4, 4), 70000.0)
    assert (bilinear_opencv(mosaic) == 65535).all() and (bilinear_opencv(-mosaic) == 0).all()


@pytest.mark.parametrize("dtype", (torch.float16, torch.float32, torch.float64))
def test_reference_by_hand(dtype):
    # Red 0.25 and 0.5 are balanced to 0.5 and 1.0; green 0.25 to 0.25; blue 0.75 to 1.5, clipped to 1. So the range is
    # 0.25 to 1, stretched to 0 to 1: red 1/3 and 1, green 0, blue 1. Gamma 2 takes the root.
    image = torch.tensor([[0.25, 0.5], [0.25, 0.25], [0.75, 0.75]], dtype=dtype).view(1, 3, 1, 2)
    expected = torch.tensor([[3**-0.5, 1], [0, 0], [1, 1]]).view(1, 3, 1, 2)
    before = image.clone()
    torch.testing.assert_close(render_reference(image, gains=(2, 1, 2), gamma=2), expected)
    assert torch.equal(image, before)


def test_reference_stretches_each_image_alone_and_a_constant_one_is_zero():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    both = render_reference(torch.stack((images[0], 0.5 * images[1], torch.full((3, 4, 5), 0.3))), gains=(1, 1, 1))
    torch.testing.assert_close(both[:1], render_reference(images[:1], gains=(1, 1, 1)))
    assert both[1].amin() == 0 and both[1].amax() == 1
    assert (both[2] == 0).all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_published_reference(dtype):
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    with np.load(path) as golden:
        raw, expected = golden["raw"], torch.from_numpy(golden["demosaiced"])
    # The integers are demosaiced and the result is divided: the other way round, 0.5 % of the pixels, ties, differ.
    demosaiced = menon2007(as_batch(*raw.astype(np.float32), dtype=dtype)) / 65535
    torch.testing.assert_close(render_reference(demosaiced), expected, atol=1e-6, rtol=0)


def test_a_patch_is_stretched_as_its_file(rng):
    reference, mosaic = Reference(Sensor()), as_batch(rng.integers(60, 1024, (40, 40)), dtype=torch.float32) / 1023
    whole, patch = reference(mosaic), reference(mosaic[..., 8:32, 8:32], reference.span(mosaic))
    # 8 pixels from its border a patch no longer knows that it is one.
    torch.testing.assert_close(patch[..., 8:-8, 8:-8], whole[..., 16:24, 16:24])
    assert torch.equal(reference(mosaic, reference.span(mosaic)), whole)


def test_the_white_balance_clips_nothing_at_any_depth():
    for white in (1023.0, 65535.0):
        mosaic = torch.full((1, 1, 8, 8), 0.9)
        mosaic[..., 0, 0] = 1.0  # red
        image = Reference(Sensor(black_level=(0.0,) * 4, white_level=white), bilinear_opencv)(mosaic)
        assert image[0, 0, 0, 0] == 1 and image[0, 0, 4, 4] < 1


@pytest.mark.parametrize("name", DEMOSAICERS)
@pytest.mark.parametrize(
    "mosaic, cfa, says",
    (
        (torch.zeros(1, 1, 8, 8), "rgbg", "'rgbg'.*" + ", ".join(CFA_ORDERS)),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int32), "rggb", "torch.int32.*convert"),
        (torch.zeros(1, 3, 8, 8), "rggb", r"\(1, 3, 8, 8\)"),
        (torch.zeros(8, 8), "rggb", r"\(8, 8\)"),
        (torch.zeros(1, 1, 8, 7), "rggb", "8x7.*even"),
        (torch.zeros(1, 1, 2, 8), "rggb", "2x8.*4 pixels"),
    ),
)
def test_a_wrong_mosaic_is_refused(name, mosaic, cfa, says):
    with pytest.raises(UserError, match=says):
        DEMOSAICERS[name](mosaic, cfa)


def test_other_mistakes_are_refused():
    with pytest.raises(UserError, match="float16"):
        menon2007(torch.zeros(1, 1, 8, 8, dtype=torch.float16))
    with pytest.raises(UserError, match=r"\(1, 1, 8, 8\)"):
        render_reference(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UserError, match="gamma 0"):
        render_reference(torch.zeros(1, 3, 8, 8), gamma=0)
