"""Pixel by pixel losses of published recipes: mean absolute, Huber and Charbonnier differences."""

from torch import Tensor
from torch.nn import functional as F


class L1Loss:
    """The mean absolute difference of images or features (N, C, H, W)."""

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(generated, target)


class HuberLoss:
    """The mean of d^2 / 2, or |d| - 1/2 beyond 1, of images (N, C, H, W): half the squared error up to 1 (LAN)."""

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(generated, target, delta=1.0)


class CharbonnierLoss:
    """The mean of sqrt(d^2 + epsilon^2) of images (N, C, H, W), smooth at 0 (SYENet's warm-up: 1e-8)."""

    def __init__(self, epsilon: float = 1e-8):
        self.epsilon = epsilon

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        return ((generated - target).square() + self.epsilon**2).sqrt().mean()
