"""What a run reports: log.jsonl, TensorBoard, a progress bar, its speed; and the training that it reports as failed."""

import hashlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

import storage
from errors import UserError

T = TypeVar("T")
DIVERGED = (
    "training has diverged. The last saved state is untouched. Try a lower learning rate or a larger gamma, or check "
    "the data"
)


class RunLog:
    """log.jsonl and TensorBoard events in a run's folder.

    A line holds {"stage", "step", name: value, ...}, and no times or other values that differ between two runs of one
    config: so a resumed run writes the same bytes as one that was never stopped. It passes the `position` and `digest`
    that `mark` gave when its state was saved; what was written after that is removed.
    """

    def __init__(self, folder: Path, position: int = 0, digest: str = "", total_step: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"{self.path} is not a file: remove it")
        content = self.path.read_bytes()[:position] if position and self.path.exists() else b""
        self.digest = hashlib.sha256(content)
        if position and self.path.exists() and self.digest.hexdigest() != digest:
            raise UserError(
                f"{self.path} is not the log that last.pt continues: it was cut, changed or replaced. Put the run's "
                "own log there; or move the file away, and the run continues with a new log"
            )
        storage.write_bytes(self.path, content)  # a new file: the old one may be linked from a copy of the run
        self.file = open(self.path, "ab")  # noqa: SIM115 - closed by close()
        threading.excepthook = _print_unless_os_error
        self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=total_step + 1)

    def write(self, stage: str, step: int, total_step: int, values: dict[str, float]) -> None:
        """Add one line. `total_step` counts the steps of all stages, for TensorBoard."""
        self._add({"stage": stage, "step": step, **values})
        with storage.naming(self.path.parent / "tensorboard"):
            for name, value in values.items():
                self.events.add_scalar(f"{stage}/{name}", value, total_step)

    def begin(self, facts: dict[str, Any]) -> None:
        """Write the first line: facts about the run."""
        self._add({"stage": "start", **facts})
        self.events.add_text("start", json.dumps(facts, indent=2))

    def show(self, stage: str, total_step: int, picture: Tensor) -> None:
        """Add sample images (3, H, W) in [0, 1] to TensorBoard."""
        with storage.naming(self.path.parent / "tensorboard"):
            self.events.add_image(f"{stage}/samples", picture, total_step)

    def mark(self) -> tuple[int, str]:
        """(size of log.jsonl in bytes, SHA-256 of its content), once it is on the disk."""
        os.fsync(self.file.fileno())
        return self.file.tell(), self.digest.hexdigest()

    def lines(self) -> Iterator[tuple[str, int, dict[str, float]]]:
        """(stage, step, values) of each line that `write` has written."""
        for line in map(json.loads, self.path.read_text().splitlines()):
            if "step" in line:
                yield line.pop("stage"), line.pop("step"), line

    def close(self) -> None:
        self.file.close()
        self.events.close()

    def _add(self, line: dict[str, Any]) -> None:
        content = f"{json.dumps(line)}\n".encode()
        with storage.naming(self.path):
            self.file.write(content)
            self.file.flush()
        self.digest.update(content)


def _print_unless_os_error(thread: Any) -> None:
    """Print a thread's exception; not TensorBoard's of a full disk, which its next call raises in the main thread."""
    if not isinstance(thread.exc_value, OSError):
        threading.__excepthook__(thread)


class NoLog(RunLog):
    """The log of a process that writes no files."""

    def __init__(self):
        pass

    def write(self, *_: Any) -> None:
        pass

    def begin(self, *_: Any) -> None:
        pass

    def show(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass


def to_floats(
    statistics: dict[str, Tensor], where: str, mean: Callable[[Tensor], Tensor] = lambda values: values
) -> dict[str, float]:
    """Statistics as numbers, averaged over all processes by `mean`. Waits for the device once.

    Raises `UserError` if one is not finite; `where` says at which step.
    """
    values = dict(zip(statistics, mean(torch.stack(list(statistics.values()))).tolist(), strict=True))
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise UserError(f"{broken[0]} is {values[broken[0]]} at {where}: {DIVERGED}")
    return values


class GradientCheck:
    """Ends training whose generator gets no gradient any more, from any term.

    After too large a step, all values before a ReLU may be negative for every input: the images no longer depend on
    the weights, and no later step changes that. A few batches, such as of black frames, may give no gradient either; so
    `LINES` logged steps in a row, over at least `STEPS` steps, must all have gradients of exactly 0.
    """

    LINES, STEPS = 10, 100

    def __init__(self):
        self.first, self.lines = 0, 0  # the first logged step without a gradient, and the number of such steps since

    def check(self, values: dict[str, float], step: int, stage: str) -> None:
        """Look at a logged step's statistics, of which "norm/NAME" is the norm of the gradient of the term NAME."""
        norms = [value for name, value in values.items() if name.startswith("norm/")]
        if not norms or any(norms):
            self.lines = 0
            return
        self.first = self.first if self.lines else step
        self.lines += 1
        if self.lines >= self.LINES and step - self.first >= self.STEPS:
            raise UserError(
                f"no gradient has reached the generator since step {self.first} of {stage}: its images no longer "
                "depend on its weights, and more training cannot change it. Start another run (--run NAME) with a "
                "lower learning rate; checkpoints of earlier steps can be used (--init)"
            )


def say(text: str) -> None:
    """Print a line to stderr, above the progress bar if there is one. Nothing is lost if nobody can read it."""
    with suppress(OSError, RuntimeError):  # a closed terminal; a signal's message amid another one
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


class Forecast:
    """Tells after a stage's first steps how long the stage will take, if that is more than a day."""

    STEPS, SECONDS = 10, 60.0  # after so many steps, or after the first one that ends this many seconds later

    def __init__(self, stage: str, done: int, steps: int):
        self.stage, self.first, self.steps = stage, done + 1, steps
        self.start, self.told = 0.0, False

    def after(self, done: int) -> str:
        """The sentence, once, or "". `done` steps are done; the first one, which is slower, does not count."""
        now, counted = time.monotonic(), done - self.first
        if counted <= 0:
            self.start = now
        if self.told or counted <= 0 or (counted < self.STEPS and now - self.start < self.SECONDS):
            return ""
        self.told = True
        days = (now - self.start) / counted * (self.steps - done) / 86_400
        if days < 1:
            return ""
        return (
            f"{self.stage}: about {days:,.1f} days for its {self.steps - done:,} steps at this rate. A GPU, fewer "
            "steps or a smaller batch take less. Ctrl-C saves the state; --resume continues"
        )


class Progress:
    """A tqdm bar on a terminal, elsewhere a line every `INTERVAL` seconds.

    Use it in a `with` statement: then the bar's line ends before an error is printed.
    """

    INTERVAL = 20.0  # seconds between lines

    def __init__(self, stage: str, done: int, steps: int, unit: str = "step", quiet: bool = False, **notes: float):
        self.quiet, self.done = quiet, done
        self.stage, self.first, self.steps, self.unit, self.note = stage, done, steps, unit, _notes(notes)
        self.start = self.printed = time.monotonic()
        terminal = sys.stderr.isatty() and not quiet
        self.bar = tqdm(desc=stage, initial=done, total=steps, unit=unit, dynamic_ncols=True) if terminal else None

    def update(self, done: int, **notes: float) -> None:
        """Show that `done` steps are done, with `notes` after the rate; empty notes leave the last ones."""
        self.note = _notes(notes) or self.note
        if self.bar is not None:
            with suppress(OSError):  # a terminal that was closed
                self.bar.set_postfix_str(self.note, refresh=False)
                self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if not self.quiet and (now - self.printed >= self.INTERVAL or done == self.steps):
            self.printed = now
            meter = tqdm.format_meter(
                done, self.steps, now - self.start, ncols=0, prefix=self.stage, unit=self.unit, initial=self.first
            )
            say(f"{meter} {self.note}".rstrip())

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each counted as a step when it has come."""
        for item in items:
            self.done += 1
            self.update(self.done)
            yield item

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            with suppress(OSError):
                self.bar.close()


class Stopwatch:
    """The speed of a stage, and how much of its time is spent waiting for data: enter it once per step to load."""

    def __init__(self, step: int):
        self.first_step, self.start, self.waited, self.first_took = step, time.perf_counter(), 0.0, 0.0
        self.entered = 0.0

    def __enter__(self) -> None:
        now = time.perf_counter()
        if self.entered and not self.first_took:  # the second step begins, so the first one is complete
            self.first_took = now - self.start
        self.entered = now

    def __exit__(self, *_) -> None:
        self.waited += time.perf_counter() - self.entered

    def report(self, step: int) -> str:
        """One line about the time since the start, after step `step`."""
        took = time.perf_counter() - self.start
        return (
            f"{(step - self.first_step) / took:.2f} steps a second with validation and saving, "
            f"{self.waited / took:.1%} of the time waiting for data; "
            f"the first step took {self.first_took or took:.1f} s"
        )


def _notes(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())
