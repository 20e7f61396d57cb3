"""Losses of colour alone, against values by hand."""

import math

import pytest
import torch

from losses.hue import ChromaLoss, CosineLoss


def test_chroma_of_a_red_point_by_hand():
    """The blur spreads the point over the image and keeps its sum: |U| is 0.147 and |V| 0.615 of it."""
    target = torch.zeros(2, 3, 41, 43)
    generated = target.clone()
    generated[:, 0, 20, 21] = 1
    expected = (0.14714119 + 0.61497538) / 2 / (41 * 43)
    assert float(ChromaLoss()(generated, target)) == pytest.approx(expected, rel=1e-5)


def test_brightness_is_no_chroma():
    target = torch.rand(1, 3, 32, 32)
    assert float(ChromaLoss()(target + 0.3, target)) == pytest.approx(0, abs=1e-6)


def test_cosine_of_two_colours_by_hand():
    generated, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    generated[:, 0] = 0.5
    target[:, :2] = 0.25  # 45 degrees apart
    assert float(CosineLoss()(generated, target)) == pytest.approx(1 - 1 / math.sqrt(2))
    target[..., 1] = generated[..., 1] / 3  # half of the pixels differ in brightness alone
    assert float(CosineLoss()(generated, target)) == pytest.approx((1 - 1 / math.sqrt(2)) / 2)


def test_cosine_sees_the_clipped_image():
    generated, target = torch.tensor([2.0, 1.0, 0.5]).view(1, 3, 1, 1).requires_grad_(), torch.rand(1, 3, 1, 1)
    loss = CosineLoss()(generated, target)
    loss.backward()
    assert torch.equal(loss, CosineLoss()(generated.detach().clamp(0, 1), target))
    assert generated.grad[0, 0] == 0 and generated.grad[0, 2] != 0
