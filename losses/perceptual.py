"""Paired texture: section 3.3. LPIPS+ and DISTS as pyiqa computes them, and the pixel-wise error of pretraining."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


class PerceptualLoss:
    """The batch mean of a full-reference measure: `measure(image, reference)`, (N, 3, H, W) in [0, 1] twice -> (N,).

    The measures (LPIPS+, DISTS) come with their weights from `pretrained.backbones`. Images are clipped to the range
    that the measures are made for; a pixel outside gets no gradient from them.
    """

    def __init__(self, measure: Callable[[Tensor, Tensor], Tensor]):
        self.measure = measure

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        return self.measure(generated.clamp(0, 1), target.clamp(0, 1)).mean()


class MSELoss:
    """Mean squared error of (N, 3, H, W) images: Eq. 12."""

    def __call__(self, generated: Tensor, reference: Tensor) -> Tensor:
        return F.mse_loss(generated, reference)
