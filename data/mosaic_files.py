"""Mosaics as files: DNG with what a raw converter needs to know of the camera, or the pixels alone as PNG or NPY.

A DNG file is uncompressed, with the tags of the DNG specification 1.4. Its colours are those of the camera that the
mosaic is made for, its moment (time, exposure, place) is that of the file that the mosaic was made from.
"""

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.camera_files import name_of
from data.photographs import notes_of
from data.sensor import CHANNELS, Sensor, offsets
from errors import UserError

FORMATS = {"dng": ".dng", "png": ".png", "npy": ".npy"}
LARGEST = 65535  # of 16 bits
SOFTWARE = "unpaired ISP, map_raw.py"

# A DNG file must have a colour matrix. Where the camera's is not known: XYZ to linear sRGB (IEC 61966-2-1), named so.
NEUTRAL_MATRIX = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))
NEUTRAL_NAME = "colour matrix not known: that of sRGB"

# Types of TIFF's tags, by their numbers in TIFF 6.0.
BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
COLOR_FILTER_ARRAY = 32803  # a value of PhotometricInterpretation
D65 = 21  # a value of CalibrationIlluminant1
EXIF, GPS = 34665, 34853  # tags of the directories below
MOMENT = (270, 306, 315, 33432)  # ImageDescription, DateTime, Artist, Copyright
COLOR_SPACE = 40961  # a tag of EXIF


@dataclass(frozen=True)
class Notes:
    """What a DNG file notes beside pixels and levels."""

    make: str = ""  # of the camera that the mosaic is made for
    model: str = ""
    color_matrix: tuple[tuple[float, ...], ...] | None = None  # (3, 3), its XYZ (D65) to camera; None: not known
    gains: tuple[float, float] | None = None  # of red and blue, with which grey is grey; None: not known
    orientation: int = 1  # EXIF's
    source: Path | None = None  # the file whose time, exposure and place are noted


def encode_mosaic(mosaic: np.ndarray, sensor: Sensor, kind: str, notes: Notes = Notes()) -> bytes:
    """A file of `kind`, in `FORMATS`, of a mosaic (H, W), uint16, in digital numbers of `sensor`.

    PNG (16 bits) and NPY hold the pixels alone: whoever reads them must know the `sensor`. Raises `UserError` for a
    white level of more than 16 bits.
    """
    if mosaic.dtype != np.uint16 or mosaic.ndim != 2:
        raise TypeError(f"a mosaic is (H, W) of uint16, not {mosaic.shape} of {mosaic.dtype}")
    check_white(sensor)
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, mosaic)
    elif kind == "png":
        from PIL import Image

        Image.fromarray(mosaic).save(buffer, "png", compress_level=3)
    else:
        buffer.write(_directory(mosaic, sensor, notes))
        buffer.write(mosaic.astype("<u2", copy=False).tobytes())
    return buffer.getvalue()


def check_white(sensor: Sensor) -> None:
    """Raise `UserError` if the files written here cannot hold the sensor's digital numbers."""
    if sensor.white_level > LARGEST:
        raise UserError(
            f"the white level is {sensor.white_level:g}, but files are written with 16 bits, up to {LARGEST}"
        )


def _directory(mosaic: np.ndarray, sensor: Sensor, notes: Notes) -> bytes:
    """The TIFF header and directory of a DNG file, whose pixels follow at once."""
    tags = _tags_of_pixels(mosaic, sensor) | _tags_of_camera(notes)
    if notes.source:
        with suppress(Exception):  # Pillow raises many types for what a camera noted and EXIF cannot hold
            return _encode_directory(tags, notes_of(notes.source))
    return _encode_directory(tags, None)


def _encode_directory(tags: dict[int, tuple], moment) -> bytes:
    """The directory of `tags`, {tag: (type, value)}, and of the EXIF (PIL's `Exif`) of the moment, if it is known."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    directory, buffer = ImageFileDirectory_v2(), io.BytesIO()
    for tag in MOMENT if moment else ():
        if tag in moment:
            directory[tag] = moment[tag]
    for tag, (kind, value) in tags.items():
        directory.tagtype[tag] = kind
        directory[tag] = value
    for below in (EXIF, GPS) if moment else ():
        if found := dict(moment.get_ifd(below)):
            found.pop(COLOR_SPACE, None)  # a mosaic is not sRGB
            directory.tagtype[below] = LONG
            directory[below] = found
    directory.save(buffer)  # it makes the StripOffsets, which are 0 here, count from the directory's end
    return buffer.getvalue()


def _tags_of_pixels(mosaic: np.ndarray, sensor: Sensor) -> dict[int, tuple]:
    """{tag: (type, value)} of size, CFA order and levels."""
    height, width = mosaic.shape
    where = offsets(sensor.cfa)
    black = {where[channel]: level for channel, level in zip(CHANNELS, sensor.black_level, strict=True)}
    return {
        254: (LONG, 0),  # NewSubfileType: the main image
        256: (LONG, width),
        257: (LONG, height),
        258: (SHORT, 16),  # BitsPerSample
        259: (SHORT, 1),  # Compression: none
        262: (SHORT, COLOR_FILTER_ARRAY),
        273: (LONG, 0),  # StripOffsets: one strip, where the directory ends
        277: (SHORT, 1),  # SamplesPerPixel
        278: (LONG, height),  # RowsPerStrip
        279: (LONG, 2 * height * width),  # StripByteCounts
        284: (SHORT, 1),  # PlanarConfiguration
        33421: (SHORT, (2, 2)),  # CFARepeatPatternDim
        33422: (BYTE, bytes("rgb".index(colour) for colour in sensor.cfa)),  # CFAPattern
        50713: (SHORT, (2, 2)),  # BlackLevelRepeatDim
        50714: (RATIONAL, tuple(_ratio(black[site], 1000) for site in sorted(black))),  # BlackLevel, row by row
        50717: (LONG, round(sensor.white_level)),
    }


def _tags_of_camera(notes: Notes) -> dict[int, tuple]:
    """{tag: (type, value)} of the camera's name and colours."""
    matrix = notes.color_matrix or NEUTRAL_MATRIX
    tags = {
        274: (SHORT, notes.orientation),
        305: (ASCII, SOFTWARE),
        50706: (BYTE, bytes((1, 4, 0, 0))),  # DNGVersion
        50707: (BYTE, bytes((1, 1, 0, 0))),  # DNGBackwardVersion: nothing here is newer
        50708: (ASCII, name_of(notes.make, notes.model) or "unknown camera"),  # UniqueCameraModel
        50721: (SRATIONAL, tuple(_ratio(value, 10_000) for row in matrix for value in row)),  # ColorMatrix1
        50778: (SHORT, D65),  # CalibrationIlluminant1
    }
    tags |= {tag: (ASCII, name) for tag, name in ((271, notes.make), (272, notes.model)) if name}
    if notes.gains:
        red, blue = notes.gains
        neutral = tuple(_ratio(value, 1_000_000) for value in (1 / red, 1.0, 1 / blue))
        tags[50728] = (RATIONAL, neutral)  # AsShotNeutral: the camera's colour of grey
    if notes.color_matrix is None:
        tags[50936] = (ASCII, NEUTRAL_NAME)  # ProfileName
    return tags


def _ratio(value: float, denominator: int):
    from PIL.TiffImagePlugin import IFDRational

    return IFDRational(round(value * denominator), denominator)
