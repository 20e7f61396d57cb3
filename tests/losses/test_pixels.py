"""Pixel by pixel losses and the outlier-aware loss, against values by hand."""

import math

import pytest
import torch

from losses.outliers import OutlierAwareLoss
from losses.pixels import CharbonnierLoss, HuberLoss, L1Loss


@pytest.mark.parametrize(
    ("loss", "expected"),
    (
        (L1Loss(), (0 + 0.5 + 3) / 3),
        (HuberLoss(), (0 + 0.125 + 2.5) / 3),
        (CharbonnierLoss(0.1), (0.1 + math.sqrt(0.26) + math.sqrt(9.01)) / 3),
    ),
)
def test_values_by_hand(loss, expected):
    target = torch.full((1, 1, 1, 3), 0.25)
    generated = target + torch.tensor([0.0, -0.5, 3.0])
    assert float(loss(generated, target)) == pytest.approx(expected, rel=1e-6)


def test_charbonnier_has_a_gradient_of_0_where_images_are_equal():
    generated = torch.zeros(1, 1, 1, 2, requires_grad=True)
    CharbonnierLoss()(generated, torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)).backward()
    torch.testing.assert_close(generated.grad.flatten(), torch.tensor([0.0, -0.5]))


def test_outlier_awareness_by_hand():
    """d = 0, 0, 0, 4: mean 1, deviation 2 (of a sample), so the exponents are -1 / sqrt(2) thrice and -3 / sqrt(2)."""
    generated = torch.zeros(1, 1, 2, 2, requires_grad=True)
    target = torch.tensor([0.0, 0.0, 0.0, -4.0]).view(1, 1, 2, 2)
    weight = 1 - math.exp(-3 / math.sqrt(2))
    loss = OutlierAwareLoss()(generated, target)
    assert float(loss.detach()) == pytest.approx(weight * 4 / 4)
    loss.backward()
    assert float(generated.grad[0, 0, 1, 1]) == pytest.approx(weight / 4)  # w itself has no gradient


def test_mean_and_deviation_are_those_of_an_image_and_a_colour():
    generated, target = torch.rand(2, 2, 3, 5, 5)
    alone = [
        OutlierAwareLoss()(a[None, None], b[None, None])
        for a, b in zip(*(x.flatten(0, 1) for x in (generated, target)), strict=True)
    ]
    torch.testing.assert_close(OutlierAwareLoss()(generated, target), torch.stack(alone).mean())


def test_images_that_differ_by_a_constant_have_no_outlier():
    generated = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    loss = OutlierAwareLoss()(generated, torch.zeros(1, 3, 4, 4))
    loss.backward()
    assert loss == 0 and generated.grad.isfinite().all()
