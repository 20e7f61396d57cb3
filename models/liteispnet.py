"""LiteISPNet (Zhang et al. 2021, ICCV, "Learning RAW-to-sRGB Mappings with Inaccurately Aligned Supervision").

Without the coordinate network of the paper's ablation, as the published training script runs it. Parameters have the
names and shapes of the published repository (cszhilu1998/RAW-to-sRGB).
"""

import torch
from torch import Tensor, nn

from models.padding import in_multiples
from models.wavelet import DWT, IDWT

GAMMA = 1 / 2.2  # the input is brought near sRGB first


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ChannelAttention(nn.Module):
    """Squeeze and excitation (RCAN, Zhang et al. 2018): each channel times a number in (0, 1) from all means."""

    def __init__(self, width: int, reduction: int = 16):
        super().__init__()
        narrow = width // reduction
        self.conv_du = nn.Sequential(nn.Conv2d(width, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


class _Block(nn.Module):
    """Two convolutions and channel attention around a skip connection."""

    def __init__(self, width: int):
        super().__init__()
        self.res = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width))
        self.ca = ChannelAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ca(self.res(x))


class ResidualGroup(nn.Module):
    """RCAN's group of `blocks` residual blocks with channel attention, and a convolution, around a skip connection."""

    def __init__(self, width: int, blocks: int = 4):
        super().__init__()
        self.rg = nn.Sequential(*(_Block(width) for _ in range(blocks)), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.rg(x)


def coordinates(like: Tensor) -> Tensor:
    """The coordinates x and y of an image's pixel centres, (N, 2, H, W), from -1 to 1 at the outer edges."""
    count, _, height, width = like.shape
    y, x = ((torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1 for side in (height, width))
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width))).expand(count, -1, -1, -1)


class LiteISPNet(nn.Module):
    """LiteISPNet: packed mosaic (N, 4, H/2, W/2) in [0, 1] -> sRGB (N, 3, H, W), unbounded.

    A U-Net of residual groups over wavelets. It sees where in its input a pixel is: in an image when it is used, in a
    patch in training, as in the published code.
    """

    def __init__(self):
        super().__init__()
        self.head = _conv(4, 64)
        self.down1 = nn.Sequential(_conv(66, 66), ResidualGroup(66), _conv(66, 64), DWT(64))
        self.down2 = nn.Sequential(_conv(256, 64), ResidualGroup(64), DWT(64))
        self.down3 = nn.Sequential(_conv(256, 128), ResidualGroup(128), DWT(128))
        self.middle = nn.Sequential(_conv(512, 128), ResidualGroup(128), ResidualGroup(128), _conv(128, 512))
        self.up3 = nn.Sequential(IDWT(128), ResidualGroup(128), _conv(128, 256))
        self.up2 = nn.Sequential(IDWT(64), ResidualGroup(64), _conv(64, 256))
        self.up1 = nn.Sequential(IDWT(64), ResidualGroup(64), _conv(64, 64))
        self.tail = nn.Sequential(_conv(64, 256), nn.PixelShuffle(2), _conv(64, 3))

    def forward(self, packed: Tensor) -> Tensor:
        return in_multiples(self._whole, packed, 8, scale=2)

    def _whole(self, packed: Tensor) -> Tensor:
        # The gradient of x^(1/2.2) is infinite at 0, but the input needs none.
        head = self.head(packed.clamp(min=0) ** GAMMA)
        down1 = self.down1(torch.cat((head, coordinates(head)), dim=1))
        down2 = self.down2(down1)
        down3 = self.down3(down2)
        up3 = self.up3(self.middle(down3) + down3)
        up2 = self.up2(up3 + down2)
        return self.tail(self.up1(up2 + down1) + head)
