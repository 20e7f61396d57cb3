"""The perceptual loss clips images and averages a measure; the mean squared error by hand."""

import pytest
import torch

from losses.perceptual import MSELoss, PerceptualLoss


def per_image_error(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return (image - reference).square().flatten(1).sum(1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_measure_is_averaged_over_the_batch():
    generated, target = torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1)
    generated[0], generated[1] = 1, 0.5  # 3 and 0.75
    assert PerceptualLoss(per_image_error)(generated, target).item() == pytest.approx((3 + 0.75) / 2)


def test_both_images_are_clipped():
    generated, target = torch.full((1, 3, 1, 1), 1.5), torch.full((1, 3, 1, 1), -0.5)
    assert PerceptualLoss(per_image_error)(generated, target).item() == 3


def test_pixel_outside_0_to_1_gets_no_gradient():
    generated = torch.tensor([1.5, 0.25, -0.5]).view(1, 3, 1, 1).requires_grad_()
    PerceptualLoss(per_image_error)(generated, torch.full((1, 3, 1, 1), 0.5)).backward()
    torch.testing.assert_close(generated.grad.flatten(), torch.tensor([0, -0.5, 0]))


def test_measure_takes_the_generated_image_first():
    calls = []
    loss = PerceptualLoss(lambda image, reference: calls.append((image, reference)) or image.flatten(1).sum(1))
    generated, target = random(1, 3, 2, 2), random(1, 3, 2, 2, seed=1)
    loss(generated, target)
    assert torch.equal(calls[0][0], generated) and torch.equal(calls[0][1], target)


def test_mean_squared_error_by_hand():
    generated, reference = torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 1, 2)
    generated[0, 0, 0, 0], reference[1, 2, 0, 1] = 3, 1  # 9 + 1 over 12 numbers
    assert MSELoss()(generated, reference).item() == pytest.approx(10 / 12)


def test_gradient_of_mean_squared_error():
    reference = random(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: MSELoss()(x, reference), random(2, 3, 2, 2).requires_grad_())
