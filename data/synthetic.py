"""Training pairs without a camera: mosaics that a camera would have recorded of photographs.

The colour map of `data.transport` is inverted on a photograph; what it gives is sampled by the CFA, gets the camera's
noise, and is quantised and clipped as its files are.
"""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from data.cache import Files
from data.conditions import Gains, normalise
from data.context import statistics
from data.folders import Split
from data.patches import Patches, flip, generator_of, photo_tensor, random_window
from data.sensor import Cfa, Sensor
from data.transport import GAMMA, ColorMap
from data.unprocess import expose
from errors import UserError

THUMBNAIL = 64  # pixels a side of a photograph from which the context of its mosaic is computed


@dataclass(frozen=True)
class SyntheticCamera:
    """Records photographs as mosaics of a sensor. The variance of the noise is shot * signal + read.

    Raises `UserError` for a sensor of more than 16 bits.
    """

    sensor: Sensor
    inverse: ColorMap  # sRGB -> camera colours, as data.transport.camera_colors has them
    shot: float
    read: float
    gains: tuple[Gains, ...] = ()  # of the camera's mosaics, if they are normalised (data/conditions.py)
    clip: bool = False  # normalised mosaics at white

    def __post_init__(self) -> None:
        if self.white > 65535:
            raise UserError(f"synthetic mosaics have 16 bits, but the white level is {self.white:g}")

    @property
    def cfa(self) -> Cfa:
        return self.sensor.cfa

    @property
    def black(self) -> tuple[float, float, float, float]:
        return self.sensor.black_level

    @property
    def white(self) -> float:
        return self.sensor.white_level

    def draw_gains(self, rng: np.random.Generator) -> Gains | None:
        """Those of a random mosaic of the camera; None if its mosaics are not normalised."""
        return self.gains[rng.integers(len(self.gains))] if self.gains else None

    def record(self, photo: np.ndarray, rng: np.random.Generator, gains: Gains | None = None) -> np.ndarray:
        """sRGB (H, W, 3) uint8, of even sides -> a mosaic (H, W), digital numbers, normalised by `gains`."""
        colors = self.linear(photo)
        if gains is None:
            return expose(colors.clip(max=1), self, rng)
        return normalise(expose((colors / gains).clip(max=1), self, rng), gains, self.sensor, self.clip)

    def linear(self, photo: np.ndarray) -> np.ndarray:
        """sRGB (H, W, 3) uint8 -> linear camera RGB (H, W, 3), normalised, not clipped above."""
        colors = self.inverse.of_pixels(photo.reshape(-1, 3) / 255.0).reshape(photo.shape)
        return colors.clip(0) ** GAMMA


@dataclass
class SyntheticContexts:
    """The contexts of the mosaics that a `SyntheticCamera` would record of whole photographs."""

    camera: SyntheticCamera
    thumbnails: dict[Path, Tensor] = field(default_factory=dict)  # linear camera RGB (1, 3, THUMBNAIL, THUMBNAIL)

    def __call__(self, path: Path, photo: np.ndarray, gains: Gains | None) -> Tensor:
        """The context (K,) of the photograph at `path`, sRGB (H, W, 3) uint8, with these gains."""
        if path not in self.thumbnails:
            small = cv2.resize(photo, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
            self.thumbnails[path] = torch.from_numpy(self.camera.linear(small)).float().permute(2, 0, 1)[None]
        white = torch.tensor(gains or (1.0, 1.0, 1.0)).view(1, 3, 1, 1)
        return statistics(torch.minimum(self.thumbnails[path], white))[0]


class SyntheticPatches(Patches):
    """The endless stream of pairs of a stage: patches of photographs, and the mosaics of a `SyntheticCamera`.

    Sample k is a dict of "mosaic" (1, P, P), 1 is white, and "target" (3, P, P) in [0, 1], as `Patches` gives them for
    a paired split, and with `contexts`, `SyntheticContexts`, of "context" (K,). The mosaics of the split are not read.
    """

    def __init__(self, split: Split, files: Files, camera: SyntheticCamera, patch: int, seed: int, stage: int, **more):
        super().__init__(split, files, patch, seed, stage, **more)
        self.camera = camera

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        path = self._file(self.split.photos, k, stream=0 if self.split.paired or self.split.coupled else 1)
        photo, rng = self.files.photo(path), generator_of(self.seed, self.stage, 2, k)
        window, mirror = random_window(photo.shape, self.patch, rng, path, even=False), self._mirror(rng)
        target, gains = flip(photo[window], *mirror), self.camera.draw_gains(rng)
        mosaic = self.files.reader.mosaic_tensor(self.camera.record(target, rng, gains))
        sample = {"mosaic": mosaic, "target": photo_tensor(target)}
        return sample | {name: of(path, photo, gains) for name, of in self.of_whole.items()}
