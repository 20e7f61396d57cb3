"""A small writer of DNG files, as a phone might have written them; the tags are those of the DNG specification 1.4."""

import io
import math
import struct
from collections.abc import Sequence

import numpy as np
import tifffile

from data.sensor import CHANNELS, offsets

EXIF = 34665  # the tag of where the notes of the shot are
MOSAIC, LINEAR = 32803, 34892  # the tag PhotometricInterpretation
XYZ_TO_SRGB = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))  # D65


def dng(
    pixels: np.ndarray,
    cfa: str = "rggb",
    black: float | Sequence[float] = 58,
    white: int = 1023,
    *,
    gains: tuple[float, float] | None = (2.0, 1.5),
    matrix: Sequence[Sequence[float]] = XYZ_TO_SRGB,
    camera: tuple[str, str] = ("Maker", "Phone 1"),
    iso: int = 0,
    orientation: int = 1,
    below: bool = False,
    linear: bool = False,
    **own,
) -> bytes:
    """The bytes of an uncompressed DNG file.

    Args:
        pixels: (H, W) uint16, or (H, W, 3) linear colours.
        cfa: colours of the repeated pattern, row by row: 4, 16 (quad Bayer) or 36 letters (X-Trans).
        black: one level, or those of R, Gr, Gb, B; `white` is one, too.
        gains: of red and blue, as shot; None: not noted. So is an `iso` of 0.
        matrix: (3, 3), from XYZ to the camera's colours.
        camera: make and model.
        orientation: EXIF's.
        below: write the mosaic into a SubIFD, below a thumbnail, as converters do.
        linear: `pixels` are no mosaic.
        own: `active`, `curve`, `opcodes` (see `gain_maps`) and `crop` of `_tags_of_mosaic`.
    """
    ratios = [part for row in matrix for value in row for part in (round(value * 10**4), 10**4)]
    tags = [(50706, "B", 4, (1, 4, 0, 0)), (50708, "s", 0, " ".join(camera)), (50721, "2i", 9, tuple(ratios))]
    tags += [(271, "s", 0, camera[0]), (272, "s", 0, camera[1]), (274, "H", 1, orientation), (50778, "H", 1, 21)]
    if gains:
        neutral = (1 / gains[0], 1.0, 1 / gains[1])
        tags += [(50728, "2I", 3, tuple(part for value in neutral for part in (round(value * 10**6), 10**6)))]
    tags += [(EXIF - 1, "I", 1, 1)]  # tifffile does not write EXIF itself: see `_write`
    kind = LINEAR if linear or pixels.ndim == 3 else MOSAIC
    mosaic_tags = _black(cfa, black) + [(50717, "I", 1, white)] + _tags_of_mosaic("" if kind == LINEAR else cfa, **own)
    return _write(pixels, kind, tags, mosaic_tags, below, iso)


def _tags_of_mosaic(
    cfa: str,
    active: tuple[int, int, int, int] | None = None,
    curve: Sequence[int] = (),
    opcodes: bytes = b"",
    crop: tuple[int, int] | None = None,
) -> list[tuple]:
    """Tags of CFA order, visible area (top, left, bottom, right), LinearizationTable, OpcodeList2, DefaultCropSize."""
    tags, side = [], math.isqrt(len(cfa))
    if cfa:
        tags += [(33421, "H", 2, (side, side)), (33422, "B", len(cfa), tuple("rgb".index(colour) for colour in cfa))]
    if active:
        tags += [(50829, "I", 4, active)]
    if len(curve):  # the digital number that each stored value stands for
        tags += [(50712, "H", len(curve), tuple(curve))]
    if opcodes:
        tags += [(51009, "B", len(opcodes), opcodes)]
    if crop:
        tags += [(50719, "H", 2, (8, 8)), (50720, "H", 2, crop)]
    return tags


def _black(cfa: str, black: float | Sequence[float]) -> list[tuple]:
    """The tags of one black level, or of those of R, Gr, Gb, B."""
    if isinstance(black, int | float):
        return [(50714, "2I", 1, (round(1000 * black), 1000))]
    where = offsets(cfa)
    levels = {where[channel]: level for channel, level in zip(CHANNELS, black, strict=True)}
    ratios = [part for site in sorted(levels) for part in (round(1000 * levels[site]), 1000)]
    return [(50713, "H", 2, (2, 2)), (50714, "2I", 4, tuple(ratios))]


def _write(pixels: np.ndarray, photometric: int, tags: list[tuple], own: list[tuple], below: bool, iso: int) -> bytes:
    """The file: `tags` describe all of it, `own` the mosaic."""
    buffer, options = io.BytesIO(), {"metadata": None, "software": False}
    with tifffile.TiffWriter(buffer) as file:
        if below:
            thumbnail = np.zeros((16, 16, 3), np.uint8)
            extra = [(*tag, True) for tag in tags]
            file.write(thumbnail, photometric="rgb", subfiletype=1, subifds=1, extratags=extra, **options)
            tags = []
        extra = sorted((*tag, True) for tag in tags + own)
        kind = "linear_raw" if pixels.ndim == 3 else "minisblack"  # tifffile asks for more of a mosaic than it needs
        file.write(pixels, photometric=kind, subfiletype=0, extratags=extra, **options)
    exif = buffer.seek(0, io.SEEK_END)
    buffer.write(struct.pack("<HHHIII", 1, 34855, 3, 1, iso, 0))  # one entry: ISOSpeedRatings
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        entry = file.pages[0].tags[EXIF - 1]
        entry.overwrite(exif)
        page = file.pages[0].pages[0] if below else file.pages[0]
        page.tags["PhotometricInterpretation"].overwrite(photometric)
    buffer.seek(entry.offset)
    buffer.write(struct.pack("<H", EXIF))
    return buffer.getvalue()


def gain_maps(cfa: str, size: tuple[int, int], maps: dict[str, np.ndarray]) -> bytes:
    """An OpcodeList2 with a map (rows, columns) of gains for each named channel, from corner to corner of (H, W)."""
    opcodes = []
    for channel, gains in maps.items():
        top, left = offsets(cfa)[channel]
        rows, columns = gains.shape
        spacing = (1 / max(rows - 1, 1), 1 / max(columns - 1, 1))
        content = struct.pack(">4I", top, left, *size) + struct.pack(">6I", 0, 1, 2, 2, rows, columns)
        content += struct.pack(">4dI", *spacing, 0.0, 0.0, 1) + gains.astype(">f4").tobytes()
        opcodes.append(struct.pack(">4I", 9, 0x01030000, 1, len(content)) + content)
    return struct.pack(">I", len(opcodes)) + b"".join(opcodes)


def sampled(scene: np.ndarray, cfa: str = "rggb", black: float | Sequence[float] = 58, white: int = 1023) -> np.ndarray:
    """What a sensor makes of linear colours (H, W, 3), 1 is white: a mosaic (H, W), uint16, clipped at white."""
    levels = (black,) * 4 if isinstance(black, int | float) else black
    mosaic = np.empty(scene.shape[:2])
    for channel, level in zip(CHANNELS, levels, strict=True):
        row, column = offsets(cfa)[channel]
        colour = scene[row::2, column::2, "RGB".index(channel[0])]
        mosaic[row::2, column::2] = level + colour * (white - level)
    return mosaic.round().clip(0, white).astype(np.uint16)
