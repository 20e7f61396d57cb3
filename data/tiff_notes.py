"""What TIFF-based camera files (DNG, NEF, CR2, ARW, ...) note and LibRaw leaves out."""

import itertools
import logging
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from data.gain_maps import GainMap, read_gain_maps
from errors import UserError

OPCODE_LIST_2 = 51009  # DNG's tag of what to do with the linear mosaic
D65 = 21  # a light in EXIF's and DNG's tags


def make_and_model(path: Path) -> tuple[str, str]:
    """The camera's make and model; "" for what cannot be read, as in RAF and CR3, which are no TIFF files."""
    make, model = (str(value or "").strip(" \0") for value in tags_of(path, "Make", "Model"))
    return make, model


def gain_maps(path: Path) -> list[GainMap]:
    """The lens shading that a file notes; empty if it notes none. Raises `UserError` for a damaged list."""
    (opcodes,) = tags_of(path, OPCODE_LIST_2)
    try:
        return read_gain_maps(bytes(opcodes)) if opcodes else []
    except (TypeError, ValueError, struct.error) as error:
        raise UserError(f"{path} has a damaged list of opcodes, which has its lens shading: {error}") from None


def color_matrix(path: Path, known: np.ndarray) -> tuple[tuple[float, ...], ...] | None:
    """XYZ (D65) to camera: as LibRaw has `known` it (3, 3), zeros if it does not, otherwise as a DNG notes it."""
    if not known.any():
        first, second, light = tags_of(path, "ColorMatrix1", "ColorMatrix2", "CalibrationIlluminant1")
        noted = first if second is None or light == D65 else second  # the second one's light is D65 as a rule
        if noted is None or len(noted) != 18:
            return None
        numerators, denominators = np.array(noted, float).reshape(9, 2).T
        known = (numerators / np.where(denominators, denominators, 1)).reshape(3, 3)
    return tuple(map(tuple, known.tolist())) if known.any() else None


def tags_of(path: Path, *names: str | int) -> list[Any]:
    """The value of each TIFF tag where it comes first; None for what is missing, all if it is no TIFF file."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it warns of each tag that it does not know
    found = dict.fromkeys(names)
    with suppress(tifffile.TiffFileError), tifffile.TiffFile(path) as file:
        pages = (page for top in file.pages for page in (top, *(top.pages or ())))  # and the directories below
        for page, name in itertools.product(pages, names):
            if found[name] is None and (tag := page.tags.get(name)):
                found[name] = tag.value
    return list(found.values())
