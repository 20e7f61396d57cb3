"""RMFA-Net (Li, Hou and Jia 2024, arXiv:2406.11469), the paper's third backbone. Module names are the released keys."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _conv_relu(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU())


def _halve_conv_relu(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _double_to(x: Tensor, like: Tensor) -> Tensor:
    """Upsample to twice the size, then to the size of `like` if that is odd (halving rounded it down)."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    # Resizing to the same size changes nothing, and is skipped. An exported graph holds for all sizes: it has no `if`.
    if x.shape[-2:] == like.shape[-2:] and not torch.compiler.is_exporting():
        return x
    return _resize(x, like.shape[-2:])


class TextureModule(nn.Module):
    """Two parallel branches, 1x1 convolutions (high frequencies) and 3x3 (low): (N, width, H, W) -> the same shape."""

    def __init__(self, width: int):
        super().__init__()
        self.high_freq = _conv_relu(width, width // 2, kernel=1)
        self.low_freq = _conv_relu(width, width // 2, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.high_freq(x), self.low_freq(x)), dim=1)


class ToneMapping(nn.Module):
    """Retinex: subtract the illumination, estimated at half and quarter resolution, from the (logarithmic) features.

    (N, width, H, W) -> the same shape.
    """

    def __init__(self, width: int):
        super().__init__()
        self.level1 = _halve_conv_relu(width)
        self.level2 = _halve_conv_relu(width)
        self.level3 = _conv_relu(width, width)

    def forward(self, x: Tensor) -> Tensor:
        half = self.level1(x)
        quarter = self.level3(self.level2(half))
        illumination = _double_to(half + _double_to(quarter, half), x)
        return x - illumination


class ChannelAttention(nn.Module):
    """CBAM (Woo et al. 2018), Eq. 2: one bottleneck for the average and for the maximum of each channel."""

    def __init__(self, width: int, reduction: int = 16):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(width, width // reduction, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width // reduction, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)) + self.fc(x.amax((2, 3), keepdim=True)))


class SpatialAttention(nn.Module):
    """CBAM (Woo et al. 2018), Eq. 3: a 7x7 convolution over each pixel's average and maximum of all channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)))


class RMFABlock(nn.Module):
    """Texture and tone mapping in parallel, fused, then channel and spatial attention, around a skip connection."""

    def __init__(self, width: int):
        super().__init__()
        self.texture_module = TextureModule(width)
        self.tone_mapping = ToneMapping(width)
        self.fusion = _conv_relu(2 * width, width)
        self.channel_attention = ChannelAttention(width)
        self.spatial_attention = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        fused = self.fusion(torch.cat((self.texture_module(x), self.tone_mapping(x)), dim=1))
        return x + self.spatial_attention(self.channel_attention(fused))


class RMFANet(nn.Module):
    """RMFA-Net: three-channel split of a mosaic (N, 3, H, W), H and W at least 4 -> sRGB (N, 3, H, W) in (0, 1).

    `blocks` blocks of `width` channels: tiny has 2 of 16, medium 8 of 16, large 20 of 16, 32 or 64 (released code).
    """

    def __init__(self, blocks: int, width: int):
        super().__init__()
        self.input_module = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1), nn.Tanh()
        )
        self.rmfa_blocks = nn.Sequential(*(RMFABlock(width) for _ in range(blocks)))
        self.output_module = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, split: Tensor) -> Tensor:
        return self.output_module(self.rmfa_blocks(self.input_module(split)))
