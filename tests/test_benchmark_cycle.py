"""benchmarks/cycle_step.py compares steps with the same result."""

import json

import pytest
import torch

from config import PRESETS
from models import build_mapper
from tasks.raw_to_raw import build_trainer
from training.cycle import CameraBatch
from training.distributed import ALONE

from .benchmark_runs import run_main


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    mapper = build_mapper("mapper-plain")
    for head in mapper.heads.values():  # not the identity, at which half of the gradients are zero
        torch.nn.init.normal_(head[-1].weight, 0, 0.02)
    return build_trainer(PRESETS["raw2raw"], mapper, ALONE)


def gradients(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def test_the_plain_step_has_the_same_gradients(load, trainer):
    a, b = torch.rand(2, 2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = load("cycle_step").Plain(trainer)
    plain.step(a, b)
    trainer.step(CameraBatch(a, b), 1)
    ours, theirs = [trainer.mapper, *trainer.critics.values()], [plain.mapper, *plain.critics.values()]
    for one, other in zip(ours, theirs, strict=True):
        expected = gradients(other)
        assert expected.norm() > 0 and (gradients(one) - expected).norm() < 1e-4 * expected.norm()


def test_the_floor_has_each_convolution_and_product_of_a_step(load, trainer):
    a, b = torch.rand(2, 2, 4, 32, 32)
    floor = load("cycle_step").Floor(trainer, a, b)
    layers = [m for m in trainer.mapper.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    heads = 2 * 2  # linear layers of a head, for each direction
    shared = len(layers) - heads
    # Two passes through the encoder; of the heads, six; the critics see real and mapped patches.
    critics = sum(isinstance(m, torch.nn.Conv2d) for m in trainer.critics["a"].modules())
    assert len(floor.calls) == 2 * shared + 6 * 2 + 2 * 2 * critics
    floor.step()


def test_the_steps_are_timed(load, monkeypatch, tmp_path, capsys):
    options = ("--model", "mapper-plain", "--side", 32, "--batch", 2, "--repeats", 1, "--device", "cpu")
    run_main(load, monkeypatch, "cycle_step", *options, "--json", tmp_path / "out")
    figures = json.loads((tmp_path / "out").read_text())
    assert set(figures["seconds"]) == {"ours", "plain", "floor"} and figures["ratio_plain"]["median"] > 0
    assert "this repository" in capsys.readouterr().out
