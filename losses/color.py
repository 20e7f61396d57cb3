"""The paired colour loss: section 3.2, after DPED (Ignatov et al. 2017)."""

from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional as F

_SIZE, _SIGMAS = 21, 3  # DPED's kernel: 21 taps over +-3 standard deviations


def gaussian_kernel() -> Tensor:
    """The kernel of Eq. 4 in one dimension: 21 taps that sum to 1, float64.

    As published, a tap is the square root of the normal density's integral over the tap's interval, so the kernel is
    wider than +-3 sigma suggests. The square root of an outer product is the outer product of the square roots, so the
    two-dimensional blur is separable.
    """
    half = _SIGMAS + (2 * _SIGMAS + 1) / _SIZE / 2  # +-(3 + 3.5/21)
    edges = torch.linspace(-half, half, _SIZE + 1, dtype=torch.float64)
    mass = torch.tensor([NormalDist().cdf(edge) for edge in edges.tolist()], dtype=torch.float64).diff()
    return mass.sqrt() / mass.sqrt().sum()


@lru_cache
@torch.inference_mode(False)
def _taps(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The kernel on a device: copied from the host only once, outside inference mode, so that training can use it."""
    return gaussian_kernel().to(device, dtype)


def blur(image: Tensor) -> Tensor:
    """Eq. 3: Gaussian blur with zero padding, (N, C, H, W) -> (N, C, H, W)."""
    channels = image.shape[1]
    taps = _taps(image.dtype, image.device)
    rows = F.conv2d(image, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), padding=(0, _SIZE // 2), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), padding=(_SIZE // 2, 0), groups=channels)


class BlurredColorLoss:
    """Eq. 2 on sRGB images (N, 3, H, W): the sum of squared differences of the blurred images, divided by N.

    The released code uses `scale` 0.5; under Dynamic Loss Adaptation a constant factor cancels.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        # Blurring is linear: the blurred difference is the difference of the blurred images.
        return self.scale * blur(generated - target).square().sum() / len(generated)
