"""1 - SSIM and 1 - MS-SSIM as losses: differentiable, in batches, on any number of channels.

The values are those of `tf.image.ssim` and `tf.image.ssim_multiscale` on images in [0, 1]. The functions of pyiqa cut
negative structure off pixel by pixel, where it would get no gradient, and make their window anew in each step.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5  # side of the Gaussian window, pixels, and its standard deviation
C1, C2 = 0.01**2, 0.03**2
POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM's five scales, the finest first
_LEAST = 1e-4  # of a scale's mean: a power below 1 has no finite slope at 0


@lru_cache
@torch.inference_mode(False)
def _taps(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The window in one dimension, whose outer product is the window: copied to a device only once."""
    taps = torch.exp(-((torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    return (taps / taps.sum()).to(device, dtype)


def _window_mean(planes: Tensor) -> Tensor:
    """The mean in each window that lies within the image: (N, C, H, W) -> (N, C, H - 10, W - 10)."""
    channels, taps = planes.shape[1], _taps(planes.dtype, planes.device)
    with torch.backends.cudnn.flags(allow_tf32=False):  # TF32's mantissa of 10 bits is too short for a variance
        rows = F.conv2d(planes, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return F.conv2d(rows, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(SSIM, its contrast-structure factor alone), the means over windows: (N, C, H, W) twice -> (N, C) twice."""
    mean_x, mean_y, product, squares = _window_mean(torch.cat((x, y, x * y, x * x + y * y), dim=1)).chunk(4, dim=1)
    means, squared_means = 2 * mean_x * mean_y, mean_x**2 + mean_y**2
    structure = (2 * product - means + C2) / (squares - squared_means + C2)
    luminance = (means + C1) / (squared_means + C1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


class SSIMLoss:
    """1 - SSIM (Wang et al. 2004) of images (N, C, H, W) in [0, 1], the mean over images and channels."""

    minimum = WINDOW  # pixels of the shorter side

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        return 1 - similarity(generated, target)[0].mean()


class MultiScaleSSIMLoss:
    """1 - MS-SSIM (Wang et al. 2003) of images (N, C, H, W) in [0, 1], the mean over images and channels.

    Where the mean at a scale is not positive, that scale gets no gradient.
    """

    minimum = 161  # pixels of the shorter side: after four halvings, rounded up, the window still fits

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        score, (*finer, coarsest) = 1.0, POWERS
        for power in finer:
            score = score * similarity(generated, target)[1].clamp(min=_LEAST) ** power
            generated, target = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (generated, target))
        return 1 - (score * similarity(generated, target)[0].clamp(min=_LEAST) ** coarsest).mean()
