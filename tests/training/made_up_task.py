"""A made-up task for tests of the training loop, and helpers to interrupt and to read its runs.

Each step adds the step's number to the generator's only weight.
"""

import json
import os
from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path

import torch
from torch import nn

import storage
from training.folder import read_state
from training.run import Run
from training.task import Intervals, Stage, Task
from training.validation import Validation


class Adder:
    """An algorithm whose batch of step n is the number n; `hook(n)` is called before each step."""

    rates = {}

    def __init__(self, generator: nn.Linear, hook: Callable[[int], None]):
        self.result, self.hook = generator, hook

    def step(self, batch: float, number: int) -> dict[str, torch.Tensor]:
        assert batch == number
        self.hook(number)
        with torch.no_grad():
            self.result.weight += batch
        return {"loss/weight": self.result.weight.detach().sum()}

    def finite(self) -> bool:
        return bool(self.result.weight.isfinite().all())

    def state(self) -> dict[str, dict]:
        return {"generator": self.result.state_dict()}

    def load_state(self, state: dict[str, dict]) -> None:
        self.result.load_state_dict(state["generator"])


def batches(step: int) -> Generator[int, None, None]:
    yield from count(step + 1)


def make_task(
    first: int = 2, second: int = 5, hook: Callable[[int], None] = lambda number: None, pairs: int = 2, **fields
) -> Task:
    """Stages "warm-up", of `first` steps, and "train", of `second`, in which `hook(step)` is called.

    The score of validation pair i is i + the weight; that of the baseline is 100 + i.
    """
    generator = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(generator.weight)
    stages = [
        Stage("warm-up", "warm", first, Adder(generator, lambda number: None), batches, float, save_steps=False),
        Stage("train", "final", second, Adder(generator, hook), batches, float),
    ]
    validation = Validation(
        name="val_score",
        title="Scores",
        unit="points",
        count=pairs,
        pairs=lambda indices: ((torch.tensor([float(i)]), torch.zeros(1)) for i in indices),
        score=lambda image, target: image - target,
        render=lambda generator: lambda inputs: inputs + generator.weight[0],
        samples=lambda generator: [[torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]],
        baselines={"baseline": lambda inputs: inputs + 100},
    )
    defaults = {
        "provenance": {"vgg": "random (seed 0)"},
        "config": {"name": "made-up"},
        "description": {"model": "adder"},
    }
    return Task("adder on 2 pairs", generator, stages, validation, **defaults | fields)


def make_run(folder: Path, task: Task | None = None, resume: bool = False, **every: int) -> Run:
    """A run of a task that writes everything at every step, or at the intervals in `every`."""
    intervals = {"log": 1, "validate": 1, "checkpoint": 1, "state": 1} | every
    return Run(folder, task or make_task(), Intervals(**intervals), state=read_state(folder) if resume else None)


# --- interrupting a run ----------------------------------------------------------------------------------------------


class Kill(BaseException):
    """Ends a run as a killed process would: nothing catches it."""


def kill_at(step: int) -> Callable[[int], None]:
    """A hook that raises `Kill` before this step."""

    def hook(number: int) -> None:
        if number == step:
            raise Kill

    return hook


def signal_at(step: int, which: int) -> Callable[[int], None]:
    """A hook that sends this process a signal before this step."""

    def hook(number: int) -> None:
        if number == step:
            os.kill(os.getpid(), which)

    return hook


# --- reading a run ---------------------------------------------------------------------------------------------------


def read_log(folder: Path) -> list[tuple]:
    """(stage, step, name, value) of all lines of log.jsonl but the first."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()[1:]]
    return [(line.pop("stage"), line.pop("step"), *line.popitem()) for line in lines]


def checkpoint_weights(folder: Path) -> dict[str, float]:
    """The generator's weight in each file of checkpoints/, by the file's name."""
    files = sorted((folder / "checkpoints").iterdir())
    return {path.stem: float(storage.load(path)["generator"]["weight"]) for path in files}
