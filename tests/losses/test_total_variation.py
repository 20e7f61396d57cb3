"""Total variation by hand and against published values."""

import os

import numpy as np
import pytest
import torch

from losses.total_variation import TotalVariation


def test_total_variation_by_hand():
    image = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]]).view(1, 1, 2, 3)
    down, across = (4 + 1 + 1) / 3, (1 + 4 + 0 + 0) / 4
    assert TotalVariation()(image).item() == pytest.approx(down + across)


def test_total_variation_is_the_mean_over_batch_and_channels():
    image = torch.zeros(2, 2, 2, 2)
    image[0, 0, 0, 0] = 2  # one of 8 vertical and one of 8 horizontal differences is 2
    assert TotalVariation()(image).item() == pytest.approx(4 / 8 + 4 / 8)


def test_constant_image_has_total_variation_0():
    assert TotalVariation()(torch.full((2, 3, 4, 5), 0.7)).item() == 0


def test_gradient_of_total_variation():
    image = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(TotalVariation(), image.requires_grad_())


def test_published_total_variation_and_its_gradient():
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    with np.load(path) as file:
        names = ("generated", "loss:tv", "gradnorm:tv", "grad:tv")
        generated, expected, norm, pixels = (torch.from_numpy(file[name]) for name in names)
    loss = TotalVariation()(generated.requires_grad_())
    (gradient,) = torch.autograd.grad(loss, generated)
    torch.testing.assert_close(loss.detach(), expected, atol=0, rtol=1e-3)
    torch.testing.assert_close(gradient.norm(), norm, atol=0, rtol=1e-3)
    assert (gradient[..., ::8, ::8] - pixels).norm() < 1e-3 * pixels.norm()
