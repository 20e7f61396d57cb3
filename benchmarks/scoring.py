"""Times the scoring of many checkpoints: inference.py, against a process for each checkpoint that reads the data again.

python benchmarks/scoring.py [--checkpoints 100] [--pairs 64] [--processes 20] [--json FILE]

Both score the same checkpoints of Efficient ISP on the same pairs of 256x256 pixels, and must get the same PSNR. The
second is the published way. It is timed on `--processes` checkpoints, one at a time and two at a time (as in two tmux
sessions), and extrapolated to all checkpoints.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from common import ROOT, machine, positive

import storage
from config import Config, Data, to_dict
from data.sensor import SENSORS
from errors import UserError, run_cli
from evaluation.tables import checkpoints, read_table
from models import build_model
from training.checkpoint import save_generator

SIDE = 256  # pixels

# The published way for one checkpoint, reimplemented: read each file, pack it, run the network on it alone, convert to
# 8 bits, compare. Arguments: checkpoint, folder of the split, CSV file to write.
PUBLISHED = """
import sys, csv, pathlib, imageio.v3 as iio, numpy as np, torch
sys.path.insert(0, {root!r})
from models import build_model
file, data, out = map(pathlib.Path, sys.argv[1:])
model = build_model("efficient").eval()
model.load_state_dict(torch.load(file, weights_only=True)["generator"])
rows = []
for path in sorted((data / "mediatek_raw").iterdir()):
    x = iio.imread(path).astype(np.float32)
    planes = [(x[1::2, 1::2], 62), (x[0::2, 1::2], 60), (x[0::2, 0::2], 58), (x[1::2, 0::2], 61)]
    packed = np.stack([(plane - black) / (1023 - black) for plane, black in planes])
    with torch.no_grad():
        image = model(torch.from_numpy(packed)[None])[0].permute(1, 2, 0).numpy()
    image = (image.clip(0, 1) * 255).astype(np.uint8).astype(np.float64)
    target = iio.imread(data / "fujifilm" / path.name).astype(np.float64)
    rows.append((path.name, 10 * np.log10(255**2 / np.mean((image - target) ** 2))))
with open(out, "w") as f:
    csv.writer(f).writerows([*rows, ("mean", np.mean([value for _, value in rows]))])
"""


def make_data(root: Path, pairs: int) -> None:
    """Write two training pairs and `pairs` validation pairs: crops of photographs, and mosaics of them."""
    from skimage import data as photographs

    rng = np.random.default_rng(0)
    images = [getattr(photographs, name)() for name in ("astronaut", "chelsea", "coffee")]
    for split, count in (("train", 2), ("val", pairs)):
        raws, photos = root / split / "mediatek_raw", root / split / "fujifilm"
        raws.mkdir(parents=True)
        photos.mkdir()
        for index in range(count):
            image = images[index % len(images)]
            top, left = (int(rng.integers(0, length - SIDE + 1)) for length in image.shape[:2])
            crop = image[top : top + SIDE, left : left + SIDE]
            mosaic = np.zeros((SIDE, SIDE), np.uint16)
            for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
                mosaic[row::2, column::2] = 64 + 3 * crop[row::2, column::2, channel].astype(np.uint16)
            iio.imwrite(raws / f"{index:03}.png", mosaic)
            iio.imwrite(photos / f"{index:03}.png", crop)


def make_run(run: Path, root: Path, count: int) -> None:
    """Write the folder of a run on the dataset `root`, with `count` checkpoints of random weights."""
    config = to_dict(Config(run=run.name, model="efficient", data=Data(root=str(root), val_count=0, test_count=0)))
    storage.write_json(run / "config.json", config)
    sensor = asdict(SENSORS["fujifilm"])
    description = {"model": "efficient", "input_format": "packed", "sensor": sensor, "config": config, "weights": {}}
    for step in range(1, count + 1):
        torch.manual_seed(step)
        save_generator(run / "checkpoints" / f"step_{step:07d}.pt", build_model("efficient"), step, description)


def score_as_published(files: list[Path], split: Path, out: Path, at_once: int) -> float:
    """Seconds a checkpoint, with `at_once` processes at a time. Writes the scores to `out`/NAME.csv.

    Raises `UserError` if a process fails.
    """
    script = [sys.executable, "-c", PUBLISHED.format(root=str(ROOT))]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))}
    start, waiting, running = time.perf_counter(), list(files), []
    while waiting or running:
        while waiting and len(running) < at_once:
            file = waiting.pop(0)
            command = [*script, str(file), str(split), str(out / f"{file.stem}.csv")]
            running.append(subprocess.Popen(command, env=environment))
        if running.pop(0).wait():
            raise UserError("a process that scores in the published way failed")
    return (time.perf_counter() - start) / len(files)


def score_with_inference(run: Path) -> float:
    """Seconds of inference.py for all checkpoints of the run, including its start; removes older scores first."""
    for table in (run / "scores").glob("*.csv"):
        table.unlink()
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "inference.py"), "--all", "--run", run.name, "--runs", str(run.parent)]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    subprocess.run([*command, "--device", "cpu"], check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--checkpoints", type=positive, default=100, help="checkpoints to score (%(default)s)")
    options.add_argument("--pairs", type=positive, default=64, help="validation pairs (%(default)s)")
    options.add_argument("--processes", type=positive, default=20, help="checkpoints scored as published (%(default)s)")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out, root, run = Path(name), Path(name) / "data", Path(name) / "runs" / "many"
        make_data(root, given.pairs)
        make_run(run, root, given.checkpoints)
        few, split = checkpoints(run)[: given.processes], root / "val"
        times = [score_with_inference(run)]
        one, two = score_as_published(few, split, out, 1), score_as_published(few, split, out, 2)
        times += [score_with_inference(run) for _ in range(2)]
        for file in few:
            published = float((out / f"{file.stem}.csv").read_text().split("mean,")[1])
            assert abs(published - read_table(run / "scores" / f"{file.stem}.csv").mean["psnr"]) < 1e-4
    total = statistics.median(times)
    figures = {
        "machine": machine(torch.device("cpu")),
        "checkpoints": given.checkpoints,
        "pairs": given.pairs,
        "seconds_ours": round(total, 2),
        "seconds_ours_each": [round(value, 2) for value in times],
        "seconds_published_a_checkpoint": round(one, 3),
        "seconds_published_a_checkpoint_two_at_once": round(two, 3),
        "ratio": round(one * given.checkpoints / total, 1),
        "ratio_two_at_once": round(two * given.checkpoints / total, 1),
    }
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    run_cli(main)
