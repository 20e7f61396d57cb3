"""8-bit integers for TFLite: scales and zero points, as its quantisation specification has them.

A real number r is stored as the integer q = round(r / scale) + zero, from -128 to 127.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.efficient import EfficientISP

LARGEST = 127
TANH_INPUT = 4.0  # beyond it, tanh is 1 within a tenth of the step of its own 8 bits


@dataclass(frozen=True)
class Scale:
    """How real numbers are stored: one scale and zero for a tensor, or a scale for each output channel of a filter."""

    scale: np.ndarray  # (1,) or (channels,)
    zero: int = 0

    def of(self, values: np.ndarray, dtype: type = np.int8) -> np.ndarray:
        """The integers of real numbers (channels, ...) or (...): those out of range become the nearest."""
        scale = self.scale.reshape(-1, *[1] * (values.ndim - 1))
        limits = np.iinfo(dtype)
        return np.clip(np.round(values / scale) + self.zero, limits.min, limits.max).astype(dtype)


IMAGE = Scale(np.array([1 / 255]), -128)  # [0, 1]: storing the image clips it
TANH = Scale(np.array([1 / 128]))  # [-1, 1): TFLite allows tanh no other


def scale_of_range(low: float, high: float) -> Scale:
    """For numbers in [low, high], widened to contain 0, which has to be exact: convolutions pad with it."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0  # all are 0
    return Scale(np.array([scale]), int(np.clip(np.round(-128 - low / scale), -128, 127)))


def scale_of_filters(weight: np.ndarray) -> Scale:
    """For the filters of a convolution (channels, ...): symmetric, a scale for each."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    return Scale(np.where(largest > 0, largest, 1.0) / LARGEST)


@torch.inference_mode()
def calibrate(network: EfficientISP, inputs: Iterable[Tensor]) -> dict[str, Scale]:
    """The scales of the network's input and of what its convolutions give, for packed inputs (1, 4, h, w)."""
    ranges = {}

    def see(name: str, x: Tensor) -> Tensor:
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = min(low, x.min().item()), max(high, x.max().item())
        return x

    for packed in inputs:
        x = see("conv1", network.conv1(see("packed", packed))).tanh()
        see("conv2", network.conv2(x).relu())
    ranges["conv1"] = tuple(np.clip(ranges["conv1"], -TANH_INPUT, TANH_INPUT))
    return {name: scale_of_range(*both) for name, both in ranges.items()} | {"tanh": TANH, "image": IMAGE}
