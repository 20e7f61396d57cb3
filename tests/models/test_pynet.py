"""PyNET: published outputs of all levels, what each level needs, sizes, files of nn.DataParallel."""

import pytest
import torch
from torch import nn

from errors import UserError
from models import MODELS
from models.pynet import PyNET
from pretrained.zoo import open_checkpoint

from .baselines import golden, parameters, recipe_state, tensor
from .levels import check_parts


def on_meta() -> PyNET:
    """A network without values: shapes alone."""
    with torch.device("meta"):
        return PyNET()


def test_published_parameter_count():
    assert parameters(on_meta()) == 47_554_738


def test_published_outputs_of_all_levels():
    """In float64: normalised maps of 2x2 pixels magnify rounding."""
    values, network = golden("pynet"), on_meta()
    state = recipe_state(values)
    assert network.state_dict().keys() == state.keys()
    network = network.to_empty(device="cpu").double()
    network.load_state_dict(state)
    inputs, features = tensor(values["input"]), {}
    for level, last in ((2, network.conv_l2_d12), (1, network.conv_l1_d14)):  # seen on the way to level 0, to save time
        last.register_forward_hook(lambda _, __, output, level=level: features.update({level: output}))
    with torch.no_grad():
        images = {level: network.at_level(inputs, level) for level in (5, 4, 3, 0)}
        images |= {2: network.conv_l2_out(features[2]).sigmoid(), 1: network.conv_l1_out(features[1]).sigmoid()}
    for level, image in images.items():
        expected = tensor(values[f"output_level{level}" if level else "output"])
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)


def parts_of(network: PyNET, level: int) -> list[nn.Module]:
    """The modules that a level adds to those of the coarser ones."""
    parts = dict(network.named_children())
    if level == 0:
        return [parts["conv_t0"], parts["conv_l0_d1"]]
    encoders = [f"conv_l{each}_d1" for each in range(1, 5)]
    names = [name for name in parts if name.startswith(f"conv_l{level}_") and name not in encoders]
    names += [f"conv_t{level}a", f"conv_t{level}b"] if level < 5 else encoders
    return [parts[name] for name in names]


def test_the_parts_of_the_levels():
    check_parts(PyNET, parts_of, sides=(64, 96), first=0)


def test_sides_of_any_even_length_from_the_least():
    network, packed = on_meta(), torch.empty(1, 4, 17, 35, device="meta")
    for level in (5, 2):
        assert network.at_level(packed, level).shape == (1, 3, 34 >> level, 70 >> level)
    assert network(packed).shape == (1, 3, 34, 70) and MODELS["pynet"].minimum == 34
    with pytest.raises((RuntimeError, ValueError)):
        network(torch.empty(1, 4, 16, 17, device="meta"))


def test_the_coarsest_level_computes_from_the_least_sides():
    torch.manual_seed(0)
    with torch.no_grad():
        image = PyNET().at_level(torch.rand(1, 4, 17, 17), 5)
    assert image.shape == (1, 3, 1, 1) and image.min() > 0 and image.max() < 1


def test_a_released_file_has_keys_of_nn_dataparallel(tmp_path):
    """Its weights, here of 8 bits to save time, are refused only after its keys and shapes have been recognised."""
    state = {
        f"module.{key}": torch.zeros(value.shape, dtype=torch.uint8) for key, value in on_meta().state_dict().items()
    }
    torch.save(state, tmp_path / "pynet_level_0.pth")
    with pytest.raises(UserError, match=r"cannot be used: conv_l1_d1\.conv_3a\.conv2d\.weight"):
        open_checkpoint(str(tmp_path / "pynet_level_0.pth"))
