"""Everything that wants a GPU, in one command: the benchmarks, and a run of the paper's length.

python benchmarks/paper_run.py --data DIR --out DIR [--vgg-file FILE] [--vit NAME] [--vit-file FILE]
python benchmarks/paper_run.py --quick --out DIR      small and with random weights, to see that it all works

The run is `fit.py fujifilm-efficient` with bf16 on `--data` (Fujifilm layout, pairs in val/): 20,000 steps of
pretraining and 27,000 unpaired ones, batch 32, 256 pixels. Writes OUT/*.json of the benchmarks, OUT/runs/paper, and
OUT/summary.json: seconds, steps a second, the share of the time spent waiting for data, and the validation curve.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, machine  # noqa: I001 - finds ours

from build import choose_device
from data.simulate import make_demo
from errors import UserError, run_cli


def run(title: str, *arguments: object) -> tuple[float, str]:
    """A script of ours, its output shown as it comes; returns its seconds and what it said."""
    print(f"\n== {title}: python {' '.join(map(str, arguments))}", flush=True)
    start, told = time.perf_counter(), []
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            told.append(line)
            print(line, end="", flush=True)
    if process.returncode:
        raise UserError(f"{title} failed with status {process.returncode}")
    return time.perf_counter() - start, "".join(told)


def benchmarks(asked, out: Path, networks: list[str]) -> dict[str, float]:
    """Their main figures."""
    on, small = ["--device", asked.device], asked.quick
    size = ["--batch", 2, "--patch", 64, "--repeats", 1] if small else ["--repeats", 7]
    kinds = {"float32": [], "bf16": ["--precision", "bf16"], "bf16-compiled": ["--precision", "bf16", "--compile"]}
    figures = {}
    for name, options in {k: v for k, v in kinds.items() if not (small and "compile" in k)}.items():
        file = out / f"train_step_{name}.json"
        run(f"the step, {name}", "benchmarks/train_step.py", *on, *size, *networks, *options, "--json", file)
        told = json.loads(file.read_text())
        figures[f"step, {name}"] = {key: told[key] for key in ("ratio_published", "ratio_floor", "ratios")}
        rate = 1 / told["seconds_an_image"]["ours"]["median"]
    few = ["--workers", 0, 2, "--files", 8, "--samples", 16, "--repeats", 1] if small else ["--workers", 2, 4, 8, 12]
    run("the data", "benchmarks/data.py", *on, *few, "--consumes", rate, "--json", out / "data.json")
    figures["menon2007"] = json.loads((out / "data.json").read_text())["ratio_menon2007"]
    few = ["--models", "robust", "--sizes", "full-hd", "--repeats", 1] if small else ["--compile"]
    run("inference", "benchmarks/inference.py", *on, *few, "--json", out / "inference.json")
    return figures


def train(asked, out: Path, root: Path, networks: list[str]) -> dict:
    """The run, and its validation curve."""
    steps = (20, 20) if asked.quick else (20_000, 27_000)
    options = ["--device", asked.device, "--runs", out / "runs", "--run", "paper", "--data.root", root]
    options += ["--pretrain.steps", steps[0], "--train.steps", steps[1], "--data.test-count", 0, "--data.val-count", 0]
    options += ["--compute.precision", "bf16", "--data.workers", 2 if asked.quick else 12]
    options += ["--compute.compile"] if asked.compile else []
    options += ["--log.save-every", 500, "--log.val-every", 10 if asked.quick else 1000, *networks]
    options += ["--data.patch", 64, "--data.batch", 4] if asked.quick else []
    took, told = run("a run of the paper's length", "fit.py", "fujifilm-efficient", *options)
    speeds = re.findall(r"^(\w+): ([\d.]+) steps a second .*?, ([\d.]+)% of it waiting for data", told, re.MULTILINE)
    lines = map(json.loads, (out / "runs" / "paper" / "log.jsonl").read_text().splitlines())
    curve = [(line["stage"], line["step"], line["val_psnr"]) for line in lines if "val_psnr" in line]
    return {
        "steps": steps,
        "seconds": round(took, 1),
        "stages": {stage: {"steps_a_second": float(r), "waiting_for_data": float(w)} for stage, r, w in speeds},
        "val_psnr": curve,
        "summary": json.loads((out / "runs" / "paper" / "summary.json").read_text()),
    }


def absolute(file: str) -> str:
    """The scripts run in their own folder."""
    return str(Path(file).resolve()) if file else ""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--data", type=Path, help="a dataset in the Fujifilm layout, with val/")
    options.add_argument("--device", default="auto")
    options.add_argument("--quick", action="store_true", help="small, random weights, made-up data")
    options.add_argument("--compile", action="store_true", help="compile in the run, too")
    options.add_argument("--vgg-file", default="", type=absolute)
    options.add_argument("--vit", default="vit_base_patch16_224")
    options.add_argument("--vit-file", default="", type=absolute)
    asked = options.parse_args()
    if not (asked.quick or asked.data):
        raise UserError("name a dataset with --data, or take --quick")
    asked.out = asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    root = asked.data.resolve() if asked.data else asked.out / "demo"
    if asked.quick and not asked.data:
        make_demo(root)
    vit = "vit_tiny_patch16_224" if asked.quick else asked.vit
    weights = "random" if asked.quick else "auto"
    step = ["--weights", weights, "--vit", vit, *(["--vgg-file", asked.vgg_file] if asked.vgg_file else [])]
    fit = ["--backbones.weights", weights, "--backbones.vit", vit]
    fit += ["--backbones.vgg-file", asked.vgg_file] if asked.vgg_file else []
    fit += ["--backbones.vit-file", asked.vit_file] if asked.vit_file else []
    summary = {"machine": machine(choose_device(asked.device)), "quick": asked.quick}
    summary |= {"run": train(asked, asked.out, root, fit), "benchmarks": benchmarks(asked, asked.out, step)}
    (asked.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary["run"]["stages"] | summary["benchmarks"], indent=2))


if __name__ == "__main__":
    run_cli(main)
