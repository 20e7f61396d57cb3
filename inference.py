"""Score checkpoints of a run on its validation pairs. Checkpoints that are scored already are skipped.

python inference.py STEP ... | --all | --n N --remainder R | --checkpoint FILE   [--run NAME] [--rank unpaired]
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from config import config as default
from config import open_run
from data.notes import note
from errors import UserError, run_cli
from evaluation.protocols import PROTOCOLS, all_measures
from evaluation.scoring import MAX_AT_ONCE
from evaluation.tables import checkpoints, select, step_of
from pretrained import zoo
from tasks.device import choose_device
from tasks.table import TASKS
from training.log import Progress


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """The options that inference.py and process_set.py share."""
    options = argparse.ArgumentParser(program, description=description)
    options.add_argument("--run", default=default.run, metavar="NAME", help="the run (%(default)s)")
    options.add_argument("--runs", default=default.runs, metavar="DIR", help="the folder of all runs (%(default)s)")
    options.add_argument("--data-root", metavar="DIR", help="the dataset's folder, if it has moved")
    options.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: cuda if available")
    options.add_argument(
        "--at-once", type=int, default=0, metavar="M", help="checkpoints in one pass (GPU: 32, mappers 8; CPU: 1)"
    )
    options.add_argument("--protocol", choices=PROTOCOLS, help="how to score (paper; raw2raw for mappers)")
    options.add_argument(
        "--measures", nargs="+", choices=all_measures(), metavar="M", help="the first one ranks (psnr)"
    )
    return options


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit together."""
    options = parser("inference.py", "Score checkpoints of a run on its validation pairs.")
    which = options.add_mutually_exclusive_group(required=True)
    which.add_argument("steps", nargs="*", type=int, default=[], metavar="STEP", help="checkpoints by their steps")
    which.add_argument("--all", action="store_true", help="all checkpoints")
    which.add_argument("--n", type=int, metavar="N", help="checkpoints whose index modulo N is the --remainder")
    which.add_argument("--checkpoint", metavar="FILE", help="a checkpoint of fit.py, a released file or its name")
    options.add_argument("--remainder", type=int, metavar="R", help="of the index modulo N (0)")
    options.add_argument("--rank", choices=("paired", "unpaired"), default="paired", help="unpaired: without pairs")
    given = options.parse_args(arguments)
    if given.remainder is not None and given.n is None:
        options.error("--remainder needs --n")
    given.remainder = given.remainder or 0
    set_measures(options, given)
    return given


def set_measures(options: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Fill in "" and [] for the task's own protocol and measures. Exits with status 2 if they have no effect.

    Also for an --at-once that `evaluation.scoring` would refuse: process_set.py would start its sessions first.
    """
    for name in ("run", "runs", "data_root", "checkpoint"):
        if getattr(given, name, None) == "":
            options.error(f"--{name.replace('_', '-')} is empty: give it a value, or leave it out")
    given.data_root = given.data_root or ""
    if not 0 <= given.at_once <= MAX_AT_ONCE:
        options.error(f"--at-once must lie between 0 and {MAX_AT_ONCE}, but is {given.at_once}")
    for name, default_value in (("protocol", ""), ("measures", [])):
        if given.rank == "unpaired" and getattr(given, name):
            options.error(f"--{name} has no effect with --rank unpaired, which has its own measures")
        setattr(given, name, getattr(given, name) or default_value)


def choose(run: Path, given: argparse.Namespace) -> list[Path]:
    """The checkpoints that a command line names. Raises `UserError` if one does not exist."""
    if given.checkpoint:
        file = zoo.locate(given.checkpoint).absolute()
        return [next((own for own in checkpoints(run) if own.exists() and own.samefile(file)), file)]
    if given.all or given.n is not None:
        n = 1 if given.all else given.n
        if n < 1:
            raise UserError(f"--n must be at least 1, but is {n}")
        if not 0 <= given.remainder < n:
            raise UserError(f"--remainder must lie between 0 and --n - 1, which is {n - 1}; it is {given.remainder}")
        return select(run, n, [given.remainder])
    existing = {step_of(path): path for path in checkpoints(run)}
    missing = [step for step in given.steps if step not in existing]
    if missing:
        near = ", ".join(str(step) for step in sorted(existing, key=lambda step: abs(step - missing[0]))[:4])
        raise UserError(f"{run} has no checkpoint of step {missing[0]}; nearest are: {near or 'none'}")
    return [existing[step] for step in given.steps]


def main() -> None:
    given = parse(sys.argv[1:])
    run, config = open_run(given.runs, given.run, given.data_root)
    wanted = choose(run, given)
    task = TASKS[config.task]
    tables = task.open_tables(run, config, given.rank, given.protocol, given.measures)
    scorer = task.open_scorer(config, tables, choose_device(given.device), given.at_once)
    before = sum(tables.is_complete(path) for path in wanted)
    try:
        images = scorer.open() if before < len(wanted) else 1  # of each checkpoint
        with Progress("scored", 0, len(wanted) * images, unit="image") as progress:
            failed = scorer.score(wanted, lambda done: progress.update(round(done * images)))
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: lower --at-once") from None
    for path in wanted if len(wanted) <= 10 else ():
        if table := tables.read(path):
            print(path.stem, *(f"{column} {value:.4f}" for column, value in table.mean.items()), sep="  ")
    for column, source in scorer.notes.items():
        if source.startswith("random"):
            note(f"{column} was computed with random weights: compare it within this table only")
    done = sum(tables.is_complete(path) for path in wanted)
    print(f"{done} of {len(wanted)} checkpoints have scores in {tables.folder}; {before} of them had before")
    if failed:
        raise UserError("; ".join(failed.values()))


if __name__ == "__main__":
    run_cli(main)
