"""Every value that a run can vary, the paper's settings as presets, and how the command line changes them.

Only the scripts at the root read a `Config`; what they build gets plain values.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from errors import UserError


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise UserError(sentence)


def _finite(values: dict[str, Any], prefix: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _finite(value, f"{prefix}{name}.")
        for number in value if isinstance(value, tuple) else (value,):
            _require(not isinstance(number, float) or math.isfinite(number), f"{prefix}{name} is {number}")


@dataclass(frozen=True)
class Data:
    """What to train on, and the sensor that took it."""

    layout: Literal["zrr", "fujifilm", "ntire26", "folders"] = "fujifilm"
    """How files lie (section 4.1); "folders" is a folder of mosaics and one of photographs."""
    root: str = ""
    """The dataset's folder, which holds train/ (all layouts but "folders")."""
    raw: str = ""
    """Layout "folders": the folder of RAW mosaics."""
    photos: str = ""
    """Layout "folders": the folder of photographs."""
    pairs: Literal["auto", "yes", "no"] = "auto"
    """Do equal names mean one scene? auto: yes, and for "folders" and "ntire26" only where all names are equal."""
    demo: bool = False
    """Make the demo dataset at `root` first, if it is not there, from photographs inside scikit-image."""
    raw_height: int = 0
    """Height of headless .raw files (16-bit little-endian), pixels."""
    raw_width: int = 0
    """Width of headless .raw files, pixels."""
    cfa: Literal["rggb", "bggr", "grbg", "gbrg"] = "rggb"
    """Colours of the sensor's first two rows of two."""
    black_level: tuple[float, float, float, float] = (58.0, 60.0, 61.0, 62.0)
    """Black of R, Gr, Gb, B in digital numbers (released code; RMFA-Net: 63 each)."""
    white_level: float = 1023.0
    """White in digital numbers: 1023 for 10 bits."""
    demosaic: Literal["menon2007", "bilinear"] = "menon2007"
    """The content reference's demosaicing (Table 3): Menon 2007 or OpenCV's bilinear."""
    val_count: int = 1024
    """Pairs drawn from train/ for validation, where there is no val/ (section 4.1)."""
    test_count: int = 1024
    """Pairs drawn from train/ for the test, where there is no test/ (section 4.1)."""
    exclude: str = ""
    """A text file with names (one a line) to leave out of train/, such as misaligned pairs (section 4.1: 17.6 %)."""
    unpaired: Literal["shuffled", "disjoint"] = "shuffled"
    """Mode "unpaired": every scene on both sides, never together (as released), or no scene on both sides."""
    patch: int = 256
    """Side of the training patches, pixels (even)."""
    batch: int = 32
    """Patches a step (section 4.3)."""
    flips: bool = False
    """Random mirroring that keeps the CFA order. The paper has none."""
    workers: int = 4
    """Processes that read patches; 0 reads in the training process."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Keep the decoded files in memory or in one file on disk; auto: where half of what is free suffices."""
    cache_dir: str = ""
    """The folder of a cache on disk, found again by the next run; empty: RUNS/.cache."""

    def __post_init__(self):
        _require(self.patch >= 32 and self.patch % 2 == 0, f"data.patch must be even and at least 32, not {self.patch}")
        _require(self.batch >= 1, f"data.batch must be at least 1, not {self.batch}")
        _require(min(self.val_count, self.test_count) >= 0, "data.val_count and data.test_count must not be negative")
        _require(self.white_level >= 255, f"data.white_level is {self.white_level:g}; it is the largest digital number")
        _require(self.workers >= 0, f"data.workers must not be negative, but is {self.workers}")
        _require(min(self.raw_height, self.raw_width) >= 0, "data.raw_height and data.raw_width must not be negative")


@dataclass(frozen=True)
class Backbones:
    """The frozen networks behind the losses, and where their weights come from."""

    weights: Literal["pretrained", "random", "auto"] = "pretrained"
    """pretrained: file, cache or download; random: seeded; auto: pretrained if on this machine, otherwise random."""
    vgg_file: str = ""
    """VGG-19: MatConvNet's imagenet-vgg-verydeep-19.mat or a torchvision state dict; empty: torchvision's."""
    alexnet_file: str = ""
    """AlexNet: a torchvision state dict; empty: torchvision's."""
    vit: str = "vit_base_patch16_224.orig_in21k_ft_in1k"
    """The colour critic's ViT, by timm's name (section 3.4: google/vit-base-patch16-224)."""
    vit_file: str = ""
    """Its weights as a local file; empty: timm's from the cache or the network."""


@dataclass(frozen=True)
class Pretrain:
    """Pretraining on demosaicing: Eq. 12."""

    steps: int = 20_000
    """Steps of pretraining; 0 skips it."""
    lr: float = 5e-4
    """Adam's learning rate."""
    content: float = 1.0
    """Weight of the content loss on RGB: its gradient's norm at the generator."""
    mse: float = 1.0
    """Weight of the mean squared error."""
    tv: float = 1.0
    """Weight of the total variation."""

    def __post_init__(self):
        _require(self.steps >= 0 and self.lr > 0, "pretrain.steps must not be negative, and pretrain.lr be positive")
        weights = (self.content, self.mse, self.tv)
        _require(min(weights) >= 0, "the weights of pretrain must not be negative")
        _require(
            not self.steps or max(weights) > 0, "every weight of pretrain is 0; set pretrain.steps to 0 to skip it"
        )


@dataclass(frozen=True)
class Train:
    """Training proper: Eq. 10 or 11. A term's weight is its gradient's norm at the generator; 0 takes it out."""

    mode: Literal["unpaired", "paired", "paired_gan"] = "unpaired"
    """unpaired: Eq. 11; paired: Eq. 10 without adversarial losses; paired_gan: Eq. 10."""
    steps: int = 30_000
    """Steps of training. Released models come from steps 27,220 to 195,100."""
    lr: float = 5e-4
    """The generator's learning rate (section 4.3)."""
    critic_lr: float = 1e-5
    """The discriminators' learning rate (section 4.3)."""
    critic_every: int = 10
    """The discriminators learn every so many steps (section 4.3)."""
    beta1: float = 0.5
    """Adam's first momentum (Table 3)."""
    beta2: float = 0.9
    """Adam's second momentum (released code)."""
    gamma: float = 10.0
    """Weight of the gradient penalties R1 and R2: gamma / 2 each (Eqs. 5, 6)."""
    clip_norm: float = 1.0
    """The norm to which each discriminator's gradient is clipped (released code)."""
    ema: float = 0.0
    """Decay of the average of the generator that is validated and saved; 0: no average, as in the paper."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rates: constant, as in the paper, or falling to 1 % along a half cosine."""
    color_critic: Literal["vit", "image"] = "vit"
    """The colour critic sees ViT tokens, or the blurred image through convolutions (section 4.2)."""
    texture_critics: Literal["alexnet", "image"] = "alexnet"
    """The texture critics see AlexNet features (lin0, lin3), or one sees the grey image (section 4.2)."""
    blur_color: bool = False
    """Blur what the ViT sees, as section 4.2 mentions and section 3.4 does not."""
    content: float = 1.0
    """Weight of the content loss (section 3.1)."""
    tv: float = 1.0
    """Weight of the total variation (section 3.6)."""
    color: float = 1.0
    """Weight of the blurred colour loss, paired modes (section 3.2)."""
    lpips: float = 1.0
    """Weight of LPIPS+, paired modes (section 3.3)."""
    dists: float = 1.0
    """Weight of DISTS, paired modes (section 3.3)."""
    mse: float = 0.0
    """Weight of the mean squared error, paired modes. Not in Eq. 10; alone it is the upper bound in PSNR."""
    adv_color: float = 1.0
    """Weight of the adversarial colour loss, mode unpaired (section 3.4)."""
    adv_lin0: float = 1.0
    """Weight of the adversarial texture loss on lin0, or on the grey image (section 3.5)."""
    adv_lin3: float = 1.0
    """Weight of the adversarial texture loss on lin3 (section 3.5)."""

    def __post_init__(self):
        weights = [self.content, self.tv, self.color, self.lpips, self.dists, self.mse]
        weights += [self.adv_color, self.adv_lin0, self.adv_lin3]
        _require(min(weights) >= 0, "the weights of train must not be negative")
        _require(self.steps >= 0, f"train.steps must not be negative, but is {self.steps}")
        _require(self.lr > 0 and self.critic_lr > 0, "train.lr and train.critic_lr must be positive")
        _require(self.critic_every >= 1, f"train.critic_every must be at least 1, not {self.critic_every}")
        _require(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "train.beta1 and train.beta2 must lie in [0, 1)")
        _require(0 <= self.ema < 1, f"train.ema must lie in [0, 1), not {self.ema}")
        _require(self.gamma >= 0 and self.clip_norm > 0, "train.gamma must not be negative, and clip_norm be positive")


@dataclass(frozen=True)
class Compute:
    """How the arithmetic is done: what is computed stays the same, but for rounding."""

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """tf32: a GPU's matrix products with 10-bit mantissas; bf16: the frozen networks under bfloat16 autocast."""
    compile: bool = False
    """Compile the frozen networks with torch.compile; how long that took is said at the end of each stage."""


@dataclass(frozen=True)
class Log:
    """What a run writes, and how often, in steps."""

    every: int = 10
    """A line of statistics in log.jsonl and TensorBoard."""
    val_every: int = 500
    """Validation PSNR and a sample grid."""
    save_every: int = 10
    """A small checkpoint of the generator in checkpoints/ (the paper: 10)."""
    state_every: int = 500
    """The full state, last.pt, from which --resume goes on."""
    samples: int = 4
    """Scenes in a sample grid."""

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            _require(value >= 1, f"log.{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class Config:
    """A training run."""

    run: str = "demo"
    """The run's name: everything goes to RUNS/NAME."""
    runs: str = "runs"
    """The folder of all runs."""
    model: str = ""
    """efficient, robust, rmfa-tiny, rmfa-medium, rmfa-large (section 4.2); empty: that of `init`, or efficient."""
    init: str = ""
    """A generator to start from instead of a fresh one: a checkpoint of ours, or a released file or its name."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto is cuda where there is one."""
    as_released: bool = False
    """Follow the released code where the paper's text differs; docs/fidelity.md lists what that is."""
    data: Data = field(default_factory=Data)
    backbones: Backbones = field(default_factory=Backbones)
    pretrain: Pretrain = field(default_factory=Pretrain)
    train: Train = field(default_factory=Train)
    compute: Compute = field(default_factory=Compute)
    log: Log = field(default_factory=Log)

    def __post_init__(self):
        bad = not self.run or self.run != Path(self.run).name or self.run.startswith(".")
        _finite(dataclasses.asdict(self))
        _require(not bad, f"run must be the plain name of a folder, not '{self.run}'")
        _require(self.seed >= 0, f"seed must not be negative, but is {self.seed}")


_rmfa = Train(lr=1e-4, critic_lr=5e-5, critic_every=4)

PRESETS: dict[str, Config] = {
    "demo": Config(
        data=Data(root="datasets/demo", demo=True, patch=64, batch=8, workers=0, flips=True, val_count=0, test_count=0),
        backbones=Backbones("auto", vit="vit_tiny_patch16_224"),
        # Short, and with random features that see little detail: so a high rate that falls, and little smoothing.
        pretrain=Pretrain(steps=1500, lr=1e-3, content=0.0, tv=0.01),
        train=Train(
            steps=450, lr=1e-3, critic_lr=5e-4, critic_every=1, ema=0.99, schedule="cosine", content=1.0, tv=0.1
        ),
        log=Log(val_every=150, save_every=50, state_every=150),
    ),
    "fujifilm-efficient": Config(run="fujifilm-efficient", model="efficient"),
    "fujifilm-robust": Config(run="fujifilm-robust", model="robust"),
    "fujifilm-rmfa-tiny": Config(
        run="fujifilm-rmfa-tiny",
        model="rmfa-tiny",
        data=Data(black_level=(63.0,) * 4),
        pretrain=Pretrain(lr=1e-4),
        train=_rmfa,
    ),
    "zrr-efficient": Config(run="zrr-efficient", model="efficient", data=Data(layout="zrr")),
    "ntire26": Config(run="ntire26", data=Data(layout="ntire26", pairs="no", black_level=(0.0,) * 4)),
}

config = PRESETS["demo"]  # what `python fit.py` runs when no preset is named

# What a resumed run may change: none of it enters the arithmetic of a step.
_RESUMABLE = {
    "runs",
    "device",
    "data.root",
    "data.raw",
    "data.photos",
    "data.exclude",
    "data.workers",
    "data.cache",
    "data.cache_dir",
    "log",
    "compute.compile",
}
_RESUMABLE |= {"backbones.vgg_file", "backbones.alexnet_file", "backbones.vit_file"}  # the weights' names must stay


@dataclass(frozen=True)
class _Arguments:
    config: Annotated[Config, tyro.conf.arg(name="")]
    resume: bool = False
    """Continue the run where its last.pt stands, with the config that it has; start it if there is none."""


def parse(arguments: Sequence[str]) -> tuple[Config, bool]:
    """`[PRESET] [--section.field value ...] [--run NAME] [--resume]` -> the config, and whether to resume.

    A resumed run takes its own config.json for its preset. Raises `UserError`, or exits 2 as tyro does.
    """
    arguments, default = list(arguments), config
    if arguments and not arguments[0].startswith("-"):
        preset = arguments.pop(0)
        if preset not in PRESETS:
            raise UserError(f"unknown preset '{preset}'; known are: {', '.join(PRESETS)}")
        default = PRESETS[preset]
    parsed = _parse(arguments, default)
    folder = Path(parsed.config.runs) / parsed.config.run
    if not (parsed.resume and (folder / "last.pt").exists()):
        return parsed.config, parsed.resume
    before = load(folder / "config.json")
    after = _parse(arguments, before).config
    changed = [name for name in _differences(to_dict(before), to_dict(after)) if not _resumable(name, before)]
    if changed:
        raise UserError(f"a resumed run cannot change {', '.join(changed)}: start another with --run NAME")
    return after, True


def _parse(arguments: Sequence[str], default: Config) -> _Arguments:
    return tyro.cli(
        _Arguments,
        default=_Arguments(default),
        args=list(arguments),
        prog="fit.py [PRESET]",
        description=f"Train a learned smartphone ISP. Presets: {', '.join(PRESETS)}. Defaults are the preset's.",
    )


def _differences(before: dict, after: dict, prefix: str = "") -> list[str]:
    names = []
    for key, value in before.items():
        if isinstance(value, dict):
            names += _differences(value, after[key], f"{prefix}{key}.")
        elif value != after[key]:
            names.append(prefix + key)
    return names


def _resumable(name: str, before: Config) -> bool:
    if name == "train.steps":
        return before.train.schedule == "constant"  # a cosine is stretched over the steps
    return name in _RESUMABLE or name.split(".")[0] in _RESUMABLE


def to_dict(config: Config) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict[str, Any], kind: type = Config) -> Any:
    """The inverse of `to_dict`; raises `UserError` for unknown keys and wrong types."""
    _require(isinstance(values, dict), f"section {kind.__name__.lower()} of the config is {values!r}")
    hints = get_type_hints(kind)
    unknown = sorted(values.keys() - hints.keys())
    _require(not unknown, f"unknown config key '{', '.join(unknown)}' in {kind.__name__}")
    return kind(**{name: _typed(f"{kind.__name__}.{name}", value, hints[name]) for name, value in values.items()})


def _typed(name: str, value: Any, hint: Any) -> Any:
    """`value` from JSON as the type that a field has."""
    if dataclasses.is_dataclass(hint):
        return from_dict(value, hint)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        _require(isinstance(value, list) and len(value) == len(kinds), f"{name} needs {len(kinds)} values, not {value}")
        return tuple(_typed(name, item, item_kind) for item, item_kind in zip(value, kinds, strict=True))
    if get_origin(hint) is Literal:
        _require(value in get_args(hint), f"{name} is {value!r}, none of {', '.join(get_args(hint))}")
        return value
    fits = type(value) is hint or (hint is float and type(value) is int)
    _require(fits, f"{name} is {value!r}, which is no {hint.__name__}")
    return hint(value)


def load(path: Path) -> Config:
    """Read a run's config.json."""
    try:
        return from_dict(json.loads(path.read_text()))
    except (ValueError, UserError) as error:
        raise UserError(f"{path} is no config: {error}") from None
