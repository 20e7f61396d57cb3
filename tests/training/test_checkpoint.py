"""The file of a generator: its weights, and the description by which it can be used."""

import torch
from torch import nn

import storage
from training.checkpoint import FORMAT, save_generator


def test_a_generator_is_saved_with_its_step_and_description(tmp_path):
    network = nn.Linear(2, 3)
    save_generator(tmp_path / "a.pt", network, 10, {"model": "efficient"})
    content = storage.load(tmp_path / "a.pt")
    assert content["format"] == FORMAT and content["model"] == "efficient" and content["step"] == 10
    nn.Linear(2, 3).load_state_dict(content["generator"])
    assert torch.equal(content["generator"]["weight"], network.weight)
    assert content.keys() == {"format", "model", "step", "generator"}
