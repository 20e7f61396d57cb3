"""A camera's own files (DNG, NEF, CR2, ...): the mosaic and the notes, as LibRaw reads them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from data.sensor import CFA_ORDERS, CHANNELS, Levels, Sensor, offsets
from data.tiff_notes import color_matrix, gain_maps, make_and_model, tags_of
from errors import UserError

CAMERA_FILES = {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".raf", ".rw2", ".orf", ".pef"}

# LibRaw's flip -> EXIF's Orientation: bit 0 mirrors left and right, bit 1 top and bottom, bit 2 transposes afterwards.
ORIENTATIONS = {0: 1, 1: 2, 3: 3, 2: 4, 4: 5, 6: 6, 7: 7, 5: 8}
BLACK_TOLERANCE, WHITE_TOLERANCE = 0.01, 1.25  # of given levels against the file's: share of white, and ratio


@dataclass(frozen=True)
class CameraFile:
    """What a file notes of its camera and of the moment it was taken."""

    make: str  # "" if it cannot be read: LibRaw does not give it, and RAF and CR3 are no TIFF files
    model: str
    sensor: Sensor  # CFA order of the visible area, and the file's own levels
    size: tuple[int, int]  # height and width of the visible area, without an odd last row or column
    gains: tuple[float, float] | None  # of red and blue, as the camera chose them; green has 1
    iso: float  # 0 if it is not noted
    orientation: int  # EXIF: 1 is upright, 6 and 8 are portraits
    color_matrix: tuple[tuple[float, ...], ...] | None  # (3, 3), XYZ (D65) to camera; None if it is not known

    @property
    def name(self) -> str:
        """Make and model; "" if they cannot be read."""
        return name_of(self.make, self.model)


def name_of(make: str, model: str) -> str:
    """Make and model as one name; many models begin with the make."""
    return model if model.startswith(make) else f"{make} {model}".strip()


@cache
def look_at(path: Path) -> CameraFile:
    """The notes of a camera file. Raises `UserError` as `read_camera_file` does.

    Each file is opened once: LibRaw decodes all pixels before it tells anything.
    """
    with _opened(path) as raw:
        return _notes(path, raw)


def read_camera_file(path: Path, sensor: Sensor, levels: Levels = "file", lens_shading: bool = False) -> np.ndarray:
    """The visible area of a file as a mosaic (H, W) of even sides, in digital numbers of `sensor`.

    Args:
        path: the file.
        sensor: its CFA order must be the file's.
        levels: "file": the file's own black and white become those of `sensor`, values above are clipped; "given": the
            digital numbers stay as they are, and the levels of `sensor`, which the user gave, must be near the file's.
        lens_shading: undo the shading that the file's gain maps note (DNG's OpcodeList2), if it has any.

    Returns:
        uint16 where the digital numbers are those of the file, otherwise float32.

    Raises:
        UserError: not a Bayer mosaic, another CFA order, levels that are not near the file's, or shading that is noted
            in a way that the DNG specification does not know.
    """
    with _opened(path) as raw:
        own, visible = _sensor(path, raw), _visible(raw)
    if own.cfa != sensor.cfa:
        advice = f"set --data.cfa {own.cfa} (test_model.py: --cfa {own.cfa})"
        raise UserError(f"{path} has the CFA order {own.cfa}, not {sensor.cfa}: {advice}")
    if levels == "given":
        _check_levels(path, own, sensor)
        own = sensor
    return _with_levels(path, *visible, own, sensor, lens_shading)


def read_with_notes(
    path: Path, sensor_for: Callable[[Sensor], Sensor], lens_shading: bool = False
) -> tuple[np.ndarray, CameraFile]:
    """(mosaic, notes) of a file that is decoded once; `sensor_for` says to which levels its own are brought.

    Raises `UserError` as `read_camera_file` does.
    """
    with _opened(path) as raw:
        notes, visible = _notes(path, raw), _visible(raw)
    return _with_levels(path, *visible, notes.sensor, sensor_for(notes.sensor), lens_shading), notes


def _with_levels(
    path: Path, mosaic: np.ndarray, margins: tuple[int, int], own: Sensor, sensor: Sensor, lens_shading: bool
) -> np.ndarray:
    """A mosaic in digital numbers of `sensor` instead of its `own`, perhaps in place."""
    maps = gain_maps(path) if lens_shading else []
    if maps and any(_moved(path, margins)):
        raise UserError(f"{path} has an odd margin, with which its lens shading cannot be undone: leave it out")
    if not maps and own == sensor:
        return np.minimum(mosaic, np.uint16(min(65535, sensor.white_level)), out=mosaic)
    signal = _signal(mosaic, own)
    for each in maps:
        each.multiply(signal)
    return _to_levels(signal, sensor)


def read_white_balance(path: Path) -> tuple[float, float] | None:
    """The gains of red and blue that the camera chose; None if the file notes none."""
    return look_at(path).gains


def orientation_of(path: Path) -> int:
    """EXIF's orientation of a mosaic's picture: 1, upright, for files that are no camera's own."""
    return look_at(path).orientation if path.suffix.lower() in CAMERA_FILES else 1


def check_not_turned(path: Path) -> None:
    """Raise `UserError` for a file of a pair whose picture would have to be turned: mosaics are used as recorded."""
    if look_at(path).orientation != 1:
        raise UserError(
            f"{path} was taken with the camera turned, so its mosaic lies on its side and its photograph does not: "
            "leave the pair out (--data.exclude), or train without pairs (--data.pairs no)"
        )


# --- what LibRaw says ------------------------------------------------------------------------------------------------


@contextmanager
def libraw(path: Path) -> Iterator:
    """The file in LibRaw. rawpy takes names in UTF-8 only; of a file object it reads everything, to memory, at once."""
    import rawpy

    with open(path, "rb") as file:
        file.read(1)  # what the system refuses, LibRaw would not explain
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with open(path, "rb") as file, rawpy.imread(file) as raw:
            yield raw
    else:
        with rawpy.imread(str(path)) as raw:
            yield raw


@contextmanager
def _opened(path: Path) -> Iterator:
    """The file in LibRaw, not decoded yet. Raises `UserError` if its pixels are not a Bayer mosaic."""
    import rawpy

    with libraw(path) as raw:
        pattern = raw.raw_pattern if raw.raw_type == rawpy.RawType.Flat else None  # linear DNG is a stack of colours
        if pattern is None or pattern.shape != (2, 2) or raw.num_colors != 3:  # X-Trans is 6x6, quad Bayer 4x4
            raise _not_bayer(path)
        yield raw


def _not_bayer(path: Path) -> UserError:
    return UserError(
        f"{path} is not from a Bayer sensor (X-Trans, Foveon, quad Bayer, monochrome), or already demosaiced (linear "
        "DNG): leave it out"
    )


def _visible(raw) -> tuple[np.ndarray, tuple[int, int]]:
    """The visible area (H, W), as it is in the file but for an odd last row or column, and its top and left margin."""
    height, width = _size(raw)
    return raw.raw_image_visible[:height, :width].copy(), (raw.sizes.top_margin, raw.sizes.left_margin)


def _size(raw) -> tuple[int, int]:
    return raw.sizes.height // 2 * 2, raw.sizes.width // 2 * 2


def _notes(path: Path, raw) -> CameraFile:
    return CameraFile(
        *make_and_model(path),
        sensor=_sensor(path, raw),
        size=_size(raw),
        gains=_gains(raw.camera_whitebalance),
        iso=float(raw.other.iso_speed),
        orientation=ORIENTATIONS.get(raw.sizes.flip, 1),
        color_matrix=color_matrix(path, np.array(raw.rgb_xyz_matrix)[:3]),
    )


def _sensor(path: Path, raw) -> Sensor:
    """CFA order of the visible area and levels of an opened file."""
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    cfa = "".join("rgbg"[raw.raw_color(top + row, left + column)] for row in (0, 1) for column in (0, 1))
    if cfa not in CFA_ORDERS:
        raise _not_bayer(path)
    black = tuple(float(raw.black_level_per_channel[i]) for i in (0, 1, 3, 2))  # LibRaw has R, G, B, G2
    if len(set(black)) > 1:
        black = _of_active_area(path, black, cfa, (top, left))
    try:
        return Sensor(cfa, black, float(raw.white_level))
    except UserError as error:
        raise UserError(f"{path} notes levels that no camera has: {error}; leave it out") from None


def _of_active_area(path: Path, black: tuple[float, ...], cfa: str, margins: tuple[int, int]) -> tuple[float, ...]:
    """Black levels of R, Gr, Gb, B as DNG means them: a pattern that begins in the corner of the ActiveArea."""
    down, right = _moved(path, margins)
    where = offsets(cfa)
    pattern = {where[channel]: level for channel, level in zip(CHANNELS, black, strict=True)}
    sites = (where[channel] for channel in CHANNELS)
    return tuple(pattern[(row + down) % 2, (column + right) % 2] for row, column in sites)


def _moved(path: Path, margins: tuple[int, int]) -> tuple[int, int]:
    """(down, right): by how many pixels LibRaw moved the ActiveArea's corner, because it makes odd margins even.

    It moves the CFA order with it, but neither the pattern of black levels nor lens shading.
    """
    (area,) = tags_of(path, "ActiveArea")
    return tuple((margin - first) % 2 for margin, first in zip(margins, (area or margins)[:2], strict=True))


def _gains(white_balance: list[float]) -> tuple[float, float] | None:
    red, green, blue, _ = white_balance
    if not all(0 < value < math.inf for value in (red, green, blue)):  # a camera that notes none has 0
        return None
    return red / green, blue / green


# --- levels ----------------------------------------------------------------------------------------------------------


def _check_levels(path: Path, own: Sensor, given: Sensor) -> None:
    """Raise `UserError` if levels that the user gave are not near those of the file."""
    if not given.white_level / WHITE_TOLERANCE <= own.white_level <= given.white_level * WHITE_TOLERANCE:
        raise UserError(
            f"{path} has the white level {own.white_level:g}, not {given.white_level:g}: leave out --data.white-level "
            "(test_model.py: --white-level), and the file's own is taken"
        )
    for black, expected in zip(own.black_level, given.black_level, strict=True):
        if abs(black - expected) > BLACK_TOLERANCE * given.white_level:
            raise UserError(
                f"{path} has the black level {black:g}, not {expected:g}: leave out --data.black-level (test_model.py: "
                "--black-level), and the file's own is taken"
            )


def _signal(mosaic: np.ndarray, own: Sensor) -> np.ndarray:
    """Digital numbers (H, W) as shares of white above black, float32."""
    signal = mosaic.astype(np.float32)
    for channel, black in zip(CHANNELS, own.black_level, strict=True):
        row, column = offsets(own.cfa)[channel]
        plane = signal[row::2, column::2]
        plane -= black
        plane /= own.white_level - black
    return signal


def _to_levels(signal: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Shares of white above black (H, W) as digital numbers of `sensor`, clipped to [0, white]; in place."""
    for channel, black in zip(CHANNELS, sensor.black_level, strict=True):
        row, column = offsets(sensor.cfa)[channel]
        plane = signal[row::2, column::2]
        plane *= sensor.white_level - black
        plane += black
    return np.clip(signal, 0, sensor.white_level, out=signal)
