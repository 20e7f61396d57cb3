"""Losses of colour alone in published recipes: blurred chrominance (LAN), and the angle between colours (SYENet)."""

from torch import Tensor
from torch.nn import functional as F

from losses.color import blur

# U and V of R, G, B, as tf.image.rgb_to_yuv has them (BT.601).
_U, _V = (-0.14714119, -0.28886916, 0.43601035), (0.61497538, -0.51496512, -0.10001026)


class ChromaLoss:
    """The mean absolute difference of blurred U and V of sRGB images (N, 3, H, W): the blur is that of Eqs. 3 and 4."""

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        # Both are linear: those of the difference are the differences. The means of U and V are averaged.
        difference = blur(generated - target).split(1, dim=1)
        planes = (sum(weight * channel for weight, channel in zip(w, difference, strict=True)) for w in (_U, _V))
        return sum(plane.abs().mean() for plane in planes) / 2


class CosineLoss:
    """1 - cosine between the colours of two sRGB images (N, 3, H, W), the mean over pixels.

    The generated image is clipped to [0, 1]; what lies outside gets no gradient.
    """

    def __call__(self, generated: Tensor, target: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(generated.clamp(0, 1), target, dim=1).mean()
