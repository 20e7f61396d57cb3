"""Sensor geometry and levels: from a mosaic's digital numbers to what a generator takes.

A `mosaic` here is (N, 1, H, W), float, digital numbers over `white_level`: black_level / white_level is black, 1 is
white. Everything is pure, batched, and stays on the mosaic's device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from errors import UserError

# The colour at (row, column) parity (0, 0), (0, 1), (1, 0), (1, 1).
CFA_ORDERS = ("rggb", "bggr", "grbg", "gbrg")
CHANNELS = ("R", "Gr", "Gb", "B")  # the order of a `black_level`; Gr is the green in the red rows
PACKED_CHANNELS = ("B", "Gr", "R", "Gb")  # the published order of the packed input


@dataclass(frozen=True)
class Sensor:
    """A camera's CFA order and levels, in digital numbers.

    The default is Fujifilm UltraISP's 10-bit sensor as the released code reads it.
    """

    cfa: str = "rggb"
    black_level: tuple[float, float, float, float] = (58.0, 60.0, 61.0, 62.0)  # of R, Gr, Gb, B
    white_level: float = 1023.0

    def __post_init__(self):
        offsets(self.cfa)
        if len(self.black_level) != 4:
            raise UserError(f"black_level needs four values (R, Gr, Gb, B), not {len(self.black_level)}")
        if not all(0 <= black < self.white_level for black in self.black_level):
            raise UserError(f"black_level {self.black_level} must lie in [0, white_level = {self.white_level:g})")


def offsets(cfa: str) -> dict[str, tuple[int, int]]:
    """Where each channel's first pixel lies: {"R": (row, column), "Gr": ..., "Gb": ..., "B": ...}.

    Raises `UserError` for an unknown CFA order.
    """
    if cfa not in CFA_ORDERS:
        raise UserError(f"unknown CFA order '{cfa}'; known are: {', '.join(CFA_ORDERS)}")
    sites = {(i // 2, i % 2): colour for i, colour in enumerate(cfa)}
    red = next(site for site, colour in sites.items() if colour == "r")
    greens = (site for site, colour in sites.items() if colour == "g")
    return {
        "R": red,
        **{("Gr" if site[0] == red[0] else "Gb"): site for site in greens},
        "B": (1 - red[0], 1 - red[1]),
    }


def _check_even(mosaic: Tensor) -> None:
    height, width = mosaic.shape[-2:]
    if height % 2 or width % 2:
        raise UserError(f"a Bayer mosaic has even sides, this one is {height}x{width} (height x width); crop it")


def pack(mosaic: Tensor, cfa: str = "rggb") -> Tensor:
    """(N, 1, H, W) -> (N, 4, H/2, W/2), channels B, Gr, R, Gb (as published), levels unchanged."""
    _check_even(mosaic)
    where = offsets(cfa)
    return torch.cat([mosaic[..., where[c][0] :: 2, where[c][1] :: 2] for c in PACKED_CHANNELS], dim=1)


def unpack(packed: Tensor, cfa: str = "rggb") -> Tensor:
    """The inverse of `pack`: (N, 4, H/2, W/2) -> (N, 1, H, W)."""
    count, _, height, width = packed.shape
    mosaic = packed.new_empty(count, 1, 2 * height, 2 * width)
    for i, (row, column) in enumerate(offsets(cfa)[c] for c in PACKED_CHANNELS):
        mosaic[:, 0, row::2, column::2] = packed[:, i]
    return mosaic


def packed_input(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """What Efficient and Robust ISP take: (x - black) / (white - black) of each channel, packed; not clipped."""
    _check_even(mosaic)
    levels, where = dict(zip(CHANNELS, sensor.black_level, strict=True)), offsets(sensor.cfa)
    height, width = mosaic.shape[-2:]
    packed = mosaic.new_empty(len(mosaic), 4, height // 2, width // 2)
    for channel, plane in zip(PACKED_CHANNELS, packed.unbind(1), strict=True):
        row, column = where[channel]
        black = levels[channel] / sensor.white_level
        torch.sub(mosaic[:, 0, row::2, column::2], black, out=plane).div_(1 - black)
    return packed


def split_input(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """What RMFA-Net takes, its three-channel split: (N, 1, H, W) -> (N, 3, H, W).

    Channel R holds max(x - black, 0) / white at the red sites and ones elsewhere; G and B likewise.
    """
    _check_even(mosaic)
    split = mosaic.new_ones(mosaic.shape[0], 3, *mosaic.shape[-2:])
    where = offsets(sensor.cfa)
    for channel, black in zip(CHANNELS, sensor.black_level, strict=True):
        row, column = where[channel]
        sites = mosaic[:, 0, row::2, column::2]
        split[:, "RGB".index(channel[0]), row::2, column::2] = (sites - black / sensor.white_level).clamp(min=0)
    return split


INPUT_FORMATS = {"packed": packed_input, "split": split_input}


def prepare(mosaic: Tensor, sensor: Sensor, input_format: str) -> Tensor:
    """The generator's input from a mosaic, by the generator's `input_format` ("packed" or "split")."""
    if input_format not in INPUT_FORMATS:
        raise UserError(f"unknown input format '{input_format}'; known are: {', '.join(INPUT_FORMATS)}")
    return INPUT_FORMATS[input_format](mosaic, sensor)
