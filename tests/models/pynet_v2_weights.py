"""The weights of PyNET-V2's published TensorFlow code, put into our network."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor, nn

from models.pynet_v2 import PyNETV2

from .baselines import tensor


def convolutions(network: PyNETV2) -> Iterator[nn.Conv2d]:
    """The convolutions, but for the depthwise one, in the order of creation, by which TensorFlow numbers them."""
    order = (
        (network.encoder1, network.encoder2, network.encoder3, network.level3, network.head3),
        (network.merge2, network.level2, network.head2, network.merge1, network.level1, network.head1),
    )
    for part in (part for parts in order for part in parts):
        yield from (module for module in part.modules() if isinstance(module, nn.Conv2d) and module.groups == 1)


def kernel(array: np.ndarray) -> Tensor:
    """HWIO -> OIHW."""
    return tensor(array.transpose(3, 2, 0, 1))


def shuffled(array: np.ndarray) -> np.ndarray:
    """The last axis in the order of a pixel shuffle (colour, row, column), from that of a depth-to-space."""
    colours = array.shape[-1] // 4
    return array.reshape(*array.shape[:-1], 2, 2, colours).swapaxes(-1, -2).swapaxes(-2, -3).reshape(array.shape)


def load(network: PyNETV2, values: np.lib.npyio.NpzFile) -> None:
    """Copy all weights of the golden file `pynet_v2`."""

    def numbered(kind: str, number: int, name: str) -> np.ndarray:
        return values[f"weights/{kind}{f'_{number}' if number else ''}/{name}"]

    last_conv, last_prelu = network.level1[-1]
    shuffles = (network.head3, network.head2, last_conv)  # whose outputs are shuffled into twice the size
    for number, conv in enumerate(convolutions(network)):
        weight, bias = numbered("conv2d", number, "kernel"), numbered("conv2d", number, "bias")
        if conv in shuffles:
            weight, bias = shuffled(weight), shuffled(bias)
        conv.weight.data.copy_(kernel(weight))
        conv.bias.data.copy_(tensor(bias))
    norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm2d)]
    for number, norm in enumerate(norms):
        norm.weight.data.copy_(tensor(numbered("instance_normalization", number, "gamma")))
        norm.bias.data.copy_(tensor(numbered("instance_normalization", number, "beta")))
    for number, prelu in enumerate(module for module in network.modules() if isinstance(module, nn.PReLU)):
        slopes = numbered("p_re_lu", number, "alpha").flatten()
        prelu.weight.data.copy_(tensor(shuffled(slopes) if prelu is last_prelu else slopes))
    depthwise = network.level3[1].attention
    depthwise.weight.data.copy_(tensor(values["weights/depthwise_conv2d/depthwise_kernel"].transpose(2, 3, 0, 1)))
    depthwise.bias.data.copy_(tensor(values["weights/depthwise_conv2d/bias"]))
