"""The loss terms of section 3, those of published recipes of other networks, and Dynamic Loss Adaptation.

A loss is a small callable: constants in `__init__`, formula in `__call__`. It takes features or images on any device
and returns a scalar. Losses never load weights.
"""

from losses.color import BlurredColorLoss
from losses.content import ContentLoss
from losses.hue import ChromaLoss, CosineLoss
from losses.outliers import OutlierAwareLoss
from losses.perceptual import MSELoss, PerceptualLoss
from losses.pixels import CharbonnierLoss, HuberLoss, L1Loss
from losses.structure import MultiScaleSSIMLoss, SSIMLoss
from losses.total_variation import TotalVariation

# The terms by their names in the config: first those of Eqs. 10 to 12, but for the adversarial ones
# (losses.adversarial).
LOSSES = {
    "content": ContentLoss,
    "color": BlurredColorLoss,
    "lpips": PerceptualLoss,
    "dists": PerceptualLoss,
    "tv": TotalVariation,
    "mse": MSELoss,
    # Of published recipes of other networks (tasks/recipes.py), beside mse.
    "l1": L1Loss,
    "huber": HuberLoss,
    "charbonnier": CharbonnierLoss,
    "restored": CharbonnierLoss,
    "outlier_aware": OutlierAwareLoss,
    "chroma": ChromaLoss,
    "cosine": CosineLoss,
    "ssim": SSIMLoss,
    "ms_ssim": MultiScaleSSIMLoss,
    "vgg": MSELoss,
    "vgg_l1": L1Loss,
    "lpips_alex": PerceptualLoss,
}
