"""What a trainer carries from step to step: moving average, schedules, state; and its check for finite weights."""

import copy

import pytest
import torch

from training.steps import Trainer

from ..fit_runs import same
from .small_trainer import MSE, TV, RecordingView, flat, make_batch, make_trainer


def make_full_trainer(seed: int) -> Trainer:
    """A trainer with everything that a state can hold."""
    view = RecordingView("low", "high").view
    options = {"optimizer": torch.optim.Adam, "lr": 1e-2, "every": (2,), "ema_decay": 0.9, "untrained": "line"}
    trainer = make_trainer((TV, MSE), ("low", "high"), (view,), seed=seed, **options)
    optimizers = trainer.optimizer, trainer.critic_optimizer
    schedules = (torch.optim.lr_scheduler.CosineAnnealingLR(o, 10) for o in optimizers)
    trainer.schedule, trainer.critic_schedule = schedules
    return trainer


# --- the moving average ----------------------------------------------------------------------------------------------


def test_the_average_follows_its_recursion():
    trainer, expected = make_trainer((TV, MSE), lr=0.05, ema_decay=0.8), None
    for number in range(1, 5):
        trainer.step(make_batch(number), number)
        now = flat(trainer.generator)
        expected = now if expected is None else 0.8 * expected + 0.2 * now
    torch.testing.assert_close(flat(trainer.result), expected)
    assert not torch.equal(flat(trainer.result), now)


def test_the_result_is_the_generator_before_the_first_step_and_then_the_average():
    trainer = make_trainer((TV,), ema_decay=0.8)
    assert trainer.result is trainer.generator
    trainer.step(make_batch(), 1)
    assert trainer.result is trainer.ema.module and trainer.result is not trainer.generator


def test_without_an_average_the_result_is_the_generator():
    trainer = make_trainer((TV,))
    trainer.step(make_batch(), 1)
    assert trainer.ema is None and trainer.result is trainer.generator


# --- schedules -------------------------------------------------------------------------------------------------------


def test_the_schedules_advance_with_each_step():
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,))
    optimizers = trainer.optimizer, trainer.critic_optimizer
    trainer.schedule, trainer.critic_schedule = (torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in optimizers)
    for number in range(1, 4):
        trainer.step(make_batch(), number)
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.125, 0.125]


def test_the_rates_are_those_of_the_next_step():
    trainer = make_full_trainer(0)
    assert trainer.rates == pytest.approx({"lr/generator": 1e-2, "lr/adv_low": 1e-2, "lr/adv_high": 1e-2})
    trainer.schedule.base_lrs = [0.5]
    trainer.step(make_batch(), 1)
    assert trainer.rates["lr/generator"] == trainer.optimizer.param_groups[0]["lr"] != 1e-2
    assert make_trainer((TV,), lr=0.25).rates == {"lr/generator": 0.25}


@pytest.mark.filterwarnings("error")
def test_a_step_without_an_update_of_the_critics_gives_no_warning():
    """PyTorch warns if a schedule advances before its optimizer's first step; they are updated every 2 steps."""
    make_full_trainer(0).step(make_batch(), 1)


# --- saving and loading ----------------------------------------------------------------------------------------------


def test_training_continues_from_a_state_as_without_interruption():
    trainer, resumed = make_full_trainer(seed=0), make_full_trainer(seed=1)
    for number in range(1, 4):
        trainer.step(make_batch(number), number)
    resumed.load_state(copy.deepcopy(trainer.state()))
    assert same(resumed.state(), trainer.state())
    for number in range(4, 8):
        assert same(trainer.step(make_batch(number), number), resumed.step(make_batch(number), number))
    assert same(resumed.state(), trainer.state())
    assert torch.equal(flat(resumed.result), flat(trainer.result))


def test_a_state_names_every_part_that_changes():
    names = {"generator", "optimizer", "critic_optimizer", "critic/adv_low", "critic/adv_high", "schedule"}
    names |= {"unzeroed/adv_low", "unzeroed/adv_high"}
    assert make_full_trainer(0).state().keys() == names | {"critic_schedule", "ema"}


def test_the_state_of_another_trainer_is_refused():
    with pytest.raises(KeyError):
        make_full_trainer(0).load_state(make_trainer((TV,)).state())


# --- finite weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ("generator", "critic", "average"))
def test_a_weight_that_is_nan_is_noticed(part):
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,), ema_decay=0.8)
    trainer.step(make_batch(), 1)
    assert trainer.finite()
    networks = {"generator": trainer.generator, "critic": trainer.adversaries[0].critic, "average": trainer.result}
    with torch.no_grad():
        next(networks[part].parameters()).view(-1)[0] = float("nan")
    assert not trainer.finite()
