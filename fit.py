"""Train an ISP: pretrain it on demosaicing, then train it unpaired, paired, or paired with critics.

python fit.py [PRESET] [--section.field value ...] [--run NAME] [--resume]
torchrun --nproc-per-node G -- fit.py ...     the same on G GPUs, which share each batch
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

import config as settings
from config import PRESETS, Config
from data.folders import find_layout
from errors import UserError, run_cli
from tasks import isp
from tasks.device import choose_device
from tasks.modes import chosen_critics, find_mode
from training.distributed import ALONE, Group, join, leave
from training.run import Intervals, Run, claim_folder

# What a resumed run may change: fields and sections that do not affect the arithmetic of a step.
RESUMABLE = {
    "runs",
    "device",
    "data.root",
    "data.raw",
    "data.photos",
    "data.exclude",
    "data.workers",
    "data.cache",
    "data.cache_dir",
    "backbones.vgg_file",
    "backbones.alexnet_file",
    "backbones.vit_file",
    "compute.compile",
    "log",
}


@dataclass(frozen=True)
class _Arguments:
    config: Annotated[Config, tyro.conf.arg(name="")]
    resume: bool = False
    """Continue the run from its last.pt, with its own config. Start it if there is nothing to continue."""


def parse(arguments: Sequence[str]) -> tuple[Config, bool]:
    """The config of a command line, and whether to resume. A resumed run's own config.json replaces the preset.

    Raises `UserError`, or exits with status 2 as tyro does.
    """
    arguments, default = list(arguments), settings.config
    if arguments and not arguments[0].startswith("-"):
        preset = arguments.pop(0)
        if preset not in PRESETS:
            raise UserError(f"unknown preset '{preset}'; known are: {', '.join(PRESETS)}")
        default = PRESETS[preset]
    parsed = _parse(arguments, default)
    folder = Path(parsed.config.runs) / parsed.config.run
    if not (parsed.resume and (folder / "last.pt").exists()):
        refuse_ineffective(parsed.config, _differences(default, parsed.config))
        return parsed.config, parsed.resume
    before = settings.load(folder / "config.json")
    after = _parse(arguments, before).config
    changed = [name for name in _differences(before, after) if not _is_resumable(name, before)]
    if changed:
        raise UserError(f"a resumed run cannot change {', '.join(changed)}: start another run with --run NAME")
    return after, True


def _parse(arguments: Sequence[str], default: Config) -> _Arguments:
    return tyro.cli(
        _Arguments,
        default=_Arguments(default),
        args=list(arguments),
        prog="fit.py [PRESET]",
        description=f"Train a learned smartphone ISP. Presets: {', '.join(PRESETS)}. Defaults are the preset's.",
    )


def _differences(before: Config, after: Config) -> list[str]:
    """Names of the fields that differ, such as "train.lr"."""
    old, new = _flat(before), _flat(after)
    return [name for name in old if old[name] != new[name]]


def _flat(section: Any, prefix: str = "") -> dict[str, Any]:
    """{"train.lr": 5e-4, ...} of a config."""
    flat = {}
    for name, value in vars(section).items():
        flat |= _flat(value, f"{prefix}{name}.") if is_dataclass(value) else {prefix + name: value}
    return flat


def _is_resumable(name: str, before: Config) -> bool:
    if name == "train.steps":
        return before.train.schedule == "constant"  # a cosine schedule depends on the number of steps
    return name in RESUMABLE or name.split(".")[0] in RESUMABLE


def refuse_ineffective(config: Config, given: Sequence[str] = ()) -> None:
    """Raise `UserError` for unknown names, and for settings that would have no effect in a new run of this config.

    `given` are the fields that the user has set, such as "train.mse": a preset's own values are not refused.
    """
    isp.check_names(config)
    data, backbones, train = config.data, config.backbones, config.train
    rootless, critics = find_layout(data.layout).rootless, chosen_critics(train)
    files = backbones.vgg_file or backbones.alexnet_file or backbones.vit_file
    root = "data.root" in given and data.root
    unused = [name for name in given if name in isp.unused_weights(config)]
    textures, tokens = critics.keys() - {"color"}, "color" in critics and train.color_critic != "image"
    vit, paired = "color" in critics and train.color_critic == "vit", find_mode(train.mode).needs_pairs
    whole = vit and train.blur_color and backbones.vit_size == 224 and not backbones.vit_normalise
    for ineffective, sentence in (
        (not rootless and (data.raw or data.photos), f"--data.raw and --data.photos are not for layout {data.layout}"),
        (rootless and root, f"layout {data.layout} takes --data.raw and --data.photos, not --data.root"),
        (rootless and data.demo, f"layout {data.layout} does not use the demo dataset: add --data.no-demo"),
        (data.cache_dir and data.cache in ("memory", "off"), "--data.cache-dir is for a cache on disk"),
        (bool(data.raw_height) != bool(data.raw_width), "give both --data.raw-height and --data.raw-width, or neither"),
        (backbones.weights == "random" and files, "random weights use no file: leave out the --backbones file"),
        ("train.color_critic" in given and "color" not in critics, f"mode {train.mode} has no colour critic"),
        ("train.texture_critics" in given and not textures, f"mode {train.mode} has no texture critics"),
        ("train.blur_color" in given and not tokens, "--train.blur-color is for a colour critic of features"),
        ("backbones.vit_size" in given and not vit, "--backbones.vit-size is for --train.color-critic vit"),
        ("released.swapped_lpips" in given and not paired, f"mode {train.mode} does not train with LPIPS+"),
        ("released.luminance_content" in given and not paired, f"mode {train.mode} compares luminance already"),
        (
            "released.permutation" in given and (paired or data.unpaired != "shuffled"),
            "--released.permutation is for --data.unpaired shuffled in mode unpaired",
        ),
        (
            config.as_released and vit and not whole,
            "with --as-released the ViT sees what the released one sees: leave out --train.no-blur-color, "
            "--backbones.vit-size and --backbones.vit-normalise",
        ),
        (unused, f"mode {train.mode} has no term of the weight {', '.join(unused)}"),
    ):
        if ineffective:
            raise UserError(f"a setting has no effect: {sentence}")


def build_run(config: Config, resume: bool, group: Group = ALONE) -> Run:
    """Build the run of a config: at its start or, to `resume`, as in its last.pt. Claim its folder first."""
    folder, log = Path(config.runs) / config.run, config.log
    resume = resume and (folder / "last.pt").exists()
    task = isp.build_task(config, choose_device(group.device or config.device), group, resume)
    every = Intervals(log=log.every, validate=log.val_every, checkpoint=log.save_every, state=log.state_every)
    return Run(folder, task, every, group, resume)


def train(config: Config, resume: bool = False, group: Group = ALONE) -> Path:
    """Train a run to its end and return its folder. Raises `UserError` for whatever the user can mend."""
    isp.check_names(config)  # and that device and batch can be used: before any file is written
    choose_device(group.device or config.device)
    group.share(config.data.batch)
    folder = Path(config.runs) / config.run
    with claim_folder(folder, resume) if group.main else nullcontext():
        build_run(config, resume, group).train()
    return folder


def main() -> None:
    config, resume = parse(sys.argv[1:])
    try:
        train(config, resume, join(config.device))
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: lower --data.batch or --data.patch") from None


def cli() -> None:
    """Run `main` as a command, alone or as one of several processes."""
    try:
        run_cli(main)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)
        raise
    leave()


if __name__ == "__main__":
    cli()
