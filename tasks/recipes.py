"""The networks' own published recipes (--recipe published): one row a network (docs/networks_recipes.md).

A stage's losses are summed with fixed factors, all between the generated image and the photograph of its pair. Factors,
rates, steps and all else fill in what the user has not given, and are in the run's config.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from config import Config, Published
from errors import UserError
from tasks.parts import WHOLE, Level, Part, WarmUp
from tasks.stages import Mode, StagePlan

Losses = dict[str, tuple[str, float]]  # name in losses.LOSSES -> (feature, factor in the sum)


@dataclass(frozen=True)
class StageRecipe:
    """A stage as published. The last one is named "train"; the others save one checkpoint, at their end."""

    name: str
    losses: Losses
    lr: float
    steps: int = 0
    epochs: int = 0  # instead of steps
    part: Part = WHOLE

    @property
    def plan(self) -> StagePlan:
        """The stage as modes have it."""
        last = self.name == "train"
        terms = {name: (feature, "target") for name, (feature, _) in self.losses.items()}
        return StagePlan(self.name, "final" if last else self.name, terms, save_steps=last, part=self.part)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained in its publication."""

    stages: tuple[StageRecipe, ...]
    batch: int
    patch: int  # mosaic pixels
    source: str
    optimizer: str = "adam"
    schedule: str = "constant"  # of the last stage
    flips: bool = False

    @property
    def mode(self) -> Mode:
        """The stages as a mode: recipes are for pairs."""
        return Mode(tuple(stage.plan for stage in self.stages), needs_pairs=True)


# --- the recipes -----------------------------------------------------------------------------------------------------

_LAN: Losses = {
    "huber": ("image", 300),
    "chroma": ("image", 100),
    "ms_ssim": ("grey", 30),
    "lpips_alex": ("image", 10),
}
_WARM_UP: Losses = {"restored": ("restored", 1), "charbonnier": ("rgb", 1), "cosine": ("rgb", 1)}
_SYENET: Losses = {"outlier_aware": ("image", 1), "cosine": ("image", 1)}
_VGG_SSIM: Losses = {"vgg": ("vgg_rgb", 1), "ssim": ("image", 5)}
_MSE_SSIM: Losses = {"mse": ("image", 100), "ssim": ("image", 40)}
_LITEISP: Losses = {"l1": ("image", 1), "vgg_l1": ("vgg_half", 1), "ssim": ("image", 0.15)}
_MSE: Losses = {"mse": ("image", 1)}
_MSE_VGG: Losses = {"mse": ("image", 10), "vgg": ("vgg_rgb", 1)}
_PYNET: Losses = {"mse": ("image", 1), "vgg": ("vgg_rgb", 1), "ms_ssim": ("image", 0.4)}

# PyNET-V2's script trains each level with both sums of losses. Its stages have up to 500 epochs of 1,000 steps, and end
# after 50 without a better validation loss; here they have those 50.
_V2_STEPS = 50_000


def _pynet_v2() -> tuple[StageRecipe, ...]:
    stages = []
    for level, lr in ((3, 1e-4), (2, 5e-5), (1, 5e-5)):
        name = "train" if level == 1 else f"level{level}_mse"
        stages.append(StageRecipe(f"level{level}_vgg", _VGG_SSIM, lr, _V2_STEPS, part=Level(level, finest=1)))
        stages.append(StageRecipe(name, _MSE_SSIM, lr, _V2_STEPS, part=Level(level, finest=1)))
    return tuple(stages)


def _pynet() -> tuple[StageRecipe, ...]:
    of_level = {5: (_MSE, 8), 4: (_MSE, 8), 3: (_MSE_VGG, 17), 2: (_MSE_VGG, 17), 1: (_MSE_VGG, 25), 0: (_PYNET, 50)}
    return tuple(
        StageRecipe(f"level{level}" if level else "train", losses, 5e-5, epochs=epochs, part=Level(level, finest=0))
        for level, (losses, epochs) in of_level.items()
    )


# A new recipe is a row here, by the model's name in models.MODELS.
RECIPES: dict[str, Recipe] = {
    "lan": Recipe((StageRecipe("train", _LAN, 5e-5, 100_000),), 32, 256, "published code of LAN", "radam"),
    "microisp": Recipe(
        (StageRecipe("vgg", _VGG_SSIM, 5e-5, _V2_STEPS), StageRecipe("train", _MSE_SSIM, 5e-5, _V2_STEPS)),
        batch=20,
        patch=256,
        source="ours, after PyNET-V2's finest level: MicroISP's training code is not published",
        flips=True,
    ),
    "syenet": Recipe(
        (
            StageRecipe("warm_up", _WARM_UP, 1e-6, epochs=10, part=WarmUp()),
            StageRecipe("train", _SYENET, 1e-3, epochs=200),
        ),
        batch=4,
        patch=256,
        source="sanechips-multimedia/syenet",
        schedule="restarts",
    ),
    "pynet-v2": Recipe(_pynet_v2(), batch=20, patch=256, source="gmalivenko/PyNET-v2", flips=True),
    "pynet": Recipe(_pynet(), batch=12, patch=448, source="aiff22/PyNET-PyTorch"),
    "liteispnet": Recipe(
        (StageRecipe("train", _LITEISP, 1e-4, epochs=80),),
        batch=16,
        patch=448,
        source="cszhilu1998/RAW-to-sRGB, without its alignment",
        schedule="halved",
    ),
}


def find_recipe(model: str) -> Recipe:
    """The row of `RECIPES`. Raises `UserError` for a network without one."""
    known = ", ".join(RECIPES)
    if not model:  # also a run from a checkpoint: its recipe is chosen before the file is read
        raise UserError(f"--recipe published needs the name of its network: --model {known}")
    if model not in RECIPES:
        raise UserError(f"no recipe is published for model '{model}'; --recipe published is for --model {known}")
    return RECIPES[model]


# --- in a config -----------------------------------------------------------------------------------------------------


def with_recipe(config: Config, given: Sequence[str]) -> Config:
    """The config of a new run, completed by the recipe of its network; `given` are the fields that the user has set.

    A run from `config.init` trains the last stage alone, unless steps or epochs of others are given. Raises `UserError`
    for a network without a recipe, stages and losses that it does not have, and settings without effect.
    """
    if config.recipe == "paper":
        return config
    recipe = find_recipe(config.model)
    _refuse_unknown(config.published, recipe)
    _refuse_both(config.published, given)
    *earlier, last = recipe.stages
    chosen = {"lr": last.lr, "beta1": 0.9, "beta2": 0.999, "schedule": recipe.schedule}
    data = {"batch": recipe.batch, "patch": recipe.patch, "flips": recipe.flips}
    steps, epochs = config.published.steps, config.published.epochs
    if "train.steps" not in given and "train" not in epochs:
        chosen["steps"] = last.steps
        epochs = epochs | ({"train": last.epochs} if last.epochs else {})
    for stage in earlier:
        if stage.name in steps or stage.name in epochs:
            continue
        if config.init or not stage.epochs:
            steps = steps | {stage.name: 0 if config.init else stage.steps}
        else:
            epochs = epochs | {stage.name: stage.epochs}
    weights = {f"{stage.name}.{name}": float(w) for stage in recipe.stages for name, (_, w) in stage.losses.items()}
    published = replace(
        config.published,
        optimizer=config.published.optimizer if "published.optimizer" in given else recipe.optimizer,
        steps=steps,
        epochs=epochs,
        lr={stage.name: stage.lr for stage in earlier} | config.published.lr,
        weights=weights | config.published.weights,
    )
    return replace(
        config,
        published=published,
        train=replace(config.train, **{k: v for k, v in chosen.items() if f"train.{k}" not in given}),
        data=replace(config.data, **{k: v for k, v in data.items() if f"data.{k}" not in given}),
    )


def _refuse_unknown(published: Published, recipe: Recipe) -> None:
    """Raise `UserError` for stages and losses that the recipe does not have."""
    names = [stage.name for stage in recipe.stages]
    losses = [f"{stage.name}.{name}" for stage in recipe.stages for name in stage.losses]
    known = {"steps": names[:-1], "lr": names[:-1], "epochs": names, "weights": losses}
    for option, possible in known.items():
        if unknown := [name for name in getattr(published, option) if name not in possible]:
            other = f"; the last stage's is --train.{option}" if option in ("steps", "lr") else ""
            raise UserError(
                f"published.{option} names '{unknown[0]}'; known here are: {', '.join(possible) or 'none'}{other}"
            )


def _refuse_both(published: Published, given: Sequence[str]) -> None:
    """Raise `UserError` for stages whose length is given twice."""
    twice = {*published.steps, *(["train"] if "train.steps" in given else [])}.intersection(published.epochs)
    if twice:
        raise UserError(f"give either steps or epochs of stage {sorted(twice)[0]}")


def with_steps(config: Config, pairs: int) -> Config:
    """The config with steps in place of epochs, for so many training pairs. Its run says and records these.

    Raises `UserError` for a config that `with_recipe` has not completed.
    """
    if config.recipe == "paper":
        return config
    _require_complete(config)
    steps = {name: -(-count * pairs // config.data.batch) for name, count in config.published.epochs.items()}
    train = replace(config.train, steps=steps.pop("train")) if "train" in steps else config.train
    published = replace(config.published, steps=config.published.steps | steps, epochs={})
    return replace(config, train=train, published=published)


def in_words(config: Config, planned: dict[str, int]) -> str:
    """The planned steps of a recipe's stages, for the first line that a run prints; "" for the paper's method."""
    steps = ", ".join(f"{count:,} steps of {name}" for name, count in planned.items() if count)
    return f"; published recipe: {steps}" if config.recipe == "published" else ""


def _require_complete(config: Config) -> None:
    """Raise `UserError` if a stage's settings are not in the config, as in one that `with_recipe` has not completed."""
    published, stages = config.published, find_recipe(config.model).stages
    wanted = {f"published.weights {stage.name}.{name}": published.weights for stage in stages for name in stage.losses}
    wanted |= {f"published.lr {stage.name}": published.lr for stage in stages[:-1]}
    wanted |= {f"published.steps {stage.name}": published.steps | published.epochs for stage in stages[:-1]}
    if missing := [option for option, values in wanted.items() if option.split()[1] not in values]:
        raise UserError(
            f"the config lacks {missing[0]}: begin the run with fit.py --recipe published, which fills it in"
        )
