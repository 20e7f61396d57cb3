"""From a Bayer mosaic to a colour image, and the reference image that the content loss compares with.

`menon2007` is the demosaicing of the paper's released code, without its Python loop over the images; it works on whole
batches on any device. `bilinear_opencv` is the other choice of the paper's Table 3. `DEMOSAICERS` has both by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from data.sensor import Sensor, offsets
from errors import UserError

# OpenCV names a Bayer order after the 2x2 block that starts at pixel (1, 1), not at the corner: RGGB is its "BG".
OPENCV_CODE = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
}

CACHED = 1 << 20  # pixels that a CPU demosaics at a time: what lies between two steps should stay in its cache
MINIMUM_SIZE = 4  # pixels a side: the filters look two pixels beyond the border, and the mirror there needs three


@torch.no_grad()
def menon2007(mosaic: Tensor, cfa: str = "rggb", refine: bool = True) -> Tensor:
    """Demosaic with directional filtering and an a posteriori decision (DDFAPD).

    Equal to `colour_demosaicing.demosaicing_CFA_Bayer_Menon2007` of every image, borders included; in float64 even the
    decision between the two directions is, bit for bit, the same. In float32 a tie may fall the other way, unless the
    mosaic holds integers of up to 16 bits: on those the decision is exact in both. Ties are frequent in smooth areas
    (0.5 % of the values of a 10 bit image change with them), so pass the sensor's integers, and scale the result.

    Everything is computed on the colour differences (red or blue, minus green) at the red and blue pixels: half the
    samples of the mosaic, and the steps of the paper that touch green pixels collapse into sums of these differences.

    Args:
        mosaic: (N, 1, H, W), float32 or float64, linear; any range. H and W even, at least `MINIMUM_SIZE`.
        cfa: order of the colours in the top left 2x2 block, row by row: "rggb", "bggr", "grbg" or "gbrg".
        refine: also do the paper's refining step (section IV).

    Returns:
        (N, 3, H, W) red, green, blue, in the mosaic's dtype and units, not clipped, without gradient.

    Raises:
        UserError: unknown cfa, or a mosaic of another shape or dtype.

    Source: Menon, Andriani and Calvagno, "Demosaicing with directional filtering and a posteriori decision", IEEE
    Transactions on Image Processing 16(1), 2007; borders as in colour-demosaicing (BSD-3-Clause).
    """
    _check(mosaic, cfa)
    if mosaic.dtype not in (torch.float32, torch.float64):
        raise UserError(f"menon2007 got a {mosaic.dtype} mosaic; convert it to float32 or float64")
    count, _, height, width = mosaic.shape
    image = mosaic.new_empty(count, 3, height, width)
    together = max(1, CACHED // (height * width) if mosaic.device.type == "cpu" else count)
    for some, out in zip(mosaic.split(together), image.split(together), strict=True):
        _menon2007(some, offsets(cfa)["R"], refine, out)
    return image


def _menon2007(mosaic: Tensor, red: tuple[int, int], refine: bool, out: Tensor) -> None:
    """`menon2007` into `out`; `red` is where the first red pixel lies."""
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
        chosen.mul_(0.25)  # _colour_difference gives four times
    grid.mirror_(difference)

    if not refine:
        _assemble(grid, colour, green, difference, _red_minus_blue(grid, difference, horizontal, 2), out)
        return
    refined = _refine(grid, difference, horizontal)
    # The package's last step averages three values of red minus blue in the chosen direction: the neighbours' after the
    # refinement and the pixel's own before it, which is itself the mean of the neighbours' then. Hence the half.
    blend = difference.mul_(0.5).add_(refined)
    _assemble(grid, colour, green, refined, _red_minus_blue(grid, blend, horizontal, 3), out)


class _Grid:
    """Addresses of the samples of a mosaic that is split by colour and mirrored beyond its borders.

    Coordinates (y, x) are pixels of the padded image, whose padding (2 or 3 pixels) is such that red lies at even y
    and even x: one code for all four orders. A "quincunx" is a tensor (N, 2, h, w) of either the red and blue samples,
    or the green ones: of row y it holds every second pixel, in plane y % 2, row y // 2. So pixel x is in column x // 2.

    `scratch` is three buffers (N, H/2, W/2) for what lives shortly. On the CPU, fresh memory for each sum costs more
    (page faults) than the sums do.
    """

    def __init__(self, mosaic: Tensor, red_row: int, red_column: int):
        self.batch, _, self.height, self.width = mosaic.shape
        self.top, self.left = 2 + red_row, 2 + red_column
        self.scratch = mosaic.new_empty(3, self.batch, self.height // 2, self.width // 2).unbind()

    def new(self, like: Tensor, fill: float | None = None) -> Tensor:
        """A quincunx, uninitialised or filled."""
        shape = (self.batch, 2, self.height // 2 + self.top, self.width // 2 + self.left)
        return like.new_empty(shape) if fill is None else like.new_full(shape, fill)

    def first(self, row_parity: int, on_green: bool = False) -> tuple[int, int]:
        """The top left pixel inside the image among the red (0) or blue (1) ones, or the green ones of their rows."""
        return self.top + (self.top + row_parity) % 2, self.left + (self.left + row_parity + on_green) % 2

    def at(self, quincunx: Tensor, y: int, x: int) -> Tensor:
        """View (N, H/2, W/2) of every second sample of every second row, from pixel (y, x) on."""
        return quincunx[:, y % 2, y // 2 : y // 2 + self.height // 2, x // 2 : x // 2 + self.width // 2]

    def phase(self, image: Tensor, y: int, x: int) -> Tensor:
        """View (..., H/2, W/2) of an unpadded image (..., H, W): the pixels that `at` gives for the same (y, x)."""
        return image[..., y - self.top :: 2, x - self.left :: 2]

    def pair(self, quincunx: Tensor, y: int, x: int, dy: int, dx: int, slot: int) -> Tensor:
        """The sum of the two samples at (-dy, -dx) and (dy, dx) from those of `at`, in scratch buffer `slot`."""
        before, after = self.at(quincunx, y - dy, x - dx), self.at(quincunx, y + dy, x + dx)
        return torch.add(before, after, out=self.scratch[slot])

    def directional_pair(self, quincunx: Tensor, y: int, x: int, step: int, horizontal: Tensor) -> Tensor:
        """`pair` beside where `horizontal`, above and below elsewhere; in scratch buffer 0, with 1 overwritten."""
        beside, above_below = self.pair(quincunx, y, x, 0, step, 0), self.pair(quincunx, y, x, step, 0, 1)
        return torch.where(horizontal, beside, above_below, out=beside)

    def split(self, mosaic: Tensor, on_green: bool) -> Tensor:
        """The quincunx of the red and blue pixels, or of the green ones, of a mosaic (N, H, W)."""
        quincunx = self.new(mosaic)
        for parity in (0, 1):
            y, x = self.first(parity, on_green)
            self.at(quincunx, y, x).copy_(self.phase(mosaic, y, x))
        return self.mirror_(quincunx, on_green)

    def mirror_(self, quincunx: Tensor, on_green: bool = False) -> Tensor:
        """Write the mirror image beyond the borders, about the border pixel (scipy's "mirror"), which keeps colours.

        The filters of the method are symmetric, so mirroring any of its intermediate results is right.
        """
        for parity, plane in enumerate(quincunx.unbind(1)):
            y, x = self.first(parity, on_green)
            for outside, inside in _reflections(plane.shape[1], y % 2 - self.top, self.height):
                plane[:, outside] = plane[:, inside]
            for outside, inside in _reflections(plane.shape[2], x % 2 - self.left, self.width):
                plane[:, :, outside] = plane[:, :, inside]
        return quincunx


def _reflections(count: int, start: int, size: int) -> list[tuple[int, int]]:
    """(index, index of its mirror image) of those samples `start + 2 * index` that lie outside [0, size)."""
    positions = [start + 2 * index for index in range(count)]
    return [
        (index, (abs(size - 1 - abs(size - 1 - position)) - start) // 2)
        for index, position in enumerate(positions)
        if not 0 <= position < size
    ]


def _colour_difference(grid: _Grid, colour: Tensor, green: Tensor, dy: int, dx: int) -> Tensor:
    """Four times (red or blue, minus green) at the red and blue pixels, green interpolated along one direction.

    Green is the mean of its two neighbours plus a quarter of the second difference of the pixel's own colour. Scaling
    by a power of two is exact, so the roundings are the package's: without that, ties of the decision differ from it.
    """
    result = grid.new(colour)
    for site in (0, 1):
        y, x = grid.first(site)
        own = grid.at(colour, y, x)
        near, far = grid.pair(green, y, x, dy, dx, 0), grid.pair(colour, y, x, 2 * dy, 2 * dx, 1)
        minus_green = far.sub_(own, alpha=2).sub_(near, alpha=2)
        torch.add(minus_green, own, alpha=4, out=grid.at(result, y, x))
    return grid.mirror_(result)


# The neighbourhood over which the change of the colour difference along the rows is summed, as (dy, dx, weight), in the
# order in which scipy adds (float addition is not associative); that along the columns is its transpose.
_ROWS = ((-2, -2, 1), (-2, 0, 1), (-1, -1, 1), (0, -2, 3), (0, 0, 3), (1, -1, 1), (2, -2, 1), (2, 0, 1))
_COLUMNS = tuple(sorted((dx, dy, weight) for dy, dx, weight in _ROWS))


def _choose_direction(grid: _Grid, along_rows: Tensor, along_columns: Tensor) -> list[Tensor]:
    """Where to interpolate along the rows: bool (N, H/2, W/2) at the red and at the blue pixels.

    The direction along which the colour differences change less, a tie going to the rows.
    """
    row_change, column_change = _change(grid, along_rows, 0, 2), _change(grid, along_columns, 2, 0)
    return [
        _weighted_sum(grid, column_change, site, _COLUMNS, 0) >= _weighted_sum(grid, row_change, site, _ROWS, 1)
        for site in (0, 1)
    ]


def _change(grid: _Grid, difference: Tensor, dy: int, dx: int) -> Tensor:
    """The quincunx |difference - difference at (dy, dx) from it|, zero outside the image."""
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
        # Not `add_(term, alpha=weight)`: a fused multiply-add rounds once where scipy rounds twice.
        total += term if weight == 1 else torch.mul(term, weight, out=grid.scratch[2])
    return total


def _refine(grid: _Grid, difference: Tensor, horizontal: list[Tensor]) -> Tensor:
    """Average each colour difference with its two green neighbours' in the chosen direction.

    Theirs are the means of the differences on both sides of them, which makes the weights 1/6, 4/6, 1/6.
    """
    refined = grid.new(difference)
    for site in (0, 1):
        y, x = grid.first(site)
        neighbours = grid.directional_pair(difference, y, x, 2, horizontal[site])
        torch.mul(neighbours.add_(grid.at(difference, y, x), alpha=4), 1 / 6, out=grid.at(refined, y, x))
    return grid.mirror_(refined)


def _red_minus_blue(grid: _Grid, difference: Tensor, horizontal: list[Tensor], divisor: int) -> list[Tensor]:
    """(N, H/2, W/2) at the red and at the blue pixels: the green neighbours', summed in the chosen direction."""
    on_green = grid.new(difference)
    for row_colour in (0, 1):
        y, x = grid.first(row_colour, on_green=True)
        beside, above_below = grid.pair(difference, y, x, 0, 1, 0), grid.pair(difference, y, x, 1, 0, 1)
        red, blue = (above_below, beside) if row_colour else (beside, above_below)
        torch.sub(red, blue, out=grid.at(on_green, y, x))
    grid.mirror_(on_green, on_green=True)
    # `on_green` holds sums of two: twice the mean.
    return [
        grid.directional_pair(on_green, *grid.first(site), 1, horizontal[site]) * (0.5 / divisor) for site in (0, 1)
    ]


def _assemble(
    grid: _Grid, colour: Tensor, green: Tensor, difference: Tensor, red_minus_blue: list[Tensor], image: Tensor
) -> None:
    """Fill the colour image (N, 3, H, W) from the samples of the mosaic and the final differences."""
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


@torch.no_grad()
def bilinear_opencv(mosaic: Tensor, cfa: str = "rggb") -> Tensor:
    """Demosaic with OpenCV's bilinear interpolation, the paper's other choice (its Table 3), on 16-bit integers.

    Args:
        mosaic: (N, 1, H, W), floating point, digital numbers up to 65535, which are rounded. H and W even, at least
            `MINIMUM_SIZE`.
        cfa: order of the colours in the top left 2x2 block, row by row: "rggb", "bggr", "grbg" or "gbrg".

    Returns:
        (N, 3, H, W) red, green, blue, whole digital numbers, in the mosaic's dtype, on its device, without gradient.

    Raises:
        UserError: unknown cfa, or a mosaic of another shape or dtype.
    """
    _check(mosaic, cfa)
    integers = mosaic[:, 0].round().clamp(0, 65535).cpu().numpy().astype(np.uint16)
    images = np.empty((*integers.shape, 3), np.float32)
    for index, image in enumerate(integers):
        images[index] = cv2.cvtColor(image, OPENCV_CODE[cfa])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(mosaic)


# By name. Both take digital numbers, which is what makes `menon2007` exact, and return them.
DEMOSAICERS = {"menon2007": menon2007, "bilinear": bilinear_opencv}


@torch.no_grad()
def render_reference(
    demosaiced: Tensor,
    gains: tuple[float, float, float] = (1.6, 1.2, 1.4),
    gamma: float = 2.2,
    span: Tensor | None = None,
) -> Tensor:
    """The content loss's reference: white balance, clip, stretch of each image to the full range, gamma.

    Args:
        demosaiced: (N, 3, H, W) linear red, green, blue, floating point.
        gains: white balance factors of red, green and blue.
        gamma: display gamma; the result is the stretched image to the power 1 / gamma.
        span: (N, 2), the lowest and the highest value to stretch between, from `balanced_span`; by default the image's
            own. Give a patch the span of the image that it was cut from.

    Returns:
        (N, 3, H, W) float32 in [0, 1]; zeros for an image whose values are all the same.

    Raises:
        UserError: not three channels, not floating point, or gains or a gamma that are not positive.
    """
    balanced = _balance(demosaiced, gains, gamma)
    low, high = (_span_of(balanced) if span is None else span.to(balanced)).view(-1, 2, 1, 1, 1).unbind(1)
    width = high - low
    stretched = (balanced - low) / torch.where(width > 0, width, 1)
    return stretched.clamp_(0, 1).pow_(1 / gamma).float()


@torch.no_grad()
def balanced_span(demosaiced: Tensor, gains: tuple[float, float, float] = (1.6, 1.2, 1.4)) -> Tensor:
    """(N, 2): the lowest and the highest value of each (N, 3, H, W) after white balance, for `render_reference`."""
    return _span_of(_balance(demosaiced, gains))


def _span_of(balanced: Tensor) -> Tensor:
    return torch.stack((balanced.amin((1, 2, 3)), balanced.amax((1, 2, 3))), dim=1)


def _balance(demosaiced: Tensor, gains: tuple[float, float, float], gamma: float = 1.0) -> Tensor:
    if demosaiced.ndim != 4 or demosaiced.shape[1] != 3 or not demosaiced.is_floating_point():
        raise UserError(
            f"the reference is made from a floating point (N, 3, H, W), not from a {demosaiced.dtype} "
            f"{tuple(demosaiced.shape)}; demosaic the mosaic first"
        )
    if len(gains) != 3 or min(*gains, gamma) <= 0:
        raise UserError(f"the reference got gains {gains} and gamma {gamma}; give three gains and a gamma, all above 0")
    demosaiced = demosaiced.to(torch.promote_types(demosaiced.dtype, torch.float32))
    # The paper's released code divides the 10 bit values by 65535, not by 1023, so that this clip never bites. That is
    # the caller's business. The stretch undoes the factor.
    balanced = torch.empty_like(demosaiced)
    for channel, (gain, plane) in enumerate(zip(gains, balanced.unbind(1), strict=True)):
        torch.mul(demosaiced[:, channel], gain, out=plane)
    return balanced.clamp_(0, 1)


@dataclass(frozen=True)
class Reference:
    """From mosaics to the reference that the content loss compares with (section 3.1)."""

    sensor: Sensor
    demosaic: Callable[[Tensor, str], Tensor] = menon2007

    def __call__(self, mosaic: Tensor, span: Tensor | None = None) -> Tensor:
        """Mosaics (N, 1, H, W), 1 is white -> (N, 3, H, W) in [0, 1]; patches need the `span` of their whole files."""
        return render_reference(self._linear(mosaic), span=span)

    def span(self, mosaic: Tensor) -> Tensor:
        """Between what to stretch patches of these whole mosaics (N, 1, H, W): (N, 2)."""
        return balanced_span(self._linear(mosaic))

    def _linear(self, mosaic: Tensor) -> Tensor:
        """Demosaiced as whole digital numbers, on which `menon2007` is exact; then so small that no gain clips."""
        digital = (mosaic * self.sensor.white_level).round()
        return self.demosaic(digital, self.sensor.cfa) / max(65535, 2 * self.sensor.white_level)


def _check(mosaic: Tensor, cfa: str) -> None:
    offsets(cfa)  # refuses an unknown order
    shape = tuple(mosaic.shape)
    if not mosaic.is_floating_point():
        raise UserError(f"the mosaic is {mosaic.dtype}; convert it to floating point first")
    if len(shape) != 4 or shape[1] != 1:
        raise UserError(f"the mosaic has the shape {shape}; give one of (N, 1, H, W)")
    if any(size < MINIMUM_SIZE or size % 2 for size in shape[2:]):
        raise UserError(f"the mosaic is {shape[2]}x{shape[3]}; crop it to even sides of {MINIMUM_SIZE} pixels or more")
