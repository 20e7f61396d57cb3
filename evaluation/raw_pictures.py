"""Pictures of a mosaic's colour planes, to see how two cameras differ and how near a map brings them.

They show the camera's own colours: red, the mean of both greens, and blue, with white balance gains and a gamma of
1/1.6, as the paper's figures have (Yang et al., Unsupervised Raw-to-raw Mapping, Fig. 4). They are no photographs:
there is no colour matrix, and a pixel is a whole 2x2 block of the mosaic.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.metrics import to_8_bit
from evaluation.raw_measures import mean_colour
from evaluation.report import error_picture

GAMMA = 1 / 1.6
GAP = 4  # pixels between the pictures of a row, white


def grey_world(planes: Tensor) -> Tensor:
    """White balance gains of red, green and blue that make the mean of planes (C, h, w) grey: (3,), green has 1.

    A channel that is black has a gain of 1; so have all if green is black.
    """
    means = mean_colour(planes.clamp(0, 1))
    gains = means[1] / means
    return gains.where(gains.isfinite() & (gains > 0), 1).float()


def picture(planes: Tensor, gains: Tensor | None = None) -> Tensor:
    """Planes (C, h, w), C = 3 or 4, as a picture (3, h, w) in [0, 1]; without `gains`, by `grey_world`."""
    gains = grey_world(planes) if gains is None else gains
    colours = torch.stack((planes[0], planes[1:-1].mean(0), planes[-1])).clamp(0, 1)
    return (colours * gains.to(colours)[:, None, None]).clamp(0, 1) ** GAMMA


def row_of_pictures(row: Sequence[Tensor]) -> list[Tensor]:
    """The pictures (3, h, w) of planes (C, h, w): a mosaic of camera a, mapped, and the truth of camera b, for example.

    All have the gains of the last one, the truth, so that differences between them are seen, not balanced away.
    """
    gains = grey_world(row[-1])
    return [picture(planes, gains) for planes in row]


def sheet(rows: Sequence[Sequence[Tensor]], side: int = 480, errors: bool = False) -> np.ndarray:
    """One picture (H, W, 3), uint8 sRGB, of rows of planes as `row_of_pictures` takes them; white where nothing is.

    Planes are reduced to at most `side` pixels first. With `errors`, a further row shows below each row how far all but
    the last picture are from the last, which has their size: the absolute difference, amplified
    (`evaluation.report.error_picture`).
    """
    strips = []
    for row in rows:
        pictures = [_to_array(image) for image in row_of_pictures([shrink(planes, side) for planes in row])]
        strips.append(_beside(pictures))
        if errors:
            strips.append(_beside([error_picture(image, pictures[-1]) for image in pictures[:-1]]))
    width = max(strip.shape[1] for strip in strips)
    padded = [_pad(strip, right=width - strip.shape[1], below=GAP) for strip in strips]
    return np.concatenate(padded)[:-GAP]


def shrink(planes: Tensor, side: int) -> Tensor:
    """Planes (C, h, w) reduced to a longer side of at most `side` pixels, by the mean over areas."""
    height, width = planes.shape[1:]
    scale = side / max(height, width)
    size = [max(1, round(scale * length)) for length in (height, width)]
    return F.interpolate(planes[None], size, mode="area")[0] if scale < 1 else planes


def _to_array(image: Tensor) -> np.ndarray:
    return to_8_bit(image).permute(1, 2, 0).cpu().numpy()


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    height = max(len(image) for image in pictures)
    return np.concatenate([_pad(image, height - len(image), GAP) for image in pictures], axis=1)[:, :-GAP]


def _pad(image: np.ndarray, below: int, right: int) -> np.ndarray:
    return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255)
