"""SYENet (Gou et al. 2023, ICCV, "SYENet: A Simple Yet Effective Network for Multiple Low-Level Vision Tasks").

Parameters have the names and shapes of the published repository (sanechips-multimedia/syenet): the network is trained
with several branches for each convolution, and used with one (`fold`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norms import BatchNorm

WIDTH = 12
# The kernels of the branches of a convolution, by the names that the published code gives them.
BRANCHES = {
    1: {"conv": (1, 1)},
    3: {"conv": (3, 3), "conv1": (1, 1), "conv_crossh": (3, 1), "conv_crossv": (1, 3)},
    5: {"conv": (5, 5), "conv1": (1, 1), "conv2": (3, 3), "conv_crossh": (3, 1), "conv_crossv": (1, 3)},
}


def _conv(inputs: int, outputs: int, kernel: tuple[int, int]) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=(kernel[0] // 2, kernel[1] // 2))


class Branches(nn.Module):
    """A convolution in its training form: (N, `inputs`, H, W) -> (N, `outputs`, H, W).

    Convolutions of the shapes in `BRANCHES`, each with and without batch normalisation, give 4 times `outputs` channels
    each; a 1x1 convolution combines them. In eval mode all are one linear map, the convolution that `folded` returns.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.kernel, self.kernels, width = kernel, BRANCHES[kernel], 4 * outputs
        for name, shape in self.kernels.items():
            self.add_module(name, _conv(inputs, width, shape))
            self.add_module(f"{name}_bn", nn.Sequential(_conv(inputs, width, shape), BatchNorm(width)))
        self.conv_out = nn.Conv2d(2 * len(self.kernels) * width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        names = [*self.kernels, *(f"{name}_bn" for name in self.kernels)]
        return self.conv_out(torch.cat([self.get_submodule(name)(x) for name in names], dim=1))

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """One convolution that computes the same in eval mode. Exact at borders: each branch pads with zeros."""
        plain = [_weights(self.get_submodule(name)) for name in self.kernels]
        normalised = [_normalised(*self.get_submodule(f"{name}_bn")) for name in self.kernels]
        weights, biases = zip(*plain, *normalised, strict=True)
        combine = self.conv_out.weight[:, :, 0, 0]
        weight = torch.einsum("om,mikl->oikl", combine, torch.cat([_centred(w, self.kernel) for w in weights]))
        outputs, inputs = weight.shape[:2]
        conv = _conv(inputs, outputs, (self.kernel, self.kernel)).to(weight)
        conv.weight.copy_(weight)
        conv.bias.copy_(combine @ torch.cat(biases) + self.conv_out.bias)
        return conv


def _weights(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    return conv.weight, conv.bias


def _normalised(conv: nn.Conv2d, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch normalisation after it."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.weight * scale[:, None, None, None], (conv.bias - norm.running_mean) * scale + norm.bias


def _centred(weight: Tensor, kernel: int) -> Tensor:
    """A kernel in the middle of a square one, which is zero elsewhere."""
    rows, columns = ((kernel - side) // 2 for side in weight.shape[-2:])
    return F.pad(weight, (columns, columns, rows, rows))


class QCU(nn.Module):
    """Quadratic connection unit: `scale` times the product of two branches, and a bias for each channel."""

    def __init__(self, block1: nn.Module, block2: nn.Module, scale: float):
        super().__init__()
        self.block1, self.block2, self.scale = block1, block2, scale
        self.bias = nn.Parameter(torch.randn(1, WIDTH, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        product = self.block1(x) * self.block2(x)
        return (product if self.scale == 1 else self.scale * product) + self.bias


class SYENet(nn.Module):
    """SYENet: packed mosaic R, Gr, Gb, B (N, 4, H/2, W/2) -> sRGB (N, 3, H, W), unbounded.

    `folded` is the form for use, of 5,640 parameters, with one convolution in place of each `Branches`. Only the
    training form has the second output, from which the warm-up restores the input: see `warm_up`.
    """

    def __init__(self, folded: bool = False):
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
            return _conv(inputs, outputs, (kernel, kernel)) if folded else Branches(inputs, outputs, kernel)

        scale = 1.0 if folded else 0.1  # `fold` puts it into the weights
        deep = nn.Sequential(conv(4, WIDTH, 5), nn.PReLU(WIDTH), conv(WIDTH, WIDTH, 3))
        self.head = QCU(deep, conv(4, WIDTH, 5), scale)
        self.body = QCU(conv(WIDTH, WIDTH, 3), conv(WIDTH, WIDTH, 1), scale)
        channels = (conv(WIDTH, WIDTH, 1), nn.PReLU(WIDTH), conv(WIDTH, WIDTH, 1))
        self.att = nn.Sequential(nn.AdaptiveAvgPool2d(1), *channels)
        self.tail = nn.Sequential(nn.PixelShuffle(2), conv(3, 3, 3))
        if not folded:
            self.tail_warm = conv(WIDTH, 4, 3)

    def forward(self, packed: Tensor) -> Tensor:
        x = self.body(self.head(packed))
        return self.tail(x * self.att(x).sigmoid())

    def warm_up(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """The sRGB image (N, 3, H, W), and the input again, (N, 4, H/2, W/2), both without the attention.

        The published warm-up trains them. Its DropBlock is left out. The training form only.
        """
        x = self.body(self.head(packed))
        return self.tail(x), self.tail_warm(x)


@torch.no_grad()
def fold(network: SYENet) -> SYENet:
    """The form for use of a network in its training form, which stays as it is: the same function in eval mode.

    On the network's device, in its precision and mode.
    """
    source = network.head.bias
    folded = SYENet(folded=True).to(source.device, source.dtype).train(network.training)
    modules = {name: module for name, module in network.named_modules() if name.split(".")[0] != "tail_warm"}
    state = {}
    for name, module in modules.items():
        if isinstance(module, Branches):
            conv = module.folded()
            state |= {f"{name}.weight": conv.weight, f"{name}.bias": conv.bias}
        elif isinstance(module, nn.PReLU):
            state[f"{name}.weight"] = module.weight
        elif isinstance(module, QCU):
            state[f"{name}.bias"] = module.bias
    for unit in ("head", "body"):
        for kind in ("weight", "bias"):
            state[f"{unit}.block2.{kind}"] *= network.get_submodule(unit).scale
    folded.load_state_dict(state)
    return folded.requires_grad_(source.requires_grad)
