"""The Haar wavelet transform and its inverse, as convolutions of stride 2."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The four filters, of the average and of the differences, whose values are +-1/2: (4, 2, 2).
_HAAR = ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1))


class _Wavelet(nn.Module):
    """The filters of `channels` channels, (4 channels, 1, 2, 2): not trained, but in the state dict as published."""

    def __init__(self, channels: int):
        super().__init__()
        filters = torch.tensor(_HAAR).view(4, 1, 2, 2) / 2
        self.channels = channels
        self.register_buffer("weight", filters.repeat(channels, 1, 1, 1))


class DWT(_Wavelet):
    """The transform: (N, `channels`, H, W) with even sides -> (N, 4 `channels`, H/2, W/2)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=2, groups=self.channels)


class IDWT(_Wavelet):
    """The inverse: (N, 4 `channels`, H, W) -> (N, `channels`, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, stride=2, groups=self.channels)
