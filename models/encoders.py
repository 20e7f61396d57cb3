"""Encoders of the raw-to-raw mapper: Conformer (Peng et al., ICCV 2021) in the size of section 4, and a plain one.

Both turn planes (N, C, H, W), sides multiples of `PATCH`, and a direction into a vector for each patch,
(N, H / 16, W / 16, `WIDTH`). The directions share all parameters but those of batch normalisation (section 4).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norms import BatchNorms, ConvNorm

PATCH = 16  # pixels to each side of a patch, of what the encoder sees
WIDTH, ATTENTION_HEADS = 256, 4  # of the transformer (section 4)
EPS = 1e-6  # of the normalisations, as in Conformer


class Bottleneck(nn.Module):
    """Convolutions 1x1 and 3x3: (N, inputs, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        self.narrow = ConvNorm(inputs, width, 1)
        self.spatial = ConvNorm(width, width, 3, stride)

    def forward(self, x: Tensor, to: str, tokens: Tensor | None = None) -> Tensor:
        """`tokens` (N, width, H, W), if given, are added between the convolutions."""
        x = self.narrow(x, to).relu_()
        return self.spatial(x if tokens is None else x + tokens, to).relu_()


class ConvBlock(nn.Module):
    """A residual block: the bottleneck of a quarter of the width, then a convolution 1x1 to the full width.

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride), and the bottleneck's output.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, projected: bool = False):
        super().__init__()
        self.bottleneck = Bottleneck(inputs, outputs // 4, stride)
        self.widen = ConvNorm(outputs // 4, outputs, 1)
        self.residual = ConvNorm(inputs, outputs, 1, stride) if projected else None

    def forward(self, x: Tensor, to: str, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.bottleneck(x, to, tokens)
        residual = x if self.residual is None else self.residual(x, to)
        return (self.widen(features, to) + residual).relu_(), features


class Down(nn.Module):
    """FCUDown, from convolutions to tokens: (N, inputs, scale h, scale w) -> (N, h w, WIDTH)."""

    def __init__(self, inputs: int, scale: int):
        super().__init__()
        self.project, self.scale = nn.Conv2d(inputs, WIDTH, 1), scale
        self.norm = nn.LayerNorm(WIDTH, EPS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.avg_pool2d(self.project(x), self.scale).flatten(2).transpose(1, 2)
        return F.gelu(self.norm(tokens))


class Up(nn.Module):
    """FCUUp, from tokens to convolutions: (N, h w, WIDTH) -> (N, outputs, scale h, scale w)."""

    def __init__(self, outputs: int, scale: int):
        super().__init__()
        self.project, self.scale = nn.Conv2d(WIDTH, outputs, 1), scale
        self.norm = BatchNorms(outputs, EPS)

    def forward(self, tokens: Tensor, to: str, size: tuple[int, int]) -> Tensor:
        x = self.project(tokens.transpose(1, 2).unflatten(2, size))
        return F.interpolate(self.norm(x, to).relu_(), scale_factor=self.scale)


def _transformer_block() -> nn.Module:
    from timm.models.vision_transformer import Block  # takes seconds to import

    block = Block(WIDTH, ATTENTION_HEADS, mlp_ratio=4, qkv_bias=False)
    block.norm1.eps = block.norm2.eps = EPS
    return block


class Stage(nn.Module):
    """A ConvTrans block: convolutions and tokens, each of which takes from the other."""

    def __init__(self, inputs: int, outputs: int, stride: int, scale: int):
        super().__init__()
        self.conv = ConvBlock(inputs, outputs, stride, projected=inputs != outputs)
        self.down, self.block, self.up = Down(outputs // 4, scale), _transformer_block(), Up(outputs // 4, scale)
        self.fuse = ConvBlock(outputs, outputs)

    def forward(self, x: Tensor, tokens: Tensor, to: str, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x, features = self.conv(x, to)
        tokens = self.block(tokens + self.down(features))
        return self.fuse(x, to, self.up(tokens, to, size))[0], tokens


class LastStage(nn.Module):
    """A ConvTrans block that gives the tokens alone.

    Conformer's last block has more: what widens the bottleneck, FCUUp and a second residual block. The mapper uses
    none of their output. Parameters without a gradient break `autograd.grad`, and training with several processes.
    """

    def __init__(self, inputs: int, scale: int):
        super().__init__()
        self.conv = Bottleneck(inputs, inputs // 4)
        self.down, self.block = Down(inputs // 4, scale), _transformer_block()

    def forward(self, x: Tensor, tokens: Tensor, to: str) -> Tensor:
        return self.block(tokens + self.down(self.conv(x, to)))


class Conformer(nn.Module):
    """Convolutions for local and a transformer for global features: section 3.3; six stages, widths of section 4.

    There is neither a class token nor an embedding of positions (as in the released code), so images may have any size.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.stem = ConvNorm(channels, 64, 7, stride=2, eps=1e-5)
        self.patches = nn.Conv2d(64, WIDTH, 4, stride=4)
        self.first_conv, self.first_block = ConvBlock(64, 64, projected=True), _transformer_block()
        stages = ((64, 64, 1, 4), (64, 128, 2, 2), (128, 128, 1, 2), (128, 256, 2, 1))  # inputs, outputs, stride, scale
        self.stages = nn.ModuleList(Stage(*stage) for stage in stages)
        self.last = LastStage(256, scale=1)
        self.norm = nn.LayerNorm(WIDTH, EPS)
        self.apply(_initialise)

    def forward(self, planes: Tensor, to: str) -> Tensor:
        x = F.max_pool2d(self.stem(planes, to).relu_(), 3, stride=2, padding=1)  # 1/4
        tokens = self.patches(x)  # 1/16
        size = tokens.shape[-2:]
        tokens = self.first_block(tokens.flatten(2).transpose(1, 2))
        x = self.first_conv(x, to)[0]
        for stage in self.stages:
            x, tokens = stage(x, tokens, to, size)
        return self.norm(self.last(x, tokens, to)).unflatten(1, size)


class PlainEncoder(nn.Module):
    """Convolutions alone, for an ablation (as Table 3): a patch's vector depends on less than 96 x 96 pixels.

    Four convolutions 3x3 with stride 2 and two with stride 1; less than a third of Conformer's parameters.
    """

    def __init__(self, channels: int):
        super().__init__()
        widths = (channels, 32, 64, 128, WIDTH)
        halving = (ConvNorm(inputs, outputs, 3, stride=2) for inputs, outputs in zip(widths, widths[1:], strict=False))
        self.convs = nn.ModuleList((*halving, ConvNorm(WIDTH, WIDTH, 3), ConvNorm(WIDTH, WIDTH, 3)))
        self.norm = nn.LayerNorm(WIDTH, EPS)
        self.apply(_initialise)

    def forward(self, planes: Tensor, to: str) -> Tensor:
        x = planes
        for conv in self.convs:
            x = conv(x, to).relu_()
        return self.norm(x.permute(0, 2, 3, 1))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Conformer's initial weights."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


ENCODERS = {"conformer": Conformer, "plain": PlainEncoder}
