"""A tiny dataset of two simulated cameras, and raw-to-raw runs of a few steps."""

from pathlib import Path

import numpy as np
import torch

import fit
from data.simulate_cameras import Settings, write_cameras

SIDE = 64  # of all mosaics
COUNTS = {"unpaired/a": 3, "unpaired/b": 3, "paired": 2}  # photographs
QUICK = ("--model", "mapper-plain", "--mapping.steps", "2", "--data.patch", "64", "--data.batch", "2")
QUICK += ("--data.workers", "0", "--data.cache", "off", "--device", "cpu", "--log.samples", "1", "--log.every", "1")
QUICK += ("--log.val-every", "2", "--log.save-every", "1", "--log.state-every", "2")


def photograph(seed: int) -> np.ndarray:
    """Smooth colours (H, W, 3), uint8."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return (255 * image[0].permute(1, 2, 0)).byte().numpy()


def make_cameras(root: Path) -> Path:
    """Write the dataset, in the layout "cameras"."""
    names = [(side, f"{side} {number}.png") for side, count in COUNTS.items() for number in range(count)]
    photographs = {name: photograph(seed) for seed, (_, name) in enumerate(names)}
    cuts = [(side, name, 1.0, 0, 0) for side, name in names]
    licences = dict.fromkeys(photographs, "none")
    write_cameras(root, cuts, photographs.__getitem__, Settings(seed=0, patch=SIDE, lights="single"), licences)
    return root


def train(runs: Path, name: str, *options: str) -> Path:
    """The folder of a finished run of two steps, with a checkpoint of each; without last.pt, which is large."""
    arguments = ["raw2raw", *QUICK, "--runs", str(runs), "--run", name, *options]
    folder = fit.train(*fit.parse(arguments))
    (folder / "last.pt").unlink()
    return folder
