"""Demosaicing after Menon et al. (2007), the method of the paper's released code, for whole batches on any device."""

import torch
from torch import Tensor

from data.sensor import offsets
from errors import UserError

CPU_PIXELS = 1 << 20  # a CPU demosaics about this many pixels at a time, so that intermediate results fit in its cache
MINIMUM_SIZE = 4  # pixels a side: the filters reach two pixels beyond the border, and mirroring those needs three


def check_mosaic(mosaic: Tensor, cfa: str) -> None:
    """Raise `UserError` unless the mosaic is floating point, (N, 1, H, W), of even sides, and the CFA order known."""
    offsets(cfa)  # raises for an unknown order
    shape = tuple(mosaic.shape)
    if not mosaic.is_floating_point():
        raise UserError(f"the mosaic is {mosaic.dtype}; convert it to floating point first")
    if len(shape) != 4 or shape[1] != 1:
        raise UserError(f"the mosaic has the shape {shape}, but must be (N, 1, H, W)")
    if any(size < MINIMUM_SIZE or size % 2 for size in shape[2:]):
        raise UserError(f"the mosaic is {shape[2]}x{shape[3]}; crop it to even sides of {MINIMUM_SIZE} pixels or more")


@torch.no_grad()
def menon2007(mosaic: Tensor, cfa: str = "rggb", refine: bool = True) -> Tensor:
    """Demosaic with directional filtering and an a posteriori decision (DDFAPD).

    The result equals that of `colour_demosaicing.demosaicing_CFA_Bayer_Menon2007` on each image, borders included. In
    float64, the decision between the two directions is the same bit for bit. In float32, ties may be decided
    differently, unless the mosaic holds integers of up to 16 bits: on those, the decision is exact too. Ties are
    frequent in smooth areas (they change 0.5 % of the values of a 10-bit image), so pass the sensor's integers and
    scale the result.

    All steps work on the colour differences (red or blue, minus green) at the red and blue pixels: these are only half
    the samples of the mosaic, and the paper's steps at green pixels become sums of these differences.

    Args:
        mosaic: (N, 1, H, W), float32 or float64, linear; any range. H and W even, at least `MINIMUM_SIZE`.
        cfa: colours of the top left 2x2 block, row by row: "rggb", "bggr", "grbg" or "gbrg".
        refine: also do the refining step (section IV of the source).

    Returns:
        (N, 3, H, W), red, green, blue, in the mosaic's dtype and units, not clipped, without gradient.

    Raises:
        UserError: unknown CFA order, or wrong shape or dtype of the mosaic.

    Source: Menon, Andriani and Calvagno, "Demosaicing with directional filtering and a posteriori decision", IEEE
    Transactions on Image Processing 16(1), 2007; borders as in colour-demosaicing (BSD-3-Clause).
    """
    check_mosaic(mosaic, cfa)
    if mosaic.dtype not in (torch.float32, torch.float64):
        raise UserError(f"menon2007 got a {mosaic.dtype} mosaic; convert it to float32 or float64")
    count, _, height, width = mosaic.shape
    image = mosaic.new_empty(count, 3, height, width)
    at_once = max(1, CPU_PIXELS // (height * width) if mosaic.device.type == "cpu" else count)
    for part, out in zip(mosaic.split(at_once), image.split(at_once), strict=True):
        _menon2007(part, offsets(cfa)["R"], refine, out)
    return image


def _menon2007(mosaic: Tensor, red: tuple[int, int], refine: bool, out: Tensor) -> None:
    """Write the colour image of `mosaic` to `out`; `red` is the (row, column) of the first red pixel."""
    grid = _Grid(mosaic, *red)
    colour, green = grid.split(mosaic[:, 0], on_green=False), grid.split(mosaic[:, 0], on_green=True)

    along_rows = _colour_difference(grid, colour, green, 0, 1)
    along_columns = _colour_difference(grid, colour, green, 1, 0)
    horizontal = _choose_direction(grid, along_rows, along_columns)
    difference = grid.new(colour)
    for site in (0, 1):
        y, x = grid.first(site)
        chosen = grid.at(difference, y, x)
        torch.where(horizontal[site], grid.at(along_rows, y, x), grid.at(along_columns, y, x), out=chosen)
        chosen.mul_(0.25)  # _colour_difference returns four times the difference
    grid.mirror_(difference)

    if not refine:
        _assemble(grid, colour, green, difference, _red_minus_blue(grid, difference, horizontal, 2), out)
        return
    refined = _refine(grid, difference, horizontal)
    # The package's last step averages three values of red minus blue in the chosen direction: the two neighbours' after
    # refinement, and the pixel's own before refinement. The latter is the mean of the neighbours' before refinement;
    # hence the factor of one half.
    blend = difference.mul_(0.5).add_(refined)
    _assemble(grid, colour, green, refined, _red_minus_blue(grid, blend, horizontal, 3), out)


class _Grid:
    """Index arithmetic for a mosaic that is split by colour and mirrored beyond its borders.

    Coordinates (y, x) are pixels of the padded image. Its padding is 2 or 3 pixels, chosen such that red lies at even y
    and even x; so the same code serves all four CFA orders. A "quincunx" is a tensor (N, 2, h, w) with either the red
    and blue samples or the green ones, which is every second pixel of each row: pixel (y, x) is in plane y % 2,
    row y // 2, column x // 2.

    `scratch` holds three buffers (N, H/2, W/2) for short-lived results. On the CPU, allocating memory for each sum
    would take longer (page faults) than the sums themselves.
    """

    def __init__(self, mosaic: Tensor, red_row: int, red_column: int):
        self.batch, _, self.height, self.width = mosaic.shape
        self.top, self.left = 2 + red_row, 2 + red_column
        self.scratch = mosaic.new_empty(3, self.batch, self.height // 2, self.width // 2).unbind()

    def new(self, like: Tensor, fill: float | None = None) -> Tensor:
        """A new quincunx, uninitialised or filled with one value."""
        shape = (self.batch, 2, self.height // 2 + self.top, self.width // 2 + self.left)
        return like.new_empty(shape) if fill is None else like.new_full(shape, fill)

    def first(self, row_parity: int, on_green: bool = False) -> tuple[int, int]:
        """The first pixel inside the image: red (`row_parity` 0) or blue (1), or the green one of such a row."""
        return self.top + (self.top + row_parity) % 2, self.left + (self.left + row_parity + on_green) % 2

    def at(self, quincunx: Tensor, y: int, x: int) -> Tensor:
        """View (N, H/2, W/2) of the pixels (y + 2i, x + 2j)."""
        return quincunx[:, y % 2, y // 2 : y // 2 + self.height // 2, x // 2 : x // 2 + self.width // 2]

    def phase(self, image: Tensor, y: int, x: int) -> Tensor:
        """View (..., H/2, W/2) of an unpadded image (..., H, W): the same pixels as `at` returns for (y, x)."""
        return image[..., y - self.top :: 2, x - self.left :: 2]

    def pair(self, quincunx: Tensor, y: int, x: int, dy: int, dx: int, slot: int) -> Tensor:
        """For each pixel of `at`, the sum of the samples at offsets (-dy, -dx) and (dy, dx); in buffer `slot`."""
        before, after = self.at(quincunx, y - dy, x - dx), self.at(quincunx, y + dy, x + dx)
        return torch.add(before, after, out=self.scratch[slot])

    def directional_pair(self, quincunx: Tensor, y: int, x: int, step: int, horizontal: Tensor) -> Tensor:
        """`pair` left and right where `horizontal`, else above and below; in buffer 0, and overwrites buffer 1."""
        beside, above_below = self.pair(quincunx, y, x, 0, step, 0), self.pair(quincunx, y, x, step, 0, 1)
        return torch.where(horizontal, beside, above_below, out=beside)

    def split(self, mosaic: Tensor, on_green: bool) -> Tensor:
        """The quincunx of the red and blue pixels, or of the green pixels, of a mosaic (N, H, W)."""
        quincunx = self.new(mosaic)
        for parity in (0, 1):
            y, x = self.first(parity, on_green)
            self.at(quincunx, y, x).copy_(self.phase(mosaic, y, x))
        return self.mirror_(quincunx, on_green)

    def mirror_(self, quincunx: Tensor, on_green: bool = False) -> Tensor:
        """Fill the padding by reflection about the border pixels (scipy's "mirror"), which preserves the colours.

        All filters of the method are symmetric, so intermediate results may be mirrored instead of the mosaic.
        """
        for parity, plane in enumerate(quincunx.unbind(1)):
            y, x = self.first(parity, on_green)
            for outside, inside in _reflections(plane.shape[1], y % 2 - self.top, self.height):
                plane[:, outside] = plane[:, inside]
            for outside, inside in _reflections(plane.shape[2], x % 2 - self.left, self.width):
                plane[:, :, outside] = plane[:, :, inside]
        return quincunx


def _reflections(count: int, start: int, size: int) -> list[tuple[int, int]]:
    """(index, index of its mirror image) of the samples at positions `start + 2 * index` outside [0, size)."""
    positions = [start + 2 * index for index in range(count)]
    return [
        (index, (abs(size - 1 - abs(size - 1 - position)) - start) // 2)
        for index, position in enumerate(positions)
        if not 0 <= position < size
    ]


def _colour_difference(grid: _Grid, colour: Tensor, green: Tensor, dy: int, dx: int) -> Tensor:
    """Four times (red or blue, minus green) at the red and blue pixels, with green interpolated along (dy, dx).

    Green is the mean of its two neighbours plus a quarter of the second difference of the pixel's own colour. Scaling
    by a power of two is exact, so all values are rounded as in the package; else, ties would be decided differently.
    """
    result = grid.new(colour)
    for site in (0, 1):
        y, x = grid.first(site)
        own = grid.at(colour, y, x)
        near, far = grid.pair(green, y, x, dy, dx, 0), grid.pair(colour, y, x, 2 * dy, 2 * dx, 1)
        minus_green = far.sub_(own, alpha=2).sub_(near, alpha=2)
        torch.add(minus_green, own, alpha=4, out=grid.at(result, y, x))
    return grid.mirror_(result)


# The neighbourhood over which the change of the colour difference along the rows is summed: (dy, dx, weight), in the
# order in which scipy adds (floating-point addition is not associative). That along the columns is its transpose.
_ROWS = ((-2, -2, 1), (-2, 0, 1), (-1, -1, 1), (0, -2, 3), (0, 0, 3), (1, -1, 1), (2, -2, 1), (2, 0, 1))
_COLUMNS = tuple(sorted((dx, dy, weight) for dy, dx, weight in _ROWS))


def _choose_direction(grid: _Grid, along_rows: Tensor, along_columns: Tensor) -> list[Tensor]:
    """Whether to interpolate along the rows: bool (N, H/2, W/2), for the red and for the blue pixels.

    The colour differences change less along the chosen direction; on a tie, that is the rows.
    """
    row_change, column_change = _change(grid, along_rows, 0, 2), _change(grid, along_columns, 2, 0)
    return [
        _weighted_sum(grid, column_change, site, _COLUMNS, 0) >= _weighted_sum(grid, row_change, site, _ROWS, 1)
        for site in (0, 1)
    ]


def _change(grid: _Grid, difference: Tensor, dy: int, dx: int) -> Tensor:
    """The quincunx |difference - difference at offset (dy, dx)|, zero outside the image."""
    change = grid.new(difference, fill=0.0)
    for site in (0, 1):
        y, x = grid.first(site)
        torch.sub(grid.at(difference, y, x), grid.at(difference, y + dy, x + dx), out=grid.at(change, y, x)).abs_()
    return change


def _weighted_sum(grid: _Grid, quincunx: Tensor, site: int, neighbourhood: tuple, slot: int) -> Tensor:
    y, x = grid.first(site)
    total = grid.scratch[slot].zero_()
    for dy, dx, weight in neighbourhood:
        term = grid.at(quincunx, y + dy, x + dx)
        # Not `add_(term, alpha=weight)`: a fused multiply-add rounds once, but scipy rounds twice.
        total += term if weight == 1 else torch.mul(term, weight, out=grid.scratch[2])
    return total


def _refine(grid: _Grid, difference: Tensor, horizontal: list[Tensor]) -> Tensor:
    """Average each colour difference with those of the two green neighbours in the chosen direction.

    The difference at a green pixel is the mean of those on both sides of it, so the weights are 1/6, 4/6, 1/6.
    """
    refined = grid.new(difference)
    for site in (0, 1):
        y, x = grid.first(site)
        neighbours = grid.directional_pair(difference, y, x, 2, horizontal[site])
        torch.mul(neighbours.add_(grid.at(difference, y, x), alpha=4), 1 / 6, out=grid.at(refined, y, x))
    return grid.mirror_(refined)


def _red_minus_blue(grid: _Grid, difference: Tensor, horizontal: list[Tensor], divisor: int) -> list[Tensor]:
    """Red minus blue (N, H/2, W/2), for the red and for the blue pixels.

    It is the sum over the two green neighbours in the chosen direction, divided by `divisor`.
    """
    on_green = grid.new(difference)
    for row_colour in (0, 1):
        y, x = grid.first(row_colour, on_green=True)
        beside, above_below = grid.pair(difference, y, x, 0, 1, 0), grid.pair(difference, y, x, 1, 0, 1)
        red, blue = (above_below, beside) if row_colour else (beside, above_below)
        torch.sub(red, blue, out=grid.at(on_green, y, x))
    grid.mirror_(on_green, on_green=True)
    # `on_green` holds sums of two samples, that is, twice the mean.
    return [
        grid.directional_pair(on_green, *grid.first(site), 1, horizontal[site]) * (0.5 / divisor) for site in (0, 1)
    ]


def _assemble(
    grid: _Grid, colour: Tensor, green: Tensor, difference: Tensor, red_minus_blue: list[Tensor], image: Tensor
) -> None:
    """Fill the colour image (N, 3, H, W) from the mosaic's samples and the final differences."""
    for site, own, other, sign in ((0, 0, 2, -1), (1, 2, 0, 1)):
        y, x = grid.first(site)
        out, sample = grid.phase(image, y, x), grid.at(colour, y, x)
        out[:, own] = sample
        torch.sub(sample, grid.at(difference, y, x), out=out[:, 1])
        torch.add(sample, red_minus_blue[site], alpha=sign, out=out[:, other])

        y, x = grid.first(site, on_green=True)
        out, sample = grid.phase(image, y, x), grid.at(green, y, x)
        out[:, 1] = sample
        torch.add(sample, grid.pair(difference, y, x, 0, 1, 0), alpha=0.5, out=out[:, own])
        torch.add(sample, grid.pair(difference, y, x, 1, 0, 0), alpha=0.5, out=out[:, other])
