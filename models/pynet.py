"""PyNET (Ignatov, Van Gool and Timofte 2020, CVPRW, "Replacing Mobile Camera ISP with a Single Deep Learning Model").

The PyTorch edition. Parameters have the names and shapes of its released files (aiff22/PyNET-PyTorch).
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.padding import in_multiples


class _Conv(nn.Module):
    """A convolution continued by reflection, normalised per image and channel if so asked, and an activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, normalised: bool = False, active: bool = True):
        super().__init__()
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")
        self.instance = nn.InstanceNorm2d(outputs, affine=True) if normalised else nn.Identity()
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.instance(self.conv2d(x))
        return F.leaky_relu(x, 0.2) if self.active else x


class MultiConv(nn.Module):
    """Parallel pairs of convolutions of sizes 3, 5, ... `largest`: (N, `inputs`, H, W) -> `width` channels of each."""

    def __init__(self, inputs: int, width: int, largest: int, normalised: bool = True):
        super().__init__()
        self.sizes = range(3, largest + 1, 2)
        for size in self.sizes:
            self.add_module(f"conv_{size}a", _Conv(inputs, width, size, normalised))
            self.add_module(f"conv_{size}b", _Conv(width, width, size, normalised))

    def forward(self, x: Tensor) -> Tensor:
        modules = self._modules
        return torch.cat([modules[f"conv_{size}b"](modules[f"conv_{size}a"](x)) for size in self.sizes], dim=1)


class Up(_Conv):
    """Twice the size by bilinear interpolation, then a convolution to half the channels."""

    def __init__(self, inputs: int):
        super().__init__(inputs, inputs // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


# The blocks by the names of the released files, conv_l{level}_{name}: (input channels, width, largest kernel).
BLOCKS = {
    "l1": {
        "d1": (4, 32, 3), "d3": (64, 32, 5), "d5": (96, 32, 7), "d6": (96, 32, 9), "d7": (128, 32, 9),
        "d8": (128, 32, 9), "d9": (128, 32, 9), "d10": (128, 32, 7), "d12": (128, 32, 5), "d14": (128, 32, 3),
    },
    "l2": {
        "d1": (32, 64, 3), "d3": (128, 64, 5), "d5": (192, 64, 7), "d6": (192, 64, 7), "d7": (192, 64, 7),
        "d8": (192, 64, 7), "d10": (256, 64, 5), "d12": (192, 64, 3),
    },
    "l3": {
        "d1": (64, 128, 3), "d3": (256, 128, 5), "d4": (256, 128, 5), "d5": (256, 128, 5), "d6": (256, 128, 5),
        "d8": (512, 128, 3),
    },
    "l4": {
        "d1": (128, 256, 3), "d3": (512, 256, 3), "d4": (256, 256, 3), "d5": (256, 256, 3), "d6": (256, 256, 3),
        "d8": (512, 256, 3),
    },
    "l5": {"d1": (256, 512, 3), "d2": (512, 512, 3), "d3": (512, 512, 3), "d4": (512, 512, 3)},
}  # fmt: skip
NOT_NORMALISED = {"l1_d1", "l1_d3", "l1_d14"}


class PyNET(nn.Module):
    """PyNET: packed mosaic (N, 4, H/2, W/2), digital numbers / 1020 -> sRGB (N, 3, H, W) in (0, 1).

    `levels` are its levels from coarse to fine, which are trained in that order. Level k has an output of the mosaic's
    sides divided by 2^k; level 0 is the image. H and W must be at least 34: padded to a multiple of 32, the coarsest
    level then has two pixels a side, which reflection and normalisation need.
    """

    levels = (5, 4, 3, 2, 1, 0)

    def __init__(self):
        super().__init__()
        for level, blocks in BLOCKS.items():
            for name, (inputs, width, largest) in blocks.items():
                normalised = f"{level}_{name}" not in NOT_NORMALISED
                self.add_module(f"conv_{level}_{name}", MultiConv(inputs, width, largest, normalised))
        for level, width in ((4, 512), (3, 256), (2, 128), (1, 64)):
            self.add_module(f"conv_t{level}a", Up(width))
            self.add_module(f"conv_t{level}b", Up(width))
        self.conv_t0 = Up(32)
        for level, width in ((5, 512), (4, 256), (3, 128), (2, 64), (1, 32)):
            self.add_module(f"conv_l{level}_out", _Conv(width, 3, 3, active=False))
        self.conv_l0_d1 = _Conv(16, 3, 3, active=False)

    def forward(self, packed: Tensor) -> Tensor:
        return self.at_level(packed, 0)

    def at_level(self, packed: Tensor, level: int) -> Tensor:
        """The image that a level gives: (N, 3, H / 2^level, W / 2^level), sides rounded down, in (0, 1).

        Levels finer than that are not computed, except for their encoders.
        """
        return in_multiples(partial(self._whole, level=level), packed, 16, scale=2.0 ** (1 - level))

    def _whole(self, packed: Tensor, level: int) -> Tensor:
        encoded = [self.conv_l1_d1(packed)]
        for encoder in (self.conv_l2_d1, self.conv_l3_d1, self.conv_l4_d1):
            encoded.append(encoder(F.max_pool2d(encoded[-1], 2)))
        x = self._level5(F.max_pool2d(encoded[-1], 2))
        for finer in range(4, max(level, 1) - 1, -1):
            # Both see the same coarser features: one is taken at the beginning of the level, one at its end.
            first, last = (self.get_submodule(f"conv_t{finer}{each}")(x) for each in "ab")
            x = getattr(self, f"_level{finer}")(encoded[finer - 1], first, last)
        last = self.conv_l0_d1(self.conv_t0(x)) if level == 0 else self.get_submodule(f"conv_l{level}_out")(x)
        return last.sigmoid()

    def _level5(self, x: Tensor) -> Tensor:
        return self.conv_l5_d4(self.conv_l5_d3(self.conv_l5_d2(self.conv_l5_d1(x))))

    def _level4(self, encoded: Tensor, first: Tensor, last: Tensor) -> Tensor:
        x = self.conv_l4_d3(torch.cat((encoded, first), dim=1))
        for block in (self.conv_l4_d4, self.conv_l4_d5):
            x = block(x) + x
        return self.conv_l4_d8(torch.cat((self.conv_l4_d6(x), last), dim=1))

    def _level3(self, encoded: Tensor, first: Tensor, last: Tensor) -> Tensor:
        x = torch.cat((encoded, first), dim=1)
        for block in (self.conv_l3_d3, self.conv_l3_d4, self.conv_l3_d5):
            x = block(x) + x
        return self.conv_l3_d8(torch.cat((self.conv_l3_d6(x), encoded, last), dim=1))

    def _level2(self, encoded: Tensor, first: Tensor, last: Tensor) -> Tensor:
        x = torch.cat((self.conv_l2_d3(torch.cat((encoded, first), dim=1)), encoded), dim=1)
        for block in (self.conv_l2_d5, self.conv_l2_d6, self.conv_l2_d7):
            x = block(x) + x
        x = self.conv_l2_d10(torch.cat((self.conv_l2_d8(x), encoded), dim=1))
        return self.conv_l2_d12(torch.cat((x, last), dim=1))

    def _level1(self, encoded: Tensor, first: Tensor, last: Tensor) -> Tensor:
        x = torch.cat((self.conv_l1_d3(torch.cat((encoded, first), dim=1)), encoded), dim=1)
        x = self.conv_l1_d6(self.conv_l1_d5(x))
        for block in (self.conv_l1_d7, self.conv_l1_d8, self.conv_l1_d9):
            x = block(x) + x
        x = self.conv_l1_d12(torch.cat((self.conv_l1_d10(x), encoded), dim=1))
        return self.conv_l1_d14(torch.cat((x, last, encoded), dim=1))
