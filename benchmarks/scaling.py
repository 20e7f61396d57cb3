"""The training step on 1, 2, 4 processes, which share a batch as `torchrun fit.py` has them do.

python benchmarks/scaling.py [--processes 1 2 4] [--device cpu] [--batch 8] [--json FILE]

Each process has a GPU, or, on a CPU, an equal share of the threads: there the table shows what the sharing costs, as
one process alone uses all cores. Strong scaling: the batch is the same, each takes its part.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import machine, parser, report, seconds, spread  # noqa: I001 - finds ours

from build import Networks, build_generator, build_trainer, choose_device, set_precision
from config import PRESETS, Backbones
from data.demosaic import Reference
from data.sensor import Sensor, prepare
from errors import UserError, run_cli
from training.distributed import join, leave
from training.steps import Batch


def worker(asked) -> None:
    """One process of a group: times the steps; the first writes what they took."""
    group = join(asked.device)
    device = choose_device(group.device or asked.device)
    if device.type == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // group.size))
    base = PRESETS["fujifilm-efficient"]
    config = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, patch=asked.patch, batch=asked.batch),
        backbones=Backbones("random", vit=asked.vit),
        train=dataclasses.replace(base.train, critic_every=1),  # the most that there is to share
        compute=dataclasses.replace(base.compute, precision=asked.precision),
    )
    set_precision(config.compute)
    torch.manual_seed(0)
    generator = build_generator("efficient", "")[1].to(device, memory_format=torch.channels_last)
    trainer = build_trainer(config, generator, Networks(config, device))
    if group.size > 1:
        trainer.average_ = group.mean_
    share, sensor, random = group.share(asked.batch), Sensor(), torch.Generator().manual_seed(group.rank)
    mosaic, target = (torch.rand(share, c, asked.patch, asked.patch, generator=random).to(device) for c in (1, 3))
    render = Reference(sensor)

    def step() -> None:
        trainer.step(Batch(prepare(mosaic, sensor, "packed"), render(mosaic), target), 1)
        group.largest(0)

    step()
    times = [seconds(step, device) for _ in range(asked.repeats)]
    if group.main:
        Path(asked.worker).write_text(json.dumps({"seconds": times, "machine": machine(device)}))
    leave()


def launch(processes: int, asked, out: Path) -> dict:
    """Run `worker` in so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--"]
    command += [__file__, "--worker", str(out), "--device", asked.device, "--batch", str(asked.batch)]
    command += ["--patch", str(asked.patch), "--vit", asked.vit, "--precision", asked.precision]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes))}
    done = subprocess.run([*command, "--repeats", str(asked.repeats)], env=environment, capture_output=True, text=True)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("error:")] or done.stderr.splitlines()[-1:]
        raise UserError(f"{processes} processes failed: {told[0] if told else done.returncode}")
    return json.loads(out.read_text())


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--device", default="auto")
    options.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    options.add_argument("--batch", type=int, default=32, help="shared by all (%(default)s)")
    options.add_argument("--patch", type=int, default=256)
    options.add_argument("--vit", default="vit_base_patch16_224")
    options.add_argument("--precision", choices=("float32", "tf32", "bf16"), default="float32")
    options.add_argument("--worker", help="(a process of the benchmark itself)")
    asked = options.parse_args()
    if asked.worker:
        worker(asked)
        return
    told = {}
    with tempfile.TemporaryDirectory() as name:
        for processes in asked.processes:
            told[processes] = launch(processes, asked, Path(name) / f"{processes}.json")
    images = {n: [asked.batch / t for t in run["seconds"]] for n, run in told.items()}
    alone = spread(images[asked.processes[0]])["median"]
    rates = {n: spread(rate, 2) for n, rate in images.items()}
    figures = {
        "benchmark": "scaling",
        "machine": next(iter(told.values()))["machine"],
        "batch": asked.batch,
        "patch": asked.patch,
        "precision": asked.precision,
        "images_a_second": rates,
        "speedup": {n: round(spread(rate)["median"] / alone, 2) for n, rate in images.items()},
    }
    rows = [(f"{n} processes", *rate.values(), figures["speedup"][n]) for n, rate in rates.items()]
    heads = ("", "images a second", "lowest", "highest", "speed-up")
    report(f"Step, {asked.batch} x {asked.patch}x{asked.patch} over all processes", figures, [heads, *rows], asked.json)


if __name__ == "__main__":
    run_cli(main)
