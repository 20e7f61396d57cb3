"""Image quality measures, each with the protocol that gives it its meaning."""

import torch
from torch import Tensor


def to_8_bit(image: Tensor) -> Tensor:
    """[0, 1] -> 0..255 as the paper's tables have it: clipped, then truncated, not rounded; uint8."""
    return (image.clamp(0, 1) * 255).to(torch.uint8)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB of each image on RGB after truncation to 8 bits: (N, 3, H, W) twice -> (N,). Protocol `paper`."""
    error = to_8_bit(image).double() - to_8_bit(target).double()
    return 10 * torch.log10(255**2 / error.square().flatten(1).mean(1))
