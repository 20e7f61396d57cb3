"""The loss terms of section 3, and Dynamic Loss Adaptation.

A loss is a small callable: constants in `__init__`, formula in `__call__`. It gets features or images, on whatever
device they are, and returns a scalar. No loss loads a weight.
"""

from losses.color import BlurredColorLoss
from losses.content import ContentLoss
from losses.perceptual import MSELoss, PerceptualLoss
from losses.total_variation import TotalVariation

# The terms of Eqs. 10 to 12 that are not adversarial (those: losses.adversarial), by their names in the config.
LOSSES = {
    "content": ContentLoss,
    "color": BlurredColorLoss,
    "lpips": PerceptualLoss,
    "dists": PerceptualLoss,
    "tv": TotalVariation,
    "mse": MSELoss,
}
