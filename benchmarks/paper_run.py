"""A training run of the paper's length and all benchmarks, in one command, for a machine with a GPU.

python benchmarks/paper_run.py --data DIR --out DIR [--vgg-file FILE] [--vit NAME] [--vit-file FILE]
python benchmarks/paper_run.py --quick --out DIR      small and with random weights, to see that everything works

The run is `fit.py fujifilm-efficient` in bf16 on the dataset `--data` (Fujifilm layout, pairs in val/): 20,000 steps of
pretraining and 27,000 unpaired steps with batches of 32 patches of 256 pixels. Writes the benchmarks' OUT/*.json, the
run OUT/runs/paper, and OUT/summary.json: the run's seconds, steps a second, percentage of the time spent waiting for
data, and validation curve, and the benchmarks' main figures.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, machine

from data.demo import make_demo
from errors import UserError, run_cli
from tasks.device import choose_device

PRECISIONS = {"float32": [], "bf16": ["--precision", "bf16"], "bf16-compiled": ["--precision", "bf16", "--compile"]}
VIT = "vit_base_patch16_224"


def run(title: str, *arguments: object) -> tuple[float, str]:
    """Run a script of the repository and show its output. Returns its seconds and its output.

    Raises `UserError` if it fails.
    """
    print(f"\n== {title}: python {' '.join(map(str, arguments))}", flush=True)
    start, lines = time.perf_counter(), []
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            lines.append(line)
            print(line, end="", flush=True)
    if process.returncode:
        raise UserError(f"{title} failed with status {process.returncode}")
    return time.perf_counter() - start, "".join(lines)


def run_benchmarks(given: argparse.Namespace, networks: list[str]) -> dict[str, object]:
    """Run the benchmarks and return their main figures. `networks` are options of train_step.py."""
    out, quick, device = given.out, given.quick, ["--device", given.device]
    size = ["--batch", 2, "--patch", 64, "--repeats", 1] if quick else ["--repeats", 7]
    figures = {}
    for name, options in PRECISIONS.items():
        if quick and "--compile" in options:
            continue
        file = out / f"train_step_{name}.json"
        run(f"training step, {name}", "benchmarks/train_step.py", *device, *size, *networks, *options, "--json", file)
        written = json.loads(file.read_text())
        figures[f"step, {name}"] = {key: written[key] for key in ("ratio_published", "ratio_floor", "ratios")}
        rate = 1 / written["seconds_an_image"]["ours"]["median"]  # of the last precision, for the data benchmark
    loader = ["--workers", 0, 2, "--files", 8, "--samples", 16, "--repeats", 1] if quick else ["--workers", 2, 4, 8, 12]
    file = out / "data.json"
    run("data", "benchmarks/data.py", *device, *loader, "--consumes", rate, "--json", file)
    figures["menon2007"] = json.loads(file.read_text())["ratio_menon2007"]
    models = ["--models", "robust", "--sizes", "full-hd", "--repeats", 1] if quick else ["--compile"]
    run("inference", "benchmarks/inference.py", *device, *models, "--json", out / "inference.json")
    return figures


def train(given: argparse.Namespace, root: Path, networks: list[str]) -> dict[str, object]:
    """Train on the dataset `root` and return the figures of the run. `networks` are options of fit.py."""
    steps = (20, 20) if given.quick else (20_000, 27_000)
    options = ["--device", given.device, "--runs", given.out / "runs", "--run", "paper", "--data.root", root]
    options += ["--pretrain.steps", steps[0], "--train.steps", steps[1], "--data.test-count", 0, "--data.val-count", 0]
    options += ["--compute.precision", "bf16", "--data.workers", 2 if given.quick else 12]
    options += ["--compute.compile"] if given.compile else []
    options += ["--log.save-every", 500, "--log.val-every", 10 if given.quick else 1000, *networks]
    options += ["--data.patch", 64, "--data.batch", 4] if given.quick else []
    took, output = run("a run of the paper's length", "fit.py", "fujifilm-efficient", *options)
    folder = given.out / "runs" / "paper"
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {
        "steps": steps,
        "seconds": round(took, 1),
        "stages": read_speeds(output),
        "val_psnr": [(line["stage"], line["step"], line["val_psnr"]) for line in lines if "val_psnr" in line],
        "summary": json.loads((folder / "summary.json").read_text()),
    }


def read_speeds(output: str) -> dict[str, dict[str, float]]:
    """{stage: {"steps_a_second", "waiting_for_data" (percent of the time)}} from the output of fit.py.

    The lines are those of `training.log.Stopwatch.report`.
    """
    pattern = r"^(\w+): ([\d.]+) steps a second .*?, ([\d.]+)% of the time waiting for data"
    return {
        stage: {"steps_a_second": float(rate), "waiting_for_data": float(percent)}
        for stage, rate, percent in re.findall(pattern, output, re.MULTILINE)
    }


def absolute(file: str) -> str:
    """The absolute path of a file, because the scripts run in the repository's root; empty if there is no file."""
    return str(Path(file).resolve()) if file else ""


def parse() -> argparse.Namespace:
    """The command line. Raises `UserError`, or exits with status 2, for options that do not fit together."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="folder to write to")
    options.add_argument("--data", type=Path, help="a dataset in the Fujifilm layout, with val/")
    options.add_argument("--device", default="auto", help="as for fit.py (%(default)s)")
    options.add_argument("--quick", action="store_true", help="few steps, random weights, and the demo data")
    options.add_argument("--compile", action="store_true", help="compile the frozen networks of the training run, too")
    options.add_argument("--vgg-file", default="", type=absolute, help="backbones.vgg_file: weights of VGG-19")
    options.add_argument("--vit", default=VIT, help="backbones.vit: the ViT's name in timm (%(default)s)")
    options.add_argument("--vit-file", default="", type=absolute, help="backbones.vit_file: weights of the ViT")
    given = options.parse_args()
    if not (given.quick or given.data):
        raise UserError("name a dataset with --data, or make a small run with --quick")
    if given.quick and (given.vgg_file or given.vit_file or given.vit != VIT):
        options.error("--vgg-file, --vit and --vit-file have no effect with --quick, which has its own networks")
    given.out = given.out.resolve()
    return given


def main() -> None:
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    root = given.data.resolve() if given.data else given.out / "demo"
    if not given.data:
        make_demo(root)
    vit, weights = ("vit_tiny_patch16_224", "random") if given.quick else (given.vit, "auto")
    step = ["--weights", weights, "--vit", vit, *(["--vgg-file", given.vgg_file] if given.vgg_file else [])]
    fit = ["--backbones.weights", weights, "--backbones.vit", vit]
    fit += ["--backbones.vgg-file", given.vgg_file] if given.vgg_file else []
    fit += ["--backbones.vit-file", given.vit_file] if given.vit_file else []
    summary = {"machine": machine(choose_device(given.device)), "quick": given.quick}
    summary |= {"run": train(given, root, fit), "benchmarks": run_benchmarks(given, step)}
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary["run"]["stages"] | summary["benchmarks"], indent=2))


if __name__ == "__main__":
    run_cli(main)
