"""Reading one file: RAW mosaics in several formats, and photographs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from data.sensor import CFA_ORDERS, Sensor, mosaic_tensor
from errors import UserError

CAMERA_FILES = {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".raf", ".rw2", ".orf", ".pef"}  # read by LibRaw
MOSAIC_FILES = {".png", ".pgm", ".tif", ".tiff", ".npy", ".raw"} | CAMERA_FILES
PHOTO_FILES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Reader:
    """Reads the mosaics of one camera."""

    sensor: Sensor
    headless_size: tuple[int, int] = (0, 0)  # (height, width) of .raw files without a header; (0, 0): unknown

    def mosaic(self, path: Path) -> np.ndarray:
        """(H, W) digital numbers, uint16 or float32. Raises `UserError` as `read_mosaic` does."""
        return read_mosaic(path, self.sensor, self.headless_size)

    def mosaic_tensor(self, mosaic: np.ndarray) -> Tensor:
        """(H, W) digital numbers -> (1, H, W) float32, 1 is white."""
        return mosaic_tensor(mosaic, self.sensor)


def read_mosaic(path: Path, sensor: Sensor, headless_size: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Read one mosaic, (H, W), digital numbers (uint16 or float32).

    The formats are:
    - PNG, PGM or TIFF with one channel;
    - NPY, (H, W) or R, G, G, B at half resolution (H/2, W/2, 4), digital numbers or fractions of white;
    - RAW without a header, 16-bit little-endian, of `headless_size` (height, width);
    - a camera's own file (DNG, NEF, CR2, ...), its visible area, read by LibRaw.

    Raises `UserError` if the file is missing or damaged, is not a Bayer mosaic of even sides and more than 8 bits, or
    contradicts `sensor`.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        mosaic = _read_npy(path, sensor)
    elif suffix == ".raw":
        mosaic = _read_headless(path, headless_size)
    elif suffix == ".pgm":
        mosaic = _read_pgm(path)
    elif suffix in CAMERA_FILES:
        mosaic = _read_camera_file(path, sensor)
    else:
        mosaic = _decode(path)
    _check_mosaic(path, mosaic, sensor)
    return mosaic


def read_photo(path: Path) -> np.ndarray:
    """Read one photograph, (H, W, 3) uint8 sRGB, upright. Raises `UserError` if the file is missing or damaged."""
    return _decode(path, index=0, mode="RGB", rotate=True)


def _check_mosaic(path: Path, mosaic: np.ndarray, sensor: Sensor) -> None:
    if mosaic.ndim != 2:
        raise UserError(f"{path} is not a mosaic: its shape is {mosaic.shape}, not (height, width)")
    if mosaic.dtype == np.uint8:
        raise UserError(f"{path} has 8 bits a pixel; a RAW mosaic needs its full bit depth (a 16-bit file)")
    height, width = mosaic.shape
    if height % 2 or width % 2 or not mosaic.size:
        raise UserError(f"{path} is {height}x{width} (height x width), but a Bayer mosaic needs even sides: crop it")
    if not np.isfinite(mosaic.max()) or mosaic.max() > sensor.white_level or mosaic.min() < 0:
        raise UserError(
            f"{path} has values from {mosaic.min():g} to {mosaic.max():g}, outside 0 to the white level "
            f"{sensor.white_level:g}: check --data.white-level (test_model.py: --white-level)"
        )


def _decode(path: Path, **options) -> np.ndarray:
    import imageio.v3 as iio

    try:
        return iio.imread(path, plugin="pillow", **options)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's errors for damaged or truncated files
        raise UserError(f"cannot read {path}: {error}") from None


def _read_npy(path: Path, sensor: Sensor) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if array.dtype.kind not in "uif":
        raise UserError(f"{path} holds {array.dtype} values, not integers or real numbers")
    if array.dtype.kind == "f" and array.size and array.max() <= 1:  # fractions of white
        array = array * np.float32(sensor.white_level)
    if array.ndim == 3 and array.shape[2] == 4:
        if sensor.cfa != "rggb":
            raise UserError(
                f"{path} has the channels R, G, G, B, which need the CFA order rggb, not {sensor.cfa}: "
                "set --data.cfa rggb (test_model.py: --cfa rggb)"
            )
        height, width, _ = array.shape
        array = array.reshape(height, width, 2, 2).swapaxes(1, 2).reshape(2 * height, 2 * width)
    return array if array.dtype in (np.uint8, np.uint16) else array.astype(np.float32)


def _read_headless(path: Path, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if not (height and width):
        options = "--data.raw-height and --data.raw-width (test_model.py: --raw-height and --raw-width)"
        raise UserError(f"{path} has no header: give its size with {options}")
    found, expected = path.stat().st_size, 2 * height * width
    if found != expected:
        raise UserError(f"{path} has {found} bytes, but {height}x{width} 16-bit pixels are {expected} bytes")
    return np.fromfile(path, dtype="<u2").reshape(height, width)


def _read_pgm(path: Path) -> np.ndarray:
    import cv2

    mosaic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # Pillow would stretch 10 bits to 16
    if mosaic is None:
        raise UserError(f"cannot read {path}: it is not a PGM file, or truncated")
    return mosaic


def _read_camera_file(path: Path, sensor: Sensor) -> np.ndarray:
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            mosaic = raw.raw_image_visible.copy()
            cfa = "".join("rgbg"[index] for index in raw.raw_colors_visible[:2, :2].flat)
            black = raw.black_level_per_channel
    except (rawpy.LibRawError, OSError) as error:
        raise UserError(f"LibRaw cannot read {path}: {error}") from None
    if mosaic.ndim != 2 or cfa not in CFA_ORDERS:
        raise UserError(f"{path} is not from a Bayer sensor")
    if cfa != sensor.cfa:
        advice = f"set --data.cfa {cfa} (test_model.py: --cfa {cfa})"
        raise UserError(f"{path} has the CFA order {cfa}, not {sensor.cfa}: {advice}")
    if abs(black[0] - sensor.black_level[0]) > 0.01 * sensor.white_level:
        levels = " ".join(f"{black[i]:g}" for i in (0, 1, 3, 2))  # LibRaw has R, G, B, G2
        advice = f"set --data.black-level {levels} (test_model.py: --black-level {levels})"
        raise UserError(f"{path} has the black level {black[0]:g}, not {sensor.black_level[0]:g}: {advice}")
    return mosaic
