"""CycleGAN's own generators, the baseline of raw-to-raw mapping (Zhu et al., ICCV 2017, section 7.2)."""

import torch
from torch import Tensor, nn

from errors import UserError
from models.batch_norms import DIRECTIONS
from models.padding import in_multiples

WIDTH, BLOCKS = 64, 9  # nine residual blocks, as for images of 256 pixels and more
MULTIPLE = 4  # of the sides: two layers have stride 2


class CycleGenerators(nn.Module):
    """Both generators: planes of one camera -> planes as the other camera would have taken them.

    Planes are (N, `channels`, H, W), black 0, white 1, of any size. Each direction has a network of its own, of
    11,384,452 parameters with four channels, which draws the planes anew by convolutions and does not start as the
    identity. It sees -1 to 1, as its tanh returns. Weights start as N(0, 0.02). Same methods as `models.mapper.Mapper`.
    """

    def __init__(self, channels: int = 4):
        super().__init__()
        self.channels = channels
        self.networks = nn.ModuleDict({to: _generator(channels) for to in DIRECTIONS})

    def forward(self, planes: Tensor, to: str) -> Tensor:
        """Planes (N, C, H, W) of the other camera -> planes in (0, 1) as camera `to`, "a" or "b", takes them.

        The planes may have equal parts with directions of their own, `to` "bbaa" for example.
        """
        parts = zip(planes.chunk(len(to)), to, strict=True)
        return torch.cat([in_multiples(self.networks[one], 2 * part - 1, MULTIPLE, 1) for part, one in parts]) / 2 + 0.5

    @torch.no_grad()
    def map_planes(self, planes: Tensor, to: str, downsample: int = 1) -> Tensor:
        """As `forward`, for use. Raises `UserError` for a `downsample` other than 1: details would be lost."""
        if downsample != 1:
            raise UserError("CycleGAN's generator draws the mosaic anew and cannot see it downsampled: leave that out")
        return self(planes, to)

    def start_from(self, to: str, matrix: Tensor) -> None:
        """Nothing for the identity. Raises `UserError` for others: this network corrects no map, but draws anew."""
        if not torch.equal(matrix.cpu(), torch.eye(self.channels)):
            raise UserError(
                "CycleGAN's generator cannot start from a map: use --mapping.start identity, or another model"
            )

    def synchronise(self, average: object, processes: int) -> None:
        """Nothing: each image is normalised by its own statistics, on any number of processes."""


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def _generator(channels: int) -> nn.Sequential:
    """c7s1-64, d128, d256, nine R256, u128, u64, c7s1-C, in the paper's notation."""
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, WIDTH, 7), *_active(WIDTH)]
    for width in (2 * WIDTH, 4 * WIDTH):
        layers += [nn.Conv2d(width // 2, width, 3, 2, 1), *_active(width)]
    for _ in range(BLOCKS):
        first, second = ((nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)) for _ in "12")
        layers.append(_Residual(*first, nn.ReLU(), *second))
    for width in (2 * WIDTH, WIDTH):
        layers += [nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1), *_active(width)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(WIDTH, channels, 7), nn.Tanh()]
    network = nn.Sequential(*layers)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)
    return network


def _active(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(width), nn.ReLU()
