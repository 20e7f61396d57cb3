"""What the training loop needs to know of a task: its stages, their algorithms and data, and how it is validated."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from training.validation import Validation


class Algorithm(Protocol):
    """What the loop needs of a training algorithm, such as `training.steps.Trainer`."""

    result: nn.Module  # the generator to validate and save
    rates: dict[str, float]  # the learning rates by name, for the log

    def step(self, batch: Any, number: int) -> dict[str, Tensor]:
        """Make step `number` (from 1) and return statistics, which stay on the device."""

    def finite(self) -> bool:
        """Whether all weights are finite."""

    def state(self) -> dict[str, dict]:
        """Everything that changes from step to step."""

    def load_state(self, state: dict[str, dict]) -> None:
        """Continue from a `state`. Raises KeyError or RuntimeError if it does not fit."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with its own algorithm and data."""

    name: str  # in the log and in messages, such as "pretrain"
    result: str  # what its generator is called in the summary, such as "pretrained"
    steps: int
    algorithm: Algorithm
    batches: Callable[[int], Generator[Any, None, None]]  # an endless stream of loaded batches, from a step on
    prepare: Callable[[Any], Any]  # a loaded batch -> the algorithm's
    save_steps: bool = True  # save a checkpoint every so many steps; otherwise one, at the end, named by `result`
    image: Callable[[nn.Module, Any], Tensor] | None = (
        None  # (generator, inputs) -> what is validated; None: its output
    )


@dataclass(frozen=True)
class Intervals:
    """Steps between two writes of each kind; each is also written after a stage's last step."""

    log: int
    validate: int
    checkpoint: int
    state: int


@dataclass(frozen=True)
class Task:
    """What is trained, as far as the loop needs to know it."""

    summary: str  # one line: what is trained on what
    generator: nn.Module  # what all stages train, one after another; a moving average is only saved
    stages: Sequence[Stage]
    validation: Validation
    provenance: dict[str, str]  # where the weights of each frozen network are from
    config: dict[str, Any]  # goes into config.json and every checkpoint
    description: dict[str, Any]  # goes into every checkpoint of the generator, so that it can be used
    identity: Any = None  # of the data, the same in all processes: names and fingerprints of files; data.json holds it
    warning: str = ""  # a caveat to print with the scores; empty if there is none
    watch: Callable[[str, int, dict[str, float]], list[str]] = lambda stage, step, values: []  # a logged line -> alarms
