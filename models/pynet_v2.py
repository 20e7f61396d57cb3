"""PyNET-V2 Mobile (Ignatov et al. 2022, ICPR, "PyNET-V2 Mobile: Efficient On-Device Photo Processing").

After the published TensorFlow code (gmalivenko/PyNET-v2). Three levels, trained from the coarsest to the finest.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import wide_tanh
from models.padding import in_multiples

EPSILON = 1e-3  # of the instance normalisation


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Of the same size, continued by reflection."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect" if kernel > 1 else "zeros")


def _active(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, kernel), nn.PReLU(outputs))


def _strided(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride), nn.PReLU(outputs))


class ResidualGroups(nn.Module):
    """`groups` parts of the channels, each with `depth` residual convolutions of its own: (N, `width`, H, W), kept.

    Every other part is normalised, beginning with the first.
    """

    def __init__(self, width: int, groups: int, depth: int):
        super().__init__()
        each, self.groups = width // groups, groups
        self.chains = nn.ModuleList(
            nn.ModuleList(self._step(each, normalised=group % 2 == 0) for _ in range(depth)) for group in range(groups)
        )
        self.fuse = _conv(width, width, 1)

    @staticmethod
    def _step(width: int, normalised: bool) -> nn.Sequential:
        norm = nn.InstanceNorm2d(width, EPSILON, affine=True) if normalised else nn.Identity()
        return nn.Sequential(_conv(width, width), norm, nn.PReLU(width))

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for part, chain in zip(x.chunk(self.groups, dim=1), self.chains, strict=True):
            for step in chain:
                part = part + step(part)
            parts.append(part)
        return x + self.fuse(torch.cat(parts, dim=1))


class SpatialAttention(nn.Module):
    """Added features, each value times a number in (0, 1) from the 5x5 values around it."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = _active(width, width)
        self.attention = nn.Conv2d(width, width, 5, padding=2, padding_mode="reflect", groups=width)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        return x + features * self.attention(features).sigmoid()


class ChannelAttention(nn.Module):
    """Added features, each channel times a number in (0, 1) from the whole image. Sides of at least 7."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = _active(width, width)
        self.seen = nn.Sequential(_strided(width, width, 1, 3), _strided(width, width, 3, 3))
        self.attention = nn.Sequential(_active(width, width, 1), _conv(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        return x + features * self.attention(self.seen(features).mean((2, 3), keepdim=True)).sigmoid()


class Merge(nn.Module):
    """A coarser level's features (N, 2 `width`, H/2, W/2) and the encoder's (N, `width`, H, W) -> the latter shape."""

    def __init__(self, width: int):
        super().__init__()
        self.up, self.same = _active(2 * width, width), _active(width, width)
        self.mix = _active(width, width, 1)

    def forward(self, coarse: Tensor, encoded: Tensor) -> Tensor:
        x = self.up(F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)) + self.same(encoded)
        return x + self.mix(x)


class PyNETV2(nn.Module):
    """PyNET-V2 Mobile: packed mosaic (N, 4, H/2, W/2), digital numbers / 1020 -> sRGB (N, 3, H, W) in (-0.08, 1.08).

    H and W must be at least 50. `levels` are its levels from coarse to fine; level 3 and level 2 have outputs of their
    own, of 1/4 and 1/2 of the mosaic's sides, which only training needs.
    """

    levels = (3, 2, 1)

    def __init__(self):
        super().__init__()
        self.encoder1, self.encoder2, self.encoder3 = _active(4, 32), _strided(32, 64, 2, 2), _strided(64, 128, 2, 2)
        self.level3 = nn.Sequential(ResidualGroups(128, 4, 2), SpatialAttention(128), ChannelAttention(128))
        self.head3 = _conv(128, 12, 1)
        self.merge2 = Merge(64)
        self.level2 = nn.Sequential(ResidualGroups(64, 2, 3), ChannelAttention(64))
        self.head2 = _conv(64, 12, 1)
        self.merge1 = Merge(32)
        self.level1 = nn.Sequential(ResidualGroups(32, 4, 1), ResidualGroups(32, 2, 1), _active(32, 16, 1))
        self.head1 = _conv(4, 3)

    def forward(self, packed: Tensor) -> Tensor:
        return self.at_level(packed, 1)

    def at_level(self, packed: Tensor, level: int) -> Tensor:
        """The image that a level gives: (N, 3, H, W) at level 1, of half the sides at 2, of a quarter at 3.

        Levels finer than that are not computed.
        """
        return in_multiples(partial(self._whole, level=level), packed, 4, scale=2.0 ** (2 - level))

    def _whole(self, packed: Tensor, level: int) -> Tensor:
        encoded1 = self.encoder1(packed)
        encoded2 = self.encoder2(encoded1)
        coarse = self.level3(self.encoder3(encoded2))
        if level == 3:
            return wide_tanh(F.pixel_shuffle(self.head3(coarse), 2))
        middle = self.level2(self.merge2(coarse, encoded2))
        if level == 2:
            return wide_tanh(F.pixel_shuffle(self.head2(middle), 2))
        fine = self.level1(self.merge1(middle, encoded1))
        return wide_tanh(self.head1(F.pixel_shuffle(fine, 2)))
