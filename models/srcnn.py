"""SRCNN (Dong et al. 2014), in the form that Ignatov's challenge of perceptual enhancement published."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import wide_tanh


class SRCNN(nn.Module):
    """Three convolutions of 9x9, 5x5 and 5x5 pixels. The output is in -0.08 to 1.08.

    Published, for RGB images (`packed=False`, github.com/aiff22/ai-challenge): (N, 3, H, W) -> (N, 3, H, W), the last
    layer's bias a single number for all colours; 69,249 parameters. How it takes a mosaic where it is compared with
    ISPs is nowhere stated. Ours, by default: the same layers on the packed mosaic (N, 4, H/2, W/2), 12 numbers a packed
    pixel, and a pixel shuffle -> sRGB (N, 3, H, W); 81,644 parameters.
    """

    def __init__(self, packed: bool = True):
        super().__init__()
        self.packed = packed
        inputs, outputs, biases = (4, 12, 12) if packed else (3, 3, 1)
        self.conv1 = nn.Conv2d(inputs, 64, 9, padding=4)
        self.conv2 = nn.Conv2d(64, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, outputs, 5, padding=2, bias=False)
        bound = (32 * 5 * 5) ** -0.5  # as PyTorch draws the bias of such a layer
        self.bias = nn.Parameter(torch.empty(biases).uniform_(-bound, bound))

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv2(self.conv1(image).relu()).relu()
        x = wide_tanh(self.conv3(x) + self.bias[:, None, None])
        return F.pixel_shuffle(x, 2) if self.packed else x
