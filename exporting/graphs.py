"""The phone's form of a generator: the same function, of plain operators, with the levels and the clipping inside.

The input `raw` is one of

- "dn": the mosaic's digital numbers, packed: (1, 4, H/2, W/2) in the order of `data.inputs.PACKED_CHANNELS`, float32;
- "normalised": what `data.inputs.prepare` makes of the mosaic for this model, without the planes of a context.

A model with context has a second input, `context` (1, K): what `data.inputs.context_of` gives for the whole mosaic.
The output `image` is sRGB (1, 3, H, W) in [0, 1].
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.inputs import PACKED_CHANNELS, PHONE, PHONE_63, WITH_CONTEXT, context_of, prepare
from data.sensor import CHANNELS, Sensor, offsets
from errors import UserError
from models.efficient import ContextISP, EfficientISP

RAW_INPUTS = ("dn", "normalised")


# --- levels ----------------------------------------------------------------------------------------------------------


def packed_levels(sensor: Sensor) -> tuple[Tensor, Tensor]:
    """(black level to subtract, factor) of each packed channel, (4,) float32: x -> (x - black) / (white - black)."""
    levels = dict(zip(CHANNELS, sensor.black_level, strict=True))
    black = torch.tensor([levels[channel] for channel in PACKED_CHANNELS], dtype=torch.float64)
    return black.float(), (1 / (sensor.white_level - black)).float()


class PackedLevels(nn.Module):
    """Packed digital numbers (N, 4, h, w) -> `data.inputs.packed_input`: not clipped."""

    def __init__(self, sensor: Sensor):
        super().__init__()
        for name, values in zip(("black", "factor"), packed_levels(sensor), strict=True):
            self.register_buffer(name, values.view(1, 4, 1, 1))

    def forward(self, raw: Tensor) -> Tensor:
        return (raw - self.black) * self.factor


class SplitLevels(PackedLevels):
    """Packed digital numbers (N, 4, h, w) -> `data.inputs.split_input` (N, 3, 2 h, 2 w): no less than 0."""

    def __init__(self, sensor: Sensor):
        super().__init__(sensor)
        self.factor.fill_(1 / sensor.white_level)
        at = {site: channel for channel, site in offsets(sensor.cfa).items()}
        sites = [(color, at[row, column]) for color in "RGB" for row in (0, 1) for column in (0, 1)]
        plane_of_ones = len(PACKED_CHANNELS)
        order = [PACKED_CHANNELS.index(c) if c[0] == color else plane_of_ones for color, c in sites]
        self.register_buffer("order", torch.tensor(order))

    def forward(self, raw: Tensor) -> Tensor:
        planes = F.pad(super().forward(raw).clamp(min=0), (0, 0, 0, 0, 0, 1), value=1.0)
        return F.pixel_shuffle(planes.index_select(1, self.order), 2)


class PhoneLevels(nn.Module):
    """Packed digital numbers (N, 4, h, w) -> (n - subtracted) / divisor of the numbers n of a published phone.

    The same as `data.inputs.as_numbered_by` and what the formats make of it, in one factor and one offset a channel.
    `order` is that of the channels that come out. With `clipped`, they are no less than 0.
    """

    def __init__(
        self,
        sensor: Sensor,
        phone: Sensor = PHONE,
        order: tuple[str, ...] = PACKED_CHANNELS,
        subtracted: float = 0.0,
        divisor: float = 1.0,
        clipped: bool = False,
    ):
        super().__init__()
        black, wanted = (dict(zip(CHANNELS, camera.black_level, strict=True)) for camera in (sensor, phone))
        factors = [(phone.white_level - wanted[c]) / (sensor.white_level - black[c]) for c in order]
        offset = [wanted[c] - black[c] * factor - subtracted for c, factor in zip(order, factors, strict=True)]
        for name, values in (("factor", factors), ("offset", offset)):
            values = torch.tensor(values, dtype=torch.float64) / divisor
            self.register_buffer(name, values.float().view(1, 4, 1, 1))
        self.register_buffer("order", torch.tensor([PACKED_CHANNELS.index(c) for c in order]))
        self.ordered, self.clipped = order == PACKED_CHANNELS, clipped

    def forward(self, raw: Tensor) -> Tensor:
        planes = (raw if self.ordered else raw.index_select(1, self.order)) * self.factor + self.offset
        return planes.clamp(min=0) if self.clipped else planes


class MosaicLevels(PhoneLevels):
    """Packed digital numbers (N, 4, h, w) -> `data.inputs.dn_input` (N, 1, 2 h, 2 w)."""

    def __init__(self, sensor: Sensor):
        at = {site: channel for channel, site in offsets(sensor.cfa).items()}
        super().__init__(sensor, order=tuple(at[row, column] for row in (0, 1) for column in (0, 1)))

    def forward(self, raw: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(raw), 2)


LEVELS = {  # by input format
    "packed": PackedLevels,
    "packed_context": PackedLevels,
    "split": SplitLevels,
    "dn": MosaicLevels,
    "packed_1020": partial(PhoneLevels, divisor=1020),
    "packed_63": partial(PhoneLevels, phone=PHONE_63, subtracted=63, divisor=957, clipped=True),
    "rggb_4095": partial(PhoneLevels, order=CHANNELS, divisor=PHONE.white_level),
}


# --- networks --------------------------------------------------------------------------------------------------------


class _Efficient(nn.Module):
    """Efficient and Robust ISP with a plain pixel shuffle, which becomes one operator; its ReLU is in the clipping."""

    def __init__(self, network: EfficientISP):
        super().__init__()
        self.network = network

    def forward(self, packed: Tensor) -> Tensor:
        x = self.network.conv2(self.network.conv1(packed).tanh()).relu()
        return F.pixel_shuffle(self.network.conv3(x), 2)


class _Context(_Efficient):
    """Efficient ISP with context: its numbers are an input of their own instead of constant planes."""

    def forward(self, packed: Tensor, context: Tensor) -> Tensor:
        network = self.network
        gain, scale, shift = network.context(context)[:, :, None, None].split(network.widths, dim=1)
        x = network.conv1(packed * gain.exp()).tanh()
        x = (network.conv2(x) * scale.exp() + shift).relu()
        return F.pixel_shuffle(network.conv3(x), 2)


FORMS = {EfficientISP: _Efficient, ContextISP: _Context}  # other networks are exported as they are


class PhoneISP(nn.Module):
    """A generator in the phone's form; see the module. With `half`, the network computes in 16-bit floating point."""

    def __init__(self, generator: nn.Module, levels: nn.Module, half: bool = False):
        super().__init__()
        network = copy.deepcopy(generator).cpu().to(memory_format=torch.contiguous_format)
        form = FORMS.get(type(network))
        self.network = form(network) if form else network
        self.levels, self.half_precision = levels, half
        if half:
            self.network.half()
        self.requires_grad_(False).eval()

    def forward(self, raw: Tensor, context: Tensor | None = None) -> Tensor:
        inputs = [x for x in (self.levels(raw), context) if x is not None]
        if self.half_precision:
            inputs = [x.half() for x in inputs]
        return self.network(*inputs).float().clamp(0, 1)


def phone_form(
    generator: nn.Module, input_format: str, sensor: Sensor, raw_input: str = "dn", half: bool = False
) -> PhoneISP:
    """The phone's form of a generator, whose weights are copied. Raises `UserError` for a format without levels."""
    if raw_input == "normalised":
        return PhoneISP(generator, nn.Identity(), half)
    if input_format not in LEVELS:
        raise UserError(f"export.py does not know the levels of '{input_format}': use --raw-input normalised")
    return PhoneISP(generator, LEVELS[input_format](sensor), half)


# --- inputs ----------------------------------------------------------------------------------------------------------


def pack(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """A mosaic (N, 1, H, W) -> (N, 4, H/2, W/2), the same numbers in the order of `PACKED_CHANNELS`."""
    where = offsets(sensor.cfa)
    return torch.cat([mosaic[:, :, where[c][0] :: 2, where[c][1] :: 2] for c in PACKED_CHANNELS], dim=1)


def inputs_of(mosaic: Tensor, sensor: Sensor, input_format: str, raw_input: str = "dn") -> dict[str, Tensor]:
    """What the phone's form takes for a mosaic (1, 1, H, W) of digital numbers: {"raw": ..., perhaps "context": ...}.

    Raises `UserError` for odd sides.
    """
    fractions = mosaic / sensor.white_level
    prepared = prepare(fractions, sensor, input_format)
    context = context_of(fractions, sensor) if input_format in WITH_CONTEXT else None
    raw = pack(mosaic, sensor)
    if raw_input == "normalised":
        raw = prepared if context is None else prepared[:, : -context.shape[1]]
    return {"raw": raw.contiguous()} | ({} if context is None else {"context": context})
