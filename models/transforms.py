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
    grid = grid.to(planes.dtype).unflatten(1, (channels, len(terms(channels))))
    grid = _interpolate(grid, -2, patch, top, rows)
    mapped = planes
    for number, term in enumerate(terms(channels)):
        coefficients = _interpolate(grid[:, :, number], -1, patch, 0, width)
        values = planes[:, term[0], None] if len(term) == 1 else planes[:, term[0], None] * planes[:, term[1], None]
        mapped = torch.addcmul(mapped, coefficients, values)
    return mapped


def _interpolate(nodes: Tensor, dim: int, patch: int, start: int, count: int) -> Tensor:
    """Linear interpolation along `dim`, -2 or -1, between nodes at patches' centres, for `count` pixels from `start`.

    Between two neighbouring centres lie `patch` pixels, always at the same distances, so that broadcasting does it.
    """
    if nodes.shape[dim] == 1:
        return nodes
    first, last = ((pixel + patch // 2) // patch for pixel in (start, start + count - 1))  # gaps between two nodes
    size = nodes.shape[dim]
    nodes = torch.cat((nodes.narrow(dim, 0, 1), nodes, nodes.narrow(dim, size - 1, 1)), dim)
    before, after = (nodes.narrow(dim, index, last - first + 1).unsqueeze(dim) for index in (first, first + 1))
    fractions = (torch.arange(patch, dtype=nodes.dtype, device=nodes.device) + 0.5) / patch
    between = before.lerp(after, fractions if dim == -1 else fractions[:, None]).flatten(dim - 1, dim)
    return between.narrow(dim, start + patch // 2 - first * patch, count)
