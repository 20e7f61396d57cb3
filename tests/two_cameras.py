"""Folders of two cameras' files, a trained mapper to put in place of one, and options of map_raw.py."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data import camera as camera_profiles
from data.sensor import Sensor

from .dng import dng, sampled

CAMERAS = {"a": Sensor("rggb", (60.0, 62.0, 64.0, 66.0), 1023.0), "b": Sensor("grbg", (256.0,) * 4, 4095.0)}
SEEN = {"a": np.eye(3), "b": np.array([[0.6, 0.3, 0.0], [0.2, 0.7, 0.1], [0.0, 0.3, 0.6]])}
NAMES = {"a": ("Maker", "One"), "b": ("Other", "Two")}
SIZE = (48, 64)


def scene(seed: int) -> np.ndarray:
    """Smooth colours (H, W, 3) between 0 and 0.8 of white."""
    coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed)) ** 2 * 0.8
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 0.8)[0].permute(1, 2, 0).numpy()


def mosaic_of(camera: str, seed: int, first: int = 0) -> np.ndarray:
    """What a camera records of a scene, from its column `first` on."""
    sensor = CAMERAS[camera]
    return sampled(
        np.roll(scene(seed), -first, 1) @ SEEN[camera].T, sensor.cfa, sensor.black_level, int(sensor.white_level)
    )


def dng_of(which: str, seed: int, **options) -> bytes:
    """A camera's file of a scene; `options` are those of `dng`."""
    sensor = CAMERAS[which]
    levels = {"cfa": sensor.cfa, "black": sensor.black_level, "white": int(sensor.white_level)}
    return dng(mosaic_of(which, seed), **levels, **{"camera": NAMES[which]} | options)


def write_folders(root: Path) -> dict[str, Path]:
    """Ten camera files of each camera, of different scenes."""
    found = {camera: root / camera for camera in CAMERAS}
    for number, (camera, folder) in enumerate(found.items()):
        folder.mkdir()
        for seed in range(10):
            (folder / f"{seed}.dng").write_bytes(dng_of(camera, 10 * number + seed))
    return found


def write_plain_folders(root: Path) -> dict[str, Path]:
    """PNG and NPY files without notes, six of each camera; beside the folders lie profiles, a.json and b.json."""
    found = {camera: root / camera for camera in CAMERAS}
    for number, (camera, folder) in enumerate(found.items()):
        folder.mkdir()
        for seed in range(5):
            Image.fromarray(mosaic_of(camera, 10 * number + seed)).save(folder / f"{seed}.png")
        np.save(folder / "5.npy", mosaic_of(camera, 10 * number + 5))
        sensor = CAMERAS[camera]
        arguments = [str(folder), "-o", f"{folder}.json", "--cfa", sensor.cfa, "--white-level", str(sensor.white_level)]
        camera_profiles.main([*arguments, "--black-level", *map(str, sensor.black_level)])
    return found


def profiles(found: dict[str, Path]) -> list[str]:
    return [part for camera, folder in found.items() for part in (f"--camera-{camera}", f"{folder}.json")]


def fit(found: dict[str, Path], method: str = "gains", to: str = "b") -> list[str]:
    return ["--method", method, "--a", str(found["a"]), "--b", str(found["b"]), "--to", to]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


@dataclass
class Doubling:
    """A trained mapper, as tasks/mapping.py opens them; it doubles everything."""

    source: str
    name: str = "mapper"
    sensors: dict = field(default_factory=lambda: CAMERAS)
    cameras: dict = field(default_factory=lambda: {"a": None, "b": None})
    seen: list = field(default_factory=list)

    def map(self, planes: torch.Tensor, to: str, downsample: int = 1) -> torch.Tensor:
        self.seen.append((tuple(planes.shape), to, downsample))
        return 2 * planes if planes.max() < 0.9 else planes * float("nan")
