"""Luminance against scikit-image and by hand, the content loss by hand, and both against published values."""

import os

import numpy as np
import pytest
import torch

from losses.content import ContentLoss, luminance, luminance3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grey(value: float) -> torch.Tensor:
    return torch.full((1, 3, 1, 1), value, dtype=torch.float64)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    names = ("generated", "demosaiced", "luminance", "loss:content", "gradnorm:content", "grad:content")
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in names}


def test_luminance_of_black_and_white():
    assert luminance(grey(0)).item() == pytest.approx(0, abs=1e-12)
    assert luminance(grey(1)).item() == pytest.approx(1, abs=1e-12)


def test_luminance_by_hand_on_the_power_branches():
    # (0.5 + 0.055) / 1.055 to the 2.4 is Y = 0.2140411; L* = 116 Y^(1/3) - 16 = 53.3890.
    assert luminance(grey(0.5)).item() == pytest.approx(0.533890, abs=1e-6)


def test_luminance_by_hand_on_the_linear_branches():
    # Y = 0.02 / 12.92 = 0.001547988; L* = 116 * 7.787 Y.
    assert luminance(grey(0.02)).item() == pytest.approx(1.16 * 7.787 * 0.02 / 12.92, abs=1e-12)


@pytest.mark.parametrize("scale", (0.02, 0.2, 1))
def test_luminance_equals_scikit_image(scale):
    color = pytest.importorskip("skimage.color")
    image = scale * random(2, 3, 16, 16)
    expected = torch.from_numpy(color.rgb2lab(image.permute(0, 2, 3, 1).numpy())[..., :1] / 100).permute(0, 3, 1, 2)
    torch.testing.assert_close(luminance(image), expected, atol=1e-7, rtol=0)


def test_luminance3_repeats_luminance_in_three_channels():
    image = random(2, 3, 4, 5)
    assert torch.equal(luminance3(image), luminance(image).repeat(1, 3, 1, 1))


@pytest.mark.parametrize("low, high", ((0.1, 0.9), (0.001, 0.03)))
def test_gradient_of_luminance(low, high):  # on both sides of the kinks at sRGB 0.04045 and Y 0.008856
    image = (low + (high - low) * random(2, 3, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(luminance, image)


@pytest.mark.parametrize("value", (0.0, 1.0, -0.1, 1.1, 0.04045))
def test_gradient_of_luminance_is_finite_everywhere(value):
    image = torch.full((1, 3, 2, 2), value, requires_grad=True)
    luminance(image).sum().backward()
    assert image.grad.isfinite().all() and (image.grad > 0).all()


def test_content_loss_by_hand():
    generated, reference = torch.zeros(2, 2, 1, 2), torch.ones(2, 2, 1, 2)
    generated[0, 0, 0, 0] = 3  # squares: 4 + 1 + 1 + 1 in the first image, 4 in the second; C H W = 4
    assert ContentLoss()(generated, reference).item() == pytest.approx(11 / 4)
    assert ContentLoss(scale=2)(generated, reference).item() == pytest.approx(11 / 2)


def test_gradient_of_content_loss():
    reference = random(2, 4, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: ContentLoss(2)(x, reference), random(2, 4, 3, 2).requires_grad_())


def test_published_luminance(golden):
    torch.testing.assert_close(luminance(golden["generated"].clamp(0, 1)), golden["luminance"], atol=1e-5, rtol=1e-3)


def test_published_content_loss_and_its_gradient(golden):
    file = os.environ.get("ISP_VGG")
    if not file:
        pytest.skip("ISP_VGG is not set: the path of imagenet-vgg-verydeep-19.mat")
    from pretrained.backbones import vgg19

    network = vgg19(file=file)
    generated = golden["generated"].requires_grad_()
    with torch.no_grad():
        reference = network(luminance3(golden["demosaiced"]))
    loss = ContentLoss(scale=2)(network(luminance3(generated)), reference)
    (gradient,) = torch.autograd.grad(loss, generated)
    torch.testing.assert_close(loss.detach(), golden["loss:content"], atol=0, rtol=1e-3)
    torch.testing.assert_close(gradient.norm(), golden["gradnorm:content"], atol=0, rtol=1e-3)
    difference = gradient[..., ::8, ::8] - golden["grad:content"]
    assert difference.norm() < 1e-3 * golden["grad:content"].norm()
