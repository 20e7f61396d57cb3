"""Score many checkpoints on the same files; `evaluation.evaluators` says how one is scored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from data.inputs import prepare
from data.notes import note
from data.sensor import Sensor, mirror, mirrored_axes
from errors import UserError
from evaluation.tables import ScoreTables
from models import ModelSpec

MAX_AT_ONCE = 1024  # models in one pass: more are not faster, and would fill the memory


class OpenedModel(Protocol):
    """What scoring needs of an opened checkpoint: `tasks.model.Model`."""

    name: str
    spec: ModelSpec
    generator: nn.Module
    sensor: Sensor

    def levels_for(self, data: Sensor) -> Sensor: ...


class Evaluator(Protocol):
    """What scoring needs of an evaluator: `evaluation.evaluators`."""

    def evaluate(self, outputs: Tensor, prepared: Tensor) -> dict[str, Tensor]: ...

    def summarize(self, names: list[str], values: dict[str, Tensor]) -> tuple[dict, dict]: ...


@dataclass(frozen=True)
class ScoringSet:
    """The files that all checkpoints are scored on, on the device."""

    sensor: Sensor  # of the mosaics
    files: list[
        tuple[list[str], Tensor, Tensor]
    ]  # batches: names, mosaics (N, 1, H, W), what outputs are compared with
    evaluator: Evaluator
    notes: dict[str, str] = field(default_factory=dict)  # lines for the header of each score table


class CheckpointScorer(ABC):
    """Writes the missing score tables of checkpoints; a subclass says how opened checkpoints are scored.

    `group` checkpoints are claimed together, so that no other process scores them too.
    """

    def __init__(
        self, tables: ScoreTables, open_model: Callable[[str, torch.device], Any], device: torch.device, group: int
    ):
        self.tables, self.open_model, self.device, self.group = tables, open_model, device, group
        self.done, self.counting = 0.0, Lock()  # checkpoints, with parts of those that threads are scoring
        self.progress: Callable[[float], None] = lambda done: None

    @property
    def notes(self) -> dict[str, str]:
        """Lines for the header of each score table."""
        return {}

    @abstractmethod
    def kind_of(self, model: Any) -> Hashable:
        """What models must have in common to be evaluated together."""

    @abstractmethod
    def evaluate(self, models: Sequence[Any]) -> list[tuple[dict, dict]]:
        """(scores of each file, means) of each model; all are of one kind."""

    def score(self, wanted: Sequence[Path], progress: Callable[[float], None] = lambda done: None) -> dict[Path, str]:
        """Write the missing tables of `wanted`. Returns the checkpoints that cannot be scored, each with the reason.

        Checkpoints that another process is scoring are left to it and waited for at the end. `progress` gets the number
        of checkpoints that are done, with parts of those that are being scored.
        """
        failed, left, done, self.done, self.progress = {}, [], 0, 0.0, progress
        for start in range(0, len(wanted), self.group):
            group = wanted[start : start + self.group]
            with self.tables.claim(group) as claimed:
                failed |= self._score_claimed(claimed)
            left += [path for path in group if path not in claimed]
            done += len(claimed)
            self._advance(done - self.done)  # also those that had scores already, or cannot have any
        if left:
            note(f"waiting for other processes that score {len(left)} of the checkpoints")
        for path in left:
            with self.tables.claim([path], wait=True):
                failed |= self._score_claimed([path])
            done += 1
            self._advance(done - self.done)
        return failed

    def _advance(self, part: float) -> None:
        """Tell that another part of the checkpoints is done. Called by several threads."""
        with self.counting:
            self.done += part
            self.progress(self.done)

    def _score_claimed(self, claimed: Sequence[Path]) -> dict[Path, str]:
        models, headers, failed = {}, {}, {}
        for path in claimed:
            try:
                if not self.tables.is_complete(path):
                    headers[path] = self.tables.header(path)
                    models[path] = self.open_model(str(path), self.device)
            except UserError as error:
                failed[path] = str(error)
        for kind in {self.kind_of(model) for model in models.values()}:
            group = {path: model for path, model in models.items() if self.kind_of(model) == kind}
            for path, (rows, mean) in zip(group, self.evaluate(list(group.values())), strict=True):
                if self.tables.header(path) == headers[path]:
                    self.tables.write(path, rows, mean, **self.notes)
                else:
                    failed[path] = f"{path} changed while it was being scored: score it again"
        return failed


def require_at_once(at_once: int) -> None:
    """Raise `UserError` for a number of checkpoints in one pass that is too large or negative; 0: chosen by device."""
    if not 0 <= at_once <= MAX_AT_ONCE:
        raise UserError(f"--at-once must lie between 0 and {MAX_AT_ONCE}, but is {at_once}")


class Scorer(CheckpointScorer):
    """Scores checkpoints on files that are read once, when the first checkpoint needs them.

    `at_once` models are evaluated in one batched pass; 0: 32 on a GPU, 1 on a CPU. A CPU is faster with one model in
    each thread and few pixels at a time, which stay in its cache (benchmarks/scoring.py).
    """

    def __init__(
        self,
        tables: ScoreTables,
        load: Callable[[int], ScoringSet],  # with at most so many pixels a batch
        open_model: Callable[[str, torch.device], OpenedModel],
        device: torch.device,
        at_once: int = 0,
    ):
        require_at_once(at_once)
        self.layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.stack = at_once or (32 if device.type == "cuda" else 1)  # models run as one
        self.threads = torch.get_num_threads() if device.type == "cpu" and self.stack == 1 else 1
        slow = tables.protocol == "unpaired"  # minutes for a checkpoint: store each one's scores soon
        group = max(self.stack, self.threads if slow else 8 * self.threads)  # checkpoints claimed together
        super().__init__(tables, open_model, device, group)
        self.load = load
        self.pixels = (1 << 20) // self.stack if device.type == "cuda" else 1 << 18
        self.scoring_set: ScoringSet | None = None
        self.inputs: dict[tuple[Sensor, str], list[Tensor]] = {}

    @property
    def notes(self) -> dict[str, str]:
        """Lines for the header of each score table; empty until something is scored."""
        return self.scoring_set.notes if self.scoring_set else {}

    def open(self) -> int:
        """Read the files, and prepare what all outputs are compared with. Returns the number of files."""
        with torch.inference_mode():
            self.scoring_set = self.scoring_set or self.load(self.pixels)
        return sum(len(names) for names, *_ in self.scoring_set.files)

    def kind_of(self, model: OpenedModel) -> Hashable:
        """Its architecture and its sensor: models that share both run as one, on the same inputs."""
        return model.name, model.sensor

    def evaluate(self, models: Sequence[OpenedModel]) -> list[tuple[dict, dict]]:
        """(scores of each file, means) of each model. All models share one architecture and one sensor.

        Raises `UserError` if a file is smaller than they take.
        """
        self.open()
        smallest = min(side for _, mosaic, _ in self.scoring_set.files for side in mosaic.shape[-2:])
        if smallest < (least := models[0].spec.minimum):
            raise UserError(f"model '{models[0].name}' needs images of {least} pixels a side; one here has {smallest}")
        with torch.inference_mode():
            inputs = self._inputs_of(models[0])
        stacks = [models[start : start + self.stack] for start in range(0, len(models), self.stack)]
        if min(self.threads, len(stacks)) == 1:
            return [result for stack in stacks for result in self._evaluate_stack(stack, inputs)]
        threads = torch.get_num_threads()
        # One model in each thread: its operations are too small to be divided, unless there are threads to spare.
        torch.set_num_threads(max(1, threads // len(stacks)))
        try:
            with ThreadPoolExecutor(self.threads) as pool:
                results = pool.map(lambda stack: self._evaluate_stack(stack, inputs), stacks)
                return [result for some in results for result in some]
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _evaluate_stack(self, models: Sequence[OpenedModel], inputs: list[Tensor]) -> list[tuple[dict, dict]]:
        generators = [model.generator.to(memory_format=self.layout) for model in models]
        evaluator, names, values = self.scoring_set.evaluator, [], [[] for _ in models]
        axes = mirrored_axes(self.scoring_set.sensor.cfa, models[0].sensor.cfa)
        share = len(models) / sum(len(batch) for batch in inputs)
        for (batch_names, _, prepared), batch in zip(self.scoring_set.files, inputs, strict=True):
            for model_values, images in zip(values, render(generators, batch), strict=True):
                model_values.append(evaluator.evaluate(mirror(images, axes), prepared))
            names += batch_names
            self._advance(share * len(batch_names))
        joined = [{key: torch.cat([batch[key] for batch in some]).cpu() for key in some[0]} for some in values]
        return [evaluator.summarize(names, some) for some in joined]

    def _inputs_of(self, model: OpenedModel) -> list[Tensor]:
        """The inputs of this model, mirrored to the CFA order that it was trained for; kept for others of its kind."""
        data, cfa = self.scoring_set.sensor, model.sensor.cfa
        kind, axes = (replace(model.levels_for(data), cfa=cfa), model.spec.input_format), mirrored_axes(data.cfa, cfa)
        if kind not in self.inputs:
            inputs = (prepare(mirror(mosaic, axes), *kind) for _, mosaic, _ in self.scoring_set.files)
            self.inputs = {kind: [batch.contiguous(memory_format=self.layout) for batch in inputs]}
        return self.inputs[kind]


def render(generators: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Outputs (M, N, 3, H, W) of M generators of one architecture for the same inputs (N, C, h, w), run as one."""
    if len(generators) == 1:
        return generators[0](inputs)[None]
    weights, buffers = stack_module_state(list(generators))
    return vmap(lambda *state: functional_call(generators[0], state, (inputs,)))(weights, buffers)
