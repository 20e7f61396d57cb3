"""The content loss: section 3.1."""

import torch
from torch import Tensor

_LUMINANCE = (0.212671, 0.715160, 0.072169)  # linear sRGB to CIE Y, D65


def luminance(rgb: Tensor) -> Tensor:
    """CIE L* / 100 of sRGB: (N, 3, H, W) in [0, 1] -> (N, 1, H, W) in [0, 1]; differentiable, also at black."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
    # The weights are not a tensor: copying one to a GPU would make the host wait in every step.
    y = sum(weight * channel for weight, channel in zip(_LUMINANCE, linear.split(1, dim=1), strict=True))
    f = torch.where(y > 0.008856, y.clamp(min=0.008856) ** (1 / 3), 7.787 * y + 16 / 116)
    return (116 * f - 16) / 100


def luminance3(rgb: Tensor) -> Tensor:
    """The input of the unpaired content loss: the luminance of sRGB in all three channels, (N, 3, H, W) -> the same."""
    return luminance(rgb).expand(-1, 3, -1, -1)


class ContentLoss:
    """Eq. 1 on VGG-19 relu5_4 features (N, C, H, W): squared differences, summed over the batch, / (C H W).

    The released code uses `scale` 2; under Dynamic Loss Adaptation a constant factor cancels.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, generated: Tensor, reference: Tensor) -> Tensor:
        return self.scale * (generated - reference).square().sum() / generated[0].numel()
