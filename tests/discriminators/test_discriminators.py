"""The critics: shapes, published sizes, and gradients."""

import pytest
import torch

from discriminators import ColorDiscriminator, ColorImageDiscriminator, TextureDiscriminator
from errors import UserError

SIZES = ((63, 63), (15, 15), (3, 3), (15, 7), (1, 1), (8, 9))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def lin0() -> TextureDiscriminator:
    """The critic of AlexNet's relu1 for the paper's patches of 256x256."""
    return TextureDiscriminator(64, (63, 63))


def test_texture_critic_has_the_published_number_of_parameters(lin0):
    assert count(lin0) == 9_297_585
    assert lin0.fc1.weight.numel() == 128 * 8 * 8 * 1024 == 8_388_608


def test_color_critic_has_the_published_number_of_parameters():
    assert count(ColorDiscriminator(768)) == (768 * 512 + 512) + (512 * 512 + 512) + (512 + 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", (3, 64))
def test_texture_critic_returns_one_logit_per_image(channels, size):
    assert TextureDiscriminator(channels, size)(random(2, channels, *size)).shape == (2,)


@pytest.mark.parametrize("tokens", (1, 4, 196))
def test_color_critic_returns_one_logit_per_image(tokens):
    assert ColorDiscriminator(192)(random(3, tokens, 192)).shape == (3,)


@pytest.mark.parametrize("build", (lambda: TextureDiscriminator(8, (15, 7)), lambda: ColorDiscriminator(16)))
def test_all_parameters_exist_after_init_and_get_a_gradient(build):
    critic = build()
    before = [name for name, _ in critic.named_parameters()]
    critic(random(2, 8, 15, 7) if isinstance(critic, TextureDiscriminator) else random(2, 5, 16)).sum().backward()
    assert [name for name, _ in critic.named_parameters()] == before
    assert all(p.grad is not None and p.grad.any() for p in critic.parameters())


def test_color_image_critic_has_the_released_layers():
    critic = ColorImageDiscriminator(3, (256, 256))
    convolutions = [layer for layer in critic.features if isinstance(layer, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (3, 48, 11, 4),
        (48, 128, 5, 2),
        (128, 192, 3, 1),
        (192, 192, 3, 1),
        (192, 128, 3, 2),
    ]
    assert {c.padding for c in convolutions} == {(0, 0)} and critic.fc1.in_features == 128 * 12 * 12


@pytest.mark.parametrize("size", ((75, 75), (76, 90), (128, 77)))
def test_color_image_critic_returns_one_logit_per_image(size):
    assert ColorImageDiscriminator(3, size)(random(2, 3, *size)).shape == (2,)


@pytest.mark.parametrize("size", ((74, 128), (128, 64)))
def test_images_that_are_too_small_for_the_critic_are_refused(size):
    with pytest.raises(UserError, match=f"cannot see {size[0]}x{size[1]} pixels: raise --data.patch"):
        ColorImageDiscriminator(3, size)


@pytest.mark.parametrize(
    "build, shape",
    ((lambda: TextureDiscriminator(8, (7, 7)), (3, 8, 7, 7)), (lambda: ColorDiscriminator(16), (3, 5, 16))),
)
def test_images_of_a_batch_do_not_mix(build, shape):
    critic, features = build(), random(*shape)
    alone = torch.cat([critic(sample[None]) for sample in features])
    torch.testing.assert_close(critic(features), alone)


def test_color_critic_averages_over_tokens():
    critic, tokens = ColorDiscriminator(16), random(2, 6, 16)
    each = torch.stack([critic(tokens[:, i : i + 1]) for i in range(6)]).mean(0)
    torch.testing.assert_close(critic(tokens), each)
    torch.testing.assert_close(critic(tokens), critic(tokens[:, torch.tensor([3, 1, 5, 0, 4, 2])]))
