"""The blur kernel as it is published; the blurred colour loss by hand and against published values."""

import os
from statistics import NormalDist

import numpy as np
import pytest
import torch

from losses.color import BlurredColorLoss, blur, gaussian_kernel


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    names = ("generated", "target", "blur", "loss:color_mse", "gradnorm:color_mse", "grad:color_mse")
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in names}


def test_kernel_has_21_positive_symmetric_taps_that_sum_to_1():
    taps = gaussian_kernel()
    assert taps.shape == (21,) and (taps > 0).all()
    assert taps.sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(taps, taps.flip(0), atol=1e-12, rtol=0)
    assert taps.argmax() == 10


def test_kernel_equals_the_published_construction():
    # sqrt(outer(diff(cdf), diff(cdf))) over +-(3 + 3.5/21), normalised
    edges = np.linspace(-3 - 3.5 / 21, 3 + 3.5 / 21, 22)
    mass = np.diff([NormalDist().cdf(edge) for edge in edges])
    published = np.sqrt(np.outer(mass, mass))
    published /= published.sum()
    taps = gaussian_kernel()
    torch.testing.assert_close(torch.outer(taps, taps), torch.from_numpy(published), atol=1e-12, rtol=0)


def test_blur_spreads_a_point_over_the_kernel():
    image = torch.zeros(1, 2, 41, 43, dtype=torch.float64)
    image[0, 0, 20, 21] = 1
    taps = gaussian_kernel()
    result = blur(image)
    torch.testing.assert_close(result[0, 0, 10:31, 11:32], torch.outer(taps, taps))
    assert result[0, 0].sum().item() == pytest.approx(1) and not result[0, 1].any()


def test_blur_pads_with_zeros():
    taps = gaussian_kernel()
    corner = blur(torch.ones(1, 1, 30, 30, dtype=torch.float64))[0, 0, 0, 0]
    torch.testing.assert_close(corner, taps[10:].sum() ** 2)


def test_blur_preserves_shape_and_dtype_and_does_not_mix_images():
    images = random(3, 3, 5, 8).float()
    assert blur(images).shape == images.shape and blur(images).dtype == torch.float32
    torch.testing.assert_close(blur(images)[1:2], blur(images[1:2]))


def test_color_loss_by_hand():
    # In an image of one pixel only the kernel's centre tap counts. Differences 1 and 2 in two images, three channels.
    centre = gaussian_kernel()[10].item() ** 2
    generated, target = torch.zeros(2, 3, 1, 1), torch.ones(2, 3, 1, 1)
    target[1] = 2
    expected = centre**2 * (3 * 1 + 3 * 4) / 2
    assert BlurredColorLoss()(generated, target).item() == pytest.approx(expected)
    assert BlurredColorLoss(scale=0.5)(generated, target).item() == pytest.approx(expected / 2)


def test_color_loss_compares_the_blurred_images():
    generated, target = random(2, 3, 24, 20), random(2, 3, 24, 20, seed=1)
    expected = (blur(generated) - blur(target)).square().sum() / 2
    torch.testing.assert_close(BlurredColorLoss()(generated, target), expected)


def test_gradient_of_color_loss():
    target = random(2, 3, 4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: BlurredColorLoss()(x, target), random(2, 3, 4, 5).requires_grad_())


def test_published_blur(golden):
    torch.testing.assert_close(blur(golden["generated"]), golden["blur"], atol=1e-5, rtol=1e-3)


def test_published_color_loss_and_its_gradient(golden):
    generated = golden["generated"].requires_grad_()
    loss = BlurredColorLoss(scale=0.5)(generated, golden["target"].permute(0, 3, 1, 2) / 255)
    (gradient,) = torch.autograd.grad(loss, generated)
    torch.testing.assert_close(loss.detach(), golden["loss:color_mse"], atol=0, rtol=1e-3)
    torch.testing.assert_close(gradient.norm(), golden["gradnorm:color_mse"], atol=0, rtol=1e-3)
    difference = gradient[..., ::8, ::8] - golden["grad:color_mse"]
    assert difference.norm() < 1e-3 * golden["grad:color_mse"].norm()
