"""Polynomial colour transforms, one for each patch of an image: raw-to-raw mapping, Eqs. 3 and 13 (PT and Up)."""

from itertools import combinations

import torch
from torch import Tensor


def terms(channels: int) -> tuple[tuple[int, ...], ...]:
    """The polynomial's terms, each as the channels to multiply: squares, products of two, the channels; no constant.

    14 terms for R, Gr, Gb, B: R^2, Gr^2, Gb^2, B^2, R Gr, R Gb, R B, Gr Gb, Gr B, Gb B, R, Gr, Gb, B. Nine for R, G, B.
    """
    squares = tuple((channel, channel) for channel in range(channels))
    return squares + tuple(combinations(range(channels), 2)) + tuple((channel,) for channel in range(channels))


def apply(planes: Tensor, grid: Tensor, patch: int, top: int = 0) -> Tensor:
    """Add to each pixel the polynomial of its channels, with the coefficients of the grid at that pixel.

    The coefficients belong to the centres of the patches, and are interpolated bilinearly between them; beyond the
    outermost centres they are constant. At no time do all coefficients exist for all pixels: the terms are summed one
    by one, and a large image can be passed in bands of rows.

    Args:
        planes: (N, C, rows, W), a whole image or a band of its rows.
        grid: (N, C x terms, h, w); the coefficient of `terms(C)[k]` for output channel c is at c x terms + k. A grid
            of 1x1 is one transform for the whole image.
        patch: the side of a patch in pixels, even. Patches begin at the image's top left corner.
        top: the image's row at which the band begins.

    Returns:
        (N, C, rows, W), not clipped.

    Raises:
        ValueError: `patch` is odd, or the patches do not cover the planes.
    """
    count, channels, rows, width = planes.shape
    height = grid.shape[-2] * patch
    if patch % 2 or (grid.shape[-2:] != (1, 1) and (top + rows > height or width > grid.shape[-1] * patch)):
        raise ValueError(
            f"a grid of {grid.shape[-2]}x{grid.shape[-1]} patches of {patch} pixels cannot be applied to rows {top} to "
            f"{top + rows}, {width} wide"
        )
    grid = grid.to(planes.dtype).unflatten(1, (channels, len(terms(channels)))).movedim(2, 0)  # (terms, N, C, h, w)
    everywhere = grid.shape[-2:] == (1, 1)
    if not everywhere:
        weights = _weights(patch, planes)
        grid = _interpolate(_neighbours(grid.mT), weights, top, rows).mT
        grid = _neighbours(grid)
    mapped = planes
    for term, nodes in zip(terms(channels), grid.unbind(), strict=True):
        coefficients = nodes if everywhere else _interpolate(nodes, weights, 0, width)
        values = planes[:, term[0], None] if len(term) == 1 else planes[:, term[0], None] * planes[:, term[1], None]
        mapped = torch.addcmul(mapped, coefficients, values)
    return mapped


def _neighbours(nodes: Tensor) -> Tensor:
    """Nodes (..., n) at the patches' centres -> (..., n, 3): those of the patch before, of its own and of the next."""
    nodes = torch.cat((nodes[..., :1], nodes, nodes[..., -1:]), -1)
    return torch.stack((nodes[..., :-2], nodes[..., 1:-1], nodes[..., 2:]), -1)


def _weights(patch: int, like: Tensor) -> Tensor:
    """(3, patch), of the type and on the device of `like`: what its pixels take from `_neighbours`."""
    beyond = (torch.arange(patch, dtype=like.dtype, device=like.device) + 0.5) / patch - 0.5  # the patch's own centre
    return torch.stack((-beyond, 1 - beyond.abs(), beyond)).clamp_(min=0)


def _interpolate(neighbours: Tensor, weights: Tensor, start: int, count: int) -> Tensor:
    """Values (..., `count`) of the pixels from `start` on, by `_neighbours` (..., n, 3): a product with one matrix."""
    patch = weights.shape[1]
    first, last = start // patch, (start + count - 1) // patch
    pixels = (neighbours[..., first : last + 1, :] @ weights).flatten(-2)
    return pixels[..., start - first * patch :][..., :count]
