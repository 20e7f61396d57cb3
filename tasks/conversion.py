"""Converting single files: one camera's mosaic in, at its own levels, the mosaic of another camera out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from data.camera import Profile
from data.camera_files import CAMERA_FILES, CameraFile
from data.mosaic_files import Notes, check_white, encode_mosaic
from data.planes import from_planes
from data.raw_maps import colors_of, light_of, thumbnail
from data.sensor import Sensor, mirrored_axes
from errors import UserError
from tasks.closed_form import OTHER, planes_of, read_as_is

BELOW = 0.02  # of the levels' range: noise does not reach so far below black


class Mapper(Protocol):
    """What maps planes: a trained mapper (tasks/mapping.py), or a map in closed form (tasks/closed_form.py)."""

    source: str
    name: str
    sensors: Mapping[str, Sensor]
    cameras: Mapping[str, Profile | None]

    def map(self, planes: Tensor, to: str, downsample: int = 1) -> Tensor:
        """Planes (1, 4, h, w) of the other camera -> those of camera `to`."""


@dataclass(frozen=True)
class Shot:
    """A file that has been read, ready to be mapped."""

    path: Path
    mosaic: np.ndarray  # (H, W), digital numbers of `sensor`
    sensor: Sensor
    notes: CameraFile | None  # of a camera file


@dataclass(frozen=True)
class Converted:
    """A mosaic of the other camera."""

    source: Path
    mosaic: np.ndarray  # (H, W), uint16
    notes: CameraFile | None  # of the source
    gains: tuple[float, float] | None  # of red and blue, with which grey is grey; None if the file notes none


def kind_of(source: Path) -> str:
    """The format, in `data.mosaic_files.FORMATS`, that a file is converted to if none is asked for."""
    suffix = source.suffix.lower()
    return "dng" if suffix in CAMERA_FILES else "npy" if suffix == ".npy" else "png"


def moved(mosaic: np.ndarray, cfa: str, wanted: str) -> np.ndarray:
    """A mosaic (H, W) of even sides that begins a row, a column, or both later, where its CFA order is the wanted one.

    Its size stays: at the end, the last row or column but one is repeated. If the planes stayed where they are instead,
    colours would be up to two pixels apart, and the other camera's ISP would show fringes at every edge.
    """
    for axis in mirrored_axes(cfa, wanted):
        later, again = [slice(None)] * 2, [slice(None)] * 2
        later[axis], again[axis] = slice(1, None), slice(-2, -1)
        mosaic = np.concatenate((mosaic[tuple(later)], mosaic[tuple(again)]), axis)
    return mosaic


def carried_gains(gains: tuple[float, float], planes: Tensor, mapped: Tensor) -> tuple[float, float]:
    """The gains that a file notes for its planes, as ones for the mapped planes: the mean stays of one colour."""
    before, after = (light_of(colors_of(thumbnail(each.clamp(0, 1))))[0] for each in (planes, mapped))
    change = (before / before[1]) / (after / after[1])
    return gains[0] * float(change[0]), gains[1] * float(change[2])


class Converter:
    """Reads files of one camera and makes files of the other, `to`, of them.

    Args:
        mapper: maps planes.
        to: "a" or "b".
        downsample: factor by which a learned mapper's encoder sees the planes smaller.
        device: where the mapper is.
        target: CFA order and levels of what is made, if they are not those of camera `to`.
        lens_shading: undo what camera files note of it.

    Raises `UserError` for a camera `to` whose white level does not fit into 16 bits.
    """

    def __init__(
        self,
        mapper: Mapper,
        to: str,
        downsample: int,
        device: torch.device,
        target: Sensor | None = None,
        lens_shading: bool = False,
    ):
        self.mapper, self.to, self.downsample, self.device = mapper, to, downsample, device
        self.source, self.target = mapper.sensors[OTHER[to]], target or mapper.sensors[to]
        self.lens_shading = lens_shading
        self.profiles = mapper.cameras.get(OTHER[to]), mapper.cameras.get(to)
        check_white(self.target)

    def read(self, path: Path) -> Shot:
        """Read one file. Raises `UserError` as `read_mosaic` does, and for a file of another camera."""
        own = self.profiles[0]
        shot = Shot(path, *read_as_is(path, self.source, own.size if own else (0, 0), self.lens_shading))
        for kind, found, expected in (
            ("CFA order", shot.sensor.cfa, self.source.cfa),
            ("white level", f"{shot.sensor.white_level:g}", f"{self.source.white_level:g}"),
        ):
            if found != expected:
                raise UserError(
                    f"{path} has the {kind} {found}, but camera {OTHER[self.to]} has {expected}: it is of another "
                    "camera, leave it out"
                )
        return shot

    @property
    def expected_name(self) -> str:
        """Make and model of the files that this takes; "" if they are not known."""
        return self.profiles[0].name if self.profiles[0] else ""

    def is_dark(self, shot: Shot) -> bool:
        """Whether values lie far below black, or all below half of white, where the white of camera `to` is."""
        black, white = min(shot.sensor.black_level), shot.sensor.white_level
        return bool(
            shot.mosaic.min() < black - BELOW * (white - black)
            or shot.mosaic.max() <= self.target.white_level <= white / 2
        )

    @torch.inference_mode()
    def convert(self, shot: Shot) -> Converted:
        """Map a file. Raises `UserError` if the values that come out are not finite."""
        cfa = self.target.cfa
        planes = planes_of(moved(shot.mosaic, shot.sensor.cfa, cfa), replace(shot.sensor, cfa=cfa), self.device)
        mapped = self.mapper.map(planes, self.to, self.downsample)
        if not mapped[:, :, ::16, ::16].isfinite().all():  # some of the pixels, to save time: NaN spreads
            raise UserError(f"{self.mapper.source} gives values that are not finite: its training diverged")
        mosaic = from_planes(mapped, self.target)[0, 0].cpu().numpy()
        gains = shot.notes.gains if shot.notes else None
        return Converted(shot.path, mosaic, shot.notes, gains and carried_gains(gains, planes, mapped))

    def encode(self, converted: Converted, kind: str) -> bytes:
        """A file of `kind`, in `data.mosaic_files.FORMATS`, with what is known of the camera and the moment."""
        noted, profile = converted.notes, self.profiles[1]
        notes = Notes(
            make=profile.make if profile else "",
            model=profile.model if profile else "",
            color_matrix=profile.color_matrix if profile else None,
            gains=converted.gains,
            orientation=noted.orientation if noted else 1,
            source=converted.source if noted else None,
        )
        return encode_mosaic(converted.mosaic, self.target, kind, notes)
