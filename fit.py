"""Train an ISP: pretrain it on demosaicing, then train it unpaired, paired, or paired with critics.

The preset raw2raw trains mappers between two cameras' mosaics instead.

python fit.py [PRESET] [--section.field value ...] [--run NAME] [--resume]
torchrun --nproc-per-node G -- fit.py ...     the same on G GPUs, which share each batch
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

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
from data.notes import note
from errors import UserError, run_cli
from tasks.device import choose_device
from tasks.runs import PLACES
from tasks.settings import refuse_oversized
from tasks.table import TASKS
from training.distributed import ALONE, Group, join, leave
from training.folder import claim_folder, read_state
from training.run import Run
from training.task import Intervals

# What a resumed run may change: fields and sections that do not affect the arithmetic of a step.
RESUMABLE = PLACES | {"data.exclude", "data.masks", "data.map", "compute.compile", "log"}

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
        task = TASKS[parsed.config.task]
        named = [name for name in _named(arguments) if name not in given]  # those set to their defaults
        published = parsed.config.recipe == "published"  # whose defaults are others: a named one has no effect, either
        task.refuse_ineffective(parsed.config, given + named if published else given)
        filled = parsed.resume and file.exists()
        given += named
        return parsed.config if filled else task.with_cameras(parsed.config, given), parsed.resume
    before = _own_config(file, parsed.config)
    after = _parse(arguments, before).config
    _refuse_changes(before, after)
    return after, True


def _named(arguments: Sequence[str]) -> list[str]:
    """The fields that a command line names: --data.white-level=4095 gives "data.white_level"."""
    options = (argument[2:].partition("=")[0] for argument in arguments if argument.startswith("--"))
    return [option.replace("-", "_") for option in options]


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
        description="Train a learned smartphone ISP, or raw2raw: mappers between two cameras' mosaics. "
        f"Presets: {', '.join(PRESETS)}. Defaults are the preset's.",
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
    if name == "mapping.steps":
        return True
    return name in RESUMABLE or name.split(".")[0] in RESUMABLE


def build_run(config: Config, resume: bool, group: Group = ALONE) -> Run:
    """Build the run of a config: at its start or, to `resume`, as in its last.pt. Claim its folder first."""
    folder, log = Path(config.runs) / config.run, config.log
    state = read_state(folder) if resume and (folder / "last.pt").exists() else None
    if state:
        _refuse_changes(_config_of(state, folder), config)
    task = TASKS[config.task].build(config, choose_device(group.device or config.device), group, state is not None)
    every = Intervals(log=log.every, validate=log.val_every, checkpoint=log.save_every, state=log.state_every)
    return Run(folder, task, every, group, state)


def train(config: Config, resume: bool = False, group: Group = ALONE) -> Path:
    """Train a run to its end and return its folder. Raises `UserError` for whatever the user can mend."""
    TASKS[config.task].check_names(config)  # and that device and batch can be used: before any file is written
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
