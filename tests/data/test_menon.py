"""Menon demosaicing against the package colour-demosaicing."""

import numpy as np
import pytest
import torch

from data.menon import menon2007
from data.sensor import CFA_ORDERS
from data.unprocess import mosaic as mosaic_of
from errors import UserError

SIZES = ((4, 4), (4, 10), (12, 6), (34, 48))


def batch(*mosaics: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(N, 1, H, W)"""
    return torch.from_numpy(np.stack(mosaics)).to(dtype)[:, None]


def menon_of_package(mosaic: np.ndarray, cfa: str, refine: bool = True) -> torch.Tensor:
    """(3, H, W)"""
    package = pytest.importorskip("colour_demosaicing")
    return torch.from_numpy(package.demosaicing_CFA_Bayer_Menon2007(mosaic, cfa.upper(), refine)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()[:192, 100:320]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("refine", (True, False))
@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_menon_equals_the_package_on_noise(cfa, refine, rng):
    for size in SIZES:
        mosaic = rng.random(size)
        expected = menon_of_package(mosaic, cfa, refine)
        torch.testing.assert_close(menon2007(batch(mosaic), cfa, refine)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("refine", (True, False))
@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_menon_equals_the_package_on_a_photograph_which_has_many_ties(cfa, refine, astronaut):
    mosaic = mosaic_of(astronaut, cfa) / 255
    expected = menon_of_package(mosaic, cfa, refine)
    torch.testing.assert_close(menon2007(batch(mosaic), cfa, refine)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("levels", (3, 65536))
def test_decisions_on_integers_are_exact_in_float32(cfa, levels, rng):
    mosaic = rng.integers(0, levels, (96, 128))
    if levels > 3:  # extremes, for the largest sums
        mosaic[:48] = rng.integers(0, 2, (48, 128)) * 65535
    expected = menon_of_package(mosaic.astype(np.float64), cfa)
    result = menon2007(batch(mosaic, dtype=torch.float32), cfa)[0].double()
    assert (result - expected).abs().max() < 1e-6 * levels


def test_float32_is_close_to_float64_without_ties(rng):
    mosaics = batch(*rng.random((2, 64, 48)))
    result = menon2007(mosaics.float())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), menon2007(mosaics), atol=1e-6, rtol=0)


def test_other_floating_point_types_are_refused():
    with pytest.raises(UserError, match="float16"):
        menon2007(torch.zeros(1, 1, 8, 8, dtype=torch.float16))
