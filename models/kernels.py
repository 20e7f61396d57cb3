"""An ISP of kernels for each pixel (Xing et al., *A Well-aligned Dataset for Learning ISP*, SIGGRAPH 2022 poster).

The poster gives one formula and no layers. Its kernels are predicted here by the U-Net of kernel prediction networks
(Mildenhall et al., *Burst Denoising with Kernel Prediction Networks*, CVPR 2018); docs/networks.md lists what is ours.
"""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.padding import in_multiples

SITES = {"B": (1, 1), "Gr": (0, 1), "R": (0, 0), "Gb": (1, 0)}  # (row, column) of the packed planes of an RGGB mosaic
PLANES, VALUES = len(SITES), 12  # of a packed pixel: what goes in, and what comes out, 2x2 pixels of three colours


class UNet(nn.Module):
    """Features for kernels: (N, `inputs`, H, W) -> (N, widths[0], H, W), H and W multiples of 2^(len(widths) - 1).

    Each level has two 3x3 convolutions of its width on the way down, after a mean of 2x2, and two on the way up, after
    bilinear interpolation and beside what its size had on the way down. Leaky ReLU of slope 0.2.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...]):
        super().__init__()
        self.down = nn.ModuleList(map(_two_convolutions, (inputs, *widths), widths))
        wide_to_narrow = widths[::-1]
        joined = [wide + narrow for wide, narrow in zip(wide_to_narrow, wide_to_narrow[1:], strict=False)]
        self.up = nn.ModuleList(map(_two_convolutions, joined, wide_to_narrow[1:]))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, convolutions in enumerate(self.down):
            x = convolutions(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for convolutions in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = convolutions(torch.cat((x, skips.pop()), dim=1))
        return x


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for width in (inputs, outputs):
        layers += nn.Conv2d(width, outputs, 3, padding=1), nn.LeakyReLU(0.2)
    return nn.Sequential(*layers)


class KernelISP(nn.Module):
    """A linear filter of its own for each packed pixel: (N, 4, H/2, W/2), B, Gr, R, Gb -> sRGB (N, 3, H, W).

    Y_i = sum over the window of W_i[i - j] X_j + b (the poster's formula). X_j are the 4 planes of a packed pixel, Y_i
    the 2x2 pixels of three colours in its place, W_i[k] is 12 x 4 and predicted from the image, b is the same for all
    pixels. The kernels are not normalised: a gain and negative weights are what an ISP needs. So the output is not
    bounded either.

    `widths` are the U-Net's, `window` is the side of the window in packed pixels (odd). Beyond the border, the planes
    are continued by their outermost values. Training starts at bilinear demosaicing, without white balance, of an RGGB
    mosaic: continued like that, it is the mosaic mirrored at its border.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), window: int = 3):
        super().__init__()
        self.window, self.multiple = window, 2 ** (len(widths) - 1)
        self.features = UNet(PLANES, widths)
        self.kernels = nn.Conv2d(widths[0], window**2 * PLANES * VALUES, 1)
        self.bias = nn.Parameter(torch.zeros(VALUES))
        nn.init.zeros_(self.kernels.weight)
        with torch.no_grad():
            self.kernels.bias.copy_(bilinear_taps(window).flatten())

    def forward(self, packed: Tensor) -> Tensor:
        features = in_multiples(self.features, packed, self.multiple, scale=1)
        height, width = packed.shape[-2:]
        around = F.pad(packed, (self.window // 2,) * 4, mode="replicate")
        values = self.bias.view(1, -1, 1, 1)
        weights, biases = (part.chunk(self.window**2) for part in (self.kernels.weight, self.kernels.bias))
        # All kernels are 432 numbers a packed pixel. Those of one neighbour are predicted, used and forgotten before
        # those of the next: a ninth of the memory. Training keeps none, either: the gradient at a kernel is made of
        # the image, which itself needs no gradient.
        for (row, column), weight, bias in zip(product(range(self.window), repeat=2), weights, biases, strict=True):
            kernel = F.conv2d(features, weight, bias).unflatten(1, (PLANES, VALUES))
            neighbour = around[..., row : row + height, column : column + width]
            for weights_of_plane, plane in zip(kernel.unbind(1), neighbour.split(1, dim=1), strict=True):
                values = torch.addcmul(values, weights_of_plane, plane)
        return F.pixel_shuffle(values, 2)


def bilinear_taps(window: int) -> Tensor:
    """The weights (window, window, 4, 12) that demosaic bilinearly: neighbour (row, column), its plane, the value.

    Values are in the order of a pixel shuffle: colour, row, column. Green is the mean of its four neighbours, red and
    blue are that of the nearest two or four.
    """
    taps = torch.zeros(window, window, PLANES, 3, 2, 2)
    for (plane, (name, site)), row, column in product(enumerate(SITES.items()), range(2), range(2)):
        color = "RGB".index(name[0])
        for y, x in product((-1, 0, 1), repeat=2):  # from the pixel (row, column) to a neighbour, in mosaic pixels
            if ((row + y) % 2, (column + x) % 2) == site:
                near = (1 - abs(y) / 2) * (1 - abs(x) / 2) if name in "RB" else (1 - (abs(y) + abs(x)) * 3 / 4)
                shift = (row + y) // 2 + window // 2, (column + x) // 2 + window // 2
                taps[(*shift, plane, color, row, column)] += max(near, 0)
    return taps.flatten(3)


def reach_of(levels: int) -> int:
    """Mosaic pixels to each side that an output pixel of `KernelISP` with so many levels of its U-Net depends on.

    In whole packed pixels. It is the same for windows of 3 and 5, which are narrower than what the U-Net sees.
    """
    furthest = 0
    for start in range(2 ** (levels - 1)):  # where the pixel lies in the grid of the smallest level
        first = last = start
        for _ in range(levels - 1):  # up's two convolutions; the two nearest values that it interpolates
            first, last = (first - 3) // 2, (last + 3) // 2
        first, last = first - 2, last + 2
        for _ in range(levels - 1):  # the 2x2 that are averaged; down's two convolutions
            first, last = 2 * first - 2, 2 * last + 3
        furthest = max(furthest, start - first, last - start)
    return 2 * furthest
