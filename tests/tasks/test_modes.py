"""The modes: which terms and critics each trains with, and that a step never waits for the device."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from config import Config, Released
from data.inputs import prepare
from data.reference import Reference
from data.sensor import SENSORS
from errors import UserError
from tasks.features import Networks
from tasks.modes import CRITICS, MODES, PRETRAIN, Mode, build_pretrainer, chosen_critics, find_mode
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
            {"color": "vit_tokens", "lin0": "lin0", "lin3": "lin3"},
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
    config = make_config(color_critic="image", texture_critics=("grey",), adv_grey=2.0, content=0.0)
    trainer = make_trainer(replace(config, data=replace(config.data, patch=76)))
    critics = {a.name: (a.feature, a.weight) for a in trainer.adversaries}
    assert critics == {"color": ("blurred", 1.0), "grey": ("grey", 2.0)}
    assert [a.critic.features[0].in_channels for a in trainer.adversaries] == [3, 1]


def test_the_critic_of_blurred_images_needs_larger_patches(make_config, make_trainer):
    with pytest.raises(UserError, match="cannot see 64x64 pixels: raise --data.patch"):
        make_trainer(make_config(color_critic="image", content=0.0))


@pytest.mark.parametrize(
    ("names", "channels"),
    (
        (("lin0",), [64]),
        (("lin1",), [192]),
        (("lin2",), [384]),
        (("lin3",), [256]),
        (("lin4",), [256]),
        (("lin4", "lin1", "grey"), [256, 192, 1]),
        ((), []),
    ),
)
def test_texture_critics_are_of_the_chosen_layers(make_config, make_trainer, names, channels):
    """Table 4."""
    trainer = make_trainer(make_config(texture_critics=names, content=0.0, adv_color=0.0))
    assert [a.name for a in trainer.adversaries] == list(names)
    assert [a.critic.features[0].in_channels for a in trainer.adversaries] == channels


@pytest.mark.parametrize("network", ("vgg", "alexnet"))
def test_the_colour_critic_can_see_another_network_s_features(make_config, make_trainer, network, batch):
    trainer = make_trainer(make_config(color_critic=network, texture_critics=(), content=0.0, critic_every=1))
    (adversary,) = trainer.adversaries
    assert (adversary.name, adversary.feature) == ("color", f"{network}_tokens")
    assert adversary.critic.mlp[0].in_features == {"vgg": 512, "alexnet": 256}[network]
    assert "critic/color/loss" in trainer.step(batch, 1)


@pytest.mark.parametrize(
    ("kind", "options"), (("texture", {"texture_critics": ("lin5",)}), ("color", {"color_critic": "resnet"}))
)
def test_an_unknown_critic_is_refused(make_config, kind, options):
    with pytest.raises(UserError, match=f"unknown {kind} critic '.*'; known are: {', '.join(CRITICS[kind])}"):
        chosen_critics(make_config(**options).train)


def test_the_kind_of_a_critic_follows_from_its_feature():
    for critic in (critic for kind in CRITICS.values() for critic in kind.values()):
        shape = (16, 8) if critic.feature.endswith("tokens") else (3, 80, 80)
        assert critic.build(torch.Size((1, *shape)))(torch.rand(2, *shape)).shape == (2,)


def test_critics_can_have_rates_and_steps_of_their_own(make_config, make_trainer):
    options = {"lr_of": {"color": 2e-5, "lin3": 3e-5}, "every_of": {"lin0": 4}, "content": 0.0}
    trainer = make_trainer(make_config(**options))
    assert [group["lr"] for group in trainer.critic_optimizer.param_groups] == [2e-5, 1e-5, 3e-5]
    assert [adversary.every for adversary in trainer.adversaries] == [10, 4, 10]


@pytest.mark.parametrize("option", ("lr_of", "every_of"))
def test_a_rate_of_no_critic_is_refused(make_config, option):
    with pytest.raises(UserError, match=f"train.{option} names 'lin1'; the critics here are: color, lin0, lin3"):
        chosen_critics(make_config(**{option: {"lin1": 1}}).train)


def test_generator_and_critics_have_their_own_momentum(make_config, make_trainer):
    """Table 3."""
    trainer = make_trainer(make_config(beta1=0.0, critic_beta1=0.3, content=0.0))
    betas = [optimizer.param_groups[0]["betas"] for optimizer in (trainer.optimizer, trainer.critic_optimizer)]
    assert betas == [(0.0, 0.9), (0.3, 0.9)]


def test_a_cosine_schedule_of_critics_with_their_own_steps_ends_with_the_run(make_config, make_trainer):
    options = {"schedule": "cosine", "every_of": {"lin0": 4, "lin3": 6, "color": 3}, "content": 0.0}
    config = make_config(**options)
    trainer = make_trainer(replace(config, train=replace(config.train, steps=25)))
    for _ in {step for step in range(1, 26) for every in (4, 6, 3) if step % every == 0}:
        assert trainer.critic_optimizer.param_groups[0]["lr"] > 0.01 * config.train.critic_lr
        trainer.critic_optimizer.step()
        trainer.critic_schedule.step()
    rates = [group["lr"] for group in trainer.critic_optimizer.param_groups]
    assert rates == pytest.approx([0.01 * config.train.critic_lr] * 3)


# --- the released code's ways ----------------------------------------------------------------------------------------


def with_switch(config: Config, name: str) -> Config:
    """The config with one switch of `released`, or with all of them for "all"."""
    return replace(config, as_released=True) if name == "all" else replace(config, released=Released(**{name: True}))


@pytest.mark.parametrize(("switch", "gamma"), (("chunks", 10.0), ("penalty_times_100", 1000.0), ("all", 1000.0)))
def test_the_released_code_s_penalty(make_config, make_trainer, switch, gamma):
    assert make_trainer(with_switch(make_config(content=0.0), switch)).adversarial.gamma == gamma


@pytest.mark.parametrize("switch", ("untrained_fc1", "all"))
def test_the_released_code_s_untrained_layer(make_config, make_trainer, switch, batch):
    trainer = make_trainer(with_switch(make_config(content=0.0, critic_every=1), switch))
    critics = {adversary.name: adversary.critic for adversary in trainer.adversaries}
    before = {name: copy.deepcopy(critic.state_dict()) for name, critic in critics.items()}
    for number in (1, 2):
        trainer.step(batch, number)
    for name, critic in critics.items():
        weights = {key: value for key, value in critic.state_dict().items() if key.endswith("weight")}
        unchanged = {key for key, value in weights.items() if torch.equal(value, before[name][key])}
        assert unchanged == (set() if name == "color" else {"fc1.weight"})


@pytest.mark.parametrize(("switch", "scaled"), (("chunks", True), ("unscaled_alexnet", False), ("all", False)))
def test_the_released_code_s_input_of_alexnet(make_config, switch, scaled):
    alexnet = Networks(with_switch(make_config(), switch), CPU)("alexnet")
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(alexnet.normalise(image), image) != scaled


@pytest.mark.parametrize("switch", ("luminance_content", "all"))
def test_the_released_code_s_paired_content_is_of_luminance(make_config, make_trainer, switch):
    config = with_switch(make_config(mode="paired", lpips=0.0, dists=0.0), switch)
    assert comparisons(make_trainer(config))["content"] == ("vgg_luminance", "target")
    pretrainer = build_pretrainer(config, torch.nn.Conv2d(4, 3, 1), Networks(config, CPU))
    assert comparisons(pretrainer)["content"] == ("vgg_rgb", "reference")


@pytest.mark.parametrize(("switch", "swapped"), (("chunks", False), ("swapped_lpips", True), ("all", True)))
def test_the_released_code_s_order_of_lpips_plus(make_config, make_trainer, switch, swapped):
    trainer = make_trainer(with_switch(make_config(mode="paired", content=0.0), switch))
    losses = {term.name: term.loss for term in trainer.terms}
    assert losses["lpips"].swapped == swapped and not losses["dists"].swapped
    image, target = torch.rand(2, 1, 3, 64, 64)
    measure = losses["lpips"].measure
    expected = measure(target, image) if swapped else measure(image, target)
    assert torch.equal(losses["lpips"](image, target), expected.mean())
    assert not torch.equal(measure(target, image), measure(image, target))


@pytest.mark.parametrize("switch", ("target_gradients", "all"))
def test_the_released_code_s_gradients_of_targets(make_config, make_trainer, switch):
    assert make_trainer(with_switch(make_config(content=0.0), switch)).target_gradients
    assert not make_trainer(make_config(content=0.0)).target_gradients


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
    trainer = make_trainer(make_config(critic_every=1, schedule="cosine"))
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
