"""MicroISP: outputs of the published graph, branches that do not mix, its least size, and gradients."""

import pytest
import torch

from data.inputs import prepare
from data.sensor import SENSORS
from models import MODELS
from models.microisp import MicroISP
from pretrained.tensorflow_weights import microisp_state
from tests.models.baselines import golden, parameters, tensor

LEAST = MODELS["microisp"].minimum // 2  # of packed sides


def seeded(seed: int = 0) -> MicroISP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MicroISP()


def test_parameter_count():
    assert parameters(MicroISP()) == 13_560


@pytest.mark.parametrize(
    ("weights", "inputs", "output"),
    (("weights", "input", "output"), ("weights", "input_2", "output_2"), ("random", "input_2", "output_2_random")),
)
def test_output_of_the_published_graph(weights, inputs, output):
    """With the released weights, of which one attention is dead, and with random ones."""
    values, network = golden("microisp"), MicroISP()
    prefix = f"{weights}/"
    variables = {key.removeprefix(prefix): values[key] for key in values.files if key.startswith(prefix)}
    network.load_state_dict(microisp_state(variables))
    with torch.no_grad():
        found = network.double()(tensor(values[inputs]))
    torch.testing.assert_close(found, tensor(values[output]), atol=1e-5, rtol=0)


def test_input_is_the_published_one():
    values = golden("microisp")
    mosaic = tensor(values["mosaic_2"].astype("float64"))[:, None] / 1023
    inputs = prepare(mosaic, SENSORS["fujifilm"], MODELS["microisp"].input_format)
    torch.testing.assert_close(inputs, tensor(values["input_2"]))


def test_the_least_size_is_exact():
    network = seeded()
    with torch.no_grad():
        assert network(torch.rand(1, 4, LEAST, LEAST + 1)).shape == (1, 3, 2 * LEAST, 2 * LEAST + 2)
        with pytest.raises(RuntimeError):
            network(torch.rand(1, 4, LEAST - 1, LEAST))


def test_branches_share_no_weight():
    """A colour depends on a third of each layer: on its own group of filters."""
    network = seeded()
    network(torch.rand(1, 4, LEAST, LEAST))[:, 1].sum().backward()
    for key, parameter in network.named_parameters():
        red, green, blue = parameter.grad.chunk(3)
        assert not red.any() and not blue.any(), key


def test_gradients_reach_every_parameter():
    reached = set()
    for seed in range(2):
        network = seeded(seed)
        network(torch.rand(1, 4, LEAST, LEAST)).square().sum().backward()
        reached |= {key for key, parameter in network.named_parameters() if parameter.grad.any()}
    assert reached == {key for key, _ in network.named_parameters()}
