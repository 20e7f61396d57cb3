"""The loss terms of section 3, and Dynamic Loss Adaptation.

A loss is a small callable: constants in `__init__`, formula in `__call__`. It takes features or images on any device
and returns a scalar. Losses never load weights.
"""

from losses.color import BlurredColorLoss
from losses.content import ContentLoss
from losses.perceptual import MSELoss, PerceptualLoss
from losses.total_variation import TotalVariation

# The terms of Eqs. 10 to 12 by their names in the config, but for the adversarial ones (losses.adversarial).
LOSSES = {
    "content": ContentLoss,
    "color": BlurredColorLoss,
    "lpips": PerceptualLoss,
    "dists": PerceptualLoss,
    "tv": TotalVariation,
    "mse": MSELoss,
}
