"""The ablations of docs/ablations.md: prints the command that trains and scores each row, then the table of scores.

python benchmarks/ablations.py table4 --seeds 0 1 -- PRESET [option of fit.py ...]      prints a line for each run
python benchmarks/ablations.py table4 --seeds 0 1 --results [--runs DIR]                the table, as Markdown

In an option of fit.py, {seed} stands for the run's seed. Runs are called NAME-ROW-SEED.
"""

import argparse
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import common  # noqa: F401 - adds the repository's root to sys.path
import numpy as np

import fit
import storage
from errors import UserError, run_cli
from evaluation.metrics import MEASURES
from evaluation.tables import Table, checkpoints, folder_of, read_table

COLUMNS = ("psnr", "ssim", "lpips")


@dataclass(frozen=True)
class Ablation:
    """A table: what it shows, and the options of fit.py of each row."""

    summary: str
    rows: dict[str, str]


def _momentum(demosaic: str, beta1: float) -> str:
    return f"--data.demosaic {demosaic} --train.beta1 {beta1} --train.critic-beta1 {beta1}"


ABLATIONS = {
    "table3": Ablation(
        "demosaicing of the reference, and Adam's momentum (whose values the paper's text does not name)",
        {f"{name} {beta1}": _momentum(name, beta1) for name in ("menon2007", "bilinear") for beta1 in (0.5, 0.0)},
    ),
    "table4": Ablation(
        "texture critics on one layer of AlexNet, and the method's two",
        {name: f"--train.texture-critics {name}" for name in ("lin0", "lin1", "lin2", "lin3", "lin4", "lin0 lin3")},
    ),
    "released": Ablation(
        "the paper's text and the released code",
        {
            "text": "",
            "released code": "--as-released",
            "hidden factor of the penalties": "--released.penalty-times-100",
        },
    ),
    "color": Ablation(
        "what the colour critic sees (section 4.2)",
        {
            "ViT, blurred, 224": "",
            "ViT, blurred": "--backbones.vit-size 0",
            "ViT, sharp, normalised": "--backbones.vit-size 0 --train.no-blur-color --backbones.vit-normalise",
            "ViT, blurred, normalised": "--backbones.vit-size 0 --backbones.vit-normalise",
            "VGG, blurred": "--train.color-critic vgg",
            "AlexNet, blurred": "--train.color-critic alexnet",
        },
    ),
}


def run_name(name: str, row: str, seed: int) -> str:
    """The name of a row's run."""
    return f"{name}-{re.sub(r'[^0-9A-Za-z.]+', '-', row)}-{seed}"


def commands(name: str, rows: dict[str, str], seeds: list[int], runs: str, options: list[str]) -> list[str]:
    """A shell line for each run: train it, then score its last checkpoint. Raises `UserError` as `fit.parse`."""
    lines = []
    for seed in seeds:
        given = [option.replace("{seed}", str(seed)) for option in options]
        for row, change in rows.items():
            own = ("--run", run_name(name, row, seed), "--runs", runs)
            train = [*given, *own, "--seed", str(seed), *change.split()]
            last = str(fit.parse(train)[0].train.steps)
            score = shlex.join(("python", "inference.py", last, *own, "--measures", *COLUMNS))
            lines.append(f"{shlex.join(('python', 'fit.py', *train, '--resume'))} && {score}")
    return lines


def scores(folder: Path) -> Table:
    """The score table of a run's last checkpoint. Raises `UserError` if it has none, or not all `COLUMNS`."""
    last = checkpoints(folder)[-1:]
    table = read_table(folder_of(folder, "paper") / f"{last[0].stem}.csv") if last else None
    if table is None or not set(COLUMNS) <= table.mean.keys():
        raise UserError(f"{folder} has no scored checkpoint: run its line of the commands first")
    if table.header.get("sha256") != storage.sha256_of(last[0]):
        raise UserError(f"{last[0]} has changed since it was scored: run its line of the commands again")
    return table


def results(name: str, rows: dict[str, str], seeds: list[int], runs: str) -> list[str]:
    """The table of all rows, in Markdown: the mean over the seeds, and each seed's value."""
    labels = [f"{MEASURES[column].label}: mean (each seed)" for column in COLUMNS]
    lines = [f"| | {' | '.join(labels)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    tables = {row: [scores(Path(runs) / run_name(name, row, seed)) for seed in seeds] for row in rows}
    if len({table.header.get("data") for some in tables.values() for table in some}) > 1:
        raise UserError("the runs were scored on different data: score them again on the same")
    for row in rows:
        means, cells = [table.mean for table in tables[row]], []
        for column in COLUMNS:
            values, digits = [mean[column] for mean in means], MEASURES[column].digits
            each = ", ".join(f"{value:.{digits}f}" for value in values)
            cells.append(f"{np.mean(values):.{digits}f} ({each})")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage="%(prog)s NAME [...] -- OPTION ...")
    options.add_argument("name", choices=ABLATIONS, help="the table")
    options.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows")
    options.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="a run for each (0)")
    options.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (%(default)s)")
    options.add_argument("--results", action="store_true", help="print the table of runs that are trained and scored")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, training = options.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    rows = ABLATIONS[given.name].rows
    if unknown := set(given.rows or ()) - rows.keys():
        options.error(f"no row '{min(unknown)}'; known are: {', '.join(rows)}")
    rows = {row: rows[row] for row in given.rows or rows}
    if given.results == bool(training):
        options.error("give either the options of fit.py, after --, or --results")
    if given.results:
        lines = results(given.name, rows, given.seeds, given.runs)
    else:
        lines = commands(given.name, rows, given.seeds, given.runs, training)
    print("\n".join(lines))


if __name__ == "__main__":
    run_cli(main)
