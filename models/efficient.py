"""Efficient ISP (winner of the Mobile AI & AIM 2022 challenge) and the paper's Robust ISP: section 4.2, "Backbones"."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EfficientISP(nn.Module):
    """Three 3x3 convolutions and a pixel shuffle.

    `widths` are the channels of the three convolutions: (12, 12, 12) is Efficient ISP, (16, 4, 12) Robust ISP.
    Takes the packed mosaic (N, 4, H/2, W/2), returns (N, 3, H, W) in [0, inf); published weights load as they are.
    """

    input_format = "packed"
    reach = 3  # packed pixels that an output sees to each side

    def __init__(self, widths: tuple[int, int, int]):
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(4, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        # The output passes a ReLU: from PyTorch's own initial values some of the 12 sub-pixels start below zero and
        # stay black for ever. Starting at mid-grey keeps all alive (docs/fidelity.md).
        nn.init.constant_(self.conv3.bias, 0.5)
        self.register_buffer("order", torch.arange(third).view(3, 4).T.flatten(), persistent=False)

    def forward(self, packed: Tensor) -> Tensor:
        x = self.conv1(packed).to(packed.dtype).tanh_()  # under autocast, too: bf16's tanh is slow on a CPU
        x = self.conv2(x).relu_()
        # Pixel shuffle expects the channels as (colour, row, column). Computed as (row, column, colour) and channels
        # last, two neighbouring pixels of a row lie side by side, and are moved together.
        weight, bias = (p.index_select(0, self.order) for p in (self.conv3.weight, self.conv3.bias))
        return _shuffle(F.conv2d(x, weight, bias, padding=1).relu_())


def _shuffle(x: Tensor) -> Tensor:
    """(N, 12, H, W), channels (row, column, colour) -> (N, 3, 2 H, 2 W), laid out channels-last."""
    count, _, height, width = x.shape
    pairs = x.permute(0, 2, 3, 1).reshape(count, height, width, 2, 6).transpose(2, 3)
    return pairs.reshape(count, 2 * height, 2 * width, 3).permute(0, 3, 1, 2)
