"""Maps of a camera's colours to another camera's, fitted in closed form without pairs.

Two cameras see the same light with other sensitivities. Under one light, a 3x3 matrix carries the colours of the one
to those of the other, nearly (exactly, if both are linear in the same three primaries). It is fitted to pictures that
each camera took of scenes of its own, by what these have in common on average. A learned mapper (`models/mapper.py`)
has to beat these maps, which take seconds.

All planes are (N, C, h, w), black 0, white 1 (data/planes.py), with the channels R, Gr, Gb, B, or R, G, B. A map acts
on R, the mean of the greens and B: the two greens have the same colour, so that a 4x4 matrix would be fitted to noise
where they differ. Each green keeps its own detail.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data.raw_statistics import fit_colors, fit_lights, solve_transport
from errors import UserError

SIDE = 32  # pixels: a picture is fitted by its thumbnail, in which noise is averaged away
FEWEST = 2  # pictures of each camera
SINGULAR = 1e-8  # smallest share of the largest eigenvalue that the second moments of colours may have
DARKEST = 1e-4  # of white: the mean of a picture is not less, for divisions
MIDDLE = 0.18  # what the mean of pictures without their light is set to
DIGITS = 6  # decimals of a fitted map
KEPT = 1e-3  # stops: standard deviation of gains that are known to be 1

Matrix = tuple[tuple[float, float, float], ...]
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


# --- maps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearMap:
    """colour of b = matrix @ colour of a + offset, the same for all pictures."""

    matrix: Matrix = IDENTITY  # (3, 3), of R, G, B
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def of_planes(self, channels: int = 4) -> Tensor:
        """The matrix of four or three planes (C, C), float64, without the offset."""
        return mix(torch.eye(channels, dtype=torch.float64)[:, :, None, None], self._matrices(channels))[:, :, 0, 0].T

    def _matrices(self, count: int) -> Tensor:
        return torch.tensor(self.matrix, dtype=torch.float64).expand(count, 3, 3)

    def __call__(self, planes: Tensor) -> Tensor:
        """Planes (N, C, h, w) of camera a -> those of camera b, not clipped."""
        red, green, blue = self.offset
        offset = planes.new_tensor([red, *[green] * (planes.shape[1] - 2), blue])
        return mix(planes, self._matrices(len(planes))).add_(offset.view(-1, 1, 1))


@dataclass(frozen=True)
class LightMap:
    """A matrix for each picture, diag(light in b) @ matrix @ diag(1 / light in a): light is a picture's mean colour.

    The matrix carries colours relative to the light. The light itself is carried by an affine map of its chromaticity,
    (log R/G, log B/G); its green is multiplied by `level`.
    """

    matrix: Matrix
    from_light: tuple[float, float]  # the mean chromaticity of a
    to_light: tuple[float, float]  # that of b
    turn: tuple[tuple[float, float], tuple[float, float]]  # deviations from the one -> from the other
    level: float

    def __call__(self, planes: Tensor) -> Tensor:
        """Planes (N, C, h, w) of camera a, whole pictures -> those of camera b, not clipped."""
        here = light_of(colors_of(thumbnail(planes)))
        start, end, turn = (torch.tensor(v, dtype=torch.float64) for v in (self.from_light, self.to_light, self.turn))
        carried = end + (chromaticity(here) - start) @ turn.T
        there = here[:, 1:2] * self.level * _with_green(carried)
        matrix = torch.tensor(self.matrix, dtype=torch.float64)
        return mix(planes, there[:, :, None] * matrix / here[:, None, :])


RawMap = LinearMap | LightMap
KINDS = {"linear": LinearMap, "light": LightMap}


def to_dict(fitted: RawMap) -> dict[str, Any]:
    """A map as plain dicts, lists, strings and numbers."""
    kind = next(name for name, each in KINDS.items() if isinstance(fitted, each))
    return {"kind": kind, **asdict(fitted)}


def from_dict(values: Any, source: str) -> RawMap:
    """The map of `to_dict`. Raises `UserError`, which names the `source`, if it is none."""
    try:
        fields = {name: _tuples(value) for name, value in values.items() if name != "kind"}
        fitted = KINDS[values["kind"]](**fields)
        probe = fitted(torch.full((1, 4, 2, 2), 0.5))  # raises if a field has another shape
        if not probe.isfinite().all():
            raise ValueError
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        raise UserError(f"{source} holds no map of colours: write it with map_raw.py --save") from None
    return fitted


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else float(value)


def mix(planes: Tensor, matrices: Tensor) -> Tensor:
    """Planes (N, C, h, w) whose colours R, G, B are multiplied by matrices (N, 3, 3); each green keeps its detail."""
    red, *greens, blue = planes.unbind(1)
    parts = matrices.to(planes)[..., None, None]  # (N, 3, 3, 1, 1)
    mean = (greens[0] + greens[-1]) / 2
    mixed = torch.empty_like(planes)
    for channel, (row, green) in enumerate(((0, mean), *((1, green) for green in greens), (2, mean))):
        torch.mul(parts[:, row, 0], red, out=mixed[:, channel])
        mixed[:, channel].addcmul_(parts[:, row, 1], green).addcmul_(parts[:, row, 2], blue)
    return mixed


def thumbnail(planes: Tensor) -> Tensor:
    """Planes (N, C, h, w) -> (N, C, SIDE, SIDE): means of areas; the same with any number of threads."""
    return F.interpolate(planes.float(), (SIDE, SIDE), mode="area")


def colors_of(thumbnails: Tensor) -> Tensor:
    """Thumbnails (N, C, s, s) -> their colours R, mean G, B (N, s * s, 3), float64, on the CPU."""
    red, *greens, blue = thumbnails.cpu().double().flatten(2).unbind(1)
    return torch.stack((red, (greens[0] + greens[-1]) / 2, blue), dim=2)


def light_of(colors: Tensor) -> Tensor:
    """The mean colour (N, 3) of pictures (N, P, 3): a grey world's light."""
    return colors.mean(1).clamp(min=DARKEST)


def chromaticity(light: Tensor) -> Tensor:
    """Lights (N, 3) -> (log R/G, log B/G), (N, 2)."""
    return (light[:, [0, 2]] / light[:, 1:2]).log()


def _with_green(carried: Tensor) -> Tensor:
    """Chromaticities (N, 2) -> R/G, 1, B/G (N, 3)."""
    red, blue = carried.exp().unbind(1)
    return torch.stack((red, torch.ones_like(red), blue), dim=1)


# --- fits ------------------------------------------------------------------------------------------------------------


def fit_raw_map(
    method: str, a: Tensor, b: Tensor, names: tuple[str, str] = ("a", "b"), matrices: tuple[Any, Any] = (None, None)
) -> RawMap:
    """Fit a map from camera a to camera b.

    Args:
        method: a name in `METHODS`, or "profiles".
        a: `thumbnail`s (N, C, s, s) of pictures of camera a.
        b: those (M, C, s, s) of camera b, of other scenes.
        names: what messages call the two cameras.
        matrices: XYZ (D65) to camera, (3, 3), of both, as their files note them; for "profiles".

    Raises:
        UserError: unknown method, "profiles" without both matrices, fewer than two pictures on a side, pictures of one
            colour or of no colours, or the same picture on both sides.
    """
    if method not in METHODS and method != PROFILES:
        raise UserError(f"unknown method '{method}'; known are: {', '.join((*METHODS, PROFILES))}")
    for side, name in zip((a, b), names, strict=True):
        if len(side) < FEWEST:
            raise UserError(f"camera {name} has {len(side)} pictures, but a map needs at least {FEWEST}: add some")
        _check_colors(colors_of(side).flatten(0, 1), name, grey_will_do=method in ("identity", "gains"))
    if any(torch.equal(one, other) for one in a for other in b):
        raise UserError(
            f"cameras {names[0]} and {names[1]} have a picture in common: each needs the files that it took itself"
        )
    with _one_thread():
        if method == PROFILES:
            return profiles(colors_of(a), colors_of(b), matrices, names)
        return METHODS[method](colors_of(a), colors_of(b))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch uses one thread in the block: sums, and so the steps of an optimiser, depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check_colors(colors: Tensor, name: str, grey_will_do: bool) -> None:
    """Raise `UserError` for colours (P, 3) that are all alike, or lie in a plane."""
    if (colors.amax(0) - colors.amin(0)).min() < 1e-4:
        raise UserError(f"a colour of camera {name}'s pictures has the same value everywhere: add other pictures")
    values = torch.linalg.eigvalsh(torch.cov(colors.T))
    if not (grey_will_do or values[0] > SINGULAR * values[-1]):
        raise UserError(
            f"camera {name} has grey pictures only (R, G and B depend on each other): no matrix can be fitted; add "
            "others, or use --method gains"
        )


def identity(a: Tensor, b: Tensor) -> LinearMap:
    """The colours as they are."""
    return LinearMap()


def gains(a: Tensor, b: Tensor) -> LinearMap:
    """The mean of each colour of a becomes that of b: gains of R, G and B."""
    return _linear((b.mean((0, 1)) / a.mean((0, 1)).clamp(min=DARKEST)).diag())


def transport(a: Tensor, b: Tensor) -> LinearMap:
    """Linear optimal transport around black: M S_a M' = S_b, S the second moments of colours; black stays black."""
    return _linear(solve_transport(_moments(a), _moments(b)))


def affine(a: Tensor, b: Tensor) -> LinearMap:
    """The same for means and covariances: optimal transport of normal distributions, which may move black."""
    means = a.mean((0, 1)), b.mean((0, 1))
    matrix = solve_transport(_moments(a - means[0]), _moments(b - means[1]))
    return _linear(matrix, means[1] - matrix @ means[0])


def statistics(a: Tensor, b: Tensor) -> LinearMap:
    """Gains and a matrix that keeps grey, by a maximum a posteriori estimate (data/raw_statistics.py)."""
    matrix, grey_a, grey_b = _balanced(a, b)
    return _linear(matrix * grey_a / grey_b[:, None])


def light(a: Tensor, b: Tensor) -> LightMap:
    """A matrix for each picture, which depends on its light: see `LightMap`.

    The matrix is fitted as that of `statistics`, to pictures that are divided by their own light; the level is that of
    `statistics`.
    """
    lights = [light_of(side) for side in (a, b)]
    relative = (MIDDLE * side / own[:, None] for side, own in zip((a, b), lights, strict=True))
    matrix = fit_colors(*relative, *[a.new_ones(3)] * 2, gain=KEPT)  # 1 is 5.6 times as bright as the mean
    level = _balanced(a, b)[0][1].sum()  # of grey's green
    return LightMap(*map(_rounded, (matrix, *fit_lights(*map(chromaticity, lights)), level)))


def profiles(a: Tensor, b: Tensor, matrices: tuple[Any, Any], names: tuple[str, str] = ("a", "b")) -> LinearMap:
    """The colour matrices that the makers measured: XYZ to b times the inverse of XYZ to a; the level is `statistics`'.

    It is exact for daylight (D65) as far as the matrices are, and says nothing of other lights. Raises `UserError` if a
    matrix is not known.
    """
    for matrix, name in zip(matrices, names, strict=True):
        if matrix is None:
            raise UserError(
                f"the colour matrix of camera {name} is not known: use another --method, such as statistics"
            )
    from_a, to_b = (torch.tensor(matrix, dtype=torch.float64) for matrix in matrices)
    matrix = torch.linalg.solve(from_a, to_b, left=False)
    grey = 1 / _balanced(a, b)[1]  # of camera a
    fitted = torch.tensor(statistics(a, b).matrix, dtype=torch.float64)
    return _linear(matrix * ((fitted @ grey).sum() / (matrix @ grey).sum()))


def _balanced(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(matrix (3, 3) of white-balanced colours, gains (3,) that balance a, those of b), as `statistics` fits it."""
    means = [side.mean((0, 1)).clamp(min=DARKEST) for side in (a, b)]
    greys = [mean[1] / mean for mean in means]
    return fit_colors(a * greys[0], b * greys[1], *greys), *greys


def _linear(*matrix_and_offset: Tensor) -> LinearMap:
    return LinearMap(*map(_rounded, matrix_and_offset))


def _rounded(values: Tensor) -> Any:
    """As tuples, with as many digits as say something."""
    return _tuples((values * 10**DIGITS).round().div(10**DIGITS).tolist())


def _moments(colors: Tensor) -> Tensor:
    """The second moments (3, 3) of colours (N, P, 3)."""
    return torch.einsum("npc,npd->cd", colors, colors) / colors[..., 0].numel()


Fit = Callable[[Tensor, Tensor], RawMap]  # of colours (N, P, 3) and (M, P, 3), float64
# A new method is a function above and a row here.
METHODS: dict[str, Fit] = {
    "identity": identity,
    "gains": gains,
    "transport": transport,
    "affine": affine,
    "statistics": statistics,
    "light": light,
}
PROFILES = "profiles"  # needs more than colours
CHOICES = (*METHODS, PROFILES)
