"""LiteISPNet: published outputs, where a pixel is, sizes, gradients."""

import pytest
import torch

from models import MODELS
from models.liteispnet import LiteISPNet, coordinates

from .baselines import golden, parameters, recipe_state, tensor


@pytest.fixture(scope="module")
def network() -> LiteISPNet:
    torch.manual_seed(0)
    return LiteISPNet().eval()


def test_published_parameter_count(network):
    assert parameters(network) == 9_039_623


def test_published_outputs():
    values, network = golden("liteispnet"), LiteISPNet()
    state = recipe_state(values)
    assert list(network.state_dict()) == list(state)
    network.load_state_dict(state)
    network.double().eval()
    with torch.no_grad():
        for number in ("", "_2"):
            inputs = tensor(values[f"input{number}"])
            torch.testing.assert_close(network(inputs), tensor(values[f"output{number}"]), rtol=0, atol=1e-6)
            torch.testing.assert_close(coordinates(inputs), tensor(values[f"coord{number}"]), rtol=0, atol=1e-6)


def test_coordinates_are_those_of_pixel_centres():
    x, y = coordinates(torch.zeros(2, 4, 2, 4))[1]
    assert x.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert y.tolist() == [[-0.5] * 4, [0.5] * 4]


def test_the_network_sees_where_a_pixel_is(network):
    """The same packed values everywhere: far from the borders' zeros, only coordinates differ."""
    with torch.no_grad():
        one, other = network(torch.full((1, 4, 8, 64), 0.2))[0, :, 8, (40, 80)].unbind(-1)
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("sides", ((10, 10), (16, 26)))
def test_sides_of_any_even_length_from_the_least(network, sides):
    with torch.no_grad():
        assert network(torch.rand(1, 4, sides[0] // 2, sides[1] // 2)).shape == (1, 3, *sides)
    assert MODELS["liteispnet"].minimum == 10
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 4, 4, 8))


def test_gradients_reach_every_parameter_also_from_black(network):
    packed = torch.rand(2, 4, 8, 8)
    packed[..., :4] = 0  # the exponent 1/2.2 has no gradient there
    network(packed).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
