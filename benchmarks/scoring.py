"""Scoring many checkpoints: inference.py beside the published way, a process a checkpoint that reads the data again.

python benchmarks/scoring.py [--checkpoints 100] [--pairs 64] [--processes 20] [--json FILE]

Both score the same checkpoints of Efficient ISP on the same pairs of 256x256 and must agree. The published way is timed
over `--processes` checkpoints, one after another, and two at a time as tmux sessions would be, and scaled up.
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
from common import ROOT, machine  # noqa: I001 - finds ours

from config import Config, Data, to_dict
from data.sensor import Sensor
from models import build_model
from scores import checkpoints, read_table
from training import checkpoint

# One checkpoint, as the published implementation does it, in our own words: read each file, pack it, run the network on
# it alone, cut to 8 bits, compare.
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


def make_run(folder: Path, count: int, pairs: int) -> Path:
    """A run with `count` checkpoints, and `pairs` crops of scikit-image's photographs with crude mosaics of them."""
    from skimage import data as photographs

    rng = np.random.default_rng(0)
    images = [getattr(photographs, name)() for name in ("astronaut", "chelsea", "coffee")]
    for part, some in (("train", 2), ("val", pairs)):
        raws, photos = folder / "data" / part / "mediatek_raw", folder / "data" / part / "fujifilm"
        raws.mkdir(parents=True)
        photos.mkdir()
        for index in range(some):
            image = images[index % len(images)]
            top, left = (int(rng.integers(0, side - 256 + 1)) for side in image.shape[:2])
            crop = image[top : top + 256, left : left + 256]
            mosaic = np.zeros((256, 256), np.uint16)
            for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
                mosaic[row::2, column::2] = 64 + 3 * crop[row::2, column::2, channel].astype(np.uint16)
            iio.imwrite(raws / f"{index:03}.png", mosaic)
            iio.imwrite(photos / f"{index:03}.png", crop)
    data = Data(root=str(folder / "data"), val_count=0, test_count=0)
    run = folder / "runs" / "many"
    config = to_dict(Config(run="many", model="efficient", data=data))
    checkpoint.write_json(run / "config.json", config)
    facts = {"model": "efficient", "input_format": "packed", "sensor": asdict(Sensor()), "config": config}
    for step in range(1, count + 1):
        torch.manual_seed(step)
        path = run / "checkpoints" / f"step_{step:07d}.pt"
        checkpoint.save_generator(path, build_model("efficient"), step=step, weights={}, **facts)
    return run


def published(run: Path, folder: Path, some: list[Path], at_once: int) -> float:
    """Seconds a checkpoint."""
    script = [sys.executable, "-c", PUBLISHED.format(root=str(ROOT))]
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    start, waiting, running = time.perf_counter(), list(some), []
    while waiting or running:
        while waiting and len(running) < at_once:
            path = waiting.pop(0)
            command = [*script, str(path), str(folder / "data" / "val"), str(folder / f"{path.stem}.csv")]
            running.append(subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": threads}))
        if running[0].wait():
            raise SystemExit("the published way failed")
        running.pop(0)
    return (time.perf_counter() - start) / len(some)


def ours(run: Path) -> float:
    """Seconds for all checkpoints of the run, the start of the process included."""
    for table in (run / "scores").glob("*.csv"):
        table.unlink()
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "inference.py"), "--all", "--run", run.name, "--runs", str(run.parent)]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    subprocess.run([*command, "--device", "cpu"], check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--processes", type=int, default=20, help="checkpoints that the published way scores")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder, asked.checkpoints, asked.pairs)
        some = checkpoints(run)[: asked.processes]
        times = [ours(run)]
        one, two = published(run, folder, some, 1), published(run, folder, some, 2)
        times += [ours(run) for _ in range(2)]
        for path in some:
            theirs = float((folder / f"{path.stem}.csv").read_text().split("mean,")[1])
            assert abs(theirs - read_table(run / "scores" / f"{path.stem}.csv").mean["psnr"]) < 1e-4
    total = statistics.median(times)
    figures = {
        "machine": machine(torch.device("cpu")),
        "checkpoints": asked.checkpoints,
        "pairs": asked.pairs,
        "seconds_ours": round(total, 2),
        "seconds_ours_each": [round(value, 2) for value in times],
        "seconds_published_a_checkpoint": round(one, 3),
        "seconds_published_a_checkpoint_two_at_once": round(two, 3),
        "ratio": round(one * asked.checkpoints / total, 1),
        "ratio_two_at_once": round(two * asked.checkpoints / total, 1),
    }
    print(json.dumps(figures, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
