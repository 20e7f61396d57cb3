"""The modes of the paper's task: terms, critics, optimizers and schedules of each (section 3.7, Eqs. 10 to 12)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import nn

from config import Config, Pretrain, Released, Train
from data.folders import Split
from discriminators import ColorDiscriminator, ColorImageDiscriminator, TextureDiscriminator
from errors import UserError
from losses import LOSSES
from losses.adversarial import RelativisticLoss
from tasks.features import Networks, build_views
from tasks.published import build_published
from tasks.recipes import find_recipe
from tasks.schedules import build_schedule
from tasks.stages import Mode, StagePlan, Terms
from training.steps import Adversary, Term, Trainer

PRETRAIN = StagePlan(  # Eq. 12
    "pretrain",
    "pretrained",
    {"content": ("vgg_rgb", "reference"), "mse": ("image", "reference"), "tv": ("image", None)},
    save_steps=False,
)
_UNPAIRED: Terms = {"content": ("vgg_luminance", "reference"), "tv": ("image", None)}  # Eq. 11
_PAIRED: Terms = {  # Eq. 10
    "content": ("vgg_rgb", "target"),
    "lpips": ("image", "target"),
    "dists": ("image", "target"),
    "tv": ("image", None),
    "color": ("image", "target"),
    "mse": ("image", "target"),  # not in Eq. 10; its weight is 0 by default
}

# A new mode is a row here.
MODES: dict[str, Mode] = {
    "unpaired": Mode((PRETRAIN, StagePlan("train", "final", _UNPAIRED, ("color", "texture")))),
    "paired": Mode((PRETRAIN, StagePlan("train", "final", _PAIRED)), needs_pairs=True),
    "paired_gan": Mode((PRETRAIN, StagePlan("train", "final", _PAIRED, ("texture",))), needs_pairs=True),
    "synthetic": Mode((PRETRAIN, StagePlan("train", "final", _PAIRED)), synthetic=True),
    "synthetic_gan": Mode((PRETRAIN, StagePlan("train", "final", _PAIRED, ("texture",))), synthetic=True),
}


@dataclass(frozen=True)
class Critic:
    """What a critic sees, and which network it is."""

    feature: str  # that it sees, from tasks.features.build_views
    build: Callable[[torch.Size], nn.Module]  # from the shape of the feature, with a batch axis


def _of_tokens(shape: torch.Size) -> nn.Module:
    """The critic of tokens (N, T, C)."""
    return ColorDiscriminator(shape[2])


def _of_maps(shape: torch.Size) -> nn.Module:
    """The critic of feature maps or grey images (N, C, H, W)."""
    return TextureDiscriminator(shape[1], tuple(shape[2:]))


def _of_images(shape: torch.Size) -> nn.Module:
    """The critic of blurred images (N, 3, H, W)."""
    return ColorImageDiscriminator(shape[1], tuple(shape[2:]))


# What train.color_critic and train.texture_critics choose from: Fig. 3, and the ablations of section 4.2.
CRITICS: dict[str, dict[str, Critic]] = {
    "color": {
        "vit": Critic("vit_tokens", _of_tokens),
        "vgg": Critic("vgg_tokens", _of_tokens),
        "alexnet": Critic("alexnet_tokens", _of_tokens),
        "image": Critic("blurred", _of_images),
    },
    "texture": {name: Critic(name, _of_maps) for name in ("lin0", "lin1", "lin2", "lin3", "lin4", "grey")},
}


def chosen_critics(train: Train) -> dict[str, Critic]:
    """The critics of a config by name, which is "color", or that of a texture critic. Weights of 0 count as well.

    Raises `UserError` for a critic that is not in `CRITICS`, and for rates of one that the config does not choose.
    """
    plan, chosen = find_mode(train.mode).stage("train"), {}
    for kind, names in (("color", (train.color_critic,)), ("texture", train.texture_critics)):
        for name in names:
            if name not in CRITICS[kind]:
                raise UserError(f"unknown {kind} critic '{name}'; known are: {', '.join(CRITICS[kind])}")
            if kind in plan.critics:
                chosen["color" if kind == "color" else name] = CRITICS[kind][name]
    for option in ("lr_of", "every_of"):
        if unknown := sorted(getattr(train, option).keys() - chosen.keys()):
            raise UserError(f"train.{option} names '{unknown[0]}'; the critics here are: {', '.join(chosen) or 'none'}")
    return chosen


def planned_steps(config: Config) -> dict[str, int]:
    """Steps of each stage by name; a run from `config.init` skips pretraining. Raises `UserError`, as `find_mode`."""
    stages = mode_of(config).stages
    if config.recipe == "published":
        steps = config.published.steps | {"train": config.train.steps}
        return {plan.name: steps.get(plan.name, 0) for plan in stages}
    return {plan.name: getattr(config, plan.name).steps for plan in stages} | ({"pretrain": 0} if config.init else {})


def is_synthetic(config: Config, stage: str) -> bool:
    """Whether the pairs of a stage are made of photographs (data/synthetic.py)."""
    return mode_of(config).synthetic if stage != "pretrain" else config.pretrain.data == "synthetic"


def compares_with(config: Config, other: str) -> bool:
    """Whether a stage of the run trains towards the "reference" of its mosaics, or towards their "target".

    Otherwise data.reference is only shown, and compared with.
    """

    def compares(stage: str) -> bool:
        section, terms = getattr(config, stage), find_mode(config.train.mode).stage(stage).terms
        towards = (name for name, (_, against) in terms.items() if against == other)
        return not is_synthetic(config, stage) and any(getattr(section, name) > 0 for name in towards)

    if config.recipe == "published":
        return other == "target"
    return any(steps and compares(stage) for stage, steps in planned_steps(config).items())


def drawn_files(config: Config, training: Split) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The (mosaics, photographs) of which the stages of a run draw patches."""
    synthetic = {is_synthetic(config, stage) for stage, steps in planned_steps(config).items() if steps}
    return training.raws if False in synthetic else (), training.photos if synthetic else ()


def find_mode(name: str) -> Mode:
    """The row of `MODES`. Raises `UserError` for an unknown name."""
    if name not in MODES:
        raise UserError(f"unknown mode '{name}'; known are: {', '.join(MODES)}")
    return MODES[name]


def mode_of(config: Config) -> Mode:
    """The mode of a run: the published recipe of its network, or train.mode. Raises `UserError` as `find_mode`."""
    return find_recipe(config.model).mode if config.recipe == "published" else find_mode(config.train.mode)


def stages_of(config: Config) -> tuple[StagePlan, ...]:
    """The stages that a run goes through: of a published recipe, the last one and those that have steps.

    Pretraining is a stage without steps, too: its score is where training begins.
    """
    stages, steps = mode_of(config).stages, planned_steps(config)
    if config.recipe == "paper":
        return stages
    return (*(plan for plan in stages[:-1] if steps[plan.name]), stages[-1])


def build_trainers(config: Config, generator: nn.Module, networks: Networks) -> list[Trainer]:
    """The trainer of each of the `stages_of` a run."""
    stages = stages_of(config)
    if config.recipe == "published":
        return [build_published(config, plan, generator, networks) for plan in stages]
    return [BUILDERS[plan.name](config, generator, networks) for plan in stages]


def build_pretrainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Pretraining on demosaicing (Eq. 12)."""
    terms = build_terms(find_mode(config.train.mode).stage("pretrain").terms, config.pretrain, networks, config.quirks)
    optimizer = torch.optim.Adam(generator.parameters(), config.pretrain.lr, fused=True)
    views = build_views({term.feature for term in terms}, networks)
    schedule = build_schedule(config.pretrain.schedule, optimizer, config.pretrain.steps)
    return Trainer(generator, optimizer, views, terms, schedule=schedule)


def build_trainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Training in the config's mode (Eq. 10 or 11). Raises `UserError` if all of its weights are 0."""
    train, quirks = config.train, config.quirks
    plan = find_mode(train.mode).stage("train")
    terms = build_terms(plan.terms, train, networks, quirks)
    adversaries = build_adversaries(config, networks)
    if not (terms or adversaries):
        raise UserError(f"mode '{train.mode}' has no term left: all its weights are 0")
    warmup = train.critic_warmup
    if warmup and warmup < min((adversary.every for adversary in adversaries), default=warmup + 1):
        raise UserError(
            f"no critic is trained in the first {warmup} steps: leave out --train.critic-warmup, or raise it"
        )
    optimizer = torch.optim.Adam(generator.parameters(), train.lr, (train.beta1, train.beta2), fused=True)
    critic_optimizer = _critic_optimizer(train, adversaries)
    features = {objective.feature for objective in (*terms, *adversaries)}
    return Trainer(
        generator,
        optimizer,
        build_views(features, networks),
        terms,
        adversaries,
        critic_optimizer=critic_optimizer,
        adversarial=RelativisticLoss(100 * train.gamma if quirks.penalty_times_100 else train.gamma),
        clip_norm=train.clip_norm,
        warmup=warmup,
        schedule=build_schedule(train.schedule, optimizer, train.steps - warmup),
        critic_schedule=build_schedule(
            train.schedule, critic_optimizer, _updates(train.steps, {a.every for a in adversaries})
        ),
        ema_decay=train.ema,
        target_gradients=quirks.target_gradients,
    )


def _critic_optimizer(train: Train, adversaries: Sequence[Adversary]) -> torch.optim.Optimizer | None:
    """Adam with a rate for each critic."""
    if not adversaries:
        return None
    groups = []
    for adversary in adversaries:
        left_out = {id(parameter) for parameter in adversary.untrained}
        trained = [parameter for parameter in adversary.critic.parameters() if id(parameter) not in left_out]
        groups.append({"params": trained, "lr": train.lr_of.get(adversary.name, train.critic_lr)})
    return torch.optim.Adam(groups, train.critic_lr, (train.critic_beta1, train.beta2), fused=True)


def _updates(steps: int, every: set[int]) -> int:
    """How many of the numbers 1 to `steps` are multiples of a number in `every`, by inclusion and exclusion."""
    chosen = (some for size in range(1, len(every) + 1) for some in combinations(every, size))
    return sum((-1) ** (len(some) + 1) * (steps // math.lcm(*some)) for some in chosen)


def build_terms(terms: Terms, weights: Pretrain | Train, networks: Networks, quirks: Released) -> list[Term]:
    """The terms whose weight is not 0."""
    built = []
    for name, (feature, against) in terms.items():
        if not (weight := getattr(weights, name)):
            continue
        if quirks.luminance_content and (feature, against) == ("vgg_rgb", "target"):
            feature = "vgg_luminance"
        options = {}
        if name in ("lpips", "dists"):
            options = {"measure": networks.function(name), "swapped": quirks.swapped_lpips and name == "lpips"}
        built.append(Term(name, weight, feature, against, LOSSES[name](**options)))
    return built


def build_adversaries(config: Config, networks: Networks) -> list[Adversary]:
    """The critics that the config chooses, without those whose weight is 0."""
    train, patch = config.train, config.data.patch
    weights = {name: getattr(train, f"adv_{name}") for name in chosen_critics(train)}
    critics = {name: critic for name, critic in chosen_critics(train).items() if weights[name]}
    blank, shapes = torch.zeros(1, 3, patch, patch, device=networks.device), {}
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiling for one blank image would take minutes
        for view in build_views({critic.feature for critic in critics.values()}, networks):
            features = zip(view.names, view.compute(blank), strict=True)
            shapes |= {name: feature.shape for name, feature in features}
    adversaries = []
    for name, critic in critics.items():
        network = critic.build(shapes[critic.feature])
        network.to(networks.device, memory_format=torch.channels_last)
        untrained = config.quirks.untrained_fc1 and hasattr(network, "fc1")
        adversaries.append(
            Adversary(
                name,
                weights[name],
                critic.feature,
                network,
                every=train.every_of.get(name, train.critic_every),
                untrained=tuple(network.fc1.parameters()) if untrained else (),
            )
        )
    return adversaries


BUILDERS = {"pretrain": build_pretrainer, "train": build_trainer}  # of a stage's trainer, by the stage's name
