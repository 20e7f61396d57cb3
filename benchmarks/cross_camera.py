"""An ISP for one camera, used on another: as it is, on mapped mosaics, and trained on mapped mosaics, without pairs.

python benchmarks/cross_camera.py PHOTOS --out DIR [--models efficient robust] [--seeds 0 1 2] [--steps 600]

Two simulated cameras in mixed light, a and b, whose exact photographs are known. ISPs are trained on pairs of camera a
and tested on camera b's pairs, which are of other photographs; the maps between the cameras see no pairs. DIR gets the
datasets, maps and runs, and a file for each finished row, which is not run again: to continue, give the same command.
Prints a table of each network in Markdown.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
from common import positive
from raw_to_raw import make_dataset, read_row

import fit
import map_raw
import storage
import test_model
from data import camera
from data.two_cameras import OTHER
from errors import UserError, run_cli
from evaluation.metrics import MEASURES
from evaluation.tables import read_table
from models import model_spec

METHODS = ("statistics", "profiles")
# The ISPs' training: fixed before one was tested. Mean squared error alone needs no frozen networks.
TRAINING = "quick --train.mode paired --data.layout folders --data.pairs yes --data.workers 0"


@dataclass(frozen=True)
class Row:
    """How an ISP comes to camera b's mosaics."""

    label: str
    trained: str  # the camera whose pairs train it
    tested: str  # the camera whose mosaics test it
    mapped: str = ""  # what the map changes: what it is trained on, or what it is tested on
    method: str = ""  # of the map

    @property
    def run(self) -> str:
        """The name of its training, which several rows can share."""
        return f"{self.trained}-{self.method}" if self.mapped == "training" else self.trained

    @property
    def name(self) -> str:
        """The name of its files."""
        return "-".join(filter(None, (self.run, "on", self.tested, self.method if self.mapped == "test" else "")))


ROWS = (
    Row("a, on a", "a", "a"),
    Row("a, on b as it is", "a", "b"),
    *(Row(f"a, on b mapped to a (`--adapt`), {method}", "a", "b", "test", method) for method in METHODS),
    *(Row(f"a mapped to b (`--data.map`), on b, {method}", "a", "b", "training", method) for method in METHODS),
    Row("b: pairs that one would not have, on b", "b", "b"),
)


def command(module: ModuleType, *words: object) -> None:
    """Run a command of this repository in this process, without its output."""
    arguments = [f"{module.__name__}.py", *map(str, words)]
    with (
        mock.patch.object(sys, "argv", arguments),
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stdout(nothing),
    ):
        module.main()


def fit_map(data: Path, method: str, to: str, file: Path) -> Path:
    """The file of a map to camera `to`, fitted to the unpaired mosaics; made once."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        sides = [f"--{each}={data / 'unpaired' / each}" for each in ("a", "b")]
        profiles = [f"--camera-{each}={data / f'{each}.json'}" for each in ("a", "b")]
        command(map_raw, "--method", method, *sides, *profiles, "--to", to, "--save", file)
    return file


def training_options(model: str, steps: int) -> list[str]:
    """The options of fit.py, without the data, the map, the seed and the place."""
    return [*TRAINING.split(), "--model", model, "--train.steps", str(steps)]


def train(row: Row, data: Path, maps: Path, runs: Path, name: str, seed: int, options: Sequence[str]) -> None:
    """Train the ISP of a row, or continue it. A finished run is left as it is."""
    each = row.trained
    pairs = ("--data.raw", data / "unpaired" / each, "--data.photos", data / "photographs" / each)
    own = ["--data.camera", data / f"{each}.json", "--runs", runs, "--run", name, "--seed", seed]
    if row.mapped == "training":
        own += ["--data.map", fit_map(data, row.method, OTHER[each], maps / f"{row.method}-{OTHER[each]}.json")]
    fit.train(*fit.parse([*options, *map(str, (*pairs, *own)), "--resume"]))


def test(row: Row, data: Path, maps: Path, runs: Path, name: str, output: Path, given: argparse.Namespace) -> dict:
    """The means of the measures over the pairs of the camera that is tested."""
    of_run = ("--runs", runs, "--run", name, "--step", given.steps, "--output", output)
    files = ("--input", data / "paired" / row.tested, "--target", data / "photographs" / "paired")
    own: list[object] = []
    if row.mapped == "test":
        own = ["--adapt", fit_map(data, row.method, row.trained, maps / f"{row.method}-{row.trained}.json")]
    elif not row.mapped and row.trained != row.tested:  # levels and CFA order alone are brought over
        sensor = camera.load(data / f"{row.tested}.json").sensor
        own = ["--cfa", sensor.cfa, "--white-level", sensor.white_level, "--black-level", *sensor.black_level]
    command(test_model, *of_run, *files, *own, "--measures", *given.measures, "--weights", given.weights)
    table = read_table(output / "metrics.csv")
    if not table:
        raise UserError(f"{output} has no scores: remove it, and give the same command again")
    return table.mean


def run_row(row: Row, model: str, seed: int, given: argparse.Namespace) -> None:
    """Train, test and write the row's file, unless there is one. Raises `UserError` if it is of other settings."""
    file, data = file_of(given.out, row, model, seed), given.out / f"cams_mixed_{seed}"
    options = training_options(model, given.steps)
    settings = [*options, "--weights", given.weights]
    if file.is_file():
        known = read_row(file)
        if known["options"] != settings or any(name not in known["means"] for name in given.measures):
            raise UserError(f"{file} is of other settings: remove it, or give another --out")
        return
    maps, runs, name = given.out / f"maps_{seed}", given.out / "runs", f"{model}-{row.run}-{seed}"
    make_dataset(given.photos, data, "mixed", seed)
    train(row, data, maps, runs, name, seed, options)
    means = test(row, data, maps, runs, name, given.out / "tests" / f"{model}-{row.name}-{seed}", given)
    storage.write_json(file, {"row": row.label, "options": settings, "means": means})
    print(f"{model}, seed {seed}, {row.label}: {means}", flush=True)


def file_of(out: Path, row: Row, model: str, seed: int) -> Path:
    """Where a row's scores are kept."""
    return out / "scores" / f"{model}_{seed}" / f"{row.name}.json"


def table(model: str, given: argparse.Namespace) -> list[str]:
    """The finished rows of a network in Markdown: means and, of several seeds, standard deviations."""
    measures = [MEASURES[name] for name in given.measures]
    lines = [f"| ISP trained on, tested on | seeds | {' | '.join(measure.heading for measure in measures)} |"]
    lines += ["|---" * (2 + len(measures)) + "|"]
    for row in ROWS:
        files = {seed: file_of(given.out, row, model, seed) for seed in given.seeds}
        found = {seed: read_row(file)["means"] for seed, file in files.items() if file.is_file()}
        cells = [row.label, ", ".join(map(str, found))]
        for name, measure in zip(given.measures, measures, strict=True):
            values = [means[name] for means in found.values()]
            cell = f"{np.mean(values):.{measure.digits}f}" if values else ""
            cells.append(f"{cell} ± {np.std(values):.{measure.digits}f}" if len(values) > 1 else cell)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photos", help="a folder of photographs, or the word demo, as for data.simulate")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of data, runs and scores")
    options.add_argument("--models", nargs="+", default=["efficient", "robust"], metavar="NAME", help="(%(default)s)")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="(0 1 2)")
    options.add_argument("--steps", type=positive, default=600, help="of training (%(default)s)")
    usual = ["psnr", "ssim", "lpips", "kid"]
    options.add_argument("--measures", nargs="+", default=usual, choices=MEASURES, metavar="M", help="(%(default)s)")
    options.add_argument(
        "--weights",
        choices=("pretrained", "random"),
        default="pretrained",
        help="of LPIPS and DISTS (%(default)s); KID and FID have published ones",
    )
    given = options.parse_args()
    for model in given.models:
        model_spec(model)
    for seed in given.seeds:
        for model in given.models:
            for row in ROWS:
                run_row(row, model, seed, given)
    for model in given.models:
        print("\n".join(("", f"{model}, {given.steps} steps", "", *table(model, given))))


if __name__ == "__main__":
    run_cli(main)
