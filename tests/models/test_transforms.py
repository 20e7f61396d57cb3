"""Polynomial colour transforms: terms and interpolation by hand, bands, and gradients."""

import pytest
import torch
from torch.nn import functional as F

from models.transforms import apply, terms

# Pixel (2, 3, 5, 7): squares, products, channels. Pixel (2, 3, 5) likewise.
FOUR = (4, 9, 25, 49, 6, 10, 14, 15, 21, 35, 2, 3, 5, 7)
THREE = (4, 9, 25, 6, 10, 15, 2, 3, 5)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(planes: torch.Tensor, grid: torch.Tensor, patch: int) -> torch.Tensor:
    """All coefficients at all pixels at once, and their matrix product with all terms."""
    count, channels, height, width = planes.shape
    coefficients = F.interpolate(grid, scale_factor=patch, mode="bilinear", align_corners=False)
    coefficients = coefficients[:, :, :height, :width].reshape(count, channels, -1, height, width)
    values = torch.stack([planes[:, list(term)].prod(1) for term in terms(channels)], dim=1)
    return planes + torch.einsum("nckhw,nkhw->nchw", coefficients, values)


@pytest.mark.parametrize("pixel, expected", (((2, 3, 5, 7), FOUR), ((2, 3, 5), THREE)))
def test_terms_by_hand(pixel, expected):
    """A coefficient of 1 adds one term to one channel."""
    channels = len(pixel)
    planes = torch.tensor(pixel, dtype=torch.float32).view(1, channels, 1, 1)
    assert len(terms(channels)) == len(expected)
    for output in range(channels):
        for number, value in enumerate(expected):
            grid = torch.zeros(1, channels * len(expected), 1, 1)
            grid[0, output * len(expected) + number] = 1
            added = (apply(planes, grid, 16) - planes).flatten().tolist()
            assert added == [value if channel == output else 0 for channel in range(channels)]


def test_all_terms_are_summed():
    planes = torch.tensor([2.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)
    mapped = apply(planes, torch.ones(1, 56, 1, 1), 16)
    assert mapped.flatten().tolist() == [sum(FOUR) + value for value in (2, 3, 5, 7)]


def test_there_is_no_constant_term_so_black_stays_black():
    assert not apply(torch.zeros(1, 4, 8, 8), random(1, 56, 4, 4), 2).any()


@pytest.mark.parametrize("rows", (False, True))
def test_interpolation_between_patch_centres_by_hand(rows):
    """Coefficients 0 and 1 of two patches of four pixels, whose centres are at 1.5 and 5.5."""
    grid = torch.zeros(1, 56, 1, 2)
    grid[0, 10, 0, 1] = 1  # of R in R
    expected = torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    planes = torch.ones(1, 4, 3, 8)
    if rows:
        grid, planes = grid.transpose(2, 3), planes.transpose(2, 3)
    red = apply(planes, grid, 4)[0, 0] - 1
    assert torch.equal(red, expected.expand(3, 8).T if rows else expected.expand(3, 8))


@pytest.mark.parametrize("channels", (3, 4))
@pytest.mark.parametrize("patch, nodes, size", ((2, (5, 3), (10, 6)), (4, (3, 4), (11, 13)), (16, (1, 3), (9, 40))))
def test_term_by_term_equals_the_plain_way(channels, patch, nodes, size):
    planes = random(2, channels, *size, dtype=torch.float64)
    grid = random(2, channels * len(terms(channels)), *nodes, seed=1, dtype=torch.float64) - 0.5
    torch.testing.assert_close(apply(planes, grid, patch), plain(planes, grid, patch), rtol=0, atol=1e-13)


@pytest.mark.parametrize("band", (1, 3, 4, 7, 64))
@pytest.mark.parametrize("patch", (4, 16))
def test_bands_of_rows_equal_the_whole(patch, band):
    planes, grid = random(2, 4, 30, 21), random(2, 56, -(-30 // patch), -(-21 // patch), seed=1) - 0.5
    bands = [apply(planes[:, :, top : top + band], grid, patch, top) for top in range(0, 30, band)]
    torch.testing.assert_close(torch.cat(bands, dim=2), apply(planes, grid, patch), rtol=0, atol=1e-6)


def test_a_single_transform_holds_for_every_pixel_of_any_image():
    planes, grid = random(2, 4, 37, 50), random(2, 56, 1, 1, seed=1) - 0.5
    pixel_by_pixel = apply(planes.flatten(2)[..., None], grid, 2)[..., 0].unflatten(2, (37, 50))
    assert torch.equal(apply(planes, grid, 2), pixel_by_pixel)


def test_images_of_a_batch_have_their_own_transforms():
    planes, grid = random(3, 4, 10, 12), random(3, 56, 3, 3, seed=1)
    alone = torch.cat([apply(planes[i : i + 1], grid[i : i + 1], 4) for i in range(3)])
    assert torch.equal(apply(planes, grid, 4), alone)


@pytest.mark.parametrize("channels, nodes", ((4, (2, 2)), (3, (1, 3)), (3, (1, 1))))
def test_gradients(channels, nodes):
    planes = random(1, channels, 2, 5, dtype=torch.float64).requires_grad_()
    grid = random(1, channels * len(terms(channels)), *nodes, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: apply(x, y, 4, top=1 if nodes[0] > 1 else 0), (planes, grid))


@pytest.mark.parametrize(
    "patch, size, top", ((3, (6, 6), 0), (4, (9, 8), 0), (4, (8, 9), 0), (4, (2, 8), 7)), ids=("odd", "h", "w", "top")
)
def test_patches_that_do_not_cover_the_planes_are_refused(patch, size, top):
    with pytest.raises(ValueError, match=f"a grid of 2x2 patches of {patch} pixels cannot be applied to rows {top}"):
        apply(random(1, 4, *size), random(1, 56, 2, 2), patch, top)
