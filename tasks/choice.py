"""The checkpoints that a command line names: of a run, a file, or a released model."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from config import Config, open_run
from config import config as default
from evaluation.tables import find_checkpoint, full_name
from pretrained import zoo


def add_options(options: argparse.ArgumentParser, unless: str) -> None:
    """Add --run, --runs, --step and --checkpoint; `unless` names the option that makes a run unnecessary."""
    add = options.add_argument
    add("--run", metavar="NAME", help=f"the run (default: {default.run}, unless there is {unless})")
    add("--runs", default=default.runs, metavar="DIR", help="the folder of all runs (%(default)s)")
    add(
        "--step",
        type=int,
        metavar="N",
        help="the run's checkpoint of this step (default: the best ranked, or the last)",
    )
    add("--checkpoint", metavar="FILE", help="a checkpoint of fit.py, a released file, or released:NAME")


def chosen(given: argparse.Namespace, data_root: str = "") -> tuple[Path | None, Config | None, Path]:
    """(folder and config of the run, None without one; checkpoint). Raises `UserError` for what does not exist.

    `data_root` replaces the folder of the run's dataset.
    """
    run, config = open_run(given.runs, given.run, data_root) if given.run else (None, None)
    path = zoo.locate(given.checkpoint) if given.checkpoint else find_checkpoint(run, given.step)
    return run, config, path


def compared(given: argparse.Namespace) -> Iterator[tuple[str, str, Path]]:
    """(label, folder name, checkpoint) of each model of --compare: the best of a run, a file, a released model."""
    for source in given.compare:
        run = Path(given.runs) / source
        is_run = (run / "config.json").is_file()
        path = find_checkpoint(run) if is_run else zoo.locate(source)
        name = full_name(path)
        yield source if is_run else name, name, path
