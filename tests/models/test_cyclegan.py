"""CycleGAN's generators as mappers: size, directions, sizes of images, and what they refuse."""

import pytest
import torch

from errors import UserError
from models import build_mapper


@pytest.fixture(scope="module")
def generators():
    torch.manual_seed(0)
    return build_mapper("cyclegan")


def test_parameters(generators):
    """Two of the published network of 11,378,179 parameters, with four channels instead of three at both ends."""
    at_ends = 2 * 64 * 7 * 7 + 1
    assert sum(p.numel() for p in generators.parameters()) == 2 * (11_378_179 + at_ends)


def test_parts_of_a_batch_take_the_generator_of_their_direction(generators):
    planes = torch.rand(2, 4, 16, 16)
    with torch.no_grad():
        both = generators(planes, "ba")
        alone = [generators(planes[:1], "b"), generators(planes[1:], "a")]
    torch.testing.assert_close(both, torch.cat(alone))
    assert (generators(planes[:1], "a") - alone[0]).abs().max() > 1e-4


def test_any_size_comes_back_and_lies_between_black_and_white(generators):
    planes = torch.rand(1, 4, 18, 23)
    mapped = generators.map_planes(planes, "b")
    assert mapped.shape == planes.shape and mapped.min() > 0 and mapped.max() < 1 and not mapped.requires_grad


def test_gradients_reach_every_weight_of_a_direction(generators):
    generators(torch.rand(1, 4, 16, 16), "a").square().mean().backward()
    weights = [p for name, p in generators.named_parameters() if name.startswith("networks.a") and p.dim() > 1]
    assert all(p.grad.any() for p in weights)
    assert all(p.grad is None for p in generators.networks["b"].parameters())
    generators.zero_grad()


def test_what_it_cannot_do_is_refused(generators):
    with pytest.raises(UserError, match="cannot see it downsampled"):
        generators.map_planes(torch.rand(1, 4, 16, 16), "a", downsample=2)
    with pytest.raises(UserError, match="cannot start from a map"):
        generators.start_from("a", 2 * torch.eye(4))
    generators.start_from("a", torch.eye(4))  # the default: from nothing
