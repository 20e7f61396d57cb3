"""A map between two cameras' colours, fitted without pairs to moments of pictures, each by how much it says.

The two cameras took pictures of different scenes, and they differ for that reason, too. As in `data/statistics.py`, a
difference between the sides counts by how much it varies from picture to picture: this is the generalised method of
moments (Hansen, *Large sample properties of generalized method of moments estimators*, Econometrica 50, 1982). Optimal
transport uses the second moments, which leave a rotation of the colours undetermined, and takes the smallest map. Here
the third moments determine it, with a prior: both cameras' colours are those of sensors with three broad filters.
"""

from itertools import combinations_with_replacement

import torch
from torch import Tensor

from data.statistics import covariance_of_mean
from errors import UserError

EVERY = 3  # of a thumbnail's pixels, one counts, to save time: a lattice, as thumbnails have 32 columns
ROUNDS = 5  # of estimating the covariance of the moments, and the matrix
STEPS, ENOUGH = 30, 1e-6  # of the optimiser in each round; change of -2 log of the posterior with which it ends

# The prior. Gains, in stops, are normal: both cameras' white is about the same, and grey is grey. The off-diagonal
# elements of a matrix that carries white-balanced colours of one camera to another's have Student's distribution, as
# many are small and few are large. For the 12 such matrices between the four real cameras of data/unprocess.py, a scale
# of 0.07 and 1.3 degrees of freedom are the most likely ones.
GAIN = 0.5
MIXING, TAIL = 0.075, 2  # scale and degrees of freedom: tails a little lighter than with so few cameras

# Of the covariances of lights, in log R/G and log B/G.
SEEN_ALIKE = 10  # pictures that the mean of both sides' covariances counts as: two cameras see lights nearly alike
SMALL = 0.02  # a standard deviation that does not matter


def matrix_of(parameters: Tensor) -> Tensor:
    """Six off-diagonal elements -> a matrix (3, 3) whose rows sum to 1, so that grey stays grey."""
    rg, rb, gr, gb, br, bg = parameters
    rows = ((1 - rg - rb, rg, rb), (gr, 1 - gr - gb, gb), (br, bg, 1 - br - bg))
    return torch.stack([torch.stack(row) for row in rows])


def fit_colors(a: Tensor, b: Tensor, white_a: Tensor, white_b: Tensor, gain: float = GAIN) -> Tensor:
    """The matrix (3, 3) that carries colours of a to those of b; exchanging the sides gives nearly its inverse.

    Args:
        a: colours (N, P, 3) of pictures of camera a, float64, white-balanced: the mean is grey.
        b: those (M, P, 3) of camera b.
        white_a: where camera a's R, G and B are clipped, (3,).
        white_b: where camera b's are.
        gain: standard deviation of the gains, in stops.

    Raises `UserError` if there is no estimate.
    """
    parameters = torch.zeros(9, dtype=torch.float64, requires_grad=True)  # gains in stops, and those of `matrix_of`
    a, b = a[:, ::EVERY], b[:, ::EVERY]
    there, back = _Misfit(a, b, white_b), _Misfit(b, a, white_a)
    for _ in range(ROUNDS):
        with torch.no_grad():
            matrix = _matrix(parameters)
            there.weigh(matrix)
            back.weigh(torch.linalg.inv_ex(matrix)[0])
        _minimise(parameters, there, back, gain)
    if not parameters.isfinite().all():
        raise UserError("no map fits the moments of both cameras' pictures: use --method transport")
    return _matrix(parameters.detach())


def _matrix(parameters: Tensor) -> Tensor:
    return 2 ** parameters[:3, None] * matrix_of(parameters[3:])


def _minimise(parameters: Tensor, there: "_Misfit", back: "_Misfit", gain: float) -> None:
    """Minimise -2 log of the posterior, in place; both directions see the same pictures, so each counts as half."""
    options = {"max_iter": STEPS, "tolerance_change": ENOUGH, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([parameters], **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        matrix, mixing = _matrix(parameters), matrix_of(parameters[3:])
        prior = _mixing_prior(mixing) + _mixing_prior(torch.linalg.inv_ex(mixing)[0])
        misfit = there(matrix) + back(torch.linalg.inv_ex(matrix)[0])
        loss = (misfit + prior) / 2 + (parameters[:3] / gain).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _mixing_prior(mixing: Tensor) -> Tensor:
    """-2 log of the prior of a matrix whose rows sum to 1, but for a constant."""
    student = mixing[~torch.eye(3, dtype=torch.bool)] / MIXING
    return (TAIL + 1) * (1 + student.square() / TAIL).log().sum()


class _Misfit:
    """How far the moments of mapped colours (N, P, 3) are from those of the wanted (M, P, 3), clipped at white (3,)."""

    def __init__(self, colors: Tensor, wanted: Tensor, white: Tensor):
        self.colors, self.white = colors, white
        pooled = self._compressed(wanted).flatten(0, 1)
        self.centre = pooled.mean(0)
        self.axes = torch.linalg.inv(torch.linalg.cholesky(torch.cov(pooled.T))).T
        self.wanted = moments(self._compressed(wanted), self.centre, self.axes)
        self.precision = torch.eye(self.wanted.shape[1], dtype=torch.float64)

    def weigh(self, matrix: Tensor) -> None:
        """Set the weights of all differences, by how much the moments vary with this map."""
        self.precision = torch.linalg.inv(sum(covariance_of_mean(side) for side in (self.wanted, self._mapped(matrix))))

    def __call__(self, matrix: Tensor) -> Tensor:
        error = self._mapped(matrix).mean(0) - self.wanted.mean(0)
        return error @ self.precision @ error

    def _mapped(self, matrix: Tensor) -> Tensor:
        return moments(self._compressed(self.colors @ matrix.T), self.centre, self.axes)

    def _compressed(self, colors: Tensor) -> Tensor:
        """The square root: few bright pixels would decide otherwise."""
        return (colors / self.white).clamp(1e-4, 1).sqrt()


def moments(colors: Tensor, centre: Tensor, axes: Tensor) -> Tensor:
    """Colours of pictures (N, P, 3) -> (N, 19): means of the Hermite polynomials up to degree 3.

    They are those of (colours - centre) @ axes, and little correlated if these (P, 3) have the unit as covariance.
    """
    x, unit = ((colors - centre) @ axes).unbind(2), torch.eye(3).tolist()
    found = list(x)
    for i, j in combinations_with_replacement(range(3), 2):
        square = x[i] * x[j] - unit[i][j]
        found.append(square)
        found += [square * x[k] - unit[i][k] * x[j] - unit[j][k] * x[i] for k in range(j, 3)]
    return torch.stack([each.mean(1) for each in found], dim=1)


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
