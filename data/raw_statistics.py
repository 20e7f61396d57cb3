"""A map between two cameras' colours, fitted without pairs to statistics of pictures, each by how much it says.

As `data/statistics.py` does for photographs: the two cameras took pictures of different scenes, so a difference between
the two sides counts by how much it varies from picture to picture. What the pictures do not say, a prior says: both
cameras' colours are those of a sensor with three broad filters. It is a maximum a posteriori estimate with Gaussian
statistics and prior.
"""

import torch
from torch import Tensor

from data.statistics import covariance_of_mean
from data.statistics import statistics as statistics_of
from errors import UserError

GAMMA = 2.2  # statistics are those of colours after a power of 1 / GAMMA
ROUNDS = 3  # of estimating the covariance of the statistics, and the matrix
STEPS = 50  # of the optimiser in each round

# Standard deviations of the prior. Gains, in stops, around 0: both cameras' white is about the same. Off-diagonal
# elements, around 0, of a matrix that carries white-balanced colours of one camera to another's: 0.15 is that of the 56
# such matrices between eight cameras of seven makers, from their published colour matrices (DNG's ColorMatrix, D65).
GAIN, MIXING = 0.5, 0.15

# Of the covariances of lights, in log R/G and log B/G.
SEEN_ALIKE = 10  # pictures that the mean of both sides' covariances counts as: two cameras see lights nearly alike
SMALL = 0.02  # a standard deviation that does not matter


def matrix_of(parameters: Tensor) -> Tensor:
    """Three gains in stops and six off-diagonal elements -> (3, 3): gains times a matrix whose rows sum to 1."""
    rg, rb, gr, gb, br, bg = parameters[3:]
    rows = ((1 - rg - rb, rg, rb), (gr, 1 - gr - gb, gb), (br, bg, 1 - br - bg))
    return 2 ** parameters[:3, None] * torch.stack([torch.stack(row) for row in rows])


def fit_colors(a: Tensor, b: Tensor, gain: float = GAIN) -> Tensor:
    """The matrix (3, 3) that carries colours of a to those of b.

    Args:
        a: colours (N, P, 3) of pictures of camera a, float64, white-balanced: the mean is grey.
        b: those (M, P, 3) of camera b.
        gain: standard deviation of the gains, in stops.

    Raises `UserError` if there is no estimate.
    """
    wanted = _statistics(b)
    spread = torch.tensor([gain] * 3 + [MIXING] * 6, dtype=torch.float64)
    parameters = torch.zeros_like(spread, requires_grad=True)
    for _ in range(ROUNDS):
        with torch.no_grad():
            sides = wanted, _statistics(a @ matrix_of(parameters).T)
        precision = torch.linalg.inv(sum(covariance_of_mean(side) for side in sides))
        _minimise(parameters, spread, a, wanted.mean(0), precision)
    if not parameters.isfinite().all():
        raise UserError("no map fits the statistics of both cameras' pictures: use --method transport")
    return matrix_of(parameters.detach())


def _minimise(parameters: Tensor, spread: Tensor, a: Tensor, wanted: Tensor, precision: Tensor) -> None:
    """Minimise the negative logarithm of the posterior, in place."""
    optimizer = torch.optim.LBFGS([parameters], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = _statistics(a @ matrix_of(parameters).T).mean(0) - wanted
        loss = error @ precision @ error + (parameters / spread).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _statistics(colors: Tensor) -> Tensor:
    return statistics_of(colors.clamp(min=1e-4) ** (1 / GAMMA))


def fit_lights(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean of a, mean of b, matrix (2, 2)): optimal transport of lights (N, 2) of a to those (M, 2) of b.

    Both are taken as normally distributed. The covariances are shrunk towards their mean, as a difference between few
    pictures is that of the scenes rather than of the cameras.
    """
    own = [torch.cov(side.T, correction=0) for side in (a, b)]
    common = (own[0] + own[1]) / 2
    shrunk = []
    for side, covariance in zip((a, b), own, strict=True):
        share = len(side) / (len(side) + SEEN_ALIKE)
        shrunk.append(share * covariance + (1 - share) * common + SMALL**2 * torch.eye(2, dtype=torch.float64))
    return a.mean(0), b.mean(0), solve_transport(*shrunk)


def solve_transport(a: Tensor, b: Tensor) -> Tensor:
    """The positive definite M with M a M' = b, for positive definite a and b.

    It is a^(-1/2) (a^(1/2) b a^(1/2))^(1/2) a^(-1/2), the optimal transport between normal distributions of the same
    mean and these moments (Takatsu, *Wasserstein geometry of Gaussian measures*, Osaka Journal of Mathematics 48,
    2011).
    """
    half, inverse = _power(a, 0.5), _power(a, -0.5)
    return inverse @ _power(half @ b @ half, 0.5) @ inverse


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a positive definite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors * values.clamp(min=1e-300).pow(exponent) @ vectors.T
