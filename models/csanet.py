"""CSANet (Hsyu et al., CVPR Workshops 2021), whose code is unpublished: after LAN's author's, draimundo/DPED_MSE."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.double_attention import DoubleAttention
from models.padding import in_multiples


class CSANet(nn.Module):
    """CSANet: packed (N, 4, H/2, W/2), R, Gr, Gb, B, black included, white is 1 -> sRGB (N, 3, H, W) in (0, 1).

    The published code takes B, Gr, R, Gb in 12-bit digital numbers and divides by 4095 itself. Its weights fit, with
    the input channels of the first convolution in our order, and the two halves of those of `join` exchanged. Sides of
    the mosaic are even and at least 4; those that are not multiples of 4 are padded. The attention looks at the whole
    image. 28,511 parameters.
    """

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(4, 16, 3, stride=2)
        self.head = nn.Conv2d(16, 16, 3, padding=1)
        self.attention1, self.attention2 = (DoubleAttention(F.relu, torch.sigmoid, 1, bias=True) for _ in range(2))
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 3, stride=2, bias=False)
        self.merge = nn.Conv2d(16, 16, 3, padding=1)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, packed: Tensor) -> Tensor:
        return in_multiples(self._render, packed, 2, scale=2)

    def _render(self, packed: Tensor) -> Tensor:
        # TensorFlow's padding "SAME" of a stride of 2 adds a row and a column after an even image, and none before.
        x = self.down(F.pad(packed, (0, 1, 0, 1))).relu()
        head = x = self.head(x).relu()
        x = x + self.attention1(x)
        x = x + self.attention2(x)
        x = self.up(torch.cat((self.body(x).relu(), head), dim=1))[..., :-1, :-1]  # cropped as "SAME" does
        x = self.merge(x).relu()
        return self.tail(F.pixel_shuffle(x, 2)).sigmoid()
