"""The context of a mosaic: a handful of numbers about the whole image, by which a network adapts its colours.

A network of three small convolutions sees a few pixels around each pixel: it cannot know whether a yellow wall is white
paint under a lamp. Whole-image statistics can. They are computed once for a file, and travel with its patches.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.sensor import CHANNELS, Sensor, mosaic_tensor, offsets

THUMBNAIL = 16  # pixels a side: noise is averaged away
FLOOR = 0.01  # of white, added before the logarithm
LEVELS = (0.05, 0.5, 0.95)  # of the quantiles
NUMBERS = 3 * (2 + len(LEVELS))  # for each colour: mean, standard deviation and quantiles


@torch.no_grad()
def context_of(mosaic: Tensor, sensor: Sensor) -> Tensor:
    """Whole mosaics (N, 1, H, W), 1 is white -> (N, NUMBERS)."""
    planes, where = {}, offsets(sensor.cfa)
    for channel, level in zip(CHANNELS, sensor.black_level, strict=True):
        row, column = where[channel]
        black = level / sensor.white_level
        planes[channel] = (mosaic[:, 0, row::2, column::2] - black) / (1 - black)
    return statistics(torch.stack((planes["R"], (planes["Gr"] + planes["Gb"]) / 2, planes["B"]), dim=1))


def statistics(linear: Tensor) -> Tensor:
    """Linear camera RGB (N, 3, h, w) -> (N, NUMBERS), logarithms, of a thumbnail of it."""
    colors = F.adaptive_avg_pool2d(linear, THUMBNAIL).clamp(min=0).flatten(2)
    levels = torch.tensor(LEVELS, dtype=colors.dtype, device=colors.device)
    quantiles = colors.quantile(levels, dim=2).movedim(0, 1).flatten(1)
    return torch.cat((colors.mean(2), colors.std(2), quantiles), dim=1).add(FLOOR).log()


@dataclass
class Contexts:
    """The contexts of whole files, for patches of them; each is computed once and remembered."""

    sensor: Sensor
    known: dict[Path, Tensor] = field(default_factory=dict)

    def __call__(self, path: Path, mosaic: np.ndarray) -> Tensor:
        """The context (NUMBERS,) of the file at `path`, whose whole mosaic is (H, W), digital numbers."""
        if path not in self.known:
            self.known[path] = context_of(mosaic_tensor(mosaic, self.sensor)[None], self.sensor)[0]
        return self.known[path]
