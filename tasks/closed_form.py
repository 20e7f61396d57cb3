"""Maps between two cameras that are fitted in closed form to folders of their files, saved, and opened again."""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import storage
from data import camera
from data.camera import Profile
from data.camera_files import CAMERA_FILES, CameraFile, read_with_notes
from data.files import Reader, reading
from data.folders import mosaics
from data.planes import to_planes
from data.raw_maps import RawMap, fit_raw_map, from_dict, thumbnail, to_dict
from data.sensor import Sensor, mosaic_tensor
from data.threads import in_threads
from data.two_cameras import OTHER
from errors import UserError

IMAGES = 512  # at most this many files of each camera, evenly spaced, are looked at
KIND = "map between two cameras"  # in the file, to know it by


@dataclass(frozen=True)
class ClosedForm:
    """A map to camera `to`, "a" or "b", and what is known of both cameras."""

    source: str  # the file that it was opened from, or the method that fitted it
    name: str  # of the method
    to: str
    fitted: RawMap
    cameras: dict[str, Profile]  # {"a": ..., "b": ...}

    @property
    def sensors(self) -> dict[str, Sensor]:
        """{"a": CFA order and levels, "b": ...}."""
        return {each: profile.sensor for each, profile in self.cameras.items()}

    def map(self, planes: Tensor, to: str, downsample: int = 1) -> Tensor:
        """Planes (1, 4, h, w) of the other camera -> those of camera `to`, not clipped; whole pictures.

        `downsample` is for learned mappers, and has no effect. Raises `UserError` for the other direction.
        """
        if to != self.to:
            raise UserError(f"{self.source} is a map to camera {self.to}, not {to}: fit another with --method")
        return self.fitted(planes)


def planes_of(mosaic: np.ndarray, sensor: Sensor, device: torch.device | str = "cpu") -> Tensor:
    """A mosaic (H, W) in digital numbers -> planes (1, 4, H/2, W/2) on the device."""
    return to_planes(mosaic_tensor(mosaic, sensor)[None].to(device), sensor)


def read_as_is(
    path: Path, plain: Sensor, size: tuple[int, int], lens_shading: bool = False
) -> tuple[np.ndarray, Sensor, CameraFile | None]:
    """(mosaic (H, W), its CFA order and levels, notes of a camera file) of a file.

    `plain` and `size` are those of mosaics that are not camera files; the `lens_shading` that camera files note is
    undone, if asked for. Raises `UserError` as `read_mosaic` does.
    """
    if path.suffix.lower() not in CAMERA_FILES:
        return Reader(plain, size).recorded(path), plain, None
    with reading(path):
        mosaic, notes = read_with_notes(path, lambda own: own, lens_shading)
    return mosaic, notes.sensor, notes


# --- fitting ---------------------------------------------------------------------------------------------------------


def fit(method: str, to: str, folders: dict[str, Path], profiles: dict[str, str]) -> ClosedForm:
    """Fit a map to camera `to`.

    Args:
        method: a name in `data.raw_maps.METHODS`, or "profiles".
        to: "a" or "b".
        folders: {"a": folder of camera a's files, "b": ...}.
        profiles: {"a": camera.json of plain mosaics, "" for camera files, "b": ...}.

    Raises `UserError` as `data.raw_maps.fit_raw_map` does, and for plain mosaics without a profile.
    """
    if folders["a"].resolve() == folders["b"].resolve():
        raise UserError(f"{folders['a']} is the folder of both cameras: give one with --a, and another with --b")
    cameras = {each: _profile(each, _sample(folder), profiles[each]) for each, folder in folders.items()}
    sides = {each: _thumbnails(each, _sample(folder), cameras[each]) for each, folder in folders.items()}
    names = OTHER[to], to
    matrices = tuple(cameras[each].color_matrix for each in names)
    fitted = fit_raw_map(method, *(sides[each] for each in names), names, matrices)
    return ClosedForm(f"--method {method}", method, to, fitted, cameras)


def _sample(folder: Path) -> tuple[Path, ...]:
    paths = mosaics(folder).raws
    return paths[:: -(-len(paths) // IMAGES)]


def _profile(name: str, paths: tuple[Path, ...], file: str) -> Profile:
    """The profile of camera files, or that in the `file` of plain mosaics."""
    noted = camera.profile_of(paths)
    if noted and file:
        raise UserError(f"{paths[0].parent} holds camera files, which note their levels: leave out --camera-{name}")
    if not (noted or file):
        raise UserError(
            f"{paths[0].parent} holds plain mosaics, which do not note their levels: give --camera-{name}, a profile "
            "that python -m data.camera writes"
        )
    return noted or camera.load(Path(file))


def _thumbnails(name: str, paths: tuple[Path, ...], profile: Profile) -> Tensor:
    """Of the planes of all files, (N, 4, s, s)."""

    def look(path: Path) -> Tensor:
        mosaic, sensor, _ = read_as_is(path, profile.sensor, profile.size)
        return thumbnail(planes_of(mosaic, sensor))

    with closing(in_threads(look, paths, f"reading camera {name}'s files")) as found:
        return torch.cat(list(found))


# --- files -----------------------------------------------------------------------------------------------------------


def describe(closed: ClosedForm) -> dict[str, Any]:
    """All of a map as plain dicts, lists, strings and numbers."""
    cameras = {each: camera.to_dict(profile) for each, profile in closed.cameras.items()}
    return {"kind": KIND, "method": closed.name, "to": closed.to, "map": to_dict(closed.fitted), "cameras": cameras}


def save(path: Path, closed: ClosedForm) -> None:
    """Write a map, for `load`."""
    storage.write_json(path, describe(closed))


def check_target(path: Path, overwrite: bool) -> None:
    """Raise `UserError` if saving to `path` would replace something else than a map, or a map without `overwrite`."""
    if not path.exists():
        return
    load(path, "is there already and is no map of map_raw.py: choose another --save")
    if not overwrite:
        raise UserError(f"{path} is there already: --overwrite replaces it")


def load(path: Path, otherwise: str = "is not a map of two cameras: write it with map_raw.py --save") -> ClosedForm:
    """Read a map. Raises `UserError` if it is not one: the path, and `otherwise`."""
    with reading(path):
        text = path.read_bytes()
    try:
        content = json.loads(text)
        if content["kind"] != KIND or content["to"] not in OTHER:
            raise ValueError
        cameras = {each: camera.from_dict(content["cameras"][each], str(path)) for each in OTHER}
        fitted = from_dict(content["map"], str(path))
        return ClosedForm(str(path), str(content["method"]), content["to"], fitted, cameras)
    except (KeyError, RecursionError, TypeError, ValueError, UserError):
        raise UserError(f"{path} {otherwise}") from None
