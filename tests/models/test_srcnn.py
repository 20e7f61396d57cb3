"""SRCNN: the published graph for RGB images, and our form of it for mosaics."""

import pytest
import torch

from models import MODELS, build_model
from models.srcnn import SRCNN
from pretrained.tensorflow_weights import to_torch
from tests.models.baselines import golden, parameters, tensor


def test_parameter_counts():
    assert parameters(SRCNN(packed=False)) == 69_249 and parameters(build_model("srcnn")) == 81_644


@pytest.mark.parametrize("suffix", ("", "_2"))
def test_output_of_the_published_graph(suffix):
    values, network = golden("srcnn"), SRCNN(packed=False)
    names = {f"conv{layer}.weight": f"w{layer}" for layer in (1, 2, 3)}
    names |= {"conv1.bias": "b1", "conv2.bias": "b2", "bias": "b3"}
    network.load_state_dict({key: to_torch(values[f"weights/generator/{name}"]) for key, name in names.items()})
    with torch.no_grad():
        output = network.double()(tensor(values[f"input{suffix}"]))
    torch.testing.assert_close(output, tensor(values[f"output{suffix}"]), atol=1e-5, rtol=0)


def test_on_a_mosaic_the_channels_are_in_the_order_of_a_pixel_shuffle():
    network = SRCNN()
    torch.nn.init.zeros_(network.conv3.weight)
    network.bias.data = torch.linspace(-1, 1, 12)
    output = network(torch.rand(1, 4, 2, 3))
    expected = (0.58 * torch.linspace(-1, 1, 12).tanh() + 0.5).view(3, 2, 2).repeat(1, 2, 3)
    torch.testing.assert_close(output[0], expected)


def test_reach_is_exact():
    """Of a packed pixel: 4 + 2 + 2 packed pixels to each side, 16 of the mosaic, and all of them count."""
    packed = torch.rand(1, 4, 24, 24, dtype=torch.float64, requires_grad=True)
    SRCNN().double()(packed)[0, :, 24:26, 24:26].sum().backward()
    rows = packed.grad.abs().amax((0, 1, 3)).nonzero().flatten()
    assert rows.tolist() == list(range(12 - 8, 12 + 8 + 1)) and MODELS["srcnn"].reach == 16


def test_gradients_reach_every_parameter():
    network = SRCNN()
    network(torch.rand(2, 4, 12, 12)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
