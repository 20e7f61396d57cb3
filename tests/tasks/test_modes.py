"""The modes: which terms and critics each trains with, and that a step never waits for the device."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from data.reference import Reference
from data.sensor import SENSORS, prepare
from errors import UserError
from tasks.features import Networks
from tasks.modes import CRITICS, MODES, PRETRAIN, Mode, build_pretrainer, find_mode
from training.steps import Batch, Trainer

CPU = torch.device("cpu")
CHEAP = {"content": 0.0, "lpips": 0.0, "dists": 0.0}  # weights of terms that need large networks

# --- the table of modes ----------------------------------------------------------------------------------------------


def comparisons(trainer: Trainer) -> dict[str, tuple[str, str | None]]:
    """Name of each term -> its feature, and what it is compared with."""
    return {term.name: (term.feature, term.against) for term in trainer.terms}


PAIRED_TERMS = {
    "content": ("vgg_rgb", "target"),
    "lpips": ("image", "target"),
    "dists": ("image", "target"),
    "tv": ("image", None),
    "color": ("image", "target"),
}


@pytest.mark.parametrize(
    ("mode", "terms", "critics"),
    (
        (
            "unpaired",
            {"content": ("vgg_luminance", "reference"), "tv": ("image", None)},
            {"color": "tokens", "lin0": "lin0", "lin3": "lin3"},
        ),  # Eq. 11
        ("paired", PAIRED_TERMS, {}),  # Eq. 10 without adversarial losses
        ("paired_gan", PAIRED_TERMS, {"lin0": "lin0", "lin3": "lin3"}),  # Eq. 10
    ),
)
def test_each_mode_trains_with_its_terms_and_critics(make_config, make_trainer, mode, terms, critics):
    trainer = make_trainer(make_config(mode=mode))
    assert comparisons(trainer) == terms
    assert {adversary.name: adversary.feature for adversary in trainer.adversaries} == critics
    assert find_mode(mode).needs_pairs == (mode != "unpaired")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_pretrains_on_demosaicing(make_config, mode):
    """Eq. 12."""
    config = make_config(mode=mode)
    trainer = build_pretrainer(config, torch.nn.Conv2d(4, 3, 1), Networks(config, CPU))
    expected = {"content": ("vgg_rgb", "reference"), "mse": ("image", "reference"), "tv": ("image", None)}
    assert comparisons(trainer) == expected and not trainer.adversaries


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="unknown mode 'both'; known are: unpaired, paired, paired_gan"):
        find_mode("both")


# --- how the config changes them -------------------------------------------------------------------------------------


def test_weights_are_those_of_the_config(make_config, make_trainer):
    trainer = make_trainer(make_config(content=0.0, tv=0.5, adv_color=0.0, adv_lin0=2.0, adv_lin3=3.0))
    weights = {objective.name: objective.weight for objective in trainer.objectives}
    assert weights == {"tv": 0.5, "lin0": 2.0, "lin3": 3.0}  # a weight of 0 removes a term or critic


def test_a_mode_without_any_weight_is_refused(make_config, make_trainer):
    with pytest.raises(UserError, match="mode 'paired' has no term left: all its weights are 0"):
        make_trainer(make_config(mode="paired", tv=0.0, color=0.0, **CHEAP))


def test_critics_can_see_images_instead_of_features(make_config, make_trainer):
    trainer = make_trainer(make_config(color_critic="image", texture_critics="image", adv_lin0=2.0, content=0.0))
    critics = {a.name: (a.feature, a.weight) for a in trainer.adversaries}
    assert critics == {"color": ("blurred", 1.0), "grey": ("grey", 2.0)}


def test_the_kind_of_a_critic_follows_from_its_feature():
    for critic in filter(None, CRITICS.values()):
        shape = (16, 8) if critic.feature == "tokens" else (4, 9, 9)
        assert critic.build(torch.Size((1, *shape)), True)(torch.rand(2, *shape)).shape == (2,)


@pytest.mark.parametrize(("as_released", "gamma"), ((False, 10.0), (True, 1000.0)))
def test_the_released_code_s_penalty_and_untrained_layer(make_config, make_trainer, as_released, gamma):
    trainer = make_trainer(replace(make_config(content=0.0), as_released=as_released))
    assert trainer.adversarial.gamma == gamma
    texture = [a.critic for a in trainer.adversaries if a.name != "color"]
    assert [critic.fc1.weight.requires_grad for critic in texture] == [not as_released] * 2


def test_a_cosine_schedule_ends_at_one_percent_of_both_rates(make_config, make_trainer):
    options = {"mode": "paired_gan", "adv_lin3": 0.0, "schedule": "cosine", "critic_every": 2} | CHEAP
    config = make_config(**options)
    trainer = make_trainer(replace(config, train=replace(config.train, steps=4)))
    for schedule, steps in ((trainer.schedule, 4), (trainer.critic_schedule, 2)):
        for _ in range(steps):
            schedule.optimizer.step()
            schedule.step()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * config.train.lr)
    assert trainer.critic_optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * config.train.critic_lr)


# --- speed -----------------------------------------------------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Raises an error where the host would wait for a GPU: to fetch a number from it, or send a constant to it."""

    FORBIDDEN = ("aten._local_scalar_dense", "aten.lift_fresh", "aten.nonzero", "aten.is_nonzero", "aten.equal")

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = str(function.overloadpacket)
        if name in self.FORBIDDEN:
            raise AssertionError(f"{name} in a step")
        return function(*arguments, **options or {})


def test_a_step_never_waits_for_the_device(make_config, make_trainer):
    """Frozen networks, the reference, the critics' update, schedules; torch's average counts its steps on the host."""
    trainer = make_trainer(make_config(critic_every=1, schedule="cosine", blur_color=True))
    sensor, mosaic, target = SENSORS["fujifilm"], torch.rand(2, 1, 64, 64), torch.rand(2, 3, 64, 64)
    span = Reference(sensor).span(mosaic)

    def step(number: int) -> dict:
        inputs = prepare(mosaic, sensor, "packed")
        return trainer.step(Batch(inputs, Reference(sensor)(mosaic, span), target), number)

    step(1)  # what is made once may come from the host
    with NoWaiting():
        statistics = step(2)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        statistics["loss/tv"].item()
    with pytest.raises(AssertionError, match="lift_fresh"), NoWaiting():
        target.new_tensor([1.0])


def test_stages_of_one_name_are_refused():
    with pytest.raises(ValueError, match="different names"):
        Mode((PRETRAIN, PRETRAIN))
