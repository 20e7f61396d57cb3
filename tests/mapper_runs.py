"""Small runs of fit.py's task raw2raw: two simulated cameras, a config of a few steps."""

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor, nn

from config import PRESETS, Config
from data.simulate_cameras import Settings, split, write_cameras

from .fit_runs import vary

PATCH = 64  # side of a mosaic
PHOTOGRAPHS = 6  # of four patches: two photographs for the pairs, two for each camera


def write_dataset(root: Path, seed: int = 0) -> Path:
    """Eight mosaics of each camera and eight pairs, of photographs of coloured patches, in the layout "cameras"."""
    rng = np.random.default_rng(seed)
    photos = {f"{number}.png": _photograph(rng) for number in range(PHOTOGRAPHS)}
    shapes = {name: photo.shape[:2] for name, photo in photos.items()}
    cuts = split(shapes, PATCH, PATCH, (1.0,), seed)
    write_cameras(root, cuts, photos.__getitem__, Settings(seed, PATCH), dict.fromkeys(photos, "made up"))
    return root


def _photograph(rng: np.random.Generator) -> np.ndarray:
    colours = rng.random((12, 12, 3)) ** np.array([0.7, 1.0, 1.6])  # warm on average, as most photographs are
    return (255 * cv2.resize(colours, (2 * PATCH, 2 * PATCH)).clip(0, 1)).astype(np.uint8)


class SmallCritic(nn.Module):
    """In place of `PatchDiscriminator`, whose state takes a second to save: 1,161 parameters, without a norm."""

    def __init__(self, channels: int = 4, norm: str = "none", averaged: bool = False):
        super().__init__()
        self.averaged = averaged
        self.layers = nn.Sequential(nn.Conv2d(channels, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3))

    def forward(self, planes: Tensor) -> Tensor:
        """Planes (N, `channels`, h, w) -> logits (N, h/2 - 2, w/2 - 2), or their means (N,)."""
        logits = self.layers(planes).squeeze(1)
        return logits.mean((1, 2)) if self.averaged else logits


def make_config(root: Path, runs: Path, **parts) -> Config:
    """A run of two steps of the smallest mapper, which writes everything at every step; `parts` as for `vary`."""
    base = vary(
        PRESETS["raw2raw-demo"],
        run="tiny",
        runs=str(runs),
        model="mapper-plain",
        device="cpu",
        data={"root": str(root), "demo": False, "patch": 48, "batch": 2},
        mapping={"steps": 2, "start": "identity", "identity": 5.0, "ema": 0.0},
        log={"every": 1, "val_every": 2, "save_every": 1, "state_every": 1, "samples": 2},
    )
    return vary(base, **parts)


def options(root: Path, runs: Path, *more: object) -> list[str]:
    """The command line of such a run."""
    given = f"--run tiny --runs {runs} --data.root {root} --data.no-demo --model mapper-plain --device cpu"
    given += " --data.patch 48 --data.batch 2 --mapping.steps 2 --mapping.start identity --mapping.ema 0"
    given += " --log.every 1 --log.val-every 2 --log.save-every 1 --log.state-every 1 --log.samples 2"
    return ["raw2raw-demo", *given.split(), *map(str, more)]
