"""Weights of photographs with which their scenes are those of the mosaics, on average.

Where one side shows more skies and the other more faces, the distributions of their colours differ for that reason too:
matching them would shift all colours.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from errors import UserError

COMPONENTS = 10  # principal components of the features whose means are matched
PERMUTATIONS = 999  # of the test
LEVEL = 0.05  # the sides differ if chance gives such a difference less often
COPIES = 8  # the resolution of the weights: of each photograph on average, in `resample`


def components(first: np.ndarray, second: np.ndarray, count: int = COMPONENTS) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components, of variance 1, of features (N, D) and (M, D) taken together: (N, C), (M, C)."""
    both = np.concatenate((first, second))
    both = (both - both.mean(0)) / (both.std(0) + 1e-9)
    left, values, _ = np.linalg.svd(both, full_matrices=False)
    count = min(count, int((values > 1e-6 * values[0]).sum()))
    scores = left[:, :count] * len(both) ** 0.5
    return scores[: len(first)], scores[len(first) :]


def chance_of_gap(first: np.ndarray, second: np.ndarray, seed: int = 0) -> float:
    """How often two random halves of all points (N, C), (M, C) have means at least as far apart: a permutation test."""
    both, count, rng = np.concatenate((first, second)), len(first), np.random.default_rng(seed)

    def gap(points: np.ndarray) -> float:
        return float(np.linalg.norm(points[:count].mean(0) - points[count:].mean(0)))

    observed = gap(both)
    larger = sum(gap(both[rng.permutation(len(both))]) >= observed for _ in range(PERMUTATIONS))
    return (1 + larger) / (1 + PERMUTATIONS)


def balance(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights (N,), positive, of sum 1, nearest to equal ones, with which points (N, C) have the mean `wanted` (C,).

    Entropy balancing (Hainmueller, Political Analysis 20(1), 2012). Raises `UserError` if no weights give that mean.
    """
    centred = points - wanted

    def dual(tilt: np.ndarray) -> tuple[float, np.ndarray]:
        exponents = centred @ tilt
        total = logsumexp(exponents)
        return total, np.exp(exponents - total) @ centred

    with np.errstate(over="ignore", invalid="ignore"):  # where there are no such weights, it runs away
        tilt = minimize(dual, np.zeros(points.shape[1]), jac=True, method="BFGS").x
        exponents = centred @ tilt
        weights = np.exp(exponents - logsumexp(exponents))
    if not np.abs(weights @ centred).max() < 1e-2:
        raise UserError(
            "no weights of the photographs make their scenes those of the mosaics: collect photographs of such scenes, "
            "or use --data.weights equal"
        )
    return weights


def effective_number(weights: Sequence[float]) -> float:
    """How many photographs of equal weight vary as little on average (Kish): 1 / sum of squares."""
    return float(1 / np.square(weights).sum())


def resample(weights: np.ndarray, copies: int = COPIES) -> np.ndarray:
    """Indices in which each item occurs in proportion to its weight, `copies` times on average; the order is kept."""
    edges = np.concatenate(([0.0], np.cumsum(weights)[:-1], [1.0]))
    places = (np.arange(copies * len(weights)) + 0.5) / (copies * len(weights))
    return np.searchsorted(edges, places, side="right") - 1
