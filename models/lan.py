"""LAN (Raimundo, Ignatov and Timofte, CVPR Workshops 2022), after the authors' code, github.com/draimundo/LAN."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import wide_tanh
from models.double_attention import DoubleAttention
from models.padding import in_multiples

_activation = partial(F.leaky_relu, negative_slope=0.2)


class LAN(nn.Module):
    """LAN: the mosaic (N, 1, H, W) in digital numbers, 10 bits, black included -> sRGB (N, 3, H, W) in -0.08 to 1.08.

    Everything but the last steps is computed at a half and a quarter of the mosaic's size. Sides are even and at least
    4; those that are not multiples of 4 are padded. The attention looks at the whole image. Initial weights are the
    published ones, a truncated normal distribution of 0.01 and biases of 0.01: on digital numbers, they learn faster
    than PyTorch's. 46,847 parameters.
    """

    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(1, 16, 4, stride=2, padding=1)
        self.down2 = nn.Conv2d(16, 16, 3, stride=2)
        self.head = nn.Conv2d(16, 16, 3, padding=1)
        self.attention1, self.attention2 = (DoubleAttention(_activation, wide_tanh, 3, bias=False) for _ in range(2))
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 16, 3, stride=2)
        self.merge = nn.Conv2d(32, 16, 3, padding=1)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)
        for key, parameter in self.named_parameters():
            if key.endswith("bias"):
                nn.init.constant_(parameter, 0.01)
            else:
                nn.init.trunc_normal_(parameter, std=0.01, a=-0.02, b=0.02)

    def forward(self, mosaic: Tensor) -> Tensor:
        return in_multiples(self._render, mosaic, 4, scale=1)

    def _render(self, mosaic: Tensor) -> Tensor:
        half = _activation(self.down1(mosaic))
        # TensorFlow's padding "SAME" of a stride of 2 adds a row and a column after an even image, and none before.
        quarter = _activation(self.down2(F.pad(half, (0, 1, 0, 1))))
        head = x = _activation(self.head(quarter))
        x = x + self.attention1(x)
        x = x + self.attention2(x)
        x = head + _activation(self.body(x))
        x = self.up(x)[..., :-1, :-1]  # without activation, and cropped as "SAME" does
        x = _activation(self.merge(torch.cat((half, x), dim=1)))
        return wide_tanh(_activation(self.tail(F.pixel_shuffle(x, 2))))  # both activations: as published
