"""Folders of camera files, as a user might have them, and quick runs on them."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from .dng import dng, sampled

SIZE = (64, 96)
BLACK, WHITE, GAINS = 2056, 15000, (2.0, 1.5)  # levels as those of Canon's DNG files
UNPAIRED = ("--train.texture-critics", "grey", "--train.adv-color", "0")
ONLY_MSE = ("--train.mode", "paired", "--train.mse", "1", "--train.tv", "0", "--pretrain.steps", "0")
ONLY_MSE += ("--train.color", "0", "--train.lpips", "0", "--train.dists", "0")
ONLY_MSE += ("--data.pairs", "yes", "--data.val-count", "0", "--data.test-count", "0")


def smooth(seed: int) -> np.ndarray:
    """A scene (H, W, 3) of smooth colours, between 0.05 and 0.95 of white."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.linspace(0, 6, side) for side in SIZE)
    phases = rng.uniform(0, 6, (3, 2))
    return np.stack([0.5 + 0.45 * np.outer(np.sin(rows + a), np.cos(columns + b)) for a, b in phases], axis=2)


def seen(colours: np.ndarray, gains: tuple[float, float] = GAINS) -> np.ndarray:
    """Colours (H, W, 3) that are grey where R, G and B are equal, as a camera sees them that needs these gains."""
    return colours / (gains[0], 1.0, gains[1])


def write(
    path: Path, scene: np.ndarray, cfa: str = "rggb", black: float = BLACK, white: int = WHITE, **options
) -> Path:
    """A DNG file of a scene; `options` are those of `dng`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dng(sampled(scene, cfa, black, white), cfa, black, white, **{"gains": GAINS} | options))
    return path


def write_photo(path: Path, scene: np.ndarray) -> None:
    """The photograph of a scene, with a gamma."""
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, (255 * scene ** (1 / 2.2)).round().astype(np.uint8))


def folders(own: Path, raws: str = "raws", photos: str = "photos") -> list[str]:
    """The preset and the two folders."""
    return ["camera", "--data.raw", str(own / raws), "--data.photos", str(own / photos)]


def quick(own: Path, *others: str) -> list[str]:
    """Options of a run of a few steps without large networks, in runs/own."""
    options = {"data.patch": 32, "data.batch": 2, "data.workers": 0, "pretrain.steps": 2, "pretrain.content": 0}
    options |= {"train.steps": 2, "train.content": 0, "backbones.weights": "random", "log.every": 1, "device": "cpu"}
    options |= {"runs": own / "runs", "run": "own"}
    return [part for name, value in options.items() for part in (f"--{name}", str(value))] + list(others)
