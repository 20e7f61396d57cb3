"""LAN: outputs of the published graph with the released weights; its input; any even size; initial values."""

import pytest
import torch

from data.inputs import prepare
from data.sensor import SENSORS
from models import MODELS
from models.lan import LAN
from pretrained.tensorflow_weights import lan_state
from tests.models.baselines import golden, parameters, tensor


def published() -> tuple[LAN, object]:
    """LAN with the released weights, and the golden file."""
    values, network = golden("lan"), LAN()
    network.load_state_dict(
        lan_state({key.removeprefix("weights/"): values[key] for key in values.files if key.startswith("weights/")})
    )
    return network.double(), values


def test_parameter_count():
    assert parameters(LAN()) == 46_847


@pytest.mark.parametrize("suffix", ("", "_2"))
def test_output_of_the_published_graph(suffix):
    network, values = published()
    with torch.no_grad():
        output = network(tensor(values[f"input{suffix}"]))
    torch.testing.assert_close(output, tensor(values[f"output{suffix}"]), atol=1e-5, rtol=0)


def test_input_is_the_published_one():
    values = golden("lan")
    mosaic = tensor(values["mosaic_2"].astype("float64"))[:, None] / 1023
    inputs = prepare(mosaic, SENSORS["fujifilm"], MODELS["lan"].input_format)
    torch.testing.assert_close(inputs, tensor(values["input_2"]))


def test_a_size_that_is_no_multiple_of_4_is_padded_at_the_end():
    """The image starts as that of the mosaic whose reflected rows and columns are there already."""
    network, mosaic = LAN(), 1023 * torch.rand(1, 1, 14, 18)
    whole = torch.nn.functional.pad(mosaic, (0, 2, 0, 2), mode="reflect")
    with torch.no_grad():
        output = network(mosaic)
        assert output.shape == (1, 3, 14, 18)
        torch.testing.assert_close(output, network(whole)[..., :14, :18])


def test_gradients_reach_every_parameter():
    network = LAN().double()
    network(1023 * torch.rand(2, 1, 16, 16, dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_initial_weights_are_those_of_the_published_code():
    """A normal distribution of 0.01, cut at two standard deviations; biases of 0.01."""
    for key, value in LAN().named_parameters():
        if key.endswith("bias"):
            assert (value == 0.01).all()
        elif value.numel() > 1000:  # the standard deviation of the cut distribution is 0.88 of the whole one's
            assert value.abs().max() <= 0.02 and value.std().item() == pytest.approx(0.0088, rel=0.1)
