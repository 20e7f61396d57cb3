"""Distances between sets: the formulas, against plain code and pyiqa's."""

import math

import numpy as np
import pytest
import torch

from errors import UserError
from evaluation.distances import frechet_distance, kernel_distance, standardised_kernel_distance
from evaluation.evaluators import PairedEvaluator
from evaluation.metrics import MEASURES, psnr
from evaluation.protocols import build, refuse_single


def sets(count: int, other: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, width, generator=generator), torch.randn(other, width, generator=generator)
    return x * torch.linspace(0.5, 2, width), y + 0.3


@pytest.mark.parametrize(("count", "other"), ((40, 30), (5, 9)))  # more and fewer than features
def test_the_frechet_distance_is_pyiqas(count, other):
    from scipy.linalg import sqrtm

    x, y = sets(count, other, 12)
    means, covariances = ([f(each.double().numpy()) for each in (x, y)] for f in (lambda v: v.mean(0), cov))
    root = sqrtm(covariances[0] @ covariances[1] + 0j).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def cov(values: np.ndarray) -> np.ndarray:
    return np.cov(values, rowvar=False)


def test_the_frechet_distance_of_what_is_not_finite_is_nan():
    x, y = sets(5, 5, 3)
    x[2, 1] = torch.nan
    assert math.isnan(frechet_distance(x, y))


def test_standardised_features_count_alike():
    x, y = sets(30, 40, 6)
    scaled = [each * torch.tensor([1e3, 1, 1, 1, 1, 1e-2]) + 5 for each in (x, y)]
    assert standardised_kernel_distance(*scaled) == pytest.approx(standardised_kernel_distance(x, y), rel=1e-2)
    assert kernel_distance(*scaled) > 1e3 * kernel_distance(x, y)


# --- as a column -----------------------------------------------------------------------------------------------------


class Means(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def test_a_measure_of_sets_has_a_mean_and_no_other_value():
    functions = build("paper", ("psnr", "fid"), lambda name: Means())
    evaluator, generator = PairedEvaluator(functions), torch.Generator().manual_seed(0)
    outputs, target = torch.rand(2, 6, 3, 32, 32, generator=generator)
    target = (target * 255).to(torch.uint8)
    parts = [evaluator.evaluate(outputs[i : i + 2], target[i : i + 2]) for i in (0, 2, 4)]
    values = {column: torch.cat([part[column] for part in parts]) for column in functions}
    rows, means = evaluator.summarize(list("abcdef"), values)
    assert all(set(row) == {"psnr"} for row in rows.values()) and set(means) == {"psnr", "fid"}
    seen = (outputs * 255).to(torch.uint8) / 255
    assert means["fid"] == pytest.approx(frechet_distance(seen.mean((2, 3)), (target / 255).mean((2, 3))))
    assert means["psnr"] == pytest.approx(float(psnr(outputs, target).mean()))


def test_an_output_that_is_not_finite_spoils_the_set():
    evaluator = PairedEvaluator(build("paper", ("kid",), lambda name: Means()))
    outputs = torch.rand(3, 3, 32, 32)
    outputs[1, 0, 0, 0] = torch.nan
    values = evaluator.evaluate(outputs, torch.zeros(3, 3, 32, 32, dtype=torch.uint8))
    assert math.isnan(evaluator.summarize(list("abc"), values)[1]["kid"])


def test_sets_need_two_images():
    refuse_single(("psnr", "kid"), 2)
    refuse_single(("psnr",), 1)
    with pytest.raises(UserError, match="measure 'kid' compares sets of images and needs at least two, but there is 1"):
        refuse_single(("psnr", "kid"), 1)
    assert {name for name, measure in MEASURES.items() if measure.of_set} == {"kid", "fid"}
