"""Aligns a photograph to the rendering of a RAW mosaic of the same scene, taken by another camera.

The stages are those of docs/alignment.md: features and a homography, its refinement, local refinement where it helps,
one resampling of the photograph, and a mask of what can be compared. The mosaic is never resampled.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from data.reference import OPENCV_CODES
from data.sensor import Sensor, planes
from errors import UserError

GAMMA = 2.2  # of the rendering, as of the reference image (data/reference.py)


class NotAligned(UserError):
    """Two pictures that cannot be aligned. The sentence says why, not of which files: the caller knows them."""


@dataclass(frozen=True)
class Options:
    """The thresholds of an alignment. Pixels are those of the mosaic. Raises `UserError` for impossible values."""

    ratio: float = 0.8  # of the distances of the best and second best feature (Lowe, IJCV 2004, section 7.1)
    reprojection: float = 1.5  # largest scale of MAGSAC's inliers, pixels of the image that features are found in
    inliers: int = 40  # fewer matches that fit the homography are no alignment
    local: Literal["auto", "off"] = "auto"  # refine locally where that raises the correlation of held-out colours
    reach: float = 6.0  # pixels by which the local refinement moves at most
    round_trip: float = 0.5  # pixels: the largest error of the flow there and back in the mask
    ncc: float = 0.9  # the lowest correlation in the mask, and of a kept patch
    flow: float = 1.2  # pixels: the largest mean residual flow of a kept patch (Xing et al., their published code)

    def __post_init__(self) -> None:
        for wrong, sentence in (
            (not 0 < self.ratio <= 1, f"ratio is {self.ratio}, but must lie above 0 and at most at 1"),
            (self.inliers < 4, f"inliers is {self.inliers}, but a homography needs at least 4"),
            (not -1 <= self.ncc <= 1, f"ncc is {self.ncc}, but a correlation lies between -1 and 1"),
            (self.local not in ("auto", "off"), f"local is {self.local}, but must be auto or off"),
            (
                not min(self.reprojection, self.reach, self.round_trip, self.flow) > 0,
                "reprojection, reach, round_trip and flow are distances in pixels, and must be positive",
            ),
        ):
            if wrong:
                raise UserError(f"alignment: {sentence}")


@dataclass(frozen=True)
class Alignment:
    """Where the pixels of a rendering (H, W) lie in a photograph, and how well the two agree there."""

    map: np.ndarray  # (H, W, 2) float32: column and row in the photograph of each pixel of the rendering
    mask: np.ndarray  # (H, W) bool: the same content can be seen in both
    figures: dict[str, float]  # of docs/alignment.md

    def warp(self, photo: np.ndarray) -> np.ndarray:
        """The photograph (H2, W2, 3) uint8 in the pixels of the rendering, (H, W, 3) uint8, resampled once."""
        return cv2.remap(photo, self.map, None, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)


def render(mosaic: np.ndarray, sensor: Sensor) -> np.ndarray:
    """A mosaic (H, W) of digital numbers as a picture to align with: (H, W, 3) uint8.

    Bilinear demosaicing, which mixes no colours, so that their noise stays independent; gray-world gains of at least 1;
    dark pictures are brightened; gamma. Where the sensor is saturated, all three colours are 255.
    """
    colours = planes(mosaic, sensor)
    means = [max(1e-6, float(np.mean(colours[name]))) for name in ("R", "Gr", "B")]
    gains = np.clip(max(means) / np.array(means), 1, 8)
    bright = max(float(np.percentile(colours["Gr"], 99.9)), 1e-6)
    table_gain = np.clip(0.9 / bright, 1, 16)
    linear = np.empty(mosaic.shape, np.float32)
    from data.sensor import offsets

    for name, plane in colours.items():
        row, column = offsets(sensor.cfa)[name]
        linear[row::2, column::2] = plane * gains["RGB".index(name[0])] * table_gain
    whole = (np.clip(linear, 0, 1) ** (1 / GAMMA) * 65535 + 0.5).astype(np.uint16)
    return (cv2.cvtColor(whole, OPENCV_CODES[sensor.cfa]) >> 8).astype(np.uint8)


def align(rendered: np.ndarray, photo: np.ndarray, options: Options) -> Alignment:
    """Align a photograph (H2, W2, 3) uint8 to a rendering (H, W, 3) uint8, of `render`.

    The same pictures and options give the same result. Raises `NotAligned` if too little of both fits together.
    """
    raise NotAligned("the alignment is not written yet")
