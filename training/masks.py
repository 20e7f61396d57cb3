"""Targets that are aligned with the inputs in parts only: the other pixels count in no comparison (docs/masks.md)."""

from collections.abc import Callable

import torch
from torch import Tensor


class Aligned:
    """What terms that compare with the target see: the generated images where aligned, the target's pixels elsewhere.

    There, both images of a comparison are equal, so the pixels add no difference to any term, on pixels or on features,
    and get a gradient of exactly 0. `scale` makes a mean over all pixels one over the aligned pixels of the batch.

    Args:
        target: photographs, (N, 3, H, W).
        mask: (N, 1, H, W) bool, True where they are aligned.
        average_: replaces a tensor by its mean over all processes, which share the batch.
    """

    def __init__(self, target: Tensor, mask: Tensor, average_: Callable[[Tensor], Tensor] | None = None):
        self.target, self.mask = target, mask
        share = mask.float().mean()
        # At least one pixel: the losses of a batch without any are 0, and stay finite.
        self.scale = 1 / (average_(share) if average_ else share).clamp(min=1 / mask.numel())

    def paste(self, generated: Tensor) -> Tensor:
        """The generated images (N, 3, H, W), with the target's pixels where it is not aligned."""
        return torch.where(self.mask, generated, self.target)
