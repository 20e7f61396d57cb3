"""PyNET-V2 Mobile: published outputs of all levels, what each level needs, sizes."""

import pytest
import torch
from torch import nn

from models import MODELS
from models.pynet_v2 import PyNETV2

from . import pynet_v2_weights
from .baselines import golden, parameters, tensor
from .levels import check_parts


@pytest.fixture(scope="module")
def network() -> PyNETV2:
    torch.manual_seed(0)
    return PyNETV2()


def test_published_parameter_counts(network):
    assert parameters(network) == 932_583
    assert parameters(network) - parameters(network.head2) - parameters(network.head3) == 930_255


def test_published_outputs_of_all_levels():
    values, network = golden("pynet_v2"), PyNETV2().double()
    pynet_v2_weights.load(network, values)
    with torch.no_grad():
        for number in ("", "_2"):
            inputs = tensor(values[f"input{number}"])
            for level, name in ((3, "_level3"), (2, "_level2"), (1, "")):
                expected = tensor(values[f"output{number}{name}"])  # in float32
                torch.testing.assert_close(network.at_level(inputs, level), expected, rtol=0, atol=1e-5)
            assert torch.equal(network(inputs), network.at_level(inputs, 1))


def parts_of(network: PyNETV2, level: int) -> list[nn.Module]:
    """The modules that a level adds to those of the coarser ones."""
    return {
        3: [network.encoder1, network.encoder2, network.encoder3, network.level3, network.head3],
        2: [network.merge2, network.level2, network.head2],
        1: [network.merge1, network.level1, network.head1],
    }[level]


def test_the_parts_of_the_levels():
    check_parts(PyNETV2, parts_of, sides=(56, 64), first=1)


@pytest.mark.parametrize("sides", ((50, 50), (64, 58)))
def test_sides_of_any_even_length_from_the_least(network, sides):
    packed = torch.rand(1, 4, sides[0] // 2, sides[1] // 2)
    with torch.no_grad():
        for level, part in ((1, 1), (2, 2), (3, 4)):
            assert network.at_level(packed, level).shape == (1, 3, sides[0] // part, sides[1] // part)
    assert MODELS["pynet-v2"].minimum == 50
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 4, 24, 25))
