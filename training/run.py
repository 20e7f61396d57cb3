"""The training loop of every task: its stages, resuming, validation, and what is written to the run's folder, when."""

import math
import signal
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import storage
from errors import UserError
from training.checkpoint import save_generator
from training.distributed import ALONE, Group
from training.folder import checksum, save_state
from training.log import DIVERGED, Forecast, GradientCheck, NoLog, Progress, RunLog, Stopwatch, say, to_floats
from training.stop import StopRequest
from training.task import Intervals, Stage, Task
from training.validation import in_use


class Run:
    """A run: its task, its folder, and how far training has got. In a `group`, only the main process writes files.

    It continues from a `state` that `training.folder.read_state` read, and otherwise begins.
    """

    def __init__(
        self, folder: Path, task: Task, every: Intervals, group: Group = ALONE, state: dict[str, Any] | None = None
    ):
        self.folder, self.task, self.every, self.group = folder, task, every, group
        self.stage, self.step, self.scores = 0, 0, {}  # the current stage, steps done in it, scores by name
        self.gradients = GradientCheck()
        self.log = self._restore(state) if state else self._begin()
        sums = {name: value.double().sum().item() for name, value in task.generator.state_dict().items()}
        group.agree(repr((self.stage, self.step, task.provenance, task.identity, sums)))

    def _begin(self) -> RunLog:
        if not self.group.main:
            return NoLog()
        storage.write_json(self.folder / "config.json", self.task.config)
        storage.write_json(self.folder / "data.json", self.task.identity)
        return self._first_line(RunLog(self.folder))

    def _first_line(self, log: RunLog) -> RunLog:
        log.begin({"weights": self.task.provenance} | ({"warning": self.task.warning} if self.task.warning else {}))
        return log

    def _restore(self, state: dict[str, Any]) -> RunLog:
        path, stages = self.folder / "last.pt", self.task.stages
        if state["weights"] != self.task.provenance:
            raise UserError(
                f"the frozen networks and fits were {state['weights']} and are now {self.task.provenance}: provide "
                "the same weights, or start another run with --run NAME"
            )
        if state["data"] != checksum(self.task.identity):
            raise UserError(
                f"the dataset is not the one that {self.folder} was trained on so far (other files, names or content, "
                "also of a file that was mended): provide the same data, or start another run from one of its "
                "checkpoints (--run NAME --init FILE)"
            )
        self.stage, self.step, self.scores = state["stage"], state["step"], state["psnr"]
        if not (0 <= self.stage < len(stages) and 0 <= self.step <= stages[self.stage].steps):
            steps = ", ".join(f"{stage.steps} of {stage.name}" for stage in stages)
            raise UserError(
                f"{path} is at step {self.step} of stage {self.stage + 1}, but this run has the steps {steps}: ask for "
                "no fewer steps than are done"
            )
        try:
            stages[self.stage].algorithm.load_state(state["trainer"])
            torch.set_rng_state(state["rng"])
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not fit this config: {storage.first_line(error)}") from None
        return self._continue_log(*state["log"])

    def _continue_log(self, position: int, digest: str) -> RunLog:
        if not self.group.main:
            return NoLog()
        missing = not (self.folder / "log.jsonl").exists()
        log = RunLog(self.folder, position, digest, self._total_steps())
        if missing:
            self._say(f"warning: {self.folder} has no log.jsonl; a new one begins with the next step")
            self._first_line(log)
        storage.write_json(self.folder / "config.json", self.task.config)
        for line in log.lines():
            self.task.watch(*line)  # what it has said before, it does not say again
        return log

    def train(self) -> None:
        """Train from the current step to the end of the last stage, then print and write the summary."""
        self._announce()
        for name, render in self.task.validation.baselines.items():
            if self.task.validation.count and name not in self.scores:
                self.scores[name] = self.task.validation.measure(render)
        with StopRequest(self._say, grace=0.0 if self.group.size == 1 else 5.0) as stop:  # torchrun may repeat a signal
            while self.stage < len(self.task.stages):
                stage = self.task.stages[self.stage]
                self._train_stage(stage, stop)
                self.stage, self.step = self.stage + 1, 0
                if not stage.save_steps:
                    self._save_generator(stage.result, stage)
        self.log.close()
        self._summarize()

    def _train_stage(self, stage: Stage, stop: StopRequest) -> None:
        if stage.steps == 0:
            self._validate(stage)
        if self.step >= stage.steps:
            return
        watch, forecast, stopping = Stopwatch(self.step), Forecast(stage.name, self.step, stage.steps), False
        score = next((self.scores[s.result] for s in reversed(self.task.stages) if s.result in self.scores), None)
        notes = {} if score is None else {self.task.validation.name: score}
        progress = Progress(stage.name, self.step, stage.steps, quiet=not self.group.main, **notes)
        with progress, closing(stage.batches(self.step)) as batches:  # ends the reading processes
            while self.step < stage.steps and not stopping:
                with watch:
                    loaded = next(batches)
                statistics = stage.algorithm.step(stage.prepare(loaded), self.step + 1)
                self.step += 1
                stopping = bool(self.group.largest(stop.signal))
                progress.update(self.step, **self._write(stage, statistics, stopping))
                if sentence := forecast.after(self.step):
                    self._say(sentence)
        self._say(f"{stage.name}: {watch.report(self.step)}")
        if stopping:
            self._stop(stage, stop)

    def _stop(self, stage: Stage, stop: StopRequest) -> None:
        self.group.largest(0)  # wait until the main process has written: torchrun ends all when the first one ends
        if stage is self.task.stages[-1] and self.step == stage.steps:
            return
        self.log.close()
        self._say(f"Stopped at step {self.step} of {stage.name}. Continue with --resume.")
        sys.exit(128 + (stop.signal or signal.SIGTERM))

    # --- what is written ----------------------------------------------------------------------------------------------

    def _write(self, stage: Stage, statistics: dict[str, Tensor], stopping: bool) -> dict[str, float]:
        """Write whatever is due after this step; returns what the progress bar shows."""

        def due(interval: int) -> bool:
            return self.step % interval == 0 or self.step == stage.steps

        checkpoint = due(self.every.checkpoint) and stage.save_steps
        state = due(self.every.state) or stopping
        where = f"step {self.step} of {stage.name}"
        if due(self.every.log) or checkpoint or state:
            values = to_floats(statistics, where, self.group.mean_)
        if (checkpoint or state) and not stage.algorithm.finite():
            raise UserError(f"a weight is not finite at {where}: {DIVERGED}")
        if due(self.every.log):
            self._log(stage, values | stage.algorithm.rates)
            self.gradients.check(values, self.step, stage.name)
        notes = self._validate(stage) if due(self.every.validate) else {}
        if checkpoint:
            self._save_generator(f"step_{self._saving_steps():07d}", stage)
        if state:
            self._save_state(stage)
        return notes

    def _validate(self, stage: Stage) -> dict[str, float]:
        """Write sample images, and the score if there are validation pairs."""
        validation, network, health = self.task.validation, stage.algorithm.result, {}
        generator = partial(stage.image, network) if stage.image else network
        with in_use(network):
            if self.group.main:
                health = validation.health(generator)
                path = self.folder / "samples" / f"{stage.name}_{self.step:07d}.png"
                self.log.show(stage.name, self._total_steps(), validation.save_samples(path, generator))
            score = validation.measure(validation.render(generator))
        found = {} if score is None else {validation.name: score}
        if score is not None:
            self.scores[stage.result] = score
        if found or health:
            self._log(stage, found | health)
        return found

    def _log(self, stage: Stage, values: dict[str, float]) -> None:
        """Write a line, and say what is alarming about it."""
        self.log.write(stage.name, self.step, self._total_steps(), values)
        for sentence in self.task.watch(stage.name, self.step, values):
            self._say(f"warning: {sentence}")

    def _save_generator(self, name: str, stage: Stage) -> None:
        if self.group.main:
            description = self.task.description | {"config": self.task.config, "weights": self.task.provenance}
            path = self.folder / "checkpoints" / f"{name}.pt"
            save_generator(path, stage.algorithm.result, self._saving_steps(), description)

    def _save_state(self, stage: Stage) -> None:
        if not self.group.main:
            return
        state = {
            "stage": self.stage,
            "step": self.step,
            "psnr": self.scores,  # the key of the file format, whatever the score
            "weights": self.task.provenance,
            "data": checksum(self.task.identity),
            "log": self.log.mark(),
            "rng": torch.get_rng_state(),
            "config": self.task.config,
            "trainer": stage.algorithm.state(),
        }
        save_state(self.folder, state)

    def _saving_steps(self) -> int:
        """Steps done in this stage and earlier ones that save checkpoints on the way: the number of a checkpoint."""
        return sum(stage.steps for stage in self.task.stages[: self.stage] if stage.save_steps) + self.step

    def _total_steps(self) -> int:
        """Steps done in all stages."""
        return sum(stage.steps for stage in self.task.stages[: self.stage]) + self.step

    # --- what is printed ----------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if self.group.main:
            say(text)

    def _announce(self) -> None:
        processes = f" ({self.group.size} processes)" if self.group.size > 1 else ""
        self._say(f"{self.folder}: {self.task.summary}{processes}")
        for name, source in self.task.provenance.items():
            self._say(f"  {name}: {source}")
        if self.task.warning:
            self._say(f"warning: {self.task.warning}")

    def _summarize(self) -> None:
        """Print the table of scores, and write it to summary.json."""
        if not self.group.main:
            return
        validation = self.task.validation
        names = [*validation.baselines, *(stage.result for stage in self.task.stages)]
        scores = {name: self.scores.get(name) for name in names}
        # JSON has no infinity, which is the PSNR of an image that equals its target, such as a black one.
        finite = {name: s if s is None or math.isfinite(s) else str(s) for name, s in scores.items()}
        storage.write_json(self.folder / "summary.json", {validation.name: finite, "weights": self.task.provenance})
        print(f"\n{validation.title}, {self.folder}")
        for name, score in scores.items():
            print(f"  {name:<12}" + ("no pairs" if score is None else f"{score:6.2f} {validation.unit}"))
        if self.task.warning:
            print(f"  ({self.task.warning})")
