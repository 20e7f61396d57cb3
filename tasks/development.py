"""Developing single files with a trained generator: at their own levels, in their own light, at full resolution."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from config import config as default
from data.cache import free_memory
from data.camera_files import CAMERA_FILES, CameraFile, read_with_notes
from data.conditions import BALANCED, Gains, gains_of, gray_world, noted
from data.files import Reader, advising, reading
from data.notes import note
from data.photographs import upright
from data.sensor import Sensor
from errors import UserError
from tasks.adaptation import MappedReader
from tasks.model import Model

ISO_STOPS = 1.0  # beyond the training's ISO range
LIGHT = 1.1  # factor by which gains may be outside of those of the training
PHOTOGRAPH = 12  # bytes of a pixel: 16 bits of three colours, and what encodes them
GIB = 1 << 30


@dataclass(frozen=True)
class Wishes:
    """What the user asks for."""

    white_balance: str | tuple[float, float] = ""  # "camera", "trained", "auto", gains of red and blue; "": the model's
    exposure: float = 0.0  # in stops
    bits: int = 8


@dataclass(frozen=True)
class Shot:
    """A file that has been read, ready for the network."""

    path: Path
    mosaic: np.ndarray  # (H, W), digital numbers of `sensor`
    sensor: Sensor
    gains: Gains | None
    orientation: int  # EXIF
    remarks: tuple[str, ...]  # what is outside of what the model was trained on


class Developer:
    """Reads files and develops them as the user wishes.

    Args:
        model: the generator, with what its checkpoint says of it.
        wishes: of the user.
        plain: the camera of mosaics that are not camera files.
        headless_size: (height, width) of .raw files without a header.
        adapted: reads files of another camera than the model's, and maps them to that.

    Raises `UserError` for wishes that the model cannot fulfil.
    """

    def __init__(
        self,
        model: Model,
        wishes: Wishes,
        plain: Sensor,
        headless_size: tuple[int, int] = (0, 0),
        adapted: MappedReader | None = None,
    ):
        self.model, self.wishes, self.plain, self.headless_size = model, wishes, plain, headless_size
        self.adapted = adapted
        run = model.config or default
        red, green, blue = model.camera.gains if model.camera else run.data.gains
        self.trained = red / green, blue / green  # the light of the training's mosaics
        if wishes.white_balance == "trained" and model.normalisation in BALANCED and not model.camera:
            raise UserError(f"{model.source} does not say in what light it was trained: choose another --wb")
        known = model.camera or run.data.rendering == "camera"
        if wishes.white_balance not in ("", "trained") and model.normalisation not in BALANCED and not known:
            note(f"{model.source} does not say in what light it was trained: that of the published gains is assumed")

    def read(self, path: Path) -> Shot:
        """Read one file. Raises `UserError` as `Reader` does, and for a white balance that it does not note."""
        if self.adapted:
            mosaic, notes = self.adapted.read(path)
            sensor, remark = self.adapted.sensor, self.adapted.remark(notes)
            orientation, remarks = notes.orientation if notes else 1, (f"of {remark}",) if remark else ()
            return Shot(path, mosaic, sensor, self._gains(path, mosaic, sensor), orientation, remarks)
        if path.suffix.lower() not in CAMERA_FILES:
            with advising("name a profile of their camera with --camera (python -m data.camera writes one)"):
                mosaic = Reader(self.plain, self.headless_size).recorded(path)
            return Shot(path, mosaic, self.plain, self._gains(path, mosaic, self.plain), 1, ())
        with reading(path):
            mosaic, notes = read_with_notes(path, self._read_as, self.model.lens_shading)
        sensor = self._read_as(notes.sensor)
        gains = self._gains(path, mosaic, sensor)
        return Shot(path, mosaic, sensor, gains, notes.orientation, self._remarks(notes))

    def develop(self, shot: Shot, device: torch.device) -> np.ndarray:
        """The photograph (H, W, 3), upright, sRGB of 8 or 16 bits. Raises `UserError` if memory would not suffice."""
        self._check_memory(shot)
        mosaic = torch.from_numpy(shot.mosaic)[None, None].to(device)
        if mosaic.is_floating_point():
            mosaic /= shot.sensor.white_level
        image = self.model.develop(mosaic, shot.sensor, shot.gains, self.wishes.bits)[0]
        return np.ascontiguousarray(upright(image.permute(1, 2, 0).cpu().numpy(), shot.orientation))

    def _read_as(self, own: Sensor) -> Sensor:
        """The levels at which to read a camera file of `own` levels.

        The packed input is the share of white above black: a file's own levels do, without another copy of it. So they
        do for networks by others, whose inputs bring them to their phone's. RMFA's input has black taken off only: its
        files are brought to the model's levels.
        """
        return own if self.model.spec.input_format != "split" else replace(self.model.sensor, cfa=own.cfa)

    def _gains(self, path: Path, mosaic: np.ndarray, sensor: Sensor) -> Gains | None:
        """What a mosaic is multiplied by: as the model's normalisation says, in the light that the user wishes."""
        model, wish = self.model, self.wishes.white_balance
        gains = (1.0, 1.0, 1.0)
        if model.normalisation != "off":
            own = self.adapted and self.adapted.gains(path, mosaic)
            gains = own or gains_of(path, mosaic, sensor, model.normalisation)
        if wish:
            red, blue = self._light(path, mosaic, sensor, wish)
            if model.normalisation not in BALANCED:  # it expects the light that it was trained in
                red, blue = red / self.trained[0], blue / self.trained[1]
            gains = red * gains[1], gains[1], blue * gains[1]
        gains = tuple(gain * 2**self.wishes.exposure for gain in gains)
        return None if gains == (1.0, 1.0, 1.0) else gains

    def _light(self, path: Path, mosaic: np.ndarray, sensor: Sensor, wish: str | tuple[float, float]):
        """The gains of red and blue with which grey is grey."""
        if wish == "auto":
            return gray_world(mosaic, sensor)
        if wish == "trained":
            return self.trained
        if wish != "camera":
            return wish
        red, blue, _ = noted(path)
        if red is None or blue is None:
            raise UserError(f"{path} notes no white balance: choose --wb auto, trained, or gains R,B")
        return self.adapted.carried(path, mosaic, (red, blue)) if self.adapted else (red, blue)

    def _remarks(self, notes: CameraFile) -> tuple[str, ...]:
        """What is outside of the camera, light and ISO that the model was trained on, as far as both are known."""
        camera, found = self.model.camera, []
        if not camera:  # a released model, or one of mosaics without notes
            return (
                (f"of {notes.name}, the model of {self.model.trained_on}: colours may be wrong",) if notes.name else ()
            )
        if camera.name and camera.name != notes.name:
            found.append(f"of another camera than {camera.name} ({notes.name or 'unknown'}): colours may be wrong")
        lowest, highest = camera.iso
        if notes.iso and highest and not lowest / 2**ISO_STOPS <= notes.iso <= highest * 2**ISO_STOPS:
            found.append(f"of an ISO outside {lowest:g} to {highest:g}")
        relative = self.model.normalisation not in BALANCED and self.wishes.white_balance in ("", "trained")
        if relative and notes.gains and camera.gains_noted:
            ranges = zip(notes.gains, (camera.red_gain, camera.blue_gain), strict=True)
            if any(not low / LIGHT <= gain <= high * LIGHT for gain, (low, _, high) in ranges):
                found.append("in another light than the training's: --wb camera undoes that")
        return tuple(found)

    def _check_memory(self, shot: Shot) -> None:
        """Raise `UserError` if the photograph, and a network that takes images whole, would fill the memory."""
        pixels, whole = shot.mosaic.size, self.model.spec.memory
        if (need := pixels * (PHOTOGRAPH + whole)) > (free := free_memory()):
            instead = ", or a model that does not look at images whole (efficient, robust)" if whole else ""
            raise UserError(
                f"{shot.path} of {pixels / 1e6:.0f} million pixels needs about {need / GIB:.1f} GiB with "
                f"{self.model.name}, and {free / GIB:.1f} GiB are free: use a machine with more memory{instead}"
            )
