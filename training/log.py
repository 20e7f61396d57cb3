"""What a run tells: log.jsonl, TensorBoard, a progress bar."""

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
    "training has diverged. The last saved state is untouched; try a lower learning rate, a larger gamma, or look at "
    "the data"
)


class RunLog:
    """log.jsonl and TensorBoard events in a run's folder.

    A line holds {"stage", "step", name: value, ...} and nothing that differs between two runs of one config, such as
    times: a resumed run writes the same bytes. `position` and `rewind` let a checkpoint say where the log stood.
    """

    def __init__(self, folder: Path, position: int = 0, total_step: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        self.file = open(self.path, "ab")  # noqa: SIM115 - closed by close()
        os.truncate(self.path, min(position, self.path.stat().st_size))
        self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=total_step + 1)

    def write(self, stage: str, step: int, total_step: int, values: dict[str, float]) -> None:
        """Add one line; `total_step` counts over all stages, for TensorBoard."""
        line = json.dumps({"stage": stage, "step": step, **values})
        self.file.write(f"{line}\n".encode())
        self.file.flush()
        for name, value in values.items():
            self.events.add_scalar(f"{stage}/{name}", value, total_step)

    def begin(self, facts: dict[str, Any]) -> None:
        """The first line: what this run stands on."""
        self.file.write(f"{json.dumps({'stage': 'start', **facts})}\n".encode())
        self.file.flush()
        self.events.add_text("start", json.dumps(facts, indent=2))

    @property
    def position(self) -> int:
        """The size of log.jsonl, bytes."""
        return self.path.stat().st_size

    def close(self) -> None:
        self.file.close()
        self.events.close()


class NoLog(RunLog):
    """The log of a process that writes none."""

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
    """Statistics as numbers, after `mean` over the processes that have such: the device is waited for once.

    Raises `UserError` where one is not finite: training has diverged.
    """
    values = dict(zip(statistics, mean(torch.stack(list(statistics.values()))).tolist(), strict=True))
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise UserError(f"{broken[0]} is {values[broken[0]]} at {where}: {DIVERGED}")
    return values


class Progress:
    """A tqdm bar on a terminal; elsewhere a line now and then. For a `with`, so that an error gets its own line."""

    INTERVAL = 20.0  # seconds between lines

    def __init__(self, stage: str, done: int, steps: int, unit: str = "step", quiet: bool = False, **notes: float):
        self.quiet = quiet
        self.stage, self.first, self.steps, self.unit, self.note = stage, done, steps, unit, _notes(notes)
        self.start = self.told = time.monotonic()
        terminal = sys.stderr.isatty() and not quiet
        self.bar = tqdm(desc=stage, initial=done, total=steps, unit=unit, dynamic_ncols=True) if terminal else None

    def update(self, done: int, **notes: float) -> None:
        """`done` steps are done; `notes` are shown behind the rate, until there are others."""
        self.note = _notes(notes) or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if not self.quiet and (now - self.told >= self.INTERVAL or done == self.steps):
            self.told = now
            meter = tqdm.format_meter(
                done, self.steps, now - self.start, ncols=0, prefix=self.stage, unit=self.unit, initial=self.first
            )
            print(f"{meter} {self.note}".rstrip(), file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()


def _notes(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())
