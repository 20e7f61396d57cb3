"""A mosaic as its colour planes, in which one camera is mapped to another: R, Gr, Gb, B, black 0, white 1.

Or as three planes, with the mean of both greens: what dcraw's half size gives, and so what LSMI's pictures are.
"""

import torch
from torch import Tensor

from data.inputs import PACKED_CHANNELS, packed_input
from data.sensor import CHANNELS, Sensor, offsets

FROM_PACKED = [PACKED_CHANNELS.index(channel) for channel in CHANNELS]


def to_planes(mosaic: Tensor, sensor: Sensor, channels: int = 4) -> Tensor:
    """Mosaics (N, 1, H, W), 1 is the white level -> (N, C, H/2, W/2), (x - black) / (white - black), clipped to [0, 1].

    C = `channels` is 4, or 3: R, the mean of the greens (taken before clipping, as LSMI does), B. Raises `UserError`
    for odd sides.
    """
    planes = packed_input(mosaic, sensor)[:, FROM_PACKED]
    return (merge_greens(planes) if channels == 3 else planes).clamp_(0, 1)


def merge_greens(planes: Tensor) -> Tensor:
    """Planes (N, 4, h, w) -> (N, 3, h, w): R, the mean of the greens, B."""
    return torch.stack((planes[:, 0], (planes[:, 1] + planes[:, 2]) / 2, planes[:, 3]), 1)


def split_greens(mapped: Tensor, planes: Tensor) -> Tensor:
    """Mapped three planes (N, 3, h, w) -> four: each green keeps what, in the `planes` (N, 4, h, w), it has of its own.

    That is its difference from the mean of both greens: the detail that the mosaic has in green.
    """
    detail = (planes[:, 1] - planes[:, 2]) / 2
    return torch.stack((mapped[:, 0], mapped[:, 1] + detail, mapped[:, 1] - detail, mapped[:, 2]), 1)


def from_planes(planes: Tensor, sensor: Sensor) -> Tensor:
    """Planes (N, 4, H/2, W/2) -> a camera's mosaics (N, 1, H, W): whole digital numbers up to white, uint16.

    What lies outside [0, 1] is clipped. Raises `OverflowError` for a white level of more than 16 bits.
    """
    if sensor.white_level > 65535:
        raise OverflowError(f"a white level of {sensor.white_level:g} does not fit into 16 bits")
    count, _, height, width = planes.shape
    mosaic = torch.empty(count, 1, 2 * height, 2 * width, dtype=torch.uint16, device=planes.device)
    for plane, channel, black in zip(planes.unbind(1), CHANNELS, sensor.black_level, strict=True):
        row, column = offsets(sensor.cfa)[channel]
        numbers = black + plane.float().clamp(0, 1) * (sensor.white_level - black)
        mosaic[:, 0, row::2, column::2] = numbers.round().to(torch.uint16)
    return mosaic
