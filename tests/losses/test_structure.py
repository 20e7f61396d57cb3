"""SSIM and MS-SSIM as losses: the values of the measures, gradients, and images without structure in common."""

import pytest
import torch
from torch.autograd import gradcheck

from evaluation import metrics
from losses.structure import MultiScaleSSIMLoss, SSIMLoss


def pair(side: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, side, side) of 8-bit values, and noisy ones."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=random)
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    noisy = image + 0.2 * torch.rand(image.shape, generator=random) - 0.1
    return tuple((255 * x).clamp(0, 255).floor() / 255 for x in (image, noisy))


@pytest.mark.parametrize(("loss", "measure"), ((SSIMLoss(), metrics.ssim), (MultiScaleSSIMLoss(), metrics.ms_ssim)))
@pytest.mark.parametrize("side", (161, 176))
def test_a_loss_is_one_minus_the_measure(loss, measure, side):
    image, noisy = pair(side)
    measured = measure(*((255 * x).round().to(torch.uint8) for x in (noisy, image))).mean()
    assert float(loss(noisy, image)) == pytest.approx(1 - float(measured), abs=5e-5)  # of single precision
    assert float(loss(image, image)) == pytest.approx(0, abs=1e-6)
    assert measured < 0.95


def test_the_gradient_of_ssim_is_right():
    image, noisy = (x.double()[:1, :1, :12, :12] for x in pair(48))
    assert gradcheck(lambda x: SSIMLoss()(x, image), (noisy.requires_grad_(),))


@pytest.mark.parametrize("loss", (SSIMLoss(), MultiScaleSSIMLoss()))
def test_inverted_and_flat_images_have_finite_gradients(loss):
    image = pair(161)[0]
    for start in (1 - image, torch.zeros_like(image), image.clone()):
        start.requires_grad_()
        value = loss(start, image)
        value.backward()
        assert value.isfinite() and start.grad.isfinite().all()


def test_negative_structure_has_a_gradient_towards_the_target():
    image = pair(48)[0]
    start = (1 - image).requires_grad_()
    loss = SSIMLoss()(start, image)
    loss.backward()
    assert loss > 1  # SSIM is negative
    with torch.no_grad():
        assert SSIMLoss()(start - 100 * start.grad, image) < loss
