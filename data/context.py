"""The context of a mosaic: a handful of numbers about the whole image, by which a network adapts its colours.

A network of three small convolutions sees a few pixels around each pixel: it cannot know whether a yellow wall is white
paint under a lamp. Statistics of the whole image can help. They are computed once for a file (`data.inputs.context_of`,
`data.patches.OfWhole`), and travel with its patches.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

THUMBNAIL = 16  # pixels a side: noise is averaged away
FLOOR = 0.01  # of white, added before the logarithm
LEVELS = (0.05, 0.5, 0.95)  # of the quantiles
NUMBERS = 3 * (2 + len(LEVELS))  # for each colour: mean, standard deviation and quantiles


def statistics(linear: Tensor) -> Tensor:
    """Linear camera RGB (N, 3, h, w) -> (N, NUMBERS), logarithms, of a thumbnail of it."""
    colors = F.adaptive_avg_pool2d(linear, THUMBNAIL).clamp(min=0).flatten(2)
    levels = torch.tensor(LEVELS, dtype=colors.dtype, device=colors.device)
    quantiles = colors.quantile(levels, dim=2).movedim(0, 1).flatten(1)
    return torch.cat((colors.mean(2), colors.std(2), quantiles), dim=1).add(FLOOR).log()
