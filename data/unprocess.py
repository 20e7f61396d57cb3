"""A simulated camera: turns an sRGB photograph into the RAW mosaic that a sensor would have stored.

After *Unprocessing Images for Learned Raw Denoising* (Brooks et al., CVPR 2019, Sec. 3): the inverses of tone curve,
gamma, colour matrix and gains, then mosaic, noise and quantisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.sensor import CHANNELS, SENSORS, Cfa, offsets
from errors import UserError

FUJIFILM = SENSORS["fujifilm"]  # the default levels, as the written datasets have its layout

# XYZ -> camera of four real cameras, as published with the code of Brooks et al.
XYZ2CAM = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
RGB2XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


@dataclass(frozen=True)
class Camera:
    """The properties of a simulated camera. Raises `UserError` for impossible ones."""

    rgb2cam: tuple[tuple[float, float, float], ...]  # linear sRGB -> camera RGB; each row sums to 1, so grey stays grey
    red_gain: float  # white balance: the ISP multiplies red by this (green by 1)
    blue_gain: float  # white balance: the ISP multiplies blue by this
    rgb_gain: float  # digital gain: the ISP multiplies all three by this
    shot: float  # variance of the noise is shot * signal + read, with the signal in [0, 1]
    read: float
    cfa: Cfa = FUJIFILM.cfa
    black: tuple[int, int, int, int] = tuple(map(int, FUJIFILM.black_level))  # of R, Gr (green in the red rows), Gb, B
    white: int = int(FUJIFILM.white_level)  # and the largest value stored

    def __post_init__(self) -> None:
        offsets(self.cfa)  # raises for an unknown order
        if not 0 <= min(self.black) <= max(self.black) < self.white <= 65535:
            raise UserError(f"black is {self.black}, white {self.white}; 0 <= black < white <= 65535 must hold")
        if self.white < 255:
            raise UserError(f"white is {self.white}, but must be at least 255: a RAW mosaic has 8 bits or more")
        if not (0 <= self.shot <= 1 and 0 <= self.read < float("inf")):
            raise UserError(
                f"shot noise is {self.shot}, read noise {self.read}; neither may be negative or infinite, "
                "and shot noise must not exceed 1"
            )

    @classmethod
    def random(cls, seed: int, matrix: int | None = None, shot: float | None = None, **fixed) -> "Camera":
        """Draw a camera as Brooks et al. do (Sec. 3.1-3.4); the same seed gives the same camera.

        Args:
            seed: of the draw; not negative.
            matrix: index into `XYZ2CAM`; by default, a random convex mixture of the four matrices.
            shot: shot noise; by default drawn from [1e-5, 1e-4], as of a sensor in daylight. Brooks et al. draw from
                [1e-4, 1.2e-2], but here a small network must be able to come close to the ground truth.
            fixed: `cfa`, `black` and `white`, as for `Camera`.

        Raises `UserError` for impossible values.
        """
        rng = np.random.default_rng(seed)
        weights = rng.uniform(size=len(XYZ2CAM))
        gains = dict(rgb_gain=1 / rng.normal(0.8, 0.1), red_gain=rng.uniform(1.9, 2.4), blue_gain=rng.uniform(1.5, 1.9))
        drawn = np.exp(rng.uniform(np.log(1e-5), np.log(1e-4)))
        shot = drawn if shot is None else shot
        read = np.exp(2.18 * np.log(shot) + 1.20 + rng.normal(0, 0.26)) if 0 < shot <= 1 else 0.0
        if matrix is not None and not 0 <= matrix < len(XYZ2CAM):
            raise UserError(f"matrix is {matrix}, but must be 0 to {len(XYZ2CAM) - 1}")
        xyz2cam = np.average(XYZ2CAM, axis=0, weights=weights) if matrix is None else XYZ2CAM[matrix]
        rgb2cam = xyz2cam @ RGB2XYZ
        rgb2cam /= rgb2cam.sum(axis=1, keepdims=True)
        return cls(tuple(map(tuple, rgb2cam.tolist())), **gains, shot=float(shot), read=float(read), **fixed)


# --- the stages and their inverses; images are (H, W, 3), floating point, in [0, 1], unless stated otherwise ---------


def smoothstep(image: np.ndarray) -> np.ndarray:
    """Tone curve of the ISP, 3x^2 - 2x^3."""
    return image**2 * (3 - 2 * image)


def inverse_smoothstep(image: np.ndarray) -> np.ndarray:
    """The inverse of `smoothstep`, in closed form."""
    return 0.5 - np.sin(np.arcsin(1 - 2 * np.clip(image, 0, 1)) / 3)


def gamma_compress(image: np.ndarray) -> np.ndarray:
    """Linear to sRGB, approximated by the power 1/2.2 as in Brooks et al."""
    return np.maximum(image, 0) ** (1 / 2.2)


def gamma_expand(image: np.ndarray) -> np.ndarray:
    """sRGB to linear, the inverse of `gamma_compress`."""
    return np.maximum(image, 0) ** 2.2


def apply_matrix(image: np.ndarray, matrix: Sequence[Sequence[float]]) -> np.ndarray:
    """Multiply each pixel (a column) by a 3x3 matrix."""
    return image @ np.asarray(matrix).T


def apply_gains(image: np.ndarray, camera: Camera) -> np.ndarray:
    """White balance and digital gain, as an ISP applies them; the result may exceed 1."""
    return image * camera.rgb_gain * np.array([camera.red_gain, 1, camera.blue_gain])


def safe_invert_gains(image: np.ndarray, camera: Camera) -> np.ndarray:
    """The inverse of `apply_gains`, except that highlights (mean above 0.9) rise towards 1.

    Plain division would leave no RAW value above 1 / gain, but a real sensor saturates (Sec. 3.2).
    """
    gains = 1 / (camera.rgb_gain * np.array([camera.red_gain, 1, camera.blue_gain]))
    highlight = (np.maximum(image.mean(axis=-1, keepdims=True) - 0.9, 0) / 0.1) ** 2
    return image * np.maximum(highlight + (1 - highlight) * gains, gains)


def unprocess(photo: np.ndarray, camera: Camera) -> np.ndarray:
    """sRGB photograph (H, W, 3), uint8 or float in [0, 1] -> linear camera RGB (H, W, 3), float64 in [0, 1]."""
    image = photo / 255.0 if photo.dtype == np.uint8 else photo
    image = gamma_expand(inverse_smoothstep(image))
    image = safe_invert_gains(apply_matrix(image, camera.rgb2cam), camera)
    return np.clip(image, 0, 1)


def mosaic(image: np.ndarray, cfa: Cfa) -> np.ndarray:
    """(H, W, 3) -> (H, W), one colour at each pixel. H and W are even."""
    raw = np.empty(image.shape[:2], image.dtype)
    for site, colour in enumerate(cfa):
        raw[site // 2 :: 2, site % 2 :: 2] = image[site // 2 :: 2, site % 2 :: 2, "rgb".index(colour)]
    return raw


class Recording(Protocol):
    """What `expose` needs of a camera, such as `Camera`."""

    cfa: Cfa
    black: tuple[float, float, float, float]  # of R, Gr, Gb, B, in digital numbers
    white: float
    shot: float
    read: float


def black_levels(camera: Recording) -> np.ndarray:
    """Black levels (2, 2), at the four sites of the CFA."""
    levels = np.empty((2, 2))
    for name, black in zip(CHANNELS, camera.black, strict=True):
        levels[offsets(camera.cfa)[name]] = black
    return levels


def add_noise(raw: np.ndarray, shot: float, read: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of variance shot * raw + read (Sec. 3.1); the result may leave [0, 1]."""
    return raw + rng.normal(size=raw.shape) * np.sqrt(shot * raw + read)


def quantise(raw: np.ndarray, camera: Recording) -> np.ndarray:
    """(H, W) in [0, 1] -> uint16 in [0, white]: 0 becomes the black level of its site, 1 the white level."""
    black = np.tile(black_levels(camera), (raw.shape[0] // 2, raw.shape[1] // 2))
    return np.clip(np.rint(black + raw * (camera.white - black)), 0, camera.white).astype(np.uint16)


def expose(linear: np.ndarray, camera: Recording, rng: np.random.Generator) -> np.ndarray:
    """Linear camera RGB (H, W, 3) in [0, 1], H and W even -> the stored mosaic (H, W), uint16."""
    return quantise(add_noise(mosaic(linear, camera.cfa), camera.shot, camera.read, rng), camera)
