"""What a run reports: log.jsonl, TensorBoard, a progress bar, its speed."""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from errors import UserError

DIVERGED = (
    "training has diverged. The last saved state is untouched. Try a lower learning rate or a larger gamma, or check "
    "the data"
)


class RunLog:
    """log.jsonl and TensorBoard events in a run's folder.

    A line holds {"stage", "step", name: value, ...}, and no times or other values that differ between two runs of one
    config: so a resumed run writes the same bytes as one that was never stopped. It passes the `position` that the log
    had when its state was saved; what was written after that is removed.
    """

    def __init__(self, folder: Path, position: int = 0, total_step: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        self.file = open(self.path, "ab")  # noqa: SIM115 - closed by close()
        os.truncate(self.path, min(position, self.path.stat().st_size))
        self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=total_step + 1)

    def write(self, stage: str, step: int, total_step: int, values: dict[str, float]) -> None:
        """Add one line. `total_step` counts the steps of all stages, for TensorBoard."""
        line = json.dumps({"stage": stage, "step": step, **values})
        self.file.write(f"{line}\n".encode())
        self.file.flush()
        for name, value in values.items():
            self.events.add_scalar(f"{stage}/{name}", value, total_step)

    def begin(self, facts: dict[str, Any]) -> None:
        """Write the first line: facts about the run."""
        self.file.write(f"{json.dumps({'stage': 'start', **facts})}\n".encode())
        self.file.flush()
        self.events.add_text("start", json.dumps(facts, indent=2))

    @property
    def position(self) -> int:
        """The size of log.jsonl in bytes."""
        return self.path.stat().st_size

    def close(self) -> None:
        self.file.close()
        self.events.close()


class NoLog(RunLog):
    """The log of a process that writes no files."""

    position = 0

    def __init__(self):
        pass

    def write(self, *_: Any) -> None:
        pass

    def begin(self, *_: Any) -> None:
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


class Progress:
    """A tqdm bar on a terminal, elsewhere a line every `INTERVAL` seconds.

    Use it in a `with` statement: then the bar's line ends before an error is printed.
    """

    INTERVAL = 20.0  # seconds between lines

    def __init__(self, stage: str, done: int, steps: int, unit: str = "step", quiet: bool = False, **notes: float):
        self.quiet = quiet
        self.stage, self.first, self.steps, self.unit, self.note = stage, done, steps, unit, _notes(notes)
        self.start = self.printed = time.monotonic()
        terminal = sys.stderr.isatty() and not quiet
        self.bar = tqdm(desc=stage, initial=done, total=steps, unit=unit, dynamic_ncols=True) if terminal else None

    def update(self, done: int, **notes: float) -> None:
        """Show that `done` steps are done, with `notes` after the rate; empty notes leave the last ones."""
        self.note = _notes(notes) or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if not self.quiet and (now - self.printed >= self.INTERVAL or done == self.steps):
            self.printed = now
            meter = tqdm.format_meter(
                done, self.steps, now - self.start, ncols=0, prefix=self.stage, unit=self.unit, initial=self.first
            )
            print(f"{meter} {self.note}".rstrip(), file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
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
