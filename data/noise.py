"""The noise of a camera, estimated from its mosaics alone.

The variance of a pixel is `shot * signal + read`, with the signal from black (0) to white (1), as in Foi et al.,
*Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data*, IEEE Transactions on Image
Processing 17(10), 2008.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np

from data.sensor import Sensor, planes
from errors import UserError

# Its response to an image that is locally a plane is 0; to white noise of variance 1 it has variance 36 (Immerkær,
# *Fast Noise Variance Estimation*, Computer Vision and Image Understanding 64(2), 1996).
KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
BLOCK = 8  # pixels: side of the blocks of a colour plane whose mean and variance are compared
FLAT = 0.1  # share of the blocks of a brightness that is taken as flat: those of the least variance
BINS = 20  # of brightness, of equally many blocks
BRIGHT = 0.9  # blocks above are left out: clipping takes their noise away
FEWEST = 20  # blocks in a bin


def estimate_noise(mosaics: Iterable[np.ndarray], sensor: Sensor) -> tuple[float, float]:
    """(shot, read) of mosaics (H, W), digital numbers. Raises `UserError` if too few pixels are below saturation."""
    from scipy.optimize import nnls  # here: developing reads profiles, and does without SciPy's 50 MB

    blocks = np.concatenate([_blocks(plane) for mosaic in mosaics for plane in planes(mosaic, sensor).values()])
    means, variances = blocks[(blocks[:, 0] < BRIGHT) & (blocks[:, 0] > 0)].T
    if len(means) < BINS * FEWEST:
        raise UserError("the noise cannot be estimated: the mosaics have too few pixels between black and white")
    order = np.array_split(np.argsort(means), BINS)
    level = np.array([means[some].mean() for some in order])
    least = np.array([np.quantile(variances[some], FLAT) for some in order]) / _least_of_noise()
    spread = least + least.mean() * 0.01  # the error of a variance is in proportion to it
    (shot, read), _ = nnls(np.stack((level, np.ones(BINS)), axis=1) / spread[:, None], least / spread)
    return float(shot), float(read)


def _blocks(plane: np.ndarray) -> np.ndarray:
    """(mean, variance of the noise) of each whole block of a plane: (B, 2)."""
    from scipy.ndimage import convolve

    rows, columns = (side // BLOCK * BLOCK for side in plane.shape)
    found = [plane, convolve(plane, KERNEL) ** 2]
    split = [x[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK) for x in found]
    return np.stack([x.mean(axis=(1, 3)).ravel() for x in split], axis=1)


@cache
def _least_of_noise() -> float:
    """The FLAT quantile of the blocks' variances of white noise of variance 1: what `estimate_noise` divides by."""
    return float(np.quantile(_blocks(np.random.default_rng(0).normal(size=(1024, 1024)))[:, 1], FLAT))
