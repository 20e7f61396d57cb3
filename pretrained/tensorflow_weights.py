"""TensorFlow's variables of LAN and MicroISP as state dicts of `models.lan` and `models.microisp`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from errors import UserError
from pretrained.tensorflow_bundle import files_of, read_index, read_variables

Arrays = Mapping[str, np.ndarray]

# --- layouts ---------------------------------------------------------------------------------------------------------


def to_torch(array: np.ndarray, depthwise: bool = False) -> Tensor:
    """A variable in PyTorch's layout.

    Kernels are (height, width, in, out), of transposed convolutions (height, width, out, in), depthwise ones (height,
    width, channels, 1); biases and the slopes of a PReLU, (C,) or (1, 1, C), become (C,).
    """
    if array.ndim == 4:
        array = array.transpose(2, 3, 0, 1) if depthwise else array.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.array(array if array.ndim == 4 else array.reshape(-1), order="C"))


def for_pixel_shuffle(weight: Tensor) -> Tensor:
    """Filters (or biases) ahead of a depth_to_space of 2, in the order that a pixel shuffle takes.

    TensorFlow counts their channels by (row, column, colour), PyTorch by (colour, row, column).
    """
    return weight.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1).contiguous()


# --- LAN -------------------------------------------------------------------------------------------------------------

_INSIDE = ("widen", "mix", "squeeze", "excite", "spatial", "join")
_ATTENTIONS = (f"{attention}.{layer}" for attention in ("attention1", "attention2") for layer in _INSIDE)
LAN_LAYERS = ("down1", "down2", "head", *_ATTENTIONS, "body", "up", "merge", "tail")


def _lan_names() -> dict[str, str]:
    """{key of the state dict: variable}. Variables are numbered in the order of their creation."""
    keys = [f"{layer}.{kind}" for layer in LAN_LAYERS for kind in ("weight", "bias")]
    keys = [key for key in keys if not key.endswith("spatial.bias")]
    return {key: f"generator/Variable_{index}".removesuffix("_0") for index, key in enumerate(keys)}


def lan_state(variables: Arrays) -> dict[str, Tensor]:
    """The state dict of `models.lan.LAN` from the published code's variables. Raises `KeyError` if one is missing."""
    state = {
        key: to_torch(variables[name], depthwise=key.endswith("spatial.weight")) for key, name in _lan_names().items()
    }
    return state | {key: for_pixel_shuffle(state[key]) for key in ("merge.weight", "merge.bias")}


# --- MicroISP --------------------------------------------------------------------------------------------------------

_STEPS = ("reduce.0", "reduce.1", "reduce.2", "reduce.3", "squeeze")  # the attention's layers with a PReLU


def _microisp_names() -> dict[str, list[str]]:
    """{key of the state dict: variables of the branches of red, green and blue}."""
    names = {}
    for number, part in ((1, "first"), (2, "second")):
        scope = f"generator-{number}"
        for index in (*range(7), "out"):
            layer = f"{part}.output" if index == "out" else f"{part}.blocks.{index}.0"
            for kind, letter in (("weight", "w"), ("bias", "b")):
                names[f"{layer}.{kind}"] = [f"{scope}/{branch}_{letter}{number}_{index}" for branch in range(3)]
        for attention in range(2):
            layers = [f"{part}.attentions.{attention}.{step}.0" for step in _STEPS]
            layers.append(f"{part}.attentions.{attention}.excite")
            keys = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
            for index, key in enumerate(keys):
                numbers = [24 * branch + 12 * attention + index for branch in range(3)]
                names[key] = [f"{scope}/Variable_{k}".removesuffix("_0") for k in numbers]
        # PReLUs are numbered in the order of their use, on from the first generator's to the second's.
        slopes = [f"blocks.{index}.1" for index in range(7)]
        slopes[3:3] = [f"attentions.0.{step}.1" for step in _STEPS]
        slopes[11:11] = [f"attentions.1.{step}.1" for step in _STEPS]
        for index, slope in enumerate(slopes):
            numbers = [51 * (number - 1) + 17 * branch + index for branch in range(3)]
            names[f"{part}.{slope}.weight"] = [f"{scope}/p_re_lu_{k}/alpha".replace("_0/", "/") for k in numbers]
    return names


def microisp_state(variables: Arrays) -> dict[str, Tensor]:
    """The state dict of `models.microisp.MicroISP` from the variables of the published code.

    Its branches become groups of one convolution. Raises `KeyError` if a variable is missing.
    """
    names = _microisp_names()
    return {key: torch.cat([to_torch(variables[name]) for name in each]) for key, each in names.items()}


# --- files -----------------------------------------------------------------------------------------------------------


def _flat(names: Mapping[str, list[str]]) -> list[str]:
    return [name for each in names.values() for name in each]


# Network -> (the variables that it needs, their conversion).
NETWORKS: dict[str, tuple[list[str], Callable[[Arrays], dict[str, Tensor]]]] = {
    "LAN": (list(_lan_names().values()), lan_state),
    "MicroISP": (_flat(_microisp_names()), microisp_state),
}


def load_tensorflow(path: Path) -> dict[str, Tensor]:
    """The state dict in a TensorFlow checkpoint of LAN or MicroISP; `path` is either of its two files.

    Other variables, such as those of an optimizer, are not read. Raises `UserError`, naming the file, if it is
    missing, damaged, or of another network.
    """
    index, data = files_of(path)
    variables = read_index(index)
    for names, convert in NETWORKS.values():
        if variables.keys() >= set(names):
            arrays = read_variables(data, variables, names)
            try:
                return convert(arrays)
            except (RuntimeError, ValueError) as error:  # arrays of other dimensions
                raise UserError(f"{index} holds variables that do not fit together: {error}") from None
    first = next(iter(variables), "none")
    raise UserError(f"{index} has not the variables of {' or '.join(NETWORKS)}, but others, such as {first}")
