"""Efficient ISP (winner of the Mobile AI & AIM 2022 challenge) and the paper's Robust ISP: section 4.2, "Backbones"."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTEXT = 15  # numbers about the whole image: data.context.NUMBERS


class EfficientISP(nn.Module):
    """Three 3x3 convolutions and a pixel shuffle: packed mosaic (N, 4, H/2, W/2) -> sRGB (N, 3, H, W) in [0, inf).

    `widths` are the output channels of the three convolutions: (12, 12, 12) is Efficient ISP, (16, 4, 12) Robust ISP.
    The parameters have the names and shapes of the released files.
    """

    def __init__(self, widths: tuple[int, int, int]):
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(4, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        # The output passes a ReLU. With PyTorch's default initial values some of the 12 sub-pixels start below zero,
        # get no gradient, and stay black for ever. A bias of mid-grey keeps all of them alive (docs/fidelity.md).
        nn.init.constant_(self.conv3.bias, 0.5)
        # The index of each filter of conv3 in the order (row, column, colour); see `forward`. A buffer, so that it
        # moves to the device with the network, and compilers accept it; not in the state dict.
        self.register_buffer("order", torch.arange(third).view(3, 4).T.flatten(), persistent=False)

    def forward(self, packed: Tensor) -> Tensor:
        # Under autocast conv1 returns bfloat16, whose tanh is slow on a CPU: convert back first.
        x = self.conv1(packed).to(packed.dtype).tanh_()
        x = self.conv2(x).relu_()
        # A pixel shuffle expects the 12 channels in the order (colour, row, column). Computed instead in the order
        # (row, column, colour), and channels last in memory, the six values of two horizontally neighbouring output
        # pixels are adjacent, and `_shuffle` moves them as one piece.
        weight, bias = (p.index_select(0, self.order) for p in (self.conv3.weight, self.conv3.bias))
        return _shuffle(F.conv2d(x, weight, bias, padding=1).relu_())


class ContextISP(EfficientISP):
    """Efficient ISP whose colours depend on the whole image, by a handful of numbers about it.

    Its input is the packed mosaic and `CONTEXT` constant planes, (N, 4 + CONTEXT, H/2, W/2). A small network turns the
    numbers into a gain of each packed channel, and into a scale and a shift of what the second convolution gives, as
    FiLM does (Perez et al., AAAI 2018). It starts as Efficient ISP: gains and scales of 1, shifts of 0.
    """

    def __init__(self, widths: tuple[int, int, int], hidden: int = 16):
        super().__init__(widths)
        self.widths = (4, widths[1], widths[1])
        self.context = nn.Sequential(nn.Linear(CONTEXT, hidden), nn.Tanh(), nn.Linear(hidden, sum(self.widths)))
        nn.init.zeros_(self.context[-1].weight)
        nn.init.zeros_(self.context[-1].bias)

    def forward(self, inputs: Tensor) -> Tensor:
        modulation = self.context(inputs[:, 4:, 0, 0])[:, :, None, None]
        gain, scale, shift = modulation.split(self.widths, dim=1)
        x = self.conv1(inputs[:, :4] * gain.exp()).to(inputs.dtype).tanh()
        x = (self.conv2(x) * scale.exp() + shift).relu()
        weight, bias = (p.index_select(0, self.order) for p in (self.conv3.weight, self.conv3.bias))
        return _shuffle(F.conv2d(x, weight, bias, padding=1).relu_())


def _shuffle(x: Tensor) -> Tensor:
    """Pixel shuffle of channels in the order (row, column, colour): (N, 12, H, W) -> (N, 3, 2 H, 2 W).

    The result is laid out channels last in memory.
    """
    count, _, height, width = x.shape
    pairs = x.permute(0, 2, 3, 1).reshape(count, height, width, 2, 6).transpose(2, 3)
    return pairs.reshape(count, 2 * height, 2 * width, 3).permute(0, 3, 1, 2)
