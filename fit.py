"""Train an ISP: pretrain it on demosaicing, then train it unpaired, paired, or paired with critics.

python fit.py [PRESET] [--section.field value ...] [--run NAME] [--resume]
torchrun --nproc-per-node G -- fit.py ...     the same on G GPUs, which share each batch
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

import config as settings
from config import PRESETS, Config, differences, flat
from data.cache import free_memory
from data.folders import find_layout
from data.notes import note
from errors import UserError, run_cli
from tasks import isp
from tasks.device import choose_device
from tasks.modes import chosen_critics, find_mode
from training.distributed import ALONE, Group, join, leave
from training.folder import claim_folder, read_state
from training.run import Run
from training.task import Intervals

# What a resumed run may change: fields and sections that do not affect the arithmetic of a step.
RESUMABLE = {
    "run",
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

# How PyTorch reports what a user can mend, and the sentence for it.
RUNTIME_ERRORS = {
    "DefaultCPUAllocator": "the memory is full: lower --data.batch, --data.patch or --data.workers",
    "DataLoader worker (pid": "a process that reads patches was killed, probably for lack of memory: lower "
    "--data.workers or --data.batch; --resume continues",
    "Too many open files": "too many files are open: lower --data.workers, or raise the limit (ulimit -n)",
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
    named = bool(arguments) and not arguments[0].startswith("-")
    if named:
        preset = arguments.pop(0)
        if preset not in PRESETS:
            raise UserError(f"unknown preset '{preset}'; known are: {', '.join(PRESETS)}")
        default = PRESETS[preset]
    parsed = _parse(arguments, default)
    folder = Path(parsed.config.runs) / parsed.config.run
    file, state = folder / "config.json", folder / "last.pt"
    if not (parsed.resume and state.exists()):
        if parsed.resume and file.exists():
            default = _own_config(file, parsed.config)
            parsed = _parse(arguments, default)
            note(f"{folder} has no last.pt to continue from: the run begins anew, with the settings of its config.json")
        _refuse_overwriting(folder, parsed)
        given = differences(default, parsed.config)
        if "data.root" in given and parsed.config.data.demo and not named:
            root = parsed.config.data.root
            raise UserError(f"{root} would get the demo dataset: name the preset demo for that, or another preset")
        refuse_ineffective(parsed.config, given)
        if "data.white_level" in given and "data.black_level" not in given:
            note(f"the black levels stay {parsed.config.data.black_level}: --data.black-level sets others")
        return parsed.config, parsed.resume
    before = _own_config(file, parsed.config)
    after = _parse(arguments, before).config
    _refuse_changes(before, after)
    return after, True


def _own_config(file: Path, given: Config) -> Config:
    """The config of a run from its config.json or, without that, its last.pt.

    The folder's own name and place count: it may have been renamed or moved.
    """
    before = settings.load(file) if file.exists() else _config_of(read_state(file.parent), file.parent)
    return replace(before, run=given.run, runs=given.runs)


def _parse(arguments: Sequence[str], default: Config) -> _Arguments:
    return tyro.cli(
        _Arguments,
        default=_Arguments(default),
        args=list(arguments),
        prog="fit.py [PRESET]",
        description=f"Train a learned smartphone ISP. Presets: {', '.join(PRESETS)}. Defaults are the preset's.",
    )


def _refuse_changes(before: Config, after: Config) -> None:
    """Raise `UserError` for fields that a resumed run may not change."""
    if changed := _changed(before, after):
        old, new = flat(before), flat(after)
        values = ", ".join(f"{name} was {old[name]} and is {new[name]}" for name in changed)
        names = ", ".join(changed)
        raise UserError(f"a resumed run cannot change {names}: start another run with --run NAME ({values})")


def _refuse_overwriting(folder: Path, given: _Arguments) -> None:
    """Raise `UserError` for a config.json of something else, and for a run that is to be continued, has saved no
    last.pt, and has checkpoints of other settings.
    """
    file = folder / "config.json"
    if not file.exists():
        return
    before = settings.load(file)  # raises UserError for a file of something else
    if given.resume and any(folder.glob("checkpoints/[!.]*.pt")) and (changed := _changed(before, given.config)):
        raise UserError(
            f"{folder} has no last.pt to continue from, only checkpoints, which were trained with other settings "
            f"({', '.join(changed)}): start another run with --run NAME"
        )


def _changed(before: Config, after: Config) -> list[str]:
    """The fields that differ and that a resumed run may not change. No name of a model stands for any."""
    after = after if after.model else replace(after, model=before.model)
    return [name for name in differences(before, after) if not _is_resumable(name, before)]


def _config_of(state: dict[str, Any], folder: Path) -> Config:
    """The config in a run's last.pt."""
    try:
        return settings.from_dict(state["config"])
    except UserError as error:
        raise UserError(f"{folder / 'last.pt'} holds a config of another version of this framework: {error}") from None


def _is_resumable(name: str, before: Config) -> bool:
    if name == "train.steps":
        return before.train.schedule == "constant"  # a cosine schedule depends on the number of steps
    return name in RESUMABLE or name.split(".")[0] in RESUMABLE


def refuse_ineffective(config: Config, given: Sequence[str] = ()) -> None:
    """Raise `UserError` for unknown names, and for settings that would have no effect in a new run of this config.

    `given` are the fields that the user has set, such as "train.mse": a preset's own values are not refused.
    """
    isp.check_names(config)
    isp.refuse_unused_fits(config, "data.color_map" in given)
    data, backbones, train = config.data, config.backbones, config.train
    rootless, critics = find_layout(data.layout).rootless, chosen_critics(train)
    files, root = backbones.vgg_file or backbones.alexnet_file or backbones.vit_file, "data.root" in given and data.root
    unused = [name for name in given if name in isp.unused_weights(config)]
    textures, tokens = critics.keys() - {"color"}, "color" in critics and train.color_critic != "image"
    convolutional = textures or ("color" in critics and train.color_critic == "image")
    vit, mode = "color" in critics and train.color_critic == "vit", find_mode(train.mode)
    with_lpips = "lpips" in mode.stage("train").terms
    seen = {"train.blur_color", "backbones.vit_size", "backbones.vit_normalise"}
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
        ("backbones.vit_normalise" in given and not vit, "--backbones.vit-normalise is for --train.color-critic vit"),
        (train.critic_warmup and not critics, f"mode {train.mode} has no critics to warm up"),
        ("released.penalty_times_100" in given and not critics, f"mode {train.mode} has no critics"),
        ("released.untrained_fc1" in given and not convolutional, "--released.untrained-fc1: no critic has it"),
        ("released.swapped_lpips" in given and not with_lpips, f"mode {train.mode} does not train with LPIPS+"),
        ("released.luminance_content" in given and not with_lpips, f"mode {train.mode} compares luminance already"),
        (
            "released.permutation" in given and (mode.needs_pairs or data.unpaired != "shuffled"),
            "--released.permutation is for --data.unpaired shuffled in mode unpaired",
        ),
        (
            config.as_released and seen.intersection(given),
            "with --as-released the ViT sees what the released one sees: leave out --train.no-blur-color, "
            "--backbones.vit-size and --backbones.vit-normalise",
        ),
        (unused, f"mode {train.mode} has no term of the weight {', '.join(unused)}"),
    ):
        if ineffective:
            raise UserError(f"a setting has no effect: {sentence}")


def refuse_oversized(config: Config, device: torch.device, group: Group) -> None:
    """Raise `UserError` for numbers with which this machine would hang, or fill its memory, before the first step."""
    data, cores = config.data, os.cpu_count() or 1
    most = max(64, 4 * cores)
    if data.workers > most:
        raise UserError(f"--data.workers {data.workers} starts too many processes for {cores} cores: {most} at most")
    # At least, in float32: mosaic, input, reference, target, generated image and its gradient, with 1 or 3 channels.
    need = data.batch // group.size * data.patch**2 * 4 * (1 + 1 + 3 + 3 + 3 + 3)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else free_memory()
    if need > memory:
        raise UserError(
            f"a batch of {data.batch} patches of {data.patch} pixels needs {need / 2**30:,.0f} GiB for its images "
            f"alone, and {device} has {memory / 2**30:,.0f} GiB free: lower --data.batch or --data.patch"
        )


def build_run(config: Config, resume: bool, group: Group = ALONE) -> Run:
    """Build the run of a config: at its start or, to `resume`, as in its last.pt. Claim its folder first."""
    folder, log = Path(config.runs) / config.run, config.log
    state = read_state(folder) if resume and (folder / "last.pt").exists() else None
    if state:
        _refuse_changes(_config_of(state, folder), config)
    task = isp.build_task(config, choose_device(group.device or config.device), group, state is not None)
    every = Intervals(log=log.every, validate=log.val_every, checkpoint=log.save_every, state=log.state_every)
    return Run(folder, task, every, group, state)


def train(config: Config, resume: bool = False, group: Group = ALONE) -> Path:
    """Train a run to its end and return its folder. Raises `UserError` for whatever the user can mend."""
    isp.check_names(config)  # and that device and batch can be used: before any file is written
    device = choose_device(group.device or config.device)
    group.share(config.data.batch)
    refuse_oversized(config, device, group)
    folder = Path(config.runs) / config.run
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError("the name of a run and its folder must be UTF-8: TensorBoard takes no others") from None
    with claim_folder(folder, resume) if group.main else nullcontext():
        build_run(config, resume, group).train()
    return folder


def main() -> None:
    config, resume = parse(sys.argv[1:])
    try:
        train(config, resume, join(config.device))
    except (torch.OutOfMemoryError, MemoryError):
        raise UserError("the device's memory is full: lower --data.batch or --data.patch") from None
    except RuntimeError as error:
        for text, sentence in RUNTIME_ERRORS.items():
            if text in str(error):
                raise UserError(sentence) from None
        raise


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
