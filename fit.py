"""Train an ISP: pretrain it on demosaicing, then train it unpaired, paired, or paired with critics.

python fit.py [PRESET] [--section.field value ...] [--run NAME] [--resume]
torchrun --nproc-per-node G -- fit.py ...     the same on G GPUs, which share each batch
"""

import dataclasses
import fcntl
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import config as settings
from build import Stage, build_generator, build_stages, choose_device, open_data, set_precision
from config import Config
from data.folders import centre, read_photo
from data.loader import evaluation_pairs, photo_tensor, training_batches
from data.sensor import prepare
from errors import UserError, run_cli
from metrics import psnr
from training import checkpoint
from training.distributed import ALONE, Group, join, leave
from training.log import DIVERGED, NoLog, Progress, RunLog, to_floats
from training.steps import Batch, Trainer


class Stop:
    """Turns Ctrl-C or a TERM into a request that is met between two steps, with the state saved. Again: at once."""

    def __init__(self, say: Callable[[str], None], patience: float = 0.0):
        self.signal, self.say, self.patience, self.asked = 0, say, patience, 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _frame) -> None:
        if self.signal and time.monotonic() - self.asked >= self.patience:
            raise KeyboardInterrupt
        if self.signal:
            return
        self.signal, self.asked = number, time.monotonic()
        self.say("\nfinishing this step and saving; once more stops at once")


class Stopwatch:
    """How fast a stage goes, and how much of the time it waits for data: what it is entered for, once a step."""

    def __init__(self, step: int):
        self.step, self.began, self.waited, self.first = step, time.perf_counter(), 0.0, 0.0
        self.entered = 0.0

    def __enter__(self) -> None:
        now = time.perf_counter()
        if self.entered and not self.first:  # the second step begins: the first has done what is done once
            self.first = now - self.began
        self.entered = now

    def __exit__(self, *_) -> None:
        self.waited += time.perf_counter() - self.entered

    def report(self, step: int) -> str:
        took = time.perf_counter() - self.began
        return (
            f"{(step - self.step) / took:.2f} steps a second with all that is written, {self.waited / took:.1%} of it "
            f"waiting for data; the first step took {self.first or took:.1f} s"
        )


class Fit:
    """One run: its folder, its stages, and where it stands. All processes of a `group` run it; the main one writes."""

    def __init__(self, config: Config, resume: bool, group: Group = ALONE):
        self.folder, self.group = Path(config.runs) / config.run, group
        self.device = choose_device(group.device or config.device)
        group.share(config.data.batch)
        self.lock = claim(self.folder, resume) if group.main else None
        resuming = resume and (self.folder / "last.pt").exists()
        torch.manual_seed(config.seed)
        set_precision(config.compute)
        with group.in_turn():
            self.splits, self.reader, self.reference = open_data(config)
            name, self.generator = build_generator(config.model, "" if resuming else config.init)
            self.generator.to(self.device, memory_format=torch.channels_last)
            self.config = dataclasses.replace(config, model=name)
            self.stages, self.weights = build_stages(
                config, self.splits["train"], self.reader, self.reference, self.generator, group
            )
        self.random = any(source.startswith("random") for source in self.weights.values())
        self.stage, self.step, self.psnr = 0, 0, {}
        self.log = self._restore() if resuming else self._begin()
        names = [path.name for split in self.splits.values() for path in (*split.raws, *split.photos)]
        weights = {name: value.double().sum().item() for name, value in self.generator.state_dict().items()}
        group.agree(repr((self.stage, self.step, self.weights, names, weights)))

    def _begin(self) -> RunLog:
        if not self.group.main:
            return NoLog()
        checkpoint.write_json(self.folder / "config.json", settings.to_dict(self.config))
        log = RunLog(self.folder)
        log.begin({"weights": self.weights} | ({"warning": RANDOM} if self.random else {}))
        return log

    def _restore(self) -> RunLog:
        state = checkpoint.load(self.folder / "last.pt")
        try:
            if state["weights"] != self.weights:
                raise UserError(f"the frozen networks were {state['weights']} and are now {self.weights}")
            self.stage, self.step, self.psnr = state["stage"], state["step"], state["psnr"]
            self.stages[self.stage].trainer.load_state(state["trainer"])
            torch.set_rng_state(state["rng"])
            if not self.group.main:
                return NoLog()
            log = RunLog(self.folder, state["log_position"], self._total())
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"{self.folder / 'last.pt'} is not of this config: {error}") from None
        checkpoint.write_json(self.folder / "config.json", settings.to_dict(self.config))
        return log

    def inputs(self, mosaic: Tensor) -> Tensor:
        """What the generator takes of mosaics (N, 1, H, W)."""
        return prepare(mosaic, self.reader.sensor, self.generator.input_format)

    def run(self) -> None:
        """From where the run stands to its end."""
        self._announce()
        if "demosaiced" not in self.psnr and self.splits["val"]:
            self.psnr["demosaiced"] = self.validate(self.reference)
        stop = Stop(self._say, patience=0.0 if self.group.size == 1 else 5.0)  # torchrun may pass one signal on twice
        while self.stage < len(self.stages):
            stage = self.stages[self.stage]
            self._run_stage(stage, stop)
            self.stage, self.step = self.stage + 1, 0
            if stage.name == "pretrain":
                self._save_generator("pretrained", stage.trainer)
        self.log.close()
        self.finish()

    def _run_stage(self, stage: Stage, stop: Stop) -> None:
        if stage.steps == 0:
            self._validate_stage(stage)
        if self.step >= stage.steps:
            return
        data = self.config.data
        place = self.group.rank, self.group.size
        batches = training_batches(stage.patches, data.batch, self.step, data.workers, self.device, *place)
        latest = self.psnr.get("final", self.psnr.get("pretrained"))
        shown = {} if latest is None else {"val_psnr": latest}
        stopping, watch = False, Stopwatch(self.step)
        with Progress(stage.name, self.step, stage.steps, quiet=not self.group.main, **shown) as progress:
            while self.step < stage.steps and not stopping:
                with watch:
                    mosaic, span, target = next(batches)
                reference = self.reference(mosaic, span) if stage.trainer.compares_with("reference") else None
                statistics = stage.trainer.step(Batch(self.inputs(mosaic), reference, target), self.step + 1)
                self.step += 1
                stopping = bool(self.group.largest(stop.signal))
                progress.update(self.step, **self._write(stage, statistics, stopping))
        self._say(f"{stage.name}: {watch.report(self.step)}")
        if stopping:
            self.group.largest(0)  # nobody leaves before the state is written: torchrun would end the writer, too
        if stopping and not (stage is self.stages[-1] and self.step == stage.steps):
            self.log.close()
            self._say(f"stopped at step {self.step} of {stage.name}; --resume goes on from there")
            sys.exit(128 + (stop.signal or signal.SIGTERM))

    def _write(self, stage: Stage, statistics: dict[str, Tensor], stopping: bool) -> dict[str, float]:
        """Whatever is due after this step; returns what the progress bar shows."""
        every = self.config.log

        def due(steps: int) -> bool:
            return self.step % steps == 0 or self.step == stage.steps

        keep = due(every.save_every) and stage.name == "train"
        store = due(every.state_every) or stopping
        where = f"step {self.step} of {stage.name}"
        if due(every.every) or keep or store:
            values = to_floats(statistics, where, self.group.mean_)
        if (keep or store) and not stage.trainer.finite():
            raise UserError(f"a weight is not finite at {where}: {DIVERGED}")
        if due(every.every):
            self.log.write(stage.name, self.step, self._total(), values)
        notes = self._validate_stage(stage) if due(every.val_every) else {}
        if keep:
            self._save_generator(f"step_{self.step:07d}", stage.trainer)
        if store:
            self._save_state(stage)
        return notes

    @torch.no_grad()
    def validate(self, render: Callable[[Tensor], Tensor]) -> float:
        """Mean PSNR (dB, protocol `paper`) over the validation split of what `render` makes of a mosaic."""
        split, group = self.splits["val"], self.group
        mine = range(group.rank, len(split), group.size)
        figures = torch.zeros(len(split), dtype=torch.float64)
        pairs = evaluation_pairs(split.take(mine), self.reader, self.device)
        for index, (mosaic, target) in zip(mine, pairs, strict=True):
            figures[index] = psnr(render(mosaic), target)[0]
        return float(group.sum_(figures).mean())

    def _validate_stage(self, stage: Stage) -> dict[str, float]:
        """A sample grid and, where there are pairs, the PSNR of where `stage` stands."""
        generator = stage.trainer.result
        self._save_samples(f"{stage.name}_{self.step:07d}.png", generator)
        if not self.splits["val"]:
            return {}
        value = self.validate(lambda mosaic: generator(self.inputs(mosaic)))
        self.psnr["pretrained" if stage.name == "pretrain" else "final"] = value
        self.log.write(stage.name, self.step, self._total(), {"val_psnr": value})
        return {"val_psnr": value}

    @torch.no_grad()
    def _save_samples(self, name: str, generator: nn.Module) -> None:
        """Rows of scenes: demosaiced reference, output, target (or some photograph, where there are no pairs)."""
        if not self.group.main:
            return
        from torchvision.utils import save_image

        split = self.splits["val"] or self.splits["train"]
        count = min(self.config.log.samples, len(split.raws), len(split.photos))
        tiles = []
        for i in range(count):
            chosen = split.take([i * (min(len(split.raws), len(split.photos)) // count)])
            mosaic = self.reader.mosaic_tensor(centre(self.reader.mosaic(chosen.raws[0])))[None].to(self.device)
            row = [self.reference(mosaic), generator(self.inputs(mosaic))]
            tiles += [tile[0].clamp(0, 1).cpu() for tile in row] + [photo_tensor(centre(read_photo(chosen.photos[0])))]
        side = min(tile.shape[1] for tile in tiles)
        grid = [nn.functional.interpolate(tile[None], (side, side), mode="area")[0] for tile in tiles]
        path = self.folder / "samples" / name
        checkpoint.replace(path, lambda beside: save_image(grid, beside, nrow=3))

    def describe(self) -> dict:
        """What a generator's checkpoint says of itself."""
        return {
            "model": self.config.model,
            "input_format": self.generator.input_format,
            "sensor": dataclasses.asdict(self.reader.sensor),
            "config": settings.to_dict(self.config),
            "weights": self.weights,
        }

    def _save_generator(self, name: str, trainer: Trainer) -> None:
        if not self.group.main:
            return
        path = self.folder / "checkpoints" / f"{name}.pt"
        checkpoint.save_generator(path, trainer.result, step=self.step, **self.describe())

    def _save_state(self, stage: Stage) -> None:
        if not self.group.main:
            return
        state = {
            "stage": self.stage,
            "step": self.step,
            "psnr": self.psnr,
            "weights": self.weights,
            "log_position": self.log.position,
            "rng": torch.get_rng_state(),
            "config": settings.to_dict(self.config),
            "trainer": stage.trainer.state(),
        }
        checkpoint.save(self.folder / "last.pt", state)

    def _total(self) -> int:
        """Steps done over all stages."""
        return sum(stage.steps for stage in self.stages[: self.stage]) + self.step

    def _say(self, text: str) -> None:
        if self.group.main:
            print(text, file=sys.stderr, flush=True)

    def _announce(self) -> None:
        split = self.splits["train"]
        several = f", {self.group.size} processes" if self.group.size > 1 else ""
        self._say(
            f"{self.folder}: {self.config.model} on {self.device}{several}, {len(split.raws)} mosaics and "
            f"{len(split.photos)} photographs to train on, {len(self.splits['val'])} pairs to validate on"
        )
        for name, source in self.weights.items():
            self._say(f"  {name}: {source}")
        if self.random:
            self._say(f"warning: {RANDOM}")

    def finish(self) -> None:
        """The table, and the same in summary.json."""
        if not self.group.main:
            return
        figures = {key: self.psnr.get(key) for key in ("demosaiced", "pretrained", "final")}
        checkpoint.write_json(self.folder / "summary.json", {"val_psnr": figures, "weights": self.weights})
        print(
            f"\nPSNR on the {len(self.splits['val'])} validation pairs (8 bits, RGB, mean over images), {self.folder}"
        )
        for key, value in figures.items():
            print(f"  {key:<12}" + ("no pairs" if value is None else f"{value:6.2f} dB"))
        if self.random:
            print(f"  ({RANDOM})")


RANDOM = "some frozen networks have random weights (see summary.json): no figure of this run compares with the paper's"


def claim(folder: Path, resume: bool):
    """Make the run's folder, or take it up again; the returned file holds its lock for as long as it is open."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "w")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is training {folder}") from None
    if (folder / "config.json").exists() and not resume:
        raise UserError(f"{folder} exists: continue it with --resume, or name another with --run")
    return lock


def main() -> None:
    config, resume = settings.parse(sys.argv[1:])
    group = join(config.device)
    try:
        Fit(config, resume, group).run()
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: lower --data.batch or --data.patch") from None


def cli() -> None:
    """`main` as a command, alone or as one of several processes."""
    try:
        run_cli(main)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)
        raise
    leave()


if __name__ == "__main__":
    cli()
