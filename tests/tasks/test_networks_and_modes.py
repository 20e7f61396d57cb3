"""Every light network trains in every mode of the paper's task."""

import math
from dataclasses import replace

import pytest
import torch

from data.inputs import prepare
from data.reference import Reference
from data.sensor import SENSORS
from models import MODELS, build_model, model_spec
from tasks.modes import MODES
from training.steps import Batch

LIGHT = 40_000  # parameters
LARGER = {"lan", "syenet"}  # that are tested all the same
SENSOR = SENSORS["fujifilm"]
# One small critic each, and no other frozen network: the pixels' terms.
CHEAP = {"content": 0.0, "lpips": 0.0, "dists": 0.0, "mse": 1.0, "texture_critics": ("grey",)}
CRITIC = {"unpaired": {"adv_grey": 0.0}}  # the colour critic
# The synthetic modes have the trainers of the paired ones: of equal stages, one mode is enough.
DISTINCT = list({repr(mode.stages): name for name, mode in reversed(MODES.items())}.values())


def count(name: str) -> int:
    """The parameters of a network, of which none is made."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(name).parameters())


NETWORKS = [name for name in MODELS if name in LARGER or count(name) <= LIGHT]


@pytest.mark.parametrize("mode", DISTINCT)
@pytest.mark.parametrize("name", NETWORKS)
def test_two_steps_change_every_network_and_keep_it_finite(name, mode, make_config, make_trainer):
    spec, base = model_spec(name), make_config(mode=mode, critic_every=2, **CHEAP | CRITIC.get(mode, {}))
    side = max(64, spec.minimum)
    trainer = make_trainer(replace(base, model=name, data=replace(base.data, patch=side, batch=2)))
    before = {key: value.clone() for key, value in trainer.generator.state_dict().items()}
    mosaic, target = torch.rand(2, 1, side, side), torch.rand(2, 3, side, side)
    batch = Batch(prepare(mosaic, SENSOR, spec.input_format), Reference(SENSOR)(mosaic), target)
    for number in (1, 2):
        statistics = trainer.step(batch, number)
    norms = [float(value) for key, value in statistics.items() if key.startswith("norm/")]
    assert len(norms) >= 2 and all(math.isfinite(norm) and norm > 0 for norm in norms)
    assert trainer.finite()
    after = trainer.generator.state_dict()
    assert sum(not torch.equal(before[key], after[key]) for key in before) > len(before) / 2
