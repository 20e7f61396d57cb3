"""Sides of any even length for networks that halve their input several times."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def in_multiples(network: Callable[[Tensor], Tensor], inputs: Tensor, multiple: int, scale: float) -> Tensor:
    """Call a network with sides padded to a `multiple`, and crop what the padding has added to its output.

    `inputs` is (N, C, H, W), the output `scale` times as large, rounded down: 1 for a mosaic, 2 for packed planes, less
    for the output of a coarser level. Rows and columns are reflected at the bottom and the right, without the last one,
    which keeps the CFA order of a mosaic. Sides that are multiples already are passed as they are. The sides must be
    longer than the padding.

    An exported graph holds for all sizes, so it has no `if`: it pads by indices, and takes whole numbers as `scale`.
    """
    height, width = inputs.shape[-2:]
    if torch.compiler.is_exporting():
        outputs = network(_padded(_padded(inputs, 2, multiple), 3, multiple))
        return outputs[..., : int(scale) * height, : int(scale) * width]
    rows, columns = -height % multiple, -width % multiple
    if rows or columns:
        inputs = F.pad(inputs, (0, columns, 0, rows), mode="reflect")
    return network(inputs)[..., : int(scale * height), : int(scale * width)]


def _padded(inputs: Tensor, axis: int, multiple: int) -> Tensor:
    """Reflected at the end of an axis up to a multiple, written so that PyTorch's exporter sees that it is one."""
    side = inputs.shape[axis]
    last = side - 1
    index = torch.arange((side + multiple - 1) // multiple * multiple, device=inputs.device)
    return inputs.index_select(axis, last - (index - last).abs())
