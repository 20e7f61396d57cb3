"""LSMI as it is published (Kim et al., ICCV 2021): mosaics in mixed light by three cameras, with colour charts.

    ROOT/{galaxy,nikon,sony}/PlaceN/PlaceN_LIGHTS.{dng,nef,arw}    LIGHTS: the numbers of the lights, 1, 12, 123, ...
    ROOT/CAMERA/split.json    {"..._train": ["Place1", ...], "..._val": [...], "..._test": [...]}
    ROOT/CAMERA/meta.json     {"Place1": {"MCCCoord": {"mcc1": four corners, "mcc2": ..., "mcc3": ...}, ...}, ...}

A corner is (x, y) in pixels of the upright picture. The corners of a chart go clockwise, as seen on the chart with its
greys in the lowest row, and begin at the top left. The cameras stood side by side: their pictures of a place show the
same scene, but pixels do not agree. What can be compared are the patches of the charts.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from data.camera_files import CAMERA_FILES
from data.files import reading
from data.notes import note
from data.threads import in_threads
from data.tiff_notes import tags_of
from errors import UserError

CHARTS = ("mcc1", "mcc2", "mcc3")
# A chart's size and its patches, in the units of LSMI's code: 4 rows of 6 patches, between which are gaps of 0.25.
BOX = np.float32([[0, 0], [16.75, 0], [16.75, 11.25], [0, 11.25]])
COLUMNS, PATCHES = 6, 24
MARGIN, STEP, SIDE = 0.25, 2.75, 2.5
LEAST = (54, 36, 54, 36)  # mosaic pixels of a chart's sides: then the central half of a patch has 2 of the planes'
FARTHEST = 1e6  # pixels: a corner beyond is no corner


@dataclass(frozen=True)
class Charts:
    """The colour charts in a file, by name: four corners (x, y) in pixels of the upright picture."""

    source: Path
    corners: Mapping[str, tuple[tuple[float, float], ...]]
    orientation: int = 1  # EXIF's, of the file

    def hide(self, planes: Tensor, size: tuple[int, int], top: int = 0, left: int = 0) -> Tensor:
        """Planes (C, h, w) with the charts, and a pixel around each, set to 0, black, in place.

        The planes are a window of a mosaic of `size` (H, W), which begins at its pixel `top`, `left`; both are even.
        """
        y, x = np.mgrid[: planes.shape[1], : planes.shape[2]] + np.array((top // 2, left // 2))[:, None, None]
        for corners in self.corners.values():
            inside = inside_of(self._recorded(corners, size) / 2, x, y, margin=1)
            planes[:, torch.from_numpy(inside)] = 0
        return planes

    def colors(self, planes: Tensor, names: tuple[str, ...]) -> Tensor:
        """The mean colours of the named charts' patches in the planes (1, C, h, w) of the whole file, clipped before.

        (1, C, charts, 24): it has the form of planes, so that the measures of planes can compare it. Raises
        `UserError` if a patch is not in the picture.
        """
        size = 2 * planes.shape[2], 2 * planes.shape[3]
        found = []
        for name in names:
            colors = patch_colors(planes[0], self._recorded(self.corners[name], size))
            if colors is None:
                raise UserError(
                    f"{self.source} is {size[0]}x{size[1]}, and its colour chart {name} in meta.json lies outside or "
                    "is turned away: correct its corners, or set them to NaN to leave it out"
                )
            found.append(colors)
        return torch.stack(found, 1)[None]

    def _recorded(self, corners: tuple[tuple[float, float], ...], size: tuple[int, int]) -> np.ndarray:
        """Corners of the upright picture as those of the mosaic of this `size` (H, W), which may lie on its side."""
        x, y = np.array(corners).T
        right, bottom = size[1] - 1, size[0] - 1
        turned = {3: (right - x, bottom - y), 6: (y, bottom - x), 8: (right - y, x)}
        return np.stack(turned.get(self.orientation, (x, y)), 1)


def inside_of(corners: np.ndarray, x: np.ndarray, y: np.ndarray, margin: float) -> np.ndarray:
    """Which points lie in a convex polygon (N, 2), or at most `margin` beside one of its edges.

    OpenCV's `fillPoly` is not used, because its edges depend on where a window cuts them.
    """
    edges = np.roll(corners, -1, 0) - corners
    turn = np.sign(edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0])  # clockwise or not
    inside = np.ones(x.shape, bool)
    for (left, top), (right, down) in zip(corners, edges, strict=True):
        inside &= turn * (right * (y - top) - down * (x - left)) >= -margin * np.hypot(right, down)
    return inside


def patch_colors(planes: Tensor, corners: np.ndarray) -> Tensor | None:
    """The mean colours (C, 24) of a chart's patches in planes (C, h, w), row by row, or None if one is not in sight.

    `corners` (4, 2) are (x, y) in pixels of the mosaic. Of each patch, as it lies in perspective, the central half of
    its width and height counts; values are clipped to [0, 1] before.
    """
    to_chart = cv2.getPerspectiveTransform(corners.astype(np.float32), BOX)
    height, width = planes.shape[1:]
    left, top = np.clip(np.floor(corners.min(0) / 2).astype(int), 0, (width, height))
    right, bottom = np.clip(np.ceil(corners.max(0) / 2).astype(int) + 1, 0, (width, height))
    y, x = np.mgrid[top:bottom, left:right]
    centres = np.stack((2 * x + 0.5, 2 * y + 0.5), -1).reshape(-1, 1, 2)  # of 2x2 pixels of the mosaic
    if not len(centres):
        return None
    column, row = np.moveaxis((cv2.perspectiveTransform(centres, to_chart) - MARGIN) / STEP, -1, 0)[..., 0]
    half = [np.abs(place % 1 - SIDE / STEP / 2) <= SIDE / STEP / 4 for place in (column, row)]
    on_chart = (column >= 0) & (column < COLUMNS) & (row >= 0) & (row < PATCHES // COLUMNS)
    inside = torch.from_numpy(half[0] & half[1] & on_chart)
    number = torch.from_numpy((np.floor(row) * COLUMNS + np.floor(column)).astype(np.int64))[inside]
    counts = number.bincount(minlength=PATCHES)
    if not counts.all():
        return None
    pixels = planes[:, top:bottom, left:right].flatten(1).cpu()[:, inside].double().clamp(0, 1)
    sums = torch.zeros(len(pixels), PATCHES, dtype=torch.float64).index_add_(1, number, pixels)
    return (sums / counts).to(planes)


# --- files -----------------------------------------------------------------------------------------------------------


def find_files(folders: Mapping[str, Path]) -> dict[str, dict[str, tuple[Path, ...]]]:
    """The files of two cameras: {"a": {"train": files, "test": files}, "b": ...}, of their `folders`.

    "test" are those of the places that are test places of both cameras, and "train" those of each camera's training
    places without these. Raises `UserError` for a damaged or missing split.json, and for places without files.
    """
    splits = {camera: _split(folder / "split.json") for camera, folder in folders.items()}
    both = set.intersection(*(set(split["test"]) for split in splits.values()))
    found = {}
    for camera, folder in folders.items():
        train = [place for place in splits[camera]["train"] if place not in both]
        if not train:
            raise UserError(f"{folder / 'split.json'} lists no places to train on, whose key ends in _train")
        parts = {"train": train, "test": sorted(both)}
        found[camera] = {
            part: tuple(path for place in places for path in _files(folder, place)) for part, places in parts.items()
        }
    return found


def find_charts(folder: Path, paths: tuple[Path, ...]) -> dict[Path, Charts]:
    """The charts in each of a camera's files, by its meta.json.

    Those whose corners are NaN, or cross, are left out, with a note. Raises `UserError` if that file is missing or
    damaged, or does not know the place of a file.
    """
    file = folder / "meta.json"
    content, known, missing = _object(file), {}, 0
    for place in dict.fromkeys(path.parent.name for path in paths):
        if place not in content:
            raise UserError(f"{file} has no {place}, which split.json lists: copy both from the dataset again")
        try:
            all_corners = {name: _corners(content[place]["MCCCoord"].get(name)) for name in CHARTS}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                f"{file} is damaged: MCCCoord of {place} is not an object of charts with four corners (x, y) each"
            ) from None
        known[place] = {name: corners for name, corners in all_corners.items() if corners}
        missing += len(CHARTS) - len(known[place])
    if missing:
        note(
            f"{file} does not say where {missing} of {len(CHARTS) * len(known)} colour charts are: they are left "
            "out, and not black in training"
        )
    with closing(in_threads(_orientation, paths, f"reading how {folder.name}'s pictures lie")) as found:
        return {path: Charts(path, known[path.parent.name], turned) for path, turned in zip(paths, found, strict=True)}


def in_both(a: Charts, b: Charts) -> tuple[str, ...]:
    """The names of the charts that two pictures of a place show large enough to be measured."""
    return tuple(name for name in CHARTS if all(name in each.corners and _large(each.corners[name]) for each in (a, b)))


def find_pairs(charts: Mapping[Path, Charts], a: tuple[Path, ...], b: tuple[Path, ...]) -> list[tuple[Path, Path]]:
    """The files of two cameras that show the same place in the same lights: those of one name.

    Those without a chart that can be measured in both are left out, with a note.
    """
    partners = {path.stem: path for path in b}
    pairs = [(path, partners[path.stem]) for path in a if path.stem in partners]
    seen = [pair for pair in pairs if in_both(*(charts[path] for path in pair))]
    if without := len(pairs) - len(seen):
        note(f"{without} of {len(pairs)} pairs show no colour chart in both pictures, and are left out")
    return seen


def _orientation(path: Path) -> int:
    """EXIF's, as a file notes it; LibRaw would decode the file before it says that. 1 if there is none."""
    with reading(path):
        (orientation,) = tags_of(path, "Orientation")
    return int(orientation or 1)


def _files(folder: Path, place: str) -> Iterator[Path]:
    """The camera files of a place: not the TIFF, JPEG and NPY files that LSMI's code writes beside them."""
    if not (folder / place).is_dir():
        raise UserError(f"{folder / 'split.json'} lists {place}, but there is no folder {folder / place}")
    found = sorted(folder.joinpath(place).glob(f"{place}_*"))
    found = [path for path in found if path.suffix.lower() in CAMERA_FILES]
    if not found:
        raise UserError(f"{folder / place} holds no camera files {place}_1, {place}_12, ... (DNG, NEF, ARW)")
    return iter(found)


def _split(file: Path) -> dict[str, list[str]]:
    """{"train": places, "val": ..., "test": ...}, sorted."""
    parts = {"train": set(), "val": set(), "test": set()}
    for key, places in _object(file).items():
        part = key.split("_")[-1]
        if part not in parts or not (isinstance(places, list) and all(isinstance(place, str) for place in places)):
            raise UserError(f"{file} is damaged: its '{key}' is not a list of places to train, val or test on")
        parts[part].update(places)
    return {part: sorted(places) for part, places in parts.items()}


def _object(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise UserError(f"no file {file}, which layout lsmi needs beside the places: copy it from the dataset")
    with reading(file):
        try:
            content = json.loads(file.read_text("utf-8-sig"))
        except (ValueError, RecursionError):
            content = None
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: it holds no JSON object; copy it from the dataset again")
    return content


def _corners(values: Any) -> tuple[tuple[float, float], ...] | None:
    """Four corners; None if they are not known, or no chart's. Raises TypeError or ValueError for anything else."""
    corners = np.array(values, float)
    if np.isnan(corners).any():
        return None
    if corners.shape != (4, 2):
        raise ValueError
    usable = np.abs(corners).max() < FARTHEST and cv2.isContourConvex(np.float32(corners))
    return tuple(map(tuple, corners.tolist())) if usable else None


def _large(corners: tuple[tuple[float, float], ...]) -> bool:
    sides = np.linalg.norm(np.array(corners) - np.roll(corners, -1, 0), axis=1)
    return bool((sides >= LEAST).all())
