"""SYENet: published outputs of both forms, and folding one into the other."""

import copy

import numpy as np
import pytest
import torch

from models import MODELS
from models.syenet import BRANCHES, Branches, SYENet, fold

from .baselines import golden, parameters, tensor


def weights(values: np.lib.npyio.NpzFile, form: str) -> dict[str, torch.Tensor]:
    prefix = f"{form}/"
    return {key.removeprefix(prefix): torch.from_numpy(values[key]) for key in values.files if key.startswith(prefix)}


@pytest.fixture(scope="module")
def trained() -> SYENet:
    """In float64 and eval mode, after steps that have moved all weights and statistics."""
    torch.manual_seed(0)
    network = SYENet().double().train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        image, packed = network.warm_up(torch.rand(2, 4, 4, 4, dtype=torch.float64))
        (image.square().mean() + packed.square().mean() + network(packed.detach()).abs().mean()).backward()
        optimizer.step()
    return network.eval()


def test_published_parameter_counts():
    assert (parameters(SYENet()), parameters(SYENet(folded=True))) == (108_715, 5_640)


@pytest.mark.parametrize("form", ("training", "folded"))
def test_published_outputs(form):
    values, network = golden("syenet"), SYENet(folded=form == "folded").double().eval()
    network.load_state_dict(weights(values, form))
    with torch.no_grad():
        for number in ("", "_2"):
            inputs = tensor(values[f"input{number}"])
            expected = tensor(values[f"output{number}_folded" if form == "folded" else f"output{number}"])
            torch.testing.assert_close(network(inputs), expected, rtol=0, atol=1e-6)
            if form == "training":
                image, packed = network.warm_up(inputs)
                torch.testing.assert_close(image, tensor(values[f"output{number}_warm"]), rtol=0, atol=1e-6)
                torch.testing.assert_close(packed, tensor(values[f"output{number}_warm_packed"]), rtol=0, atol=1e-6)


def test_folding_gives_the_published_folded_weights():
    values, network = golden("syenet"), SYENet()
    network.load_state_dict(weights(values, "training"))
    folded, expected = fold(network.double()).state_dict(), weights(values, "folded")
    assert folded.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(folded[key], value.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", BRANCHES)
@pytest.mark.parametrize("size", ((1, 1), (2, 3), (7, 6)))
def test_a_folded_convolution_is_exact_up_to_the_borders(kernel, size):
    torch.manual_seed(0)
    branches = Branches(3, 2, kernel).double()
    for _ in range(3):  # statistics other than 0 and 1
        branches(1 + 2 * torch.rand(4, 3, 6, 6, dtype=torch.float64))
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    assert not torch.allclose(branches(x), branches.folded()(x))  # of the batch
    torch.testing.assert_close(branches.eval()(x), branches.folded()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", ((2, 2), (10, 14)))
def test_the_folded_network_computes_the_same_in_eval_mode(trained, size):
    network = trained
    before, packed = copy.deepcopy(network.state_dict()), torch.rand(2, 4, *size, dtype=torch.float64)
    folded = fold(network)
    assert parameters(folded) == 5_640 and not folded.training and folded.head.bias.dtype == torch.float64
    with torch.no_grad():
        torch.testing.assert_close(folded(packed), network(packed), rtol=1e-11, atol=1e-12)
    folded.head.bias.data += 1
    folded.att[2].weight.data += 1
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), f"folding has changed {key}"


def test_the_image_needs_all_parameters_but_those_of_the_warm_up():
    network = SYENet()
    network(torch.rand(2, 4, 6, 6)).square().mean().backward()
    without = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {"tail_warm"}
    assert all(p.grad.any() for n, p in network.named_parameters() if p.grad is not None and not n.endswith("0.bias"))
    network.warm_up(torch.rand(2, 4, 6, 6))[1].square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.tail_warm.parameters())


def test_both_rows_take_mosaics_as_published():
    trained_form, folded = MODELS["syenet"], MODELS["syenet-folded"]
    assert trained_form.input_format == folded.input_format == "rggb_4095"
    assert trained_form.for_use is fold and folded.for_use is None
