"""A colour map from a camera's demosaiced colours to those of photographs, fitted without pairs by optimal transport.

The camera's colours are carried onto the distribution of the photographs' colours by iterated sliced optimal transport
(Pitié, Kokaram and Dahyot, *Automated colour grading using colour distribution transfer*, Computer Vision and Image
Understanding 107, 2007), and a polynomial is fitted to where they went. It is smooth, and defined for every colour.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np
import torch
from scipy.spatial import Delaunay, QhullError
from scipy.stats import special_ortho_group
from torch import Tensor

from data.sensor import CHANNELS, Sensor
from errors import UserError

GAMMA = 2.2  # camera colours are compared with photographs after a power of 1 / GAMMA
PIXELS = 80_000  # that represent each side
ROUNDS = 10  # of sliced transport, each along three orthogonal directions
DEGREE = 3  # of the polynomial
DIRECTIONS = 64  # of the distance that tells how well the map fits
GRID = 17  # points on each axis of the colour cube, of which the share outside the fitted colours is told


@dataclass(frozen=True)
class ColorMap:
    """A polynomial in R, G and B with values in R, G and B, and how well it was fitted."""

    coefficients: tuple[tuple[float, float, float], ...]  # of each of `monomials`
    degree: int = DEGREE
    before: float = 0.0  # sliced Wasserstein distance of the camera's colours to the photographs'
    after: float = 0.0  # the same of the mapped colours
    extrapolated: float = 0.0  # share of the photographs' colours' cube that no fitted colour reaches
    folded: float = 0.0  # share of the fitted colours at which the map is not locally invertible
    round_trip: float | None = None  # how far photographs' colours end from where they were, there and back

    def __call__(self, image: Tensor) -> Tensor:
        """Camera colours (N, 3, H, W), as `camera_colors` gives them -> sRGB (N, 3, H, W), not clipped."""
        weights = torch.tensor(self.coefficients, dtype=image.dtype, device=image.device)
        terms = torch.stack([_product(image, powers) for powers in monomials(self.degree)])
        return torch.einsum("knhw,kc->nchw", terms, weights)

    def of_pixels(self, colors: np.ndarray) -> np.ndarray:
        """Camera colours (P, 3) -> sRGB (P, 3), not clipped."""
        return _design(colors, self.degree) @ np.array(self.coefficients)

    def describe(self) -> str:
        """How well the map fits, in a sentence."""
        back = "" if self.round_trip is None else f"; back and forth, colours are off by {self.round_trip:.4f}"
        return (
            f"distance to the photographs' colours {self.before:.4f} before, {self.after:.4f} after; "
            f"{self.extrapolated:.0%} of the colour cube is extrapolated, {self.folded:.1%} of the colours fold over"
            f"{back}"
        )


def monomials(degree: int) -> list[tuple[int, ...]]:
    """The channels that are multiplied in each term: (), (0,), (1,), (2,), (0, 0), (0, 1), ..."""
    return [powers for count in range(degree + 1) for powers in combinations_with_replacement(range(3), count)]


def _product(image: Tensor, powers: tuple[int, ...]) -> Tensor:
    product = torch.ones_like(image[:, 0])
    for channel in powers:
        product = product * image[:, channel]
    return product


def _design(colors: np.ndarray, degree: int) -> np.ndarray:
    """The value of each term for colours (P, 3): (P, K)."""
    return np.stack([colors[:, list(powers)].prod(axis=1) for powers in monomials(degree)], axis=1)


# --- colours ---------------------------------------------------------------------------------------------------------


def camera_colors(demosaiced: Tensor, sensor: Sensor, most: float = 1.0) -> Tensor:
    """Digital numbers (N, 3, H, W), demosaiced -> black is 0, white is 1, and a power of 1 / GAMMA, (N, 3, H, W).

    Values are clipped at `most`; those of normalised mosaics may exceed 1.
    """
    levels = dict(zip(CHANNELS, sensor.black_level, strict=True))
    black = demosaiced.new_tensor([levels["R"], (levels["Gr"] + levels["Gb"]) / 2, levels["B"]]).view(1, 3, 1, 1)
    return ((demosaiced - black) / (sensor.white_level - black)).clamp(0, most).pow(1 / GAMMA)


def sample_colors(images: Iterable[Tensor], count: int, rng: np.random.Generator) -> np.ndarray:
    """(P, 3) colours, about PIXELS, in equal parts of each of the `count` images (3, H, W)."""
    share, found = -(-PIXELS // count), []
    for image in images:
        pixels = image.flatten(1)
        chosen = rng.integers(0, pixels.shape[1], min(share, pixels.shape[1]))
        found.append(pixels[:, torch.from_numpy(chosen).to(pixels.device)].T.cpu().double().numpy())
    return np.concatenate(found)


# --- the fit ---------------------------------------------------------------------------------------------------------


def fit_color_map(
    camera: np.ndarray, photographs: np.ndarray, seed: int = 0, carry: Callable[[np.ndarray], np.ndarray] | None = None
) -> ColorMap:
    """Fit a map of colours (P, 3) of a camera to the distribution of those of photographs (Q, 3) in [0, 1].

    With `carry`, it is fitted to where this function carries the camera's colours, instead of optimal transport. Raises
    `UserError` for colours that are all alike, and if transport brings them no nearer to the photographs'.
    """
    for colors, side in ((camera, "mosaics"), (photographs, "photographs")):
        if np.ptp(colors, axis=0).min() < 1e-3:
            raise UserError(f"a colour of the {side} has the same value everywhere: no colour map can be fitted")
    rng = np.random.default_rng(seed)
    moved = carry(camera) if carry else transport(camera, photographs, ROUNDS, rng)
    coefficients, *_ = np.linalg.lstsq(_design(camera, DEGREE), moved, rcond=None)
    fitted = ColorMap(tuple(map(tuple, coefficients.tolist())))
    directions = torch.from_numpy(special_ortho_group.rvs(3, size=DIRECTIONS, random_state=rng)[:, 0])
    mapped = fitted.of_pixels(camera).clip(0, 1)
    own, mapped, wanted = (torch.from_numpy(colors) for colors in (camera, mapped, photographs))
    before, after = sliced_distance(own, wanted, directions), sliced_distance(mapped, wanted, directions)
    if not (carry or after < before):
        raise UserError(
            f"no colour map brings the mosaics nearer to the photographs (distance {before:.4f} before, {after:.4f} "
            "after): are both of the kind that they should be? Use --data.reference published"
        )
    shares = _extrapolated_share(camera), _folded_share(fitted, camera)
    return ColorMap(fitted.coefficients, DEGREE, before, after, *shares)


def invert(color_map: ColorMap, camera: np.ndarray) -> ColorMap:
    """The map back, sRGB to camera colours, fitted to camera colours (P, 3) and where `color_map` carries them.

    Where the map folds over, this is the least-squares compromise.
    """
    mapped = color_map.of_pixels(camera).clip(0, 1)
    coefficients, *_ = np.linalg.lstsq(_design(mapped, DEGREE), camera, rcond=None)
    inverse = ColorMap(tuple(map(tuple, coefficients.tolist())))
    return replace(inverse, extrapolated=_extrapolated_share(mapped), folded=_folded_share(inverse, mapped))


def round_trip_error(color_map: ColorMap, inverse: ColorMap, colors: np.ndarray, most: float = 1.0) -> float:
    """How far sRGB colours (P, 3) end from where they were after the map back and forth: the mean of |difference|.

    Camera colours are clipped at `most`.
    """
    there = inverse.of_pixels(colors).clip(0, most)
    return float(np.abs(color_map.of_pixels(there).clip(0, 1) - colors).mean())


def transport(source: np.ndarray, target: np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Where points (P, 3) are carried to by matching their distribution to that of points (Q, 3): (P, 3).

    Each round matches the projections on three random orthogonal directions, one by one.
    """
    moved, levels = source.copy(), (np.arange(len(source)) + 0.5) / len(source)
    for rotation in special_ortho_group.rvs(3, size=rounds, random_state=rng):
        here, there = moved @ rotation, target @ rotation
        for axis in range(3):
            here[np.argsort(here[:, axis]), axis] = quantiles(there[:, axis], levels)
        moved = here @ rotation.T
    return moved


def sliced_distance(x: Tensor, y: Tensor, directions: Tensor, quantiles: int = 200) -> float:
    """Sliced Wasserstein-1 distance of points (N, C) and (M, C) along unit vectors `directions` (K, C).

    Along each direction, the sorted projections are compared at `quantiles` evenly spaced quantiles.
    """
    levels = (torch.arange(quantiles) + 0.5) / quantiles
    projections = [(points @ directions.T).sort(0).values for points in (x, y)]
    first, second = (projected[(levels * len(projected)).long()] for projected in projections)
    return float((first - second).abs().mean())


def quantiles(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The values (P,) at `levels` in (0, 1), with linear interpolation; np.quantile is slow for many levels."""
    return np.interp(levels, (np.arange(len(values)) + 0.5) / len(values), np.sort(values))


def _extrapolated_share(colors: np.ndarray) -> float:
    """The share of the colour cube outside the convex hull of the colours that the map was fitted to."""
    axis = np.linspace(0, 1, GRID)
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    try:
        hull = Delaunay(colors[:: max(1, len(colors) // 5000)])
    except QhullError:  # the colours lie in a plane, such as those of grey photographs: their hull has no volume
        return 1.0
    return float((hull.find_simplex(cube) < 0).mean())


def _folded_share(color_map: ColorMap, colors: np.ndarray) -> float:
    """The share of the colours at which the map's derivative has no positive determinant."""
    step, few = 1e-4, colors[:: max(1, len(colors) // 5000)]
    columns = [
        (color_map.of_pixels(few + step * unit) - color_map.of_pixels(few - step * unit)) / (2 * step)
        for unit in np.eye(3)
    ]
    return float((np.linalg.det(np.stack(columns, axis=-1)) <= 0).mean())


# --- the rendering ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TransportReference:
    """Renders mosaics by a fitted colour map; it takes the place of `data.reference.Reference` in the content loss."""

    sensor: Sensor
    demosaic: Callable[[Tensor, str], Tensor]  # in data.reference.DEMOSAICERS
    color_map: ColorMap
    most: float = 1.0  # as for `camera_colors`

    def __call__(self, mosaic: Tensor, span: Tensor | None = None) -> Tensor:
        """(N, 1, H, W), 1 is white -> (N, 3, H, W) in [0, 1]. The map is the same for all files: `span` is not used."""
        digital = (mosaic * self.sensor.white_level).round()
        demosaiced = self.demosaic(digital, self.sensor.cfa)
        return self.color_map(camera_colors(demosaiced, self.sensor, self.most)).clamp(0, 1)
