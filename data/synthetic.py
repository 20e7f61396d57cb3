"""Training pairs without a camera: mosaics that a camera would have recorded of photographs.

The colour map of `data.transport` is inverted on a photograph; what it gives is sampled by the CFA, gets the camera's
noise, and is quantised and clipped as its files are.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from data.cache import Files
from data.folders import Split
from data.patches import Patches, flip, generator_of, photo_tensor, random_window
from data.sensor import Cfa, Sensor
from data.transport import GAMMA, ColorMap
from data.unprocess import expose
from errors import UserError


@dataclass(frozen=True)
class SyntheticCamera:
    """Records photographs as mosaics of a sensor. The variance of the noise is shot * signal + read.

    Raises `UserError` for a sensor of more than 16 bits.
    """

    sensor: Sensor
    inverse: ColorMap  # sRGB -> camera colours, as data.transport.camera_colors has them
    shot: float
    read: float

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

    def record(self, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """sRGB (H, W, 3) uint8, of even sides -> a mosaic (H, W) uint16, digital numbers."""
        colors = self.inverse.of_pixels(photo.reshape(-1, 3) / 255.0).reshape(photo.shape)
        return expose(colors.clip(0, 1) ** GAMMA, self, rng)


class SyntheticPatches(Patches):
    """The endless stream of pairs of a stage: patches of photographs, and the mosaics of a `SyntheticCamera`.

    Sample k is a dict of "mosaic" (1, P, P), 1 is white, and "target" (3, P, P) in [0, 1], as `Patches` gives them for
    a paired split. The mosaics of the split are not read.
    """

    def __init__(self, split: Split, files: Files, camera: SyntheticCamera, patch: int, seed: int, stage: int, **more):
        super().__init__(split, files, patch, seed, stage, **more)
        self.camera = camera

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        path = self._file(self.split.photos, k, stream=0 if self.split.paired or self.split.coupled else 1)
        photo, rng = self.files.photo(path), generator_of(self.seed, self.stage, 2, k)
        window, mirror = random_window(photo.shape, self.patch, rng, path, even=False), self._mirror(rng)
        target = flip(photo[window], *mirror)
        mosaic = self.files.reader.mosaic_tensor(self.camera.record(target, rng))
        return {"mosaic": mosaic, "target": photo_tensor(target)}
