"""Training a generator with batch normalisation, and with parameters that only another stage trains."""

import copy

import pytest
import torch
from torch import nn

from errors import UserError
from losses.balance import parameter_gradients
from models.batch_norms import BatchNorm
from training.steps import Trainer
from training.validation import in_use

from .made_up_task import make_run, make_task
from .small_trainer import MSE, TV, make_batch


class Generator(nn.Module):
    """(N, 3, H, W) -> the same shape; `other` is an output that `forward` leaves out."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), BatchNorm(4)
        self.last, self.other = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)).tanh())


def make_trainer(seed: int = 0, **options) -> Trainer:
    torch.manual_seed(seed)
    generator = Generator().double()
    return Trainer(generator, torch.optim.Adam(generator.parameters(), 1e-2), (), (TV, MSE), **options)


def test_losses_are_carried_back_together_or_one_after_the_other():
    torch.manual_seed(0)
    generator, x, rows = Generator().double(), torch.rand(2, 3, 6, 6, dtype=torch.float64), []
    gradients, parameters = torch.rand(2, 2, 3, 6, 6, dtype=torch.float64).unbind(), list(generator.parameters())
    for batched in (True, False):
        rows.append(parameter_gradients(generator(x), gradients, parameters, batched))
    torch.testing.assert_close(*rows)
    unused = sum(parameter.numel() for parameter in generator.other.parameters())
    assert not rows[0][:, -unused:].any() and rows[0][:, :-unused].any()
    expected = torch.autograd.grad(generator(x), generator.first.weight, gradients[1])[0]
    torch.testing.assert_close(rows[0][1, : expected.numel()], expected.flatten())


def test_a_step_trains_all_but_the_other_output_and_counts_once():
    trainer = make_trainer()
    before = copy.deepcopy(trainer.generator.state_dict())
    for number in (1, 2):
        trainer.step(make_batch(number), number)
    assert trainer.generator.norm.num_batches_tracked == 2
    for key, value in trainer.generator.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("other"), key


def test_the_moving_average_is_also_that_of_the_statistics():
    trainer, expected = make_trainer(ema_decay=0.8), None
    for number in range(1, 4):
        trainer.step(make_batch(number), number)
        now = trainer.generator.norm.running_var.clone()
        expected = now if expected is None else 0.8 * expected + 0.2 * now
    torch.testing.assert_close(trainer.result.norm.running_var, expected)
    assert trainer.result.norm.num_batches_tracked == 3


def test_a_state_continues_with_the_same_statistics():
    first, resumed = make_trainer(ema_decay=0.9), make_trainer(seed=1, ema_decay=0.9)
    first.step(make_batch(1), 1)
    resumed.load_state(copy.deepcopy(first.state()))
    for trainer in (first, resumed):
        trainer.step(make_batch(2), 2)
    for one, other in ((first.generator, resumed.generator), (first.result, resumed.result)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


def test_statistics_that_are_not_finite_are_noticed():
    trainer = make_trainer()
    assert trainer.finite()
    trainer.generator.norm.running_var[0] = torch.inf
    assert not trainer.finite()


def test_a_network_in_use_is_left_in_the_mode_that_it_was_in():
    network = Generator().train()
    with pytest.raises(ValueError, match="in between"), in_use(network):
        assert not (network.training or network.norm.training)
        raise ValueError("in between")
    assert network.training and network.norm.training
    with in_use(network.eval()):
        pass
    assert not network.training


def test_validation_teaches_nothing(tmp_path):
    """Its scores, samples and signs of health are computed in evaluation mode, and training goes on in its own."""
    modes = {"score": [], "sample": [], "health": []}
    task = make_task(first=0)

    def seen(what, value):
        return lambda generator: (modes[what].append(generator.training), value(generator))[1]

    validation = task.validation
    for name, what in (("render", "score"), ("samples", "sample")):
        object.__setattr__(validation, name, seen(what, getattr(validation, name)))
    object.__setattr__(validation, "health", seen("health", validation.health))
    run = make_run(tmp_path, task)
    run.train()
    assert task.generator.training and len(modes["score"]) > 1
    assert not any(mode for each in modes.values() for mode in each) and all(modes.values())


def test_a_batch_of_one_value_is_refused_in_training_only():
    norm = BatchNorm(3)
    with pytest.raises(UserError, match="single image: raise --data.batch"):
        norm(torch.rand(1, 3, 1, 1))
    norm.eval()(torch.rand(1, 3, 1, 1))
