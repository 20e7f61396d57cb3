"""Aligns a photograph to the rendering of a RAW mosaic of the same scene, taken by another camera.

The stages are those of docs/alignment.md: features and a homography, its refinement, local refinement where it helps,
one resampling of the photograph, and a mask of what can be compared. The mosaic is never resampled.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from data import agreement, local_motion
from data.reference import GAMMA, OPENCV_CODES
from data.registration import (
    features,
    fit_homography,
    is_plausible,
    low_pass,
    luma,
    matches,
    refine,
    scale_of,
    transform,
    with_tones_of,
)
from data.sensor import Sensor, offsets, planes
from errors import UserError

LARGEST_SIDE = 32766  # pixels that cv2.remap can address
LARGEST_GAIN = 8.0  # of gray-world, for a colour
BRIGHT, BRIGHTEST = 0.9, 16.0  # what the brightest 0.1 % of a dark picture become, of white; the largest gain for it


class NotAligned(UserError):  # noqa: N818 - it is a result, too
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
    mask_ncc: float = 0.8  # the lowest correlation of the square around a pixel of the mask
    ncc: float = 0.9  # the lowest correlation of a kept patch
    flow: float = 1.2  # pixels: the largest mean residual flow of a kept patch (Xing et al., their published code)

    def __post_init__(self) -> None:
        for wrong, sentence in (
            (not 0 < self.ratio <= 1, f"ratio is {self.ratio}, but must lie above 0 and at most at 1"),
            (self.inliers < 4, f"inliers is {self.inliers}, but a homography needs at least 4"),
            (
                not (-1 <= self.ncc <= 1 and -1 <= self.mask_ncc <= 1),
                f"ncc is {self.ncc}, mask_ncc {self.mask_ncc}, but a correlation lies between -1 and 1",
            ),
            (self.local not in ("auto", "off"), f"local is {self.local}, but must be auto or off"),
            (
                not all(length > 0 for length in (self.reprojection, self.reach, self.round_trip, self.flow)),
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
    residual: np.ndarray  # (H, W) float32: pixels that the content is still away; 0 where there is no detail
    scale: float  # pixels of the photograph for one of the rendering
    figures: dict[str, float]  # of docs/alignment.md

    def warp(self, photo: np.ndarray) -> np.ndarray:
        """The photograph (H2, W2, 3) uint8 in the pixels of the rendering, (H, W, 3) uint8, resampled once.

        Beyond its edges, the pixels of the edge are repeated.
        """
        return _resample(low_pass(photo, self.scale), self.map)


def render(mosaic: np.ndarray, sensor: Sensor) -> np.ndarray:
    """A mosaic (H, W) of digital numbers as a picture to align with: (H, W, 3) uint8.

    Bilinear demosaicing, which mixes no colours, so that their noise stays independent; gray-world gains of at least 1;
    dark pictures are brightened; gamma. Where the sensor is saturated, all three colours are 255.
    """
    colours = planes(mosaic, sensor)
    means = np.array([max(1e-6, float(np.mean(colours[name]))) for name in ("R", "Gr", "B")])
    brightest = max(1e-6, float(np.percentile(colours["Gr"], 99.9)) * means.max() / means[1])
    gains = np.clip(means.max() / means, 1, LARGEST_GAIN) * np.clip(BRIGHT / brightest, 1, BRIGHTEST)
    balanced = np.empty(mosaic.shape, np.float32)
    for channel, plane in colours.items():
        row, column = offsets(sensor.cfa)[channel]
        balanced[row::2, column::2] = plane * gains["RGB".index(channel[0])]
    np.clip(balanced, 0, 1, out=balanced)
    whole = (balanced ** (1 / GAMMA) * 65280 + 128).astype(np.uint16)
    return (cv2.cvtColor(whole, OPENCV_CODES[sensor.cfa]) >> 8).astype(np.uint8)


# --- the stages ------------------------------------------------------------------------------------------------------


def align(rendered: np.ndarray, photo: np.ndarray, options: Options) -> Alignment:
    """Align a photograph (H2, W2, 3) uint8 to a rendering (H, W, 3) uint8, of `render`.

    The same pictures and options give the same result. Raises `NotAligned` if too little of both fits together.
    """
    shape = rendered.shape[:2]
    if min(*shape, *photo.shape[:2]) < 2 * local_motion.CELL:
        raise NotAligned(f"a picture of less than {2 * local_motion.CELL} pixels a side cannot be aligned")
    if max(*shape, *photo.shape[:2]) > LARGEST_SIDE:
        raise NotAligned(f"a picture of more than {LARGEST_SIDE} pixels a side cannot be resampled: cut it into parts")
    matrix, figures = find_homography(rendered, photo, options)
    matrix = refine(rendered, photo, matrix)
    scale = scale_of(matrix, shape)
    soft = low_pass(photo, scale)
    field = None
    if options.local == "auto":
        field = _local(rendered, soft, matrix, options)
        share = float(np.mean(np.any(field != 0, axis=-1)))
        figures |= {"local_share": share, "local_largest": float(np.linalg.norm(field, axis=-1).max())}
        field = field if share else None
    places = local_motion.compose(matrix, field, shape)
    mask, residual, found = _compare(rendered, _resample(soft, places), agreement.inside(places, photo.shape), options)
    figures |= {"scale": scale, **found}
    if not mask.any():
        raise NotAligned("no part of the two pictures agrees after the alignment: they do not show the same scene")
    return Alignment(places, mask, residual, scale, figures)


def find_homography(rendered: np.ndarray, photo: np.ndarray, options: Options) -> tuple[np.ndarray, dict[str, float]]:
    """The homography (3, 3) from a rendering to a photograph, both (H, W, 3) uint8, by their features, and its figures.

    Raises `NotAligned` if too few features fit together, or in a way that no camera could see.
    """
    (points, described), (others, also) = features(rendered), features(photo)
    pairs = matches(described, also, options.ratio)
    first, second = points[pairs[:, 0]], others[pairs[:, 1]]
    matrix, inliers = fit_homography(first, second, options.reprojection)
    count = int(inliers.sum())
    if matrix is None or count < options.inliers:
        raise NotAligned(
            f"only {count} of {len(points)} and {len(others)} features of the two pictures fit together, and "
            f"{options.inliers} are needed: they do not show the same scene, or too little detail of it"
        )
    if not is_plausible(matrix, rendered.shape):
        raise NotAligned(
            "what fits together would mirror, fold or stretch the picture: it is no view of the same scene"
        )
    errors = np.linalg.norm(transform(second[inliers], np.linalg.inv(matrix)) - first[inliers], axis=-1)
    return matrix, {"matches": float(len(pairs)), "inliers": float(count), "reprojection": float(errors.mean())}


def _resample(photo: np.ndarray, places: np.ndarray) -> np.ndarray:
    return cv2.remap(photo, places, None, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)


def _local(rendered: np.ndarray, photo: np.ndarray, matrix: np.ndarray, options: Options) -> np.ndarray:
    """The displacements of the cells, (rows, columns, 2), where they help: from green, judged by red and blue."""
    shape = rendered.shape[:2]
    places = local_motion.compose(matrix, None, shape)
    inside = agreement.inside(places, photo.shape).astype(np.float32)
    within = (local_motion.cells_of(inside) > 0.99).astype(np.float32)
    before = moved = _resample(photo, places)
    rendered = with_tones_of(rendered, before, inside)
    field = np.zeros((*within.shape, 2), np.float32)
    for reduction in local_motion.REDUCTIONS:
        field = local_motion.displacements(rendered[..., 1], moved[..., 1], within, field, reduction)
        lengths = np.linalg.norm(field, axis=-1, keepdims=True)
        field *= np.minimum(1, options.reach / np.maximum(lengths, 1e-6))
        moved = _resample(photo, local_motion.compose(matrix, field, shape))
    held_out = (cv2.addWeighted(image[..., 0], 0.5, image[..., 2], 0.5, 0) for image in (rendered, before, moved))
    return field * local_motion.helps(*held_out, within)[..., None]


def _compare(
    rendered: np.ndarray, warped: np.ndarray, inside: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """(mask, residual displacement, figures) of a rendering and the photograph in its pixels, (H, W, 3) uint8."""
    toned = with_tones_of(rendered, warped, inside)
    ncc, contrast = agreement.correlation(luma(toned), luma(warped))
    detailed = contrast > agreement.TEXTURE
    first, second = agreement.comparable(toned), agreement.comparable(warped)
    there, back = agreement.flow(first, second), agreement.flow(second, first)
    error = agreement.round_trip(there, back)
    moved = detailed & ((ncc < options.mask_ncc) | (error > options.round_trip))
    mask = inside & ~moved & ~agreement.lost_highlights(rendered, warped)
    residual = np.where(detailed, np.linalg.norm(there, axis=-1), 0).astype(np.float32)
    seen = inside & detailed
    lengths, errors, nccs = (values[seen] if seen.any() else np.zeros(1) for values in (residual, error, ncc))
    figures = {
        "ncc": float(np.median(nccs)),
        "flow_median": float(np.median(lengths)),
        "flow_95": float(np.percentile(lengths, 95)),
        "round_trip_95": float(np.percentile(errors, 95)),
        "valid": float(mask.mean()),
    }
    return mask, residual, figures
