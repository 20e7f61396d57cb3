"""What two measured cameras record of a scene under given lights, and the exact map from one camera to the other.

A colour of linear sRGB, rho, stands for the reflectance B rho, where B (wavelengths, 3) are the spectra of Mallett and
Yuksel, *Spectral Primary Decomposition for Rendering with sRGB Reflectance*, EGSR 2019. A camera with the sensitivities
C (wavelengths, 3) then records, under the lighting L(x),

    raw(x) = C^T diag(L(x)) B rho(x),    so b = T a, with T(x) = (C_b^T diag(L) B) (C_a^T diag(L) B)^-1.

The sensitivities were measured by Darrodi et al., *Reference data set for camera spectral sensitivity estimation*, JOSA
A 32(3), 2015; the illuminants are those of CIE 015:2018. colour-science holds all tables.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import storage
from data.files import reading
from data.unprocess import RGB2XYZ

WAVELENGTHS = np.arange(380, 785, 5.0)  # nm. At every 10 nm, lines of lights would be missed: HP1 changes by a fifth
CAMERAS = {"a": "Nikon 5100 (NPL)", "b": "Sigma SDMerill (NPL)"}  # as colour-science spells them
DAYLIGHT = "D65"
# The transform under each differs from that under daylight by: incandescent 4 %, fluorescent 10 % and 7 %, LED 21 %,
# high pressure sodium 21 % (Frobenius norms).
LIGHTS = (DAYLIGHT, "A", "FL2", "FL11", "LED-RGB1", "HP1")
NODES = 3  # values along each side from which a map of shares is interpolated


def to_linear(image: np.ndarray) -> np.ndarray:
    """sRGB, uint8 or floats in [0, 1] -> linear sRGB, float64 in [0, 1] (IEC 61966-2-1)."""
    image = image / 255.0 if image.dtype == np.uint8 else image
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """The inverse of `to_linear`: linear sRGB (...) in [0, 1] -> sRGB (...) in [0, 1], not rounded."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def formation(sensitivities: np.ndarray, light: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """C^T diag(L) B (3, 3), linear sRGB to raw, of C (wavelengths, 3), L (wavelengths,) and B (wavelengths, 3)."""
    return sensitivities.T @ (light[:, None] * basis)


@cache
def tables() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """({camera: C (wavelengths, 3)}, {light: L (wavelengths,)}, B (wavelengths, 3)), at `WAVELENGTHS`.

    Linear between measured wavelengths, 0 outside: camera b is known from 400 to 680 nm, every 10 nm.
    """
    import colour  # takes a second
    from colour.recovery import MSDS_BASIS_FUNCTIONS_sRGB_MALLETT2019 as MALLETT

    def sampled(spectra) -> np.ndarray:
        columns = spectra.values.reshape(len(spectra.wavelengths), -1).T
        return np.stack([np.interp(WAVELENGTHS, spectra.wavelengths, x, left=0, right=0) for x in columns], axis=1)

    cameras = {camera: sampled(colour.MSDS_CAMERA_SENSITIVITIES[name]) for camera, name in CAMERAS.items()}
    return cameras, {name: sampled(colour.SDS_ILLUMINANTS[name])[:, 0] for name in LIGHTS}, sampled(MALLETT)


@cache
def matrices(light: str) -> np.ndarray:
    """The `formation` of cameras a and b under a light: (2, 3, 3), float64.

    Camera b is exposed such that both record the same green of white in daylight. The light is as bright as it can be
    without saturating a colour of either camera: the largest of the six values of white is 1.
    """
    cameras, lights, basis = tables()
    daylight = np.stack([formation(cameras[camera], lights[DAYLIGHT], basis) for camera in CAMERAS])
    found = np.stack([formation(cameras[camera], lights[light], basis) for camera in CAMERAS])
    green = daylight[:, 1].sum(axis=1)
    found *= (green[0] / green)[:, None, None]
    found /= found.sum(axis=2).max()  # white is (1, 1, 1)
    found.setflags(write=False)  # it is cached
    return found


def color_matrix(camera: str) -> np.ndarray:
    """XYZ of a surface in daylight, (Y of white is 1), to raw of camera "a" or "b": (3, 3)."""
    return matrices(DAYLIGHT)[list(CAMERAS).index(camera)] @ np.linalg.inv(RGB2XYZ)


@dataclass(frozen=True, eq=False)  # arrays have no single truth
class Lighting:
    """The lighting of a scene: one light, or two whose shares change smoothly from place to place."""

    lights: tuple[str, ...]  # one or two of `LIGHTS`
    nodes: np.ndarray  # (NODES, NODES), in [0, 1]: the share of the first light, from corner to corner of the scene
    exposures: tuple[float, float] = (1.0, 1.0)  # of cameras a and b, beside the fixed relation of `matrices`

    @classmethod
    def draw(cls, rng: np.random.Generator, mixed: bool) -> "Lighting":
        """Draw one light, or two that are `mixed`. Shares near 0 and 1 are frequent: each light has its place."""
        lights = rng.choice(LIGHTS, 2 if mixed else 1, replace=False)
        return cls(tuple(lights.tolist()), rng.beta(0.5, 0.5, (NODES, NODES)))

    @property
    def matrices(self) -> np.ndarray:
        """Linear sRGB to raw by camera and light: (2, 1 or 2, 3, 3)."""
        found = np.stack([matrices(light) for light in self.lights], axis=1)
        return found * np.array(self.exposures)[:, None, None, None]

    def record(self, linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Linear sRGB (H, W, 3) in [0, 1] -> raw of a and b, (H, W, 3) each, without noise and not clipped.

        With exposures of 1, raw lies in [0, 1].
        """
        share = shares(self.nodes, linear.shape[:2])[..., None]
        raw_a, raw_b = (share * (linear @ m[0].T) + (1 - share) * (linear @ m[-1].T) for m in self.matrices)
        return raw_a, raw_b

    def transform(self, shape: tuple[int, int]) -> np.ndarray:
        """T (H, W, 3, 3) of a scene of this (height, width): raw of a to raw of b."""
        return _transform(self.matrices, self.nodes, shape)

    def save(self, path: Path, shape: tuple[int, int]) -> None:
        """Write what `load_transform` reads: the matrices of the lights and the nodes of their shares."""
        with storage.naming(path):
            np.savez(path, matrices=self.matrices, nodes=self.nodes, shape=np.array(shape))


def shares(nodes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The first light's share (H, W), with the values `nodes` (N, N) at even distances; smooth and between them."""
    rows, columns = (_weights(len(nodes), length) for length in shape)
    return rows @ nodes @ columns.T


def load_transform(path: Path) -> np.ndarray:
    """T (H, W, 3, 3), float64, that `Lighting.save` has written: raw of camera a to raw of camera b.

    H and W are those of the colour planes. Raises `UserError` if the file is missing, damaged, or another.
    """
    with reading(path), np.load(path, allow_pickle=False) as file:
        height, width = map(int, file["shape"])
        return _transform(file["matrices"], file["nodes"], (height, width))


def _transform(found: np.ndarray, nodes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    share = shares(nodes, shape)[..., None, None]
    to_a, to_b = (share * m[0] + (1 - share) * m[-1] for m in found)
    return to_b @ np.linalg.inv(to_a)


def _weights(count: int, length: int) -> np.ndarray:
    """(length, count): how much each of `count` nodes, at even distances, gives to each pixel. Rows sum to 1."""
    place = (np.arange(length) + 0.5) / length * (count - 1)
    before = np.minimum(place.astype(int), count - 2)
    after = place - before
    after = after**2 * (3 - 2 * after)  # no kinks at the nodes
    weights = np.zeros((length, count))
    weights[np.arange(length), before] = 1 - after
    weights[np.arange(length), before + 1] = after
    return weights
