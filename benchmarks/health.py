"""Print the signs that training goes wrong (evaluation/health.py) for checkpoints of runs, also of those made before.

python benchmarks/health.py RUN_FOLDER ... [--checkpoints 4]
"""

import argparse
from pathlib import Path

import common  # noqa: F401 - adds the repository's root to sys.path
import torch

from config import load
from errors import run_cli
from evaluation.health import Watch, alarms
from evaluation.history import read_history
from evaluation.tables import checkpoints, step_of
from tasks import isp
from tasks.model import open_model
from training.distributed import ALONE


def signs(run: Path, count: int) -> list[str]:
    """A line for each of about `count` checkpoints of a run, evenly spaced; then alarms, also of its log."""
    config, device, lines, watch, heard = load(run / "config.json"), torch.device("cpu"), [], Watch(), []
    health = isp.build_task(config, device, ALONE, resume=True).validation.health
    found = checkpoints(run)[::-1][:: max(1, len(checkpoints(run)) // count)][::-1]
    for path in found:
        values = health(open_model(str(path), device).generator)
        heard += watch.look("train", step_of(path), values)
        lines.append("  ".join((path.stem, *(f"{name} {value:.2f}" for name, value in values.items()))))
    heard += [sentence for sentence in alarms(read_history(run)[0]) if sentence not in heard]
    return [str(run), *lines, *(f"alarm: {sentence}" for sentence in heard)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="such as runs/demo")
    options.add_argument("--checkpoints", type=int, default=4, metavar="N", help="about so many of each run (4)")
    given = options.parse_args()
    if given.checkpoints < 1:
        options.error("--checkpoints must be at least 1")
    for run in given.runs:
        print("\n".join(signs(run, given.checkpoints)), flush=True)


if __name__ == "__main__":
    run_cli(main)
