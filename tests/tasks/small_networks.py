"""Small networks for tests of published recipes: with the interface of those by others, and few parameters."""

import torch
from torch import nn
from torch.nn import functional as F

from models import MODELS, ModelSpec


class SmallISP(nn.Sequential):
    """Packed mosaic (N, 4, H/2, W/2) -> sRGB (N, 3, H, W)."""

    def __init__(self):
        super().__init__(nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2))


class SmallWarmUp(SmallISP):
    """The same, with SYENet's second output."""

    def __init__(self):
        super().__init__()
        self.again = nn.Conv2d(12, 4, 1)

    def forward(self, packed: torch.Tensor) -> torch.Tensor:
        return self[1](self[0](packed))

    def warm_up(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self[0](packed)
        return self[1](features), self.again(features)


class SmallLevels(nn.Module):
    """A convolution for each of the `levels`, coarse to fine; each level sees the one before, enlarged."""

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels = levels
        self.convs = nn.ModuleDict({str(level): nn.Conv2d(4 + 3 * (level < levels[0]), 3, 3) for level in levels})

    def at_level(self, packed: torch.Tensor, level: int) -> torch.Tensor:
        """(N, 3, H / 2^k, W / 2^k), k levels above the last."""
        image, finest = None, self.levels[-1]
        for each in range(self.levels[0], level - 1, -1):
            scale = 2 / 2 ** (each - finest)
            size = [int(scale * side) for side in packed.shape[-2:]]
            inputs = F.interpolate(packed, size, mode="area")
            if image is not None:
                inputs = torch.cat((inputs, F.interpolate(image, size)), dim=1)
            image = self.convs[str(each)](F.pad(inputs, (1, 1, 1, 1)))
        return image

    def forward(self, packed: torch.Tensor) -> torch.Tensor:
        return self.at_level(packed, self.levels[-1])


# In place of networks that take too long for a test.
SMALL = {
    "lan": SmallISP,
    "microisp": SmallISP,
    "syenet": SmallWarmUp,
    "pynet-v2": lambda: SmallLevels((3, 2, 1)),
    "pynet": lambda: SmallLevels((5, 4, 3, 2, 1, 0)),
    "liteispnet": SmallISP,
}
HEAVY = ("pynet-v2", "pynet", "liteispnet")


def use_small(monkeypatch, light: bool = True) -> None:
    """Replace the heavy networks in `MODELS` by small ones, and the light ones, unless they are there and wanted."""
    for name, build in SMALL.items():
        if name in HEAVY or light or name not in MODELS:
            monkeypatch.setitem(MODELS, name, ModelSpec(build, input_format="packed_1020", reach=None))
