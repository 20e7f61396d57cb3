"""Score checkpoints of a run on its validation split; what is scored already is not scored again.

python inference.py STEP ... | --all | --n N --remainder R | --checkpoint FILE   [--run NAME] [--rank unpaired]
"""

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from scores import Board, checkpoints, folder_of, select, step_of
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
        return Board(folder_of(run, rank), rank, Unpaired.columns, {"protocol": Unpaired.summary, **asked})
    columns = metrics.choose(protocol, measures)
    if not set(columns) & set(metrics.NETWORKS):
        del asked["weights"]
    summary = f"{protocol}: {metrics.PROTOCOLS[protocol].summary}"
    return Board(folder_of(run, protocol), protocol, columns, {"protocol": summary, **asked})


def validation(splits: dict[str, Split], rank: str) -> Split:
    """The files on which checkpoints are compared. Raises `UserError` where that needs pairs and there are none."""
    if rank == "unpaired":
        split = splits["val"] or splits["train"]
        step = -(-len(split.raws) // UNPAIRED_FILES)
        return Split(split.raws[::step], (), paired=False)
    if not splits["val"]:
        raise UserError("this run has no validation pairs; without them, checkpoints are scored by --rank unpaired")
    return splits["val"]


def render(generators: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Outputs (M, N, 3, H, W) of M generators of one architecture for the same inputs (N, C, h, w), run as one."""
    if len(generators) == 1:
        return generators[0](inputs)[None]
    weights, buffers = stack_module_state(list(generators))
    return vmap(lambda *state: functional_call(generators[0], state, (inputs,)))(weights, buffers)


class Scorer:
    """Scores checkpoints on a run's validation files, which are read once, when the first is due.

    A GPU is kept busy by many models run as one, `at_once`. A CPU is faster with a model a thread, and few pixels at a
    time, which stay in its cache (benchmarks/scoring.py).
    """

    def __init__(self, config: Config, board: Board, device: torch.device, at_once: int = 0):
        if at_once < 0:
            raise UserError(f"--at-once must not be negative, but is {at_once}")
        self.config, self.board, self.device = config, board, device
        self.layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.stack = at_once or (32 if device.type == "cuda" else 1)
        self.threads = torch.get_num_threads() if device.type == "cpu" and self.stack == 1 else 1
        self.group = max(self.stack, 8 * self.threads)  # checkpoints claimed together
        self.pixels = (1 << 20) // self.stack if device.type == "cuda" else 1 << 18
        self.files, self.inputs, self.judge, self.camera, self.notes = [], {}, None, None, {}

    def score(self, wanted: Sequence[Path], progress: Callable[[int], None] = lambda done: None) -> dict[Path, str]:
        """Write what is missing of the tables of `wanted`; returns those that cannot be scored, with the reason.

        What another process is scoring is left to it, and waited for at the end.
        """
        failed, left, done = {}, [], 0
        for start in range(0, len(wanted), self.group):
            group = wanted[start : start + self.group]
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
        models, heads, failed = {}, {}, {}
        for path in claimed:
            try:
                if not self.board.done(path):
                    heads[path] = self.board.head(path)
                    models[path] = open_model(str(path), self.device)
            except UserError as error:
                failed[path] = str(error)
        for kind in {(model.name, model.sensor) for model in models.values()}:
            group = {path: model for path, model in models.items() if (model.name, model.sensor) == kind}
            for path, (rows, mean) in zip(group, self.evaluate(list(group.values())), strict=True):
                if self.board.head(path) == heads[path]:
                    self.board.write(path, rows, mean, **self.notes)
                else:
                    failed[path] = f"{path} changed while it was scored: score it again"
        return failed

    def evaluate(self, models: Sequence[Model]) -> list[tuple[dict, dict]]:
        """(rows, mean) of each of these models, which share an architecture and a sensor."""
        self._open()
        self._inputs(models[0])
        stacks = [models[start : start + self.stack] for start in range(0, len(models), self.stack)]
        if self.threads == 1:
            return [result for stack in stacks for result in self._look(stack)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # each thread works alone: the operations are too small to be shared
        try:
            with ThreadPoolExecutor(self.threads) as pool:
                return [result for results in pool.map(self._look, stacks) for result in results]
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _look(self, models: Sequence[Model]) -> list[tuple[dict, dict]]:
        generators = [model.generator.to(memory_format=self.layout) for model in models]
        names, seen = [], [[] for _ in models]
        for (some, _, context), inputs in zip(self.files, self._inputs(models[0]), strict=True):
            outputs = render(generators, inputs)
            for looks, images in zip(seen, outputs, strict=True):
                looks.append(self.judge.look(images, context))
            names += some
        joined = [{key: torch.cat([look[key] for look in looks]).cpu() for key in looks[0]} for looks in seen]
        return [self.judge.conclude(names, looks) for looks in joined]

    @torch.inference_mode()
    def _open(self) -> None:
        """Read the files and build the judge, once."""
        if self.files:
            return
        splits, reader, reference = open_data(self.config)
        split, self.camera = validation(splits, self.board.protocol), reader.sensor
        files = [(names, mosaic.to(self.device), t) for names, mosaic, t in whole_files(split, reader, self.pixels)]
        if self.board.protocol == "unpaired":
            self.judge, self.notes = build_unpaired_judge(self.config, splits["train"], reference, self.device)
            self.judge.calibrate(mosaic for _, mosaic, _ in files)
        else:
            policy = self.config.backbones.weights
            functions, self.notes = build_measures(self.board.protocol, self.board.columns, policy, self.device)
            self.judge = Paired(functions)
        for names, mosaic, target in files:
            context = self.judge.context(mosaic, None if target is None else target.to(self.device))
            self.files.append((names, mosaic, context))

    @torch.inference_mode()
    def _inputs(self, model: Model) -> list[Tensor]:
        """What this model takes of the files; made once for all of its kind."""
        kind = model.levels(self.camera), model.generator.input_format
        if kind not in self.inputs:
            inputs = (prepare(mosaic, *kind) for _, mosaic, _ in self.files)
            self.inputs = {kind: [some.contiguous(memory_format=self.layout) for some in inputs]}
        return self.inputs[kind]


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
        file = zoo.locate(asked.checkpoint).absolute()
        return [next((ours for ours in checkpoints(run) if ours.samefile(file)), file)]
    if asked.all or asked.n is not None:
        n = 1 if asked.all else asked.n
        if not 0 <= asked.remainder < n:
            raise UserError(f"--remainder must lie between 0 and --n - 1, which is {n - 1}; it is {asked.remainder}")
        return select(run, n, [asked.remainder])
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
    try:
        with Progress("scored", 0, len(wanted), unit="checkpoint") as progress:
            failed = scorer.score(wanted, progress.update)
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: lower --at-once") from None
    for path in wanted if len(wanted) <= 10 else ():
        if table := board.read(path):
            print(path.stem, *(f"{column} {value:.4f}" for column, value in table.mean.items()), sep="  ")
    done = len(wanted) - len(failed)
    print(f"{done} of {len(wanted)} checkpoints are scored in {board.folder}, {before} were already")
    if failed:
        raise UserError("; ".join(failed.values()))


if __name__ == "__main__":
    run_cli(main)
