"""What remains between two aligned pictures: displacements that vary over the picture, and where correcting them helps.

A homography is exact for a flat scene or a camera that only turns. Depth, lens distortion and a rolling shutter leave
a few pixels, which vary slowly over the picture.
"""

import cv2
import numpy as np

from data.registration import normalise

CELL = 16  # pixels of the squares whose displacement is estimated
REDUCTIONS = (4, 2, 1, 1)  # the images are this much smaller in each pass: the first ones find large displacements
SMOOTH = 1.0  # pixels of reduced ones: without fine detail, the difference is linear over a larger displacement
AVERAGES = (8.0, 4.0, 2.0)  # cells: Gaussians of an estimate, each the starting point of the next
DAMPING = 0.001  # squared gradient (of images of contrast 1, per pixel) below which the starting point is kept
JUDGED = 3.0  # cells: the Gaussian in which the correlation of held-out colours is compared
UNEXPLAINED = 0.9  # the share of what the correlation leaves unexplained that may remain
CORRELATED = 0.7  # what the correlation must reach: below, noise decides
BAND = 256  # rows that are worked on at a time


def cells_of(image: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The means of the cells of an image (H, W), or of a smaller copy of one of this shape: (rows, columns) float32."""
    height, width = shape or image.shape
    size = (max(1, width // CELL), max(1, height // CELL))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def dense(values: np.ndarray, shape: tuple[int, int], rows: slice = slice(None)) -> np.ndarray:
    """Values of cells, (rows, columns, ...), float32, at the pixels of some rows of an image of `shape`."""
    y, x = np.arange(*rows.indices(shape[0]), dtype=np.float32), np.arange(shape[1], dtype=np.float32)
    down, across = (
        (at + 0.5) * (count / side) - 0.5 for at, count, side in zip((y, x), values.shape, shape, strict=False)
    )
    places = (place.astype(np.float32) for place in np.meshgrid(across, down))
    return cv2.remap(values, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def compose(matrix: np.ndarray, field: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """Where each pixel of an image of `shape` (H, W) lies in a photograph: (H, W, 2) float32, x and y.

    It is moved by the displacements of its cell, if there is a `field` (rows, columns, 2), then by a homography.
    """
    result = np.empty((*shape, 2), np.float32)
    for top in range(0, shape[0], BAND):
        rows = slice(top, min(top + BAND, shape[0]))
        places = np.stack(
            np.meshgrid(np.arange(shape[1], dtype=float), np.arange(rows.start, rows.stop, dtype=float)), -1
        )
        if field is not None:
            places += dense(field, shape, rows)
        result[rows] = cv2.perspectiveTransform(places, matrix)
    return result


def displacements(
    still: np.ndarray, moving: np.ndarray, inside: np.ndarray, field: np.ndarray, reduction: int
) -> np.ndarray:
    """Where the cells of one image lie in another, relative to their own place: (rows, columns, 2) float32, x and y.

    The method of Lucas and Kanade (1981): least squares of the difference, linear in the displacement. Cells without
    enough detail take the displacement of their wider neighbourhood.

    Args:
        still: (H, W) uint8.
        moving: (H, W) uint8, already moved by `field`; what is left are a few pixels of the reduced images at most.
        inside: (rows, columns) float32, the weight of each cell.
        field: (rows, columns, 2), the displacements so far.
        reduction: how much smaller the images are made before.
    """
    size = [max(1, side // reduction) for side in still.shape[::-1]]
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (still, moving)]
    first, second = (normalise(image) for image in small)
    if reduction > 1:
        first, second = (cv2.GaussianBlur(image, (0, 0), SMOOTH) for image in (first, second))
    mean, difference = (first + second) / 2, second - first
    x, y = (cv2.Scharr(mean, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1)))
    products = ((x, x), (x, y), (y, y), (x, difference), (y, difference))
    sums = np.stack([cells_of(a * b, still.shape) * inside for a, b in products], axis=-1)
    detail = sums[..., :1] + sums[..., 2:3] + 1e-6
    total = np.zeros_like(field)
    for sigma in AVERAGES:
        xx, xy, yy, xd, yd = np.moveaxis(_blur(sums, sigma), -1, 0)
        xx, yy = xx + DAMPING, yy + DAMPING
        so_far = field if sigma == AVERAGES[-1] else _blur(field * detail, sigma) / _blur(detail, sigma)[..., None]
        wider = (total - so_far) * np.float32(DAMPING / reduction)
        xd, yd = xd - wider[..., 0], yd - wider[..., 1]
        step = np.stack((xy * yd - yy * xd, xy * xd - xx * yd), axis=-1) / (xx * yy - xy * xy)[..., None]
        total = so_far + step * np.float32(reduction)
    return total


def helps(still: np.ndarray, before: np.ndarray, after: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How far each cell's displacement is to be applied: (rows, columns) float32, 0 (not) to 1.

    It is where the correlation with the photograph rises in colours that the displacements were not estimated from,
    whose noise is another: a displacement that only fits noise does not raise it.

    Args:
        still: the held-out colours of the rendering, (H, W) uint8.
        before: those of the photograph without displacements, likewise.
        after: those with displacements.
        inside: (rows, columns) float32, the weight of each cell.
    """
    first = normalise(still)
    correlations = []
    for image in (before, after):
        second = normalise(image)
        products = ((first, second), (first, first), (second, second))
        sums = np.stack([cells_of(a * b) * inside for a, b in products], axis=-1)
        both, one, other = np.moveaxis(_blur(sums, JUDGED), -1, 0)
        correlations.append(both / np.sqrt(np.maximum(one * other, 1e-8)))
    kept = (1 - correlations[1] < UNEXPLAINED * (1 - correlations[0])) & (correlations[1] > CORRELATED)
    kept = kept.astype(np.float32)
    return _blur(kept, 1.0) * (_blur(kept, JUDGED) > 0.3)


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
