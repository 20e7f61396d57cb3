"""The reference image of the content loss: the mosaic demosaiced, white-balanced, stretched and gamma-corrected.

The paper's section 3.1; `DEMOSAICERS` holds the two demosaicing methods of its Table 3 by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from data.menon import check_mosaic, menon2007
from data.sensor import Sensor, above_black
from errors import UserError

GAINS = (1.6, 1.2, 1.4)  # white balance of red, green and blue (released code)
GAMMA = 2.2  # released code

# OpenCV names a Bayer order after the 2x2 block that starts at pixel (1, 1), not at (0, 0): RGGB is its "BG".
OPENCV_CODES = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
}


@torch.no_grad()
def bilinear_opencv(mosaic: Tensor, cfa: str = "rggb") -> Tensor:
    """Demosaic with OpenCV's bilinear interpolation of 16-bit integers, the alternative in the paper's Table 3.

    Args:
        mosaic: (N, 1, H, W), floating point, digital numbers up to 65535, which are rounded. H and W even, at least
            `data.menon.MINIMUM_SIZE`.
        cfa: colours of the top left 2x2 block, row by row: "rggb", "bggr", "grbg" or "gbrg".

    Returns:
        (N, 3, H, W), red, green, blue, whole digital numbers, in the mosaic's dtype, on its device, without gradient.

    Raises:
        UserError: unknown CFA order, or wrong shape or dtype of the mosaic.
    """
    check_mosaic(mosaic, cfa)
    integers = mosaic[:, 0].round().clamp(0, 65535).cpu().numpy().astype(np.uint16)
    images = np.empty((*integers.shape, 3), np.float32)
    for index, image in enumerate(integers):
        images[index] = cv2.cvtColor(image, OPENCV_CODES[cfa])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(mosaic)


# Each takes and returns digital numbers, because `menon2007` is exact on integers only.
DEMOSAICERS = {"menon2007": menon2007, "bilinear": bilinear_opencv}


def find_demosaicer(name: str) -> Callable[[Tensor, str], Tensor]:
    """The row of `DEMOSAICERS`. Raises `UserError` for an unknown name."""
    if name not in DEMOSAICERS:
        raise UserError(f"unknown demosaicing '{name}'; known are: {', '.join(DEMOSAICERS)}")
    return DEMOSAICERS[name]


@torch.no_grad()
def render_reference(
    demosaiced: Tensor,
    gains: tuple[float, float, float] = GAINS,
    gamma: float = GAMMA,
    span: Tensor | None = None,
) -> Tensor:
    """Render the reference: white balance, clip to [0, 1], stretch each image to the full range, gamma.

    Args:
        demosaiced: (N, 3, H, W), linear red, green, blue, floating point.
        gains: white balance factors of red, green and blue.
        gamma: display gamma; the stretched image is raised to the power 1 / gamma.
        span: (N, 2), the values that become 0 and 1, from `balanced_span`; by default each image's own extremes. For a
            patch, pass the span of the whole image that it was cut from.

    Returns:
        (N, 3, H, W) float32 in [0, 1]; zeros for an image whose values are all the same.

    Raises:
        UserError: not three channels, not floating point, or gains or a gamma that are not positive.
    """
    balanced = _balance(demosaiced, gains, gamma)
    low, high = (_extremes(balanced) if span is None else span.to(balanced)).view(-1, 2, 1, 1, 1).unbind(1)
    width = high - low
    stretched = (balanced - low) / torch.where(width > 0, width, 1)
    return stretched.clamp_(0, 1).pow_(1 / gamma).float()


@torch.no_grad()
def balanced_span(demosaiced: Tensor, gains: tuple[float, float, float] = GAINS) -> Tensor:
    """(N, 2): the lowest and highest value of each image (N, 3, H, W) after white balance, for `render_reference`."""
    return _extremes(_balance(demosaiced, gains))


def _extremes(balanced: Tensor) -> Tensor:
    return torch.stack((balanced.amin((1, 2, 3)), balanced.amax((1, 2, 3))), dim=1)


def _balance(demosaiced: Tensor, gains: tuple[float, float, float], gamma: float = 1.0) -> Tensor:
    if demosaiced.ndim != 4 or demosaiced.shape[1] != 3 or not demosaiced.is_floating_point():
        raise UserError(
            f"the reference needs a floating point image (N, 3, H, W), not {demosaiced.dtype} "
            f"{tuple(demosaiced.shape)}; demosaic the mosaic first"
        )
    if len(gains) != 3 or min(*gains, gamma) <= 0:
        raise UserError(f"the reference needs three gains and a gamma, all above 0, not gains {gains}, gamma {gamma}")
    demosaiced = demosaiced.to(torch.promote_types(demosaiced.dtype, torch.float32))
    balanced = torch.empty_like(demosaiced)
    for channel, (gain, plane) in enumerate(zip(gains, balanced.unbind(1), strict=True)):
        torch.mul(demosaiced[:, channel], gain, out=plane)
    return balanced.clamp_(0, 1)


@dataclass(frozen=True)
class Reference:
    """Renders mosaics as the reference images of the content loss (section 3.1)."""

    sensor: Sensor
    demosaic: Callable[[Tensor, str], Tensor] = menon2007  # in DEMOSAICERS
    gains: tuple[float, float, float] = GAINS
    gamma: float = GAMMA
    headroom: float = 1.0  # how far above white values may be: those of normalised mosaics
    camera: bool = False  # for any camera: black becomes 0, and white the whitest; published: black stays in

    def __call__(self, mosaic: Tensor, span: Tensor | None = None) -> Tensor:
        """(N, 1, H, W), 1 is white -> (N, 3, H, W) in [0, 1]; for patches, pass the `span` (N, 2) of their files."""
        return render_reference(self._linear(mosaic), self.gains, self.gamma, span)

    def span(self, mosaic: Tensor) -> Tensor:
        """The range (N, 2) of whole mosaics (N, 1, H, W), with which to render patches of them."""
        return balanced_span(self._linear(mosaic), self.gains)

    def _linear(self, mosaic: Tensor) -> Tensor:
        """Demosaic whole digital numbers, on which `menon2007` is exact, and scale them so that white is at most 0.5.

        The released code divides 10-bit values by 65535, not by 1023; so white balance clips nothing. The stretch of
        `render_reference` cancels the factor. With `camera`, white becomes 1: with gains of at least 1, what is
        saturated is white, not magenta.
        """
        white = self.sensor.white_level
        if self.camera:
            digital = (above_black(mosaic, self.sensor) * white).round()
            return self.demosaic(digital, self.sensor.cfa) / (self.headroom * white)
        digital = (mosaic * white).round()
        return self.demosaic(digital, self.sensor.cfa) / (self.headroom * max(65535, 2 * white))
