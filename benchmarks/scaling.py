"""Times the training step on 1, 2 and 4 processes, which share a batch as with `torchrun fit.py`.

python benchmarks/scaling.py [--processes 1 2 4] [--device cpu] [--batch 8] [--json FILE]

Each process has a GPU or, on a CPU, an equal share of the threads. There the table shows what sharing costs, because
one process already uses all cores. This is strong scaling: the batch stays the same, and each process takes its share.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import machine, parser, positive, report, seconds, spread

from config import PRESETS, Backbones, Config
from data.inputs import prepare
from data.reference import Reference
from data.sensor import SENSORS
from errors import UserError, run_cli
from tasks.device import choose_device, set_precision
from tasks.features import Networks
from tasks.isp import build_generator
from tasks.modes import build_trainer
from training.distributed import join, leave
from training.steps import Batch


def build_config(given: argparse.Namespace) -> Config:
    """The paper's config, with what the command line changes."""
    base = PRESETS["fujifilm-efficient"]
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, patch=given.patch, batch=given.batch),
        backbones=Backbones("random", vit=given.vit),
        train=dataclasses.replace(base.train, critic_every=1),  # the most data that processes exchange in a step
        compute=dataclasses.replace(base.compute, precision=given.precision),
    )


def work(given: argparse.Namespace) -> None:
    """Time the steps as one process of a group; the main process writes their seconds to the file `--worker`."""
    group = join(given.device)
    device = choose_device(group.device or given.device)
    if device.type == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // group.size))
    config = build_config(given)
    set_precision(config.compute)
    torch.manual_seed(0)
    generator = build_generator("efficient", "")[1].to(device, memory_format=torch.channels_last)
    trainer = build_trainer(config, generator, Networks(config, device))
    if group.size > 1:
        trainer.average_ = group.mean_
    share, sensor, random = group.share(given.batch), SENSORS["fujifilm"], torch.Generator().manual_seed(group.rank)
    mosaic, target = (torch.rand(share, c, given.patch, given.patch, generator=random).to(device) for c in (1, 3))
    render = Reference(sensor)

    def step() -> None:
        trainer.step(Batch(prepare(mosaic, sensor, "packed"), render(mosaic), target), 1)
        group.largest(0)  # training.run exchanges a number in each step, too

    step()
    times = [seconds(step, device) for _ in range(given.repeats)]
    if group.main:
        Path(given.worker).write_text(json.dumps({"seconds": times, "machine": machine(device)}))
    leave()


def launch(processes: int, given: argparse.Namespace, out: Path) -> dict:
    """Run `work` in so many processes. Returns what the main process writes to the file `out`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--"]
    command += [__file__, "--worker", str(out), "--device", given.device, "--batch", str(given.batch)]
    command += ["--patch", str(given.patch), "--vit", given.vit, "--precision", given.precision]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes))}
    done = subprocess.run([*command, "--repeats", str(given.repeats)], env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.splitlines()
        reasons = [line for line in lines if line.startswith("error:")] or lines[-1:] or [f"status {done.returncode}"]
        raise UserError(f"{processes} processes failed: {reasons[0]}")
    return json.loads(out.read_text())


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    options.add_argument(
        "--processes", nargs="+", type=positive, default=[1, 2, 4], help="numbers of processes (%(default)s)"
    )
    options.add_argument(
        "--batch", type=positive, default=32, help="patches in a step, over all processes (%(default)s)"
    )
    options.add_argument("--patch", type=positive, default=256, help="side of a patch in pixels (%(default)s)")
    options.add_argument("--vit", default="vit_base_patch16_224", help="the ViT's name in timm (%(default)s)")
    options.add_argument("--precision", choices=("float32", "tf32", "bf16"), default="float32", help="(%(default)s)")
    options.add_argument("--worker", metavar="FILE", help="used internally, for the processes of the benchmark")
    given = options.parse_args()
    if given.worker:
        work(given)
        return
    with tempfile.TemporaryDirectory() as name:
        runs = {count: launch(count, given, Path(name) / f"{count}.json") for count in given.processes}
    images = {count: [given.batch / t for t in run["seconds"]] for count, run in runs.items()}
    alone = spread(images[given.processes[0]])["median"]
    rates = {count: spread(rate, 2) for count, rate in images.items()}
    figures = {
        "benchmark": "scaling",
        "machine": next(iter(runs.values()))["machine"],
        "batch": given.batch,
        "patch": given.patch,
        "precision": given.precision,
        "images_a_second": rates,
        "speedup": {count: round(spread(rate)["median"] / alone, 2) for count, rate in images.items()},
    }
    rows = [(f"{count} processes", *rate.values(), figures["speedup"][count]) for count, rate in rates.items()]
    heading = ("", "images a second", "lowest", "highest", "speed-up")
    title = f"Training step, {given.batch} x {given.patch}x{given.patch} over all processes"
    report(title, figures, [heading, *rows], given.json)


if __name__ == "__main__":
    run_cli(main)
