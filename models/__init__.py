"""The generators of the paper, by name."""

from collections.abc import Callable
from functools import partial

from torch import nn

from errors import UserError
from models.efficient import EfficientISP
from models.rmfa import RMFANet

MODELS: dict[str, Callable[[], nn.Module]] = {
    "efficient": partial(EfficientISP, widths=(12, 12, 12)),  # 3,060 parameters
    "robust": partial(EfficientISP, widths=(16, 4, 12)),  # 1,616
    "rmfa-tiny": partial(RMFANet, blocks=2, width=16),  # 29,223
    "rmfa-medium": partial(RMFANet, blocks=8, width=32),
    "rmfa-large": partial(RMFANet, blocks=20, width=64),
}


def build_model(name: str) -> nn.Module:
    """Build a generator with freshly initialised weights (from torch's global random state).

    Its attribute `input_format` says what it takes: "packed", (N, 4, H/2, W/2), or "split", (N, 3, H, W), both made by
    `data.sensor.prepare`. Its `reach` is how many pixels of that an output sees to each side, or None for all. It
    returns (N, 3, H, W), the sRGB image, nominally in [0, 1].

    Raises `UserError` for an unknown name.
    """
    if name not in MODELS:
        raise UserError(f"unknown model '{name}'; known are: {', '.join(MODELS)}")
    return MODELS[name]()
