"""The outlier-aware loss of SYENet (Gou et al. 2023)."""

import math

import torch
from torch import Tensor

_SMALLEST = 1e-12  # of a scale: an image that differs by a constant has no outliers


class OutlierAwareLoss:
    """The mean of w |d| of images (N, C, H, W), d their difference: what differs as the rest does counts little.

    w = 1 - exp(-|d - mean(d)| sqrt(2) / std(d)), with mean and standard deviation of each image and colour. w carries
    no gradient.
    """

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        difference = generated - target
        with torch.no_grad():
            scale = difference.std((2, 3), keepdim=True) / math.sqrt(2)
            distance = (difference - difference.mean((2, 3), keepdim=True)).abs()
            weight = 1 - (-distance / scale.clamp(min=_SMALLEST)).exp()
        return (weight * difference.abs()).mean()
