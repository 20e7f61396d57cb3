"""MicroISP (Ignatov et al., ECCV Workshops 2022), after the authors' code, github.com/aiff22/MicroISP."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import wide_tanh

WIDTH = 4  # channels of a branch
BRANCHES = 3  # red, green, blue: groups of each convolution
BLOCKS = 7
KEPT, ATTENDED = (0, 3), (2, 5)  # the blocks whose output is kept for a skip connection, and those before which it ends


def _conv(inputs: int, kernel: int, stride: int = 1, groups: int = BRANCHES) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(inputs, BRANCHES * WIDTH, kernel, stride, padding, groups=groups)


def _conv_prelu(inputs: int, kernel: int, stride: int = 1, groups: int = BRANCHES) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, kernel, stride, groups), nn.PReLU(BRANCHES * WIDTH))


class Attention(nn.Module):
    """A weight in (0, 1) for each channel, from the whole image: (N, 12, H, W) -> (N, 12, 1, 1), H and W at least 79.

    Four convolutions of stride 3 without padding, the mean, and two 1x1 convolutions; each colour by itself.
    """

    def __init__(self):
        super().__init__()
        width = BRANCHES * WIDTH
        self.reduce = nn.Sequential(*(_conv_prelu(width, kernel, stride=3) for kernel in (1, 3, 3, 3)))
        self.squeeze = _conv_prelu(width, 1)
        self.excite = _conv(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(self.squeeze(self.reduce(x).mean((2, 3), keepdim=True))).sigmoid()


class Branches(nn.Module):
    """A branch of seven convolutions for each colour, side by side in 12 channels, which share no weight.

    Of the same 4 planes (N, 4, H, W) (`shared`), or of 4 for each colour (N, 12, H, W) -> (N, 12, H, W).
    The tanh is left to the caller.
    """

    def __init__(self, shared: bool):
        super().__init__()
        width = BRANCHES * WIDTH
        first = _conv_prelu(WIDTH, 3, groups=1) if shared else _conv_prelu(width, 3)
        self.blocks = nn.ModuleList([first, *(_conv_prelu(width, 3) for _ in range(BLOCKS - 1))])
        self.attentions = nn.ModuleList([Attention() for _ in ATTENDED])
        self.output = _conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        attentions = dict(zip(ATTENDED, self.attentions, strict=True))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in KEPT:
                kept = x
            if index in attentions:
                x = x * attentions[index](x) + kept
        return self.output(x)


class MicroISP(nn.Module):
    """MicroISP: packed (N, 4, H/2, W/2), B, Gr, R, Gb, digital numbers / 1020 -> sRGB (N, 3, H, W) in -0.08 to 1.08.

    H and W are even and at least 158: its attention divides the sides by 3 four times, without padding. Initial
    weights are PyTorch's; published is a normal distribution of 0.001. 13,560 parameters.
    """

    def __init__(self):
        super().__init__()
        self.first = Branches(shared=True)
        self.second = Branches(shared=False)

    def forward(self, packed: Tensor) -> Tensor:
        x = self.second(self.first(packed).tanh())
        return F.pixel_shuffle(wide_tanh(x), 2)  # the 4 channels of each colour are the pixels of 2x2
