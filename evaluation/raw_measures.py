"""Measures of mosaics as colour planes (data/planes.py), and the table `RAW_MEASURES` of all of them.

A measure takes planes and the truth (N, C, H, W), floating point, where black is 0 and white 1; what lies outside is
clipped. C is 4 (R, Gr, Gb, B) or 3 (R, G, B). Scores (N,) are float64, on the planes' device, and have no gradient;
planes that are not finite score NaN. Nothing is converted to 8 bits but for the histograms of `kl`. A `UserError` is
raised for shapes that cannot be compared, or are too small for the measure.

The measures and their definitions are those of Yang et al., Unsupervised Raw-to-raw Mapping, section 4.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import wraps

import torch
from torch import Tensor

from errors import UserError
from evaluation.metrics import SSIM_MINIMUM, Function, Measure, mean_similarity, require_side, to_8_bit

BINS = 256  # of the histograms of `kl`
EPS = 1e-7  # added to their frequencies (Eq. 14)
DIRECTIONS = {"ab": ("a", "b"), "ba": ("b", "a")}  # the end of a column's name: the camera mapped from, and to


def file_by_file(measure: Function, any_size: bool = False) -> Function:
    """Extend a measure of planes and truth (C, H, W) in [0, 1], a scalar, to (N, C, H, W) of any values.

    With `any_size`, H and W of the truth may be others than those of the planes.
    """

    @wraps(measure)
    @torch.no_grad()
    def extended(planes: Tensor, truth: Tensor) -> Tensor:
        _check(planes, truth[:, :, :1, :1].expand(*truth.shape[:2], *planes.shape[2:]) if any_size else truth)
        scores = [measure(x.clamp(0, 1), y.clamp(0, 1)).double() for x, y in zip(planes, truth, strict=True)]
        finite = planes.isfinite().flatten(1).all(1) & truth.isfinite().flatten(1).all(1)
        return torch.stack(scores).masked_fill(~finite, torch.nan)

    return extended


def _check(planes: Tensor, truth: Tensor) -> None:
    """Raise `UserError` if these cannot be compared."""
    if planes.shape != truth.shape or planes.ndim != 4 or planes.shape[1] not in (3, 4) or not planes.numel():
        raise UserError(
            f"cannot compare planes of shape {tuple(planes.shape)} with planes of shape {tuple(truth.shape)}: give "
            "both as (N, 4, H, W) or (N, 3, H, W), of the same size and not empty"
        )


# --- the measures ----------------------------------------------------------------------------------------------------


@file_by_file
def psnr(planes: Tensor, truth: Tensor) -> Tensor:
    """PSNR in dB over all channels and pixels, infinite for equal planes: (N, C, H, W) twice -> (N,)."""
    return -10 * torch.log10((planes - truth).square().mean(dtype=torch.float64))


@file_by_file
def ssim(planes: Tensor, truth: Tensor) -> Tensor:
    """SSIM in [-1, 1], the mean over channels: (N, C, H, W) twice, sides of 11 pixels or more -> (N,).

    The data range is 1; window and positions are those of `evaluation.metrics.ssim`, which works on 8 bits.
    """
    require_side(planes, SSIM_MINIMUM, "SSIM")
    values, _ = mean_similarity(planes.float(), truth.float())
    return values.mean()


@file_by_file
def mae(planes: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error over all channels and pixels, 1 is white: (N, C, H, W) twice -> (N,)."""
    return (planes - truth).abs().mean(dtype=torch.float64)


@file_by_file
def kl(planes: Tensor, truth: Tensor) -> Tensor:
    """Divergence of two images' histograms, 0 or more, the mean over channels: (N, C, H, W) twice -> (N,). Eq. 14.

    With p and q the frequencies (they sum to 1) of 255 x, truncated, in a channel of the planes and of the truth, it is
    sum p ln((p + eps) / (q + eps)) + sum q ln((q + eps) / (p + eps)). It compares colours, not where they are.
    """
    p, q = (_frequencies(x) for x in (planes, truth))
    return ((p - q) * ((p + EPS) / (q + EPS)).log()).sum(1).mean()  # both sums in one


kl_of_any_size = file_by_file(kl.__wrapped__, any_size=True)  # the same of two pictures of a scene, whose sizes differ


def _frequencies(planes: Tensor) -> Tensor:
    """(C, H, W) in [0, 1] -> the share of a channel's pixels in each bin, (C, 256), float64."""
    counts = torch.stack([channel.bincount(minlength=BINS) for channel in to_8_bit(planes).flatten(1)])
    return counts.double() / planes[0].numel()


@file_by_file
def angle(planes: Tensor, truth: Tensor) -> Tensor:
    """Angle between the mean colours (R, mean G, B), 0 to 90 degrees: (N, C, H, W) twice -> (N,).

    0 where only brightness differs; NaN where one of the two is black. Photographers judge illuminant estimates by it;
    the paper does not use it.
    """
    x, y = (mean_colour(each) for each in (planes, truth))
    if not (x.any() and y.any()):
        return x.new_tensor(torch.nan)
    return torch.rad2deg(torch.atan2(torch.linalg.cross(x, y).norm(), x @ y))  # exact for small angles, as acos is not


def mean_colour(planes: Tensor) -> Tensor:
    """The means of red, green and blue, (C, H, W) -> (3,), float64; green is the mean of both greens."""
    means = planes.mean((1, 2), dtype=torch.float64)
    return torch.stack((means[0], means[1:-1].mean(), means[-1]))


# To add a measure of planes, write a function (`file_by_file` extends it to batches) and a row.
RAW_MEASURES = {
    "psnr": Measure("PSNR", "dB", True, 2, psnr, of_floats=True),
    "ssim": Measure("SSIM", "", True, 4, ssim, of_floats=True),
    "mae": Measure("MAE", "", False, 4, mae, of_floats=True),
    "kl": Measure("KL divergence", "", False, 3, kl, of_floats=True),
    "angle": Measure("Angle of mean colours", "degrees", False, 2, angle, of_floats=True),
}


def directed(measures: Mapping[str, Measure]) -> dict[str, Measure]:
    """Each measure, the mean of both directions, then those of one direction: "psnr", "psnr_ab", "psnr_ba", ..."""
    found = {}
    for name, measure in measures.items():
        found[name] = measure
        for end, (source, to) in DIRECTIONS.items():
            found[f"{name}_{end}"] = replace(measure, label=f"{measure.label} {source}->{to}")
    return found
