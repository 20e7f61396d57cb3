"""Cameras' CFA orders and levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from errors import UserError

Cfa = Literal["rggb", "bggr", "grbg", "gbrg"]  # the colour at (row, column) parity (0, 0), (0, 1), (1, 0), (1, 1)
CFA_ORDERS = get_args(Cfa)
# Of light and exposure: data/conditions.py
Normalisation = Literal["off", "as_shot", "exposure", "gray_world", "white_balance"]
Levels = Literal["file", "given"]  # of camera files: each file's own, or given by the user (data/camera_files.py)
CHANNELS = ("R", "Gr", "Gb", "B")  # the order of a `black_level`; Gr is the green in the red rows
LARGEST_WHITE = 1 << 24  # float32 holds all digital numbers up to here


@dataclass(frozen=True)
class Sensor:
    """A camera's CFA order and levels. Raises `UserError` for levels or an order that no camera can have."""

    cfa: Cfa
    black_level: tuple[float, float, float, float]  # of R, Gr, Gb, B, in digital numbers
    white_level: float  # in digital numbers: 1023 for 10 bits

    def __post_init__(self):
        offsets(self.cfa)
        if len(self.black_level) != 4:
            raise UserError(f"black_level needs four values (R, Gr, Gb, B), not {len(self.black_level)}")
        if not all(0 <= black < self.white_level for black in self.black_level):
            raise UserError(f"black_level {self.black_level} must lie in [0, white_level = {self.white_level:g})")
        if self.white_level > LARGEST_WHITE:
            raise UserError(f"white_level is {self.white_level:g}, but must not exceed {LARGEST_WHITE} (24 bits)")

    def __str__(self) -> str:
        black = " ".join(f"{level:g}" for level in self.black_level)
        return f"CFA {self.cfa}, black {black}, white {self.white_level:g}"


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


def mirrored_axes(cfa: str, wanted: str) -> tuple[int, ...]:
    """The axes, of rows (-2) and columns (-1), to flip a mosaic of even sides along so that its CFA order is `wanted`.

    A network has learned where the colours lie in the 2x2 block; a mosaic of another order, read as if it had the same
    geometry, costs 4 to 6 dB. Mirroring is exact. Raises `UserError` for an unknown CFA order.
    """
    places = zip((-2, -1), offsets(cfa)["R"], offsets(wanted)["R"], strict=True)
    return tuple(axis for axis, here, there in places if here != there)


def mirror(image: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Flip a mosaic or an image (..., H, W) along `mirrored_axes`; the same tensor if there are none."""
    return image.flip(axes) if axes else image


# The one home of the known cameras' facts: presets, the simulated camera and released weights refer to these rows.
SENSORS = {
    "fujifilm": Sensor("rggb", (58.0, 60.0, 61.0, 62.0), 1023.0),  # Fujifilm UltraISP, 10 bits (released code)
    "fujifilm-rmfa": Sensor("rggb", (63.0,) * 4, 1023.0),  # the same camera as RMFA-Net's released code reads it
    "ntire26": Sensor("rggb", (0.0,) * 4, 1023.0),  # NTIRE 2026: fractions of white, no black level
    "simulated-a": Sensor("rggb", (252.0, 256.0, 255.0, 259.0), 4095.0),  # data/simulate_cameras.py, 12 bits
    "simulated-b": Sensor("grbg", (62.0, 64.0, 63.0, 66.0), 1023.0),  # 10 bits
}


def planes(mosaic: np.ndarray, sensor: Sensor) -> dict[str, np.ndarray]:
    """The four colour planes (H/2, W/2) of a mosaic (H, W), digital numbers: black becomes 0, white 1."""
    found = {}
    for channel, black in zip(CHANNELS, sensor.black_level, strict=True):
        row, column = offsets(sensor.cfa)[channel]
        found[channel] = (mosaic[row::2, column::2].astype(np.float64) - black) / (sensor.white_level - black)
    return found


def above_black(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """A mosaic (N, 1, H, W), 1 is white, with black at 0 instead of black / white, and nothing below."""
    result = mosaic.clone()
    for channel, black in zip(CHANNELS, sensor.black_level, strict=True):
        row, column = offsets(sensor.cfa)[channel]
        black /= sensor.white_level
        result[..., row::2, column::2].sub_(black).div_(1 - black)
    return result.clamp_(min=0)


def multiply_above_black(mosaic: np.ndarray | Tensor, gains: Sequence[float], sensor: Sensor, white: float) -> None:
    """Multiply what is above black by the gains of R, G and B: (..., H, W), floating point, in place.

    `white` is the value of white: the sensor's white level for digital numbers, 1 for what `mosaic_tensor` returns.
    """
    for channel, black in zip(CHANNELS, sensor.black_level, strict=True):
        row, column = offsets(sensor.cfa)[channel]
        plane, black = mosaic[..., row::2, column::2], black * white / sensor.white_level
        plane -= black
        plane *= gains["RGB".index(channel[0])]
        plane += black


def mosaic_tensor(mosaic: np.ndarray, sensor: Sensor) -> Tensor:
    """A mosaic file's digital numbers (H, W) as a tensor (1, H, W), float32, 1 is white."""
    return torch.from_numpy(mosaic.astype(np.float32))[None] / sensor.white_level
