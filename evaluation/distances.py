"""Distances between two sets of images, by features (N, D) and (M, D) of each: 0 or near it for one distribution."""

import torch
from torch import Tensor

from errors import UserError


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """KID: the unbiased squared maximum mean discrepancy of features (N, D) and (M, D), kernel (x.y / D + 1)^3.

    About 0 for samples of one distribution. Source: Binkowski, Sutherland, Arbel and Gretton, Demystifying MMD GANs,
    ICLR 2018. Raises `UserError` for fewer than two features on a side.
    """
    if min(len(x), len(y)) < 2:
        raise UserError(
            f"the ranking without pairs (KID) needs at least two mosaics and two photographs, but compares {len(x)} "
            f"with {len(y)}: add files, or rank with pairs (--rank paired)"
        )
    x, y = x.double(), y.double()
    within = [((a @ a.T / a.shape[1] + 1) ** 3).fill_diagonal_(0).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(sum(within) - 2 * ((x @ y.T / x.shape[1] + 1) ** 3).mean())


def standardised_kernel_distance(x: Tensor, y: Tensor) -> float:
    """`kernel_distance` of features that are scaled, each, to the mean 0 and the deviation 1 of the set `y`."""
    mean, deviation = y.mean(0), y.std(0) + 1e-6
    return kernel_distance((x - mean) / deviation, (y - mean) / deviation)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """FID: the squared 2-Wasserstein distance between Gaussians with the moments of (N, D) and (M, D), 0 or more.

    |mean difference|^2 + tr(S_x) + tr(S_y) - 2 tr((S_x S_y)^(1/2)). Its estimate is too large for few images, by how
    much depends on their number. Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017.
    NaN if a feature is not finite.
    """
    x, y = x.double(), y.double()
    if not (x.isfinite().all() and y.isfinite().all()):
        return float("nan")
    a, b = ((each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (x, y))  # S_x = a' a
    cross = torch.linalg.svdvals(a @ b.T).sum()  # the trace of the root, from a matrix (N, M) instead of two (D, D)
    return float((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * cross)
