"""The modes of the paper's task: terms, critics, optimizers and schedules of each (section 3.7, Eqs. 10 to 12)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from config import Config, Pretrain, Train
from discriminators import ColorDiscriminator, TextureDiscriminator
from errors import UserError
from losses import LOSSES
from losses.adversarial import RelativisticLoss
from tasks.features import Networks, build_views
from training.steps import Adversary, Term, Trainer

Terms = dict[str, tuple[str, str | None]]  # name in losses.LOSSES -> (feature, what it is compared with)


@dataclass(frozen=True)
class StagePlan:
    """A stage of a mode: its terms and critics. Their weights, and the steps, are the config's section of that name.

    The weight of a term is the field NAME, that of a critic the field adv_NAME; 0 leaves it out. A new stage needs a
    name of its own, a section of the config and a row in `BUILDERS`.
    """

    name: str  # "pretrain" or "train"; also names the stage in the log
    result: str  # what summary.json calls the generator after this stage
    terms: Terms
    critics: tuple[str, ...] = ()  # of "color", "lin0", "lin3" (Fig. 3)
    save_steps: bool = True  # save checkpoints on the way, not only one at the end


@dataclass(frozen=True)
class Mode:
    """A way to train: its stages, and the data that it needs."""

    stages: tuple[StagePlan, ...]
    needs_pairs: bool = False  # otherwise paired data are separated as data.unpaired says

    def __post_init__(self):
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"the stages of a mode need different names, not {names}")

    def stage(self, name: str) -> StagePlan:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def critics(self) -> set[str]:
        """The critics of all stages."""
        return {name for stage in self.stages for name in stage.critics}


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
    "unpaired": Mode((PRETRAIN, StagePlan("train", "final", _UNPAIRED, ("color", "lin0", "lin3")))),
    "paired": Mode((PRETRAIN, StagePlan("train", "final", _PAIRED)), needs_pairs=True),
    "paired_gan": Mode((PRETRAIN, StagePlan("train", "final", _PAIRED, ("lin0", "lin3"))), needs_pairs=True),
}


def _of_tokens(shape: torch.Size, train_fc1: bool) -> nn.Module:
    """The critic of tokens (N, T, C)."""
    return ColorDiscriminator(shape[2])


def _of_maps(shape: torch.Size, train_fc1: bool) -> nn.Module:
    """The critic of feature maps or images (N, C, H, W)."""
    return TextureDiscriminator(shape[1], tuple(shape[2:]), train_fc1)


@dataclass(frozen=True)
class Critic:
    """What a critic sees, and which network it is."""

    label: str  # in the log and in last.pt
    feature: str  # that it sees, from tasks.features.build_views
    build: Callable[[torch.Size, bool], nn.Module]  # shape of the feature, whether to train the first linear layer


# (critic of a mode, choice in train.color_critic or train.texture_critics): Fig. 3, and the ablations of section 4.2.
CRITICS: dict[tuple[str, str], Critic | None] = {
    ("color", "vit"): Critic("color", "tokens", _of_tokens),
    ("color", "image"): Critic("color", "blurred", _of_maps),
    ("lin0", "alexnet"): Critic("lin0", "lin0", _of_maps),
    ("lin3", "alexnet"): Critic("lin3", "lin3", _of_maps),
    ("lin0", "image"): Critic("grey", "grey", _of_maps),  # one critic, with lin0's weight, replaces both
    ("lin3", "image"): None,
}


def find_mode(name: str) -> Mode:
    """The row of `MODES`. Raises `UserError` for an unknown name."""
    if name not in MODES:
        raise UserError(f"unknown mode '{name}'; known are: {', '.join(MODES)}")
    return MODES[name]


def build_pretrainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Pretraining on demosaicing (Eq. 12)."""
    terms = build_terms(find_mode(config.train.mode).stage("pretrain").terms, config.pretrain, networks)
    optimizer = torch.optim.Adam(generator.parameters(), config.pretrain.lr, fused=True)
    return Trainer(generator, optimizer, build_views({term.feature for term in terms}, networks), terms)


def build_trainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Training in the config's mode (Eq. 10 or 11). Raises `UserError` if all of its weights are 0."""
    train = config.train
    terms = build_terms(find_mode(train.mode).stage("train").terms, train, networks)
    adversaries = build_adversaries(config, networks)
    if not (terms or adversaries):
        raise UserError(f"mode '{train.mode}' has no term left: all its weights are 0")
    betas = train.beta1, train.beta2
    optimizer = torch.optim.Adam(generator.parameters(), train.lr, betas, fused=True)
    critic_optimizer = None
    if adversaries:
        trained = [p for adversary in adversaries for p in adversary.critic.parameters() if p.requires_grad]
        critic_optimizer = torch.optim.Adam(trained, train.critic_lr, betas, fused=True)
    features = {objective.feature for objective in (*terms, *adversaries)}
    return Trainer(
        generator,
        optimizer,
        build_views(features, networks, train.blur_color),
        terms,
        adversaries,
        critic_optimizer=critic_optimizer,
        adversarial=RelativisticLoss(100 * train.gamma if config.as_released else train.gamma),
        critic_every=train.critic_every,
        clip_norm=train.clip_norm,
        schedule=_schedule(train, optimizer, train.steps),
        critic_schedule=_schedule(train, critic_optimizer, train.steps // train.critic_every),
        ema_decay=train.ema,
    )


def _schedule(
    train: Train, optimizer: torch.optim.Optimizer | None, steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    if optimizer is None or train.schedule == "constant":
        return None
    lowest = 0.01 * optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), lowest)


def build_terms(terms: Terms, weights: Pretrain | Train, networks: Networks) -> list[Term]:
    """The terms whose weight is not 0."""
    built = []
    for name, (feature, against) in terms.items():
        if weight := getattr(weights, name):
            measure = (networks.function(name),) if name in ("lpips", "dists") else ()
            built.append(Term(name, weight, feature, against, LOSSES[name](*measure)))
    return built


def build_adversaries(config: Config, networks: Networks) -> list[Adversary]:
    """The mode's critics, as `CRITICS` and the config choose them, without those whose weight is 0."""
    train, patch = config.train, config.data.patch
    choices = {"color": train.color_critic, "lin0": train.texture_critics, "lin3": train.texture_critics}
    names = [name for name in find_mode(train.mode).stage("train").critics if getattr(train, f"adv_{name}")]
    critics = {name: critic for name in names if (critic := CRITICS[name, choices[name]])}
    blank, shapes = torch.zeros(1, 3, patch, patch, device=networks.device), {}
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiling for one blank image would take minutes
        for view in build_views({critic.feature for critic in critics.values()}, networks, train.blur_color):
            features = zip(view.names, view.compute(blank), strict=True)
            shapes |= {name: feature.shape for name, feature in features}
    adversaries = []
    for name, critic in critics.items():
        network = critic.build(shapes[critic.feature], not config.as_released)
        network.to(networks.device, memory_format=torch.channels_last)
        adversaries.append(Adversary(critic.label, getattr(train, f"adv_{name}"), critic.feature, network))
    return adversaries


BUILDERS = {"pretrain": build_pretrainer, "train": build_trainer}  # of a stage's trainer, by the stage's name
