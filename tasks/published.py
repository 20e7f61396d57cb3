"""The trainers of published recipes: a plain sum of losses, one optimizer, a network or a part of it."""

import torch
from torch import nn

from config import Config
from errors import UserError
from losses import LOSSES
from tasks.features import Networks, build_views
from tasks.schedules import build_schedule
from tasks.stages import StagePlan
from training.steps import Term, Trainer

SMALLEST = {"vgg_rgb": 16, "vgg_half": 32}  # pixels of a side that VGG-19's four halvings need
OPTIMIZERS = {"adam": torch.optim.Adam, "radam": torch.optim.RAdam}


def build_published(config: Config, plan: StagePlan, generator: nn.Module, networks: Networks) -> Trainer:
    """The trainer of a stage of a published recipe, whose settings are in the config (tasks/recipes.py).

    Raises `UserError` if all of its factors are 0, a loss needs larger patches, or a level other ones.
    """
    if config.data.patch % (scale := plan.part.scale()):
        raise UserError(
            f"stage {plan.name} makes images of 1/{scale} of the size: make --data.patch a multiple of {scale}"
        )
    train, published, last = config.train, config.published, plan.name == "train"
    terms = _build_terms(config, plan, networks)
    lr = train.lr if last else published.lr[plan.name]
    optimizer = OPTIMIZERS[published.optimizer](generator.parameters(), lr, (train.beta1, train.beta2))
    return Trainer(
        generator,
        optimizer,
        build_views({term.feature for term in terms}, networks),
        terms,
        schedule=build_schedule(train.schedule, optimizer, train.steps) if last else None,
        ema_decay=train.ema,
        balanced=False,
        output=plan.part.output,
    )


def _build_terms(config: Config, plan: StagePlan, networks: Networks) -> list[Term]:
    """The stage's losses whose factor is not 0."""
    terms, scale = [], plan.part.scale()
    for name, (feature, against) in plan.terms.items():
        if not (weight := config.published.weights[f"{plan.name}.{name}"]):
            continue
        loss = LOSSES[name](networks.function(name)) if name == "lpips_alex" else LOSSES[name]()
        least = scale * max(SMALLEST.get(feature, 1), getattr(loss, "minimum", 1))
        if config.data.patch < least:
            raise UserError(
                f"the loss {name} of stage {plan.name} needs patches of {least} pixels or more: raise --data.patch "
                f"from {config.data.patch}, or leave it out: --published.weights {plan.name}.{name} 0"
            )
        terms.append(Term(name, weight, feature, against, loss))
    if not terms:
        raise UserError(f"stage '{plan.name}' has no loss left: all its factors in published.weights are 0")
    return terms
