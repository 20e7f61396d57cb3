"""Score checkpoints of a run on its validation split; what is scored already is not scored again.

python inference.py STEP ... | --all | --n N --remainder R | --checkpoint FILE   [--run NAME] [--rank unpaired]
"""

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import metrics
from build import Model, build_measures, build_unpaired_judge, choose_device, open_data, open_model, open_run
from config import Config
from config import config as default
from data.folders import Split
from data.loader import whole_files
from data.sensor import prepare
from errors import UserError, run_cli
from judges import Paired, Unpaired
from pretrained import zoo
from scores import Board, checkpoints, select, step_of
from training.log import Progress

UNPAIRED_FILES = 256  # at most so many mosaics, evenly drawn, where no pairs are needed


def open_board(run: Path, config: Config, rank: str, protocol: str, measures: Sequence[str] = ()) -> Board:
    """The score tables of a run for what is asked: a `protocol` with ground truth, or `rank` "unpaired", without."""
    splits, reader, _ = open_data(config)
    split = validation(splits, rank)
    files = [(path.name, path.stat().st_size) for path in (*split.raws, *split.photos)]
    digest = hashlib.sha256(repr((files, dataclasses.astuple(reader))).encode()).hexdigest()[:12]
    asked = {"data": f"{len(split.raws)} files, {digest}", "weights": config.backbones.weights}
    if rank == "unpaired":
        return Board(run / "scores" / "unpaired", rank, Unpaired.columns, {"protocol": Unpaired.summary, **asked})
    columns = metrics.choose(protocol, measures)
    if not set(columns) & set(metrics.NETWORKS):
        del asked["weights"]
    summary = f"{protocol}: {metrics.PROTOCOLS[protocol].summary}"
    return Board(run / "scores", protocol, columns, {"protocol": summary, **asked})


def validation(splits: dict[str, Split], rank: str) -> Split:
    """The files on which checkpoints are compared. Raises `UserError` where that needs pairs and there are none."""
    if rank == "unpaired":
        split = splits["val"] or splits["train"]
        step = -(-len(split.raws) // UNPAIRED_FILES)
        return Split(split.raws[::step], (), paired=False)
    if not splits["val"]:
        raise UserError("this run has no validation pairs; without them, checkpoints are scored by --rank unpaired")
    return splits["val"]


def render(generators: Sequence[nn.Module], inputs: Tensor, stacked: bool) -> Iterator[Tensor]:
    """Outputs (M, N, 3, H, W) of generators for the same inputs (N, C, h, w), in groups of M.

    `stacked` runs all as one, which keeps a GPU busy. A CPU is faster with one after another, while the inputs are in
    its cache (benchmarks/scoring.py).
    """
    if not stacked:
        yield from (generator(inputs)[None] for generator in generators)
        return
    weights, buffers = stack_module_state(list(generators))
    yield vmap(lambda *state: functional_call(generators[0], state, (inputs,)))(weights, buffers)


class Scorer:
    """Scores checkpoints on a run's validation files, which are read once, when the first is due."""

    def __init__(self, config: Config, board: Board, device: torch.device, at_once: int = 0):
        self.config, self.board, self.device = config, board, device
        self.stacked = at_once > 1 if at_once else device.type == "cuda"
        self.at_once = at_once or (32 if self.stacked else 8)
        self.pixels = 1 << 18  # of a batch of files: few enough to stay in a processor's cache
        self.files, self.judge, self.camera, self.notes = None, None, None, {}

    def score(self, wanted: Sequence[Path], progress: Callable[[int], None] = lambda done: None) -> dict[Path, str]:
        """Write what is missing of the tables of `wanted`; returns those that cannot be scored, with the reason.

        What another process is scoring is left to it, and waited for at the end.
        """
        failed, left, done = {}, [], 0
        for start in range(0, len(wanted), self.at_once):
            group = wanted[start : start + self.at_once]
            with self.board.claim(group) as mine:
                failed |= self._score(mine)
            left += [path for path in group if path not in mine]
            progress(done := done + len(mine))
        for path in left:
            with self.board.claim([path], wait=True):
                failed |= self._score([path])
            progress(done := done + 1)
        return failed

    def _score(self, claimed: Sequence[Path]) -> dict[Path, str]:
        models, failed = {}, {}
        for path in claimed:
            try:
                if not self.board.done(path):
                    models[path] = open_model(str(path), self.device)
            except UserError as error:
                failed[path] = str(error)
        for name in {model.name for model in models.values()}:
            group = {path: model for path, model in models.items() if model.name == name}
            for path, (rows, mean) in zip(group, self.evaluate(list(group.values())), strict=True):
                self.board.write(path, rows, mean, **self.notes)
        return failed

    @torch.inference_mode()
    def evaluate(self, models: Sequence[Model]) -> list[tuple[dict, dict]]:
        """(rows, mean) of each of these models, which share an architecture and a sensor."""
        self._open()
        generators = [model.generator for model in models]
        names, seen = [], [[] for _ in models]
        for some, mosaic, target in self.files:
            inputs = prepare(mosaic, models[0].levels(self.camera), generators[0].input_format)
            outputs = (image for group in render(generators, inputs, self.stacked) for image in group)
            context = self.judge.context(mosaic, target)
            for looks, images in zip(seen, outputs, strict=True):
                looks.append(self.judge.look(images, context))
            names += some
        joined = [{key: torch.cat([look[key] for look in looks]).cpu() for key in looks[0]} for looks in seen]
        return [self.judge.conclude(names, looks) for looks in joined]

    def _open(self) -> None:
        if self.files is not None:
            return
        splits, reader, reference = open_data(self.config)
        self.camera = reader.sensor
        if self.board.protocol == "unpaired":
            self.judge, self.notes = build_unpaired_judge(self.config, splits["train"], reference, self.device)
        else:
            policy = self.config.backbones.weights
            functions, self.notes = build_measures(self.board.protocol, self.board.columns, policy, self.device)
            self.judge = Paired(functions)
        self.files = []
        for names, mosaic, target in whole_files(validation(splits, self.board.protocol), reader, self.pixels):
            target = None if target is None else target.to(self.device)
            self.files.append((names, mosaic.to(self.device), target))
        if self.board.protocol == "unpaired":
            self.judge.calibrate(mosaic for _, mosaic, _ in self.files)


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """The options that inference.py and process_set.py share."""
    options = argparse.ArgumentParser(program, description=description)
    options.add_argument("--run", default=default.run, metavar="NAME", help="the run (%(default)s)")
    options.add_argument("--runs", default=default.runs, metavar="DIR", help="the folder of all runs (%(default)s)")
    options.add_argument("--data-root", default="", metavar="DIR", help="where its dataset lies here, if elsewhere")
    options.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda where there is one")
    options.add_argument("--at-once", type=int, default=0, metavar="M", help="models at a time (32 on a GPU)")
    options.add_argument("--protocol", default="paper", choices=metrics.PROTOCOLS, help="of the scores (%(default)s)")
    options.add_argument(
        "--measures", nargs="+", default=["psnr"], choices=metrics.MEASURES, help="the first ranks (psnr)", metavar="M"
    )
    return options


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of inference.py."""
    options = parser("inference.py", "Score checkpoints of a run on its validation split.")
    which = options.add_mutually_exclusive_group(required=True)
    which.add_argument("steps", nargs="*", type=int, default=[], metavar="STEP", help="checkpoints by their steps")
    which.add_argument("--all", action="store_true", help="all checkpoints")
    which.add_argument("--n", type=int, metavar="N", help="checkpoints whose index modulo N is the --remainder")
    which.add_argument("--checkpoint", metavar="FILE", help="any checkpoint of ours, a released file or its name")
    options.add_argument("--remainder", type=int, default=0, metavar="R", help="see --n (%(default)s)")
    options.add_argument("--rank", choices=("paired", "unpaired"), default="paired", help="unpaired: without pairs")
    return options.parse_args(arguments)


def choose(run: Path, asked: argparse.Namespace) -> list[Path]:
    """The checkpoints that a command line names. Raises `UserError` where one is not there."""
    if asked.checkpoint:
        return [zoo.locate(asked.checkpoint)]
    if asked.all or asked.n is not None:
        return select(run, asked.n or 1, [asked.remainder])
    there = {step_of(path): path for path in checkpoints(run)}
    missing = [step for step in asked.steps if step not in there]
    if missing:
        near = ", ".join(str(step) for step in sorted(there, key=lambda step: abs(step - missing[0]))[:4])
        raise UserError(f"{run} has no checkpoint of step {missing[0]}; nearest are: {near or 'none'}")
    return [there[step] for step in asked.steps]


def main() -> None:
    asked = parse(sys.argv[1:])
    run, config = open_run(asked.runs, asked.run, asked.data_root)
    wanted = choose(run, asked)
    board = open_board(run, config, asked.rank, asked.protocol, asked.measures)
    scorer = Scorer(config, board, choose_device(asked.device), asked.at_once)
    before = sum(board.done(path) for path in wanted)
    with Progress("scored", 0, len(wanted), unit="checkpoint") as progress:
        failed = scorer.score(wanted, progress.update)
    for path in wanted if len(wanted) <= 10 else ():
        if table := board.read(path):
            print(path.stem, *(f"{column} {value:.4f}" for column, value in table.mean.items()), sep="  ")
    done = len(wanted) - len(failed)
    print(f"{done} of {len(wanted)} checkpoints are scored in {board.folder}, {before} were already")
    if failed:
        raise UserError("; ".join(failed.values()))


if __name__ == "__main__":
    run_cli(main)
