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
from data.sensor import CHANNELS, Normalisation, Sensor, multiply_above_black, planes
from errors import UserError

NORMALISATIONS = get_args(Normalisation)
NEEDS_NOTES = ("as_shot", "exposure", "white_balance")
BALANCED = ("as_shot", "gray_world", "white_balance")  # normalisations after which grey is grey
CLIPPED = ("off", "white_balance")  # normalisations that leave nothing above white
TABLE = "metadata.csv"  # in the folder of the mosaics, or in the folder above
GREY = 0.18  # of white: the median of green after `exposure_gain`
SATURATED = 0.95  # of white: a 2x2 block with a pixel above says nothing about the light
MOST = 8.0  # an estimated gain is at most this, and at least its inverse

Gains = tuple[float, float, float]  # that R, G and B above black are multiplied by


def gains_of(path: Path, mosaic: np.ndarray, sensor: Sensor, normalisation: str) -> Gains:
    """The gains of the mosaic at `path`, whose whole content is `mosaic` (H, W), digital numbers.

    - "as_shot": red and blue gain and exposure as noted by the camera; what is not noted is estimated.
    - "exposure": the exposure alone, as noted or estimated.
    - "gray_world": all estimated from the image, whatever is noted.
    - "white_balance": red and blue gain alone, as noted or estimated; green has 1.

    Notes are in the camera's own file (gains) or in a `TABLE`. Raises `UserError` for a table that does not fit.
    """
    red = blue = exposure = None
    if normalisation in NEEDS_NOTES:
        red, blue, exposure = noted(path)
    if normalisation == "exposure":
        red = blue = 1.0
    if red is None or blue is None:
        red, blue = gray_world(mosaic, sensor)
    if normalisation == "white_balance":
        exposure = 1.0
    elif exposure is None:
        if normalisation == "as_shot":
            note(f"no exposure is noted for {path.parent}: each is estimated; --data.normalise white_balance leaves it")
        exposure = exposure_gain(mosaic, sensor)
    return red * exposure, exposure, blue * exposure


def normalise(mosaic: np.ndarray, gains: Sequence[float], sensor: Sensor, clip: bool = False) -> np.ndarray:
    """Multiply what is above black: (H, W) digital numbers -> the same, float32; above the white level unless `clip`.

    Without clipping, a saturated white pixel becomes the colour of the gains, magenta as a rule.
    """
    result = mosaic.astype(np.float32)
    multiply_above_black(result, gains, sensor, sensor.white_level)
    return np.minimum(result, sensor.white_level, out=result) if clip else result


# --- from the image --------------------------------------------------------------------------------------------------


def gray_world(mosaic: np.ndarray, sensor: Sensor) -> tuple[float, float]:
    """The gains of red and blue with which the mean of the image is grey, without its saturated pixels."""
    colours = planes(mosaic, sensor)
    below = np.maximum.reduce(list(colours.values())) < SATURATED
    below |= not below.any()  # all are saturated
    red, *greens, blue = (colours[channel][below].mean() for channel in CHANNELS)
    return _bounded(np.mean(greens), red), _bounded(np.mean(greens), blue)


def exposure_gain(mosaic: np.ndarray, sensor: Sensor) -> float:
    """The gain with which the median of green is `GREY`."""
    colours = planes(mosaic, sensor)
    return _bounded(GREY, np.median((colours["Gr"], colours["Gb"])))


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


def check_noted(raws: Iterable[Path], normalisation: str) -> None:
    """Raise `UserError` if a table that is needed lacks one of these mosaics; no image is read."""
    for path in raws if normalisation in NEEDS_NOTES else ():
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
        if row["file"] in found:
            raise UserError(f"{table}, line {number}: there is an earlier line for {row['file']}; remove one of them")
        found[row["file"]] = (red, blue, exposure)
    if not found:
        raise UserError(f"{table} has no lines: remove it, or fill it")
    if len({exposure is None for _, _, exposure in found.values()}) > 1:  # noted and estimated ones differ in scale
        raise UserError(f"{table} has an exposure_value for some files only: give it for all, or for none")
    return found
