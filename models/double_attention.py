"""The double attention of CSANet and LAN: what matters among the channels, and where."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class DoubleAttention(nn.Module):
    """Widen features, weight them once by channel and once by pixel, and join both: (N, 16, H, W) -> the same shape.

    The weights of channels look at the mean of the whole image, those of pixels at 9x9 pixels. CSANet joins by a 1x1
    convolution (`join` is its side) and LAN by 3x3; `bias` is that of the depthwise convolution. `activation` follows
    the first convolutions, `gate` makes the weights. The skip connection around it is left to the caller.
    """

    def __init__(self, activation: Activation, gate: Activation, join: int, bias: bool, width: int = 16):
        super().__init__()
        self.activation, self.gate = activation, gate
        wide = 2 * width
        self.widen = nn.Conv2d(width, wide, 3, padding=1)
        self.mix = nn.Conv2d(wide, wide, 1)
        self.squeeze = nn.Conv2d(wide, wide // 4, 1)
        self.excite = nn.Conv2d(wide // 4, wide, 1)
        self.spatial = nn.Conv2d(wide, wide, 5, padding=4, dilation=2, groups=wide, bias=bias)
        self.join = nn.Conv2d(2 * wide, width, join, padding=join // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.activation(self.widen(x)))
        mean = x.mean((2, 3), keepdim=True)
        by_channel = x * self.gate(self.excite(self.activation(self.squeeze(mean))))
        by_pixel = x * self.gate(self.spatial(x))
        return self.join(torch.cat((by_channel, by_pixel), dim=1))
