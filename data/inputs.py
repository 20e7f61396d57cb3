"""The input formats of the generators.

A mosaic here is (N, 1, H, W), floating point, digital numbers divided by `white_level`: 1 is white, and
black_level / white_level is black. All functions work on batches, on the mosaic's device, and change nothing in place.
"""

import torch
from torch import Tensor

from data.context import statistics
from data.sensor import CHANNELS, SENSORS, Sensor, offsets
from errors import UserError

PACKED_CHANNELS = ("B", "Gr", "R", "Gb")  # the published order of the packed input


def _check_even(mosaic: Tensor) -> None:
    height, width = mosaic.shape[-2:]
    if height % 2 or width % 2:
        raise UserError(f"a Bayer mosaic needs even sides, but this one is {height}x{width} (height x width): crop it")


def packed_input(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """The input of Efficient and Robust ISP: (N, 1, H, W) -> (N, 4, H/2, W/2), channels B, Gr, R, Gb (as published).

    Each channel is (x - black) / (white - black), not clipped. Raises `UserError` for odd sides.
    """
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
    """The input of RMFA-Net: (N, 1, H, W) -> (N, 3, H, W), one channel a colour.

    Channel R holds max(x - black, 0) / white at the red sites and ones elsewhere; G and B likewise. Raises `UserError`
    for odd sides.
    """
    _check_even(mosaic)
    split = mosaic.new_ones(mosaic.shape[0], 3, *mosaic.shape[-2:])
    where = offsets(sensor.cfa)
    for channel, black in zip(CHANNELS, sensor.black_level, strict=True):
        row, column = where[channel]
        sites = mosaic[:, 0, row::2, column::2]
        split[:, "RGB".index(channel[0]), row::2, column::2] = (sites - black / sensor.white_level).clamp(min=0)
    return split


@torch.no_grad()
def context_of(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """The context (N, K) of whole mosaics (N, 1, H, W): numbers about their colours (data/context.py)."""
    channels = dict(zip(PACKED_CHANNELS, packed_input(mosaic, sensor).unbind(1), strict=True))
    return statistics(torch.stack((channels["R"], (channels["Gr"] + channels["Gb"]) / 2, channels["B"]), dim=1))


def packed_context_input(mosaic: Tensor, sensor: Sensor, context: Tensor | None = None) -> Tensor:
    """The input of Efficient ISP with context: `packed_input` and a constant plane for each number of the context.

    `context` (N, K) is that of the whole files, as `context_of` gives it; by default, `mosaic` is whole.
    """
    packed = packed_input(mosaic, sensor)
    context = context_of(mosaic, sensor) if context is None else context
    return torch.cat((packed, context[:, :, None, None].expand(-1, -1, *packed.shape[-2:])), dim=1)


# --- of the networks by others ---------------------------------------------------------------------------------------

# Their code does not subtract black: it takes the digital numbers of one phone as they are. Those of another camera are
# brought to that phone's levels first, so that black and white are what a network has learned. From facts on the levels
# of Zurich RAW to RGB and Fujifilm UltraISP, which are 10-bit mosaics of the same order and nearly the same black.
PHONE, PHONE_63 = SENSORS["fujifilm"], SENSORS["fujifilm-rmfa"]


def as_numbered_by(phone: Sensor, mosaic: Tensor, sensor: Sensor) -> Tensor:
    """The digital numbers (N, 1, H, W) that `phone` would have given for what `sensor` gave; not clipped.

    Exactly the sensor's own numbers, if it is the phone. Raises `UserError` for odd sides.
    """
    _check_even(mosaic)
    if sensor.black_level == phone.black_level and sensor.white_level == phone.white_level:
        return mosaic * phone.white_level
    numbers = torch.empty_like(mosaic)
    levels = zip(CHANNELS, sensor.black_level, phone.black_level, strict=True)
    for channel, black, wanted in levels:
        row, column = offsets(sensor.cfa)[channel]
        black /= sensor.white_level
        scale = (phone.white_level - wanted) / (1 - black)
        numbers[..., row::2, column::2] = (mosaic[..., row::2, column::2] - black) * scale + wanted
    return numbers


def dn_input(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """The input of LAN: the mosaic (N, 1, H, W) itself in 10-bit digital numbers, black included."""
    return as_numbered_by(PHONE, mosaic, sensor)


def _planes_of(numbers: Tensor, sensor: Sensor, order: tuple[str, ...]) -> Tensor:
    where = offsets(sensor.cfa)
    return torch.cat([numbers[:, :, where[each][0] :: 2, where[each][1] :: 2] for each in order], dim=1)


def packed_1020_input(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """The input of MicroISP and PyNET: (N, 4, H/2, W/2), channels B, Gr, R, Gb, 10-bit digital numbers / 1020."""
    return _planes_of(as_numbered_by(PHONE, mosaic, sensor), sensor, PACKED_CHANNELS) / 1020


def packed_63_input(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """The input of LiteISPNet: as `packed_1020_input`, but max(x - 63, 0) / 957."""
    return (_planes_of(as_numbered_by(PHONE_63, mosaic, sensor), sensor, PACKED_CHANNELS) - 63).clamp(min=0) / 957


def rggb_4095_input(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """The input of SYENet and CSANet: (N, 4, H/2, W/2), channels R, Gr, Gb, B, 12-bit digital numbers / 4095.

    So white is 1, and black is in.
    """
    return _planes_of(as_numbered_by(PHONE, mosaic, sensor), sensor, CHANNELS) / PHONE.white_level


# A new input format is a function above and a row here. Those in WITH_CONTEXT take the context of whole files, too.
INPUT_FORMATS = {
    "packed": packed_input,
    "split": split_input,
    "packed_context": packed_context_input,
    "dn": dn_input,
    "packed_1020": packed_1020_input,
    "packed_63": packed_63_input,
    "rggb_4095": rggb_4095_input,
}
WITH_CONTEXT = {"packed_context"}


def prepare(mosaic: Tensor, sensor: Sensor, input_format: str, context: Tensor | None = None) -> Tensor:
    """Make a generator's input from a mosaic (N, 1, H, W), for patches with the `context` (N, K) of their files.

    Raises `UserError` for an unknown `input_format`.
    """
    if input_format not in INPUT_FORMATS:
        raise UserError(f"unknown input format '{input_format}'; known are: {', '.join(INPUT_FORMATS)}")
    if input_format in WITH_CONTEXT:
        return INPUT_FORMATS[input_format](mosaic, sensor, context)
    return INPUT_FORMATS[input_format](mosaic, sensor)
