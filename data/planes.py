"""A mosaic as its four colour planes, in which one camera is mapped to another: R, Gr, Gb, B, black 0, white 1."""

import torch
from torch import Tensor

from data.inputs import PACKED_CHANNELS, packed_input
from data.sensor import CHANNELS, Sensor, offsets

FROM_PACKED = [PACKED_CHANNELS.index(channel) for channel in CHANNELS]


def to_planes(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """Mosaics (N, 1, H, W), 1 is the white level -> (N, 4, H/2, W/2), (x - black) / (white - black), clipped to [0, 1].

    Raises `UserError` for odd sides.
    """
    return packed_input(mosaic, sensor)[:, FROM_PACKED].clamp_(0, 1)


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
