"""Paired texture: section 3.3, LPIPS+ and DISTS as pyiqa computes them. And the pixel-wise loss of pretraining."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


class PerceptualLoss:
    """The batch mean of a full-reference measure on sRGB images (N, 3, H, W).

    `measure(image, reference)` takes two batches (N, 3, H, W) in [0, 1] and returns (N,), such as LPIPS+ or DISTS from
    `pretrained.perceptual`. Images are clipped to [0, 1] first; a pixel outside that range gets no gradient.
    With `swapped`, the target is the image and the generated image the reference, as in the released code's LPIPS+,
    which weights by the features of the reference.
    """

    def __init__(self, measure: Callable[[Tensor, Tensor], Tensor], swapped: bool = False):
        self.measure, self.swapped = measure, swapped

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        pair = generated.clamp(0, 1), target.clamp(0, 1)
        return self.measure(*(reversed(pair) if self.swapped else pair)).mean()


class MSELoss:
    """Eq. 12: the mean squared error of images (N, 3, H, W)."""

    def __call__(self, generated: Tensor, reference: Tensor) -> Tensor:
        return F.mse_loss(generated, reference)
