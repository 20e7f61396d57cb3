"""The PatchGAN critic: its size, what a logit sees, and what instance normalisation hides."""

import pytest
import torch
from torch import nn

from discriminators import PatchDiscriminator
from errors import UserError


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def build(seed: int = 0, **options) -> PatchDiscriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchDiscriminator(**options)


@pytest.mark.parametrize("channels, expected", ((4, 2_765_761), (3, 2_764_737)))
def test_published_number_of_parameters(channels, expected):
    for norm in ("instance", "none"):
        assert sum(p.numel() for p in build(channels=channels, norm=norm).parameters()) == expected


@pytest.mark.parametrize("size, expected", (((256, 256), (30, 30)), ((24, 40), (1, 3)), ((31, 65), (1, 6))))
def test_a_map_of_logits(size, expected):
    planes = random(2, 4, *size)
    with torch.no_grad():
        logits = build()(planes)
        averaged = build(averaged=True)(planes)
    assert logits.shape == (2, *expected)
    torch.testing.assert_close(averaged, logits.mean((1, 2)))


def test_a_logit_sees_70_by_70_pixels():
    critic, planes = build(norm="none").double(), random(1, 4, 128, 128).double().requires_grad_()
    critic(planes)[0, 7, 7].backward()
    rows, columns = (planes.grad.abs().amax(dim).nonzero().flatten() for dim in ((0, 1, 3), (0, 1, 2)))
    assert len(rows) == len(columns) == 70 == rows.max() - rows.min() + 1


def test_layers():
    convolutions = [layer for layer in build().layers if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions] == [
        (64, 4, 2, 1),
        (128, 4, 2, 1),
        (256, 4, 2, 1),
        (512, 4, 1, 1),
        (1, 4, 1, 1),
    ]
    assert sum(isinstance(layer, nn.InstanceNorm2d) for layer in build().layers) == 3
    assert {layer.negative_slope for layer in build().layers if isinstance(layer, nn.LeakyReLU)} == {0.2}


def test_weights_start_normal_with_a_deviation_of_002():
    for layer in build().layers:
        if isinstance(layer, nn.Conv2d):
            assert not layer.bias.any()
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert abs(layer.weight.mean().item()) < 0.001


def test_instance_normalisation_hides_the_exposure_and_none_does_not():
    """Without biases the first layer doubles with the image, and the normalisation of the second undoes it."""
    planes = random(1, 4, 64, 64)
    with torch.no_grad():
        hidden, seen = build(norm="instance").double(), build(norm="none").double()
        for layer in (*hidden.layers, *seen.layers):
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 10  # so that the epsilon of the normalisation does not matter
        one, two = planes.double(), 2 * planes.double()
        torch.testing.assert_close(hidden(two), hidden(one), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(seen(two), 2 * seen(one))


@pytest.mark.parametrize("norm", ("instance", "none"))
def test_images_of_a_batch_do_not_mix(norm):
    critic, planes = build(norm=norm), random(3, 4, 48, 40)
    alone = torch.cat([critic(image[None]) for image in planes])
    torch.testing.assert_close(critic(planes), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ("instance", "none"))
def test_gradients_reach_every_parameter_and_the_planes(norm):
    critic, planes = build(norm=norm), random(2, 4, 40, 40).requires_grad_()
    (critic(planes) - 1).square().mean().backward()
    assert planes.grad.any()
    for name, parameter in critic.named_parameters():
        assert parameter.grad.isfinite().all() and (parameter.grad.any() or "bias" in name)


@pytest.mark.parametrize("size", ((23, 64), (64, 23)))
def test_images_that_are_too_small_are_refused(size):
    with pytest.raises(UserError, match=f"cannot see {size[0]}x{size[1]} pixels: its images need at least 24"):
        build()(random(1, 4, *size))


def test_unknown_normalisation_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown normalisation 'batch' of the critic; known are: instance, none"):
        PatchDiscriminator(norm="batch")
