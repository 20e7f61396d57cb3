"""The conditions of a mosaic: the light's colour and the exposure, noted by the camera or estimated from the image.

A network has one idea of grey and of brightness. Where light and exposure change from file to file, its mosaics are
normalised first: red and blue are multiplied such that grey is grey, all colours such that the exposure is the same.
`NORMALISATIONS` says by what; a checkpoint names its normalisation, and whoever develops mosaics with it does the same.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np

from data.camera_files import CAMERA_FILES, read_white_balance
from data.notes import note
from data.sensor import CHANNELS, Normalisation, Sensor, offsets
from errors import UserError

NORMALISATIONS = get_args(Normalisation)
TABLE = "metadata.csv"  # in the folder of the mosaics, or in the folder above
GREY = 0.18  # of white: the median of green after `exposure_gain`
SATURATED = 0.95  # of white: pixels above say nothing about the light
MOST = 8.0  # an estimated gain is at most this, and at least its inverse

Gains = tuple[float, float, float]  # that R, G and B above black are multiplied by


def gains_of(path: Path, mosaic: np.ndarray, sensor: Sensor, normalisation: str) -> Gains:
    """The gains of the mosaic at `path`, whose whole content is `mosaic` (H, W), digital numbers.

    - "as_shot": red and blue gain and exposure as noted by the camera; what is not noted is estimated.
    - "exposure": the exposure alone, as noted or estimated.
    - "gray_world": all estimated from the image, whatever is noted.

    Notes are in the camera's own file (gains) or in a `TABLE`. Raises `UserError` for a table that does not fit.
    """
    red = blue = exposure = None
    if normalisation in ("as_shot", "exposure"):
        red, blue, exposure = noted(path)
    if normalisation == "exposure":
        red = blue = 1.0
    if red is None or blue is None:
        red, blue = gray_world(mosaic, sensor)
    if exposure is None:
        exposure = exposure_gain(mosaic, sensor)
    return red * exposure, exposure, blue * exposure


def normalise(mosaic: np.ndarray, gains: Sequence[float], sensor: Sensor) -> np.ndarray:
    """Multiply what is above black: (H, W) digital numbers -> the same, float32; it may exceed the white level."""
    result = mosaic.astype(np.float32)
    levels, where = dict(zip(CHANNELS, sensor.black_level, strict=True)), offsets(sensor.cfa)
    for channel, (row, column) in where.items():
        plane, black = result[row::2, column::2], levels[channel]
        plane -= black
        plane *= gains["RGB".index(channel[0])]
        plane += black
    return result


# --- from the image --------------------------------------------------------------------------------------------------


def gray_world(mosaic: np.ndarray, sensor: Sensor) -> tuple[float, float]:
    """The gains of red and blue with which the mean of the image is grey, without its saturated pixels."""
    means = {colour: _unsaturated(mosaic, sensor, colour).mean() for colour in "RGB"}
    return tuple(_bounded(means["G"], means[colour]) for colour in "RB")


def exposure_gain(mosaic: np.ndarray, sensor: Sensor) -> float:
    """The gain with which the median of green is `GREY`."""
    return _bounded(GREY, float(np.median(_plane(mosaic, sensor, "G"))))


def _plane(mosaic: np.ndarray, sensor: Sensor, colour: str) -> np.ndarray:
    """The pixels of R, G or B: black is 0, white is 1."""
    levels, planes = dict(zip(CHANNELS, sensor.black_level, strict=True)), []
    for channel, (row, column) in offsets(sensor.cfa).items():
        if channel[0] == colour:
            black = levels[channel]
            planes.append((mosaic[row::2, column::2].astype(np.float32).ravel() - black) / (sensor.white_level - black))
    return np.concatenate(planes)


def _unsaturated(mosaic: np.ndarray, sensor: Sensor, colour: str) -> np.ndarray:
    """The pixels of a colour in 2x2 blocks of which none is saturated; all pixels if there are no such blocks."""
    blocks = [mosaic[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    below = (np.maximum.reduce(blocks) < SATURATED * sensor.white_level).ravel()
    pixels = _plane(mosaic, sensor, colour)
    chosen = pixels[np.tile(below, len(pixels) // len(below))]
    return chosen if chosen.size else pixels


def _bounded(wanted: float, found: float) -> float:
    """wanted / found, but no more than `MOST` and no less than its inverse."""
    return float(np.clip(wanted / max(found, 1e-6), 1 / MOST, MOST))


# --- noted by the camera ---------------------------------------------------------------------------------------------


def noted(path: Path) -> tuple[float | None, float | None, float | None]:
    """(red gain, blue gain, gain of the exposure) that are noted for a mosaic; None for what is not."""
    if (table := table_of(path.parent)) is None:
        gains = read_white_balance(path) if path.suffix.lower() in CAMERA_FILES else None
        if gains is None:
            note(f"{path.parent} has neither a {TABLE} nor camera files with gains: they are estimated from the images")
        return *(gains or (None, None)), None
    rows = _read_table(table)
    row = rows.get(path.name) or rows.get(path.stem)
    if row is None:
        raise UserError(f"{table} has no line for {path.name}: add it, or train with another --data.normalise")
    return row


def check_noted(raws: Iterable[Path]) -> None:
    """Raise `UserError` if a table lacks one of these mosaics; no image is read."""
    for path in raws:
        if table_of(path.parent):
            noted(path)


def table_of(folder: Path) -> Path | None:
    """The table of the mosaics in `folder`, if there is one."""
    return next((place / TABLE for place in (folder, folder.absolute().parent) if (place / TABLE).is_file()), None)


def tables_of(raws: Iterable[Path]) -> list[Path]:
    """The tables of these mosaics."""
    return sorted({table for folder in {path.parent for path in raws} if (table := table_of(folder))})


@cache
def _read_table(table: Path) -> dict[str, tuple[float, float, float | None]]:
    """{file: (red gain, blue gain, gain of the exposure)}.

    The columns are file, red_gain, blue_gain and, perhaps, exposure_value: the stops by which the mosaic is too bright.
    """
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {table}: {error}") from None
    found = {}
    for number, row in enumerate(rows, start=2):
        try:
            red, blue = float(row["red_gain"]), float(row["blue_gain"])
            exposure = 2 ** -float(row["exposure_value"]) if row.get("exposure_value") else None
            fits = all(0 < gain < math.inf for gain in (red, blue, 1.0 if exposure is None else exposure))
        except (KeyError, TypeError, ValueError, OverflowError):
            fits = False
        if not (fits and row.get("file")):
            raise UserError(
                f"{table}, line {number}: expected the columns file, red_gain, blue_gain (positive numbers) and, "
                "perhaps, exposure_value (stops)"
            )
        found[row["file"]] = (red, blue, exposure)
    if not found:
        raise UserError(f"{table} has no lines: remove it, or fill it")
    return found
