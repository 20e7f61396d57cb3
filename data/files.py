"""Reading one mosaic, in one of several formats."""

import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

import storage
from data.camera_files import CAMERA_FILES, read_camera_file
from data.conditions import CLIPPED, Gains, gains_of, normalise, tables_of
from data.sensor import Levels, Normalisation, Sensor, mosaic_tensor
from errors import UserError

MOSAIC_FILES = {".png", ".pgm", ".tif", ".tiff", ".npy", ".raw"} | CAMERA_FILES
PHOTO_FILES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}

IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")  # others, such as EPS, start programs
PGM_HEADER = re.compile(rb"(P[25])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")  # width, height, largest value
NPY_HEADERS = threading.Lock()  # Python before 3.11.8 fails if threads parse two headers at once (its issue 106905)
SIZE_OPTIONS = "--data.raw-height and --data.raw-width (test_model.py: --raw-height and --raw-width)"
LEVEL_OPTION = "--data.white-level (test_model.py: --white-level)"
# The end of an error's sentence: which option of fit.py says what a file contradicts, or does not say itself.
CAMERA_ADVICE = re.compile(r": [^:]*--data\.(cfa|black-level|white-level|raw-height|raw-width)\b.*", re.DOTALL)


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """In the block, files that contradict the camera are refused with this `advice`, not with options of fit.py.

    For commands that take the camera from elsewhere.
    """
    try:
        yield
    except UserError as error:
        raise UserError(CAMERA_ADVICE.sub(lambda found: f": {advice}", str(error))) from None


@contextmanager
def own_options() -> Iterator[None]:
    """In the block, sentences name the camera's options as commands other than fit.py do: --white-level."""
    try:
        yield
    except UserError as error:
        sentence = re.sub(r" \(test_model\.py: [^)]*\)", "", str(error))
        raise UserError(sentence.replace("--data.", "--")) from None


@dataclass(frozen=True)
class Reader:
    """Reads the mosaics of one camera. Raises `UserError` for an impossible size or white level."""

    sensor: Sensor
    headless_size: tuple[int, int] = (0, 0)  # (height, width) of .raw files without a header; (0, 0): unknown
    normalisation: Normalisation = "off"  # of light and exposure (data/conditions.py)
    levels: Levels = "file"  # of camera files (data/camera_files.py)
    lens_shading: bool = False  # undone where a camera file notes it

    def __post_init__(self) -> None:
        height, width = self.headless_size
        if self.headless_size != (0, 0) and min(height, width) <= 0:
            raise UserError(f"the size of .raw files is {height}x{width}: give both {SIZE_OPTIONS}, positive")
        if self.sensor.white_level < 255:
            white = self.sensor.white_level
            raise UserError(f"the white level is {white:g}: give the largest digital number with {LEVEL_OPTION}")

    def mosaic(self, path: Path) -> np.ndarray:
        """(H, W) digital numbers, uint16 or float32, normalised. Raises `UserError` as `recorded` and `gains` do."""
        mosaic = self.recorded(path)
        if self.normalisation == "off":
            return mosaic
        return normalise(mosaic, self.gains(path, mosaic), self.sensor, clip=self.normalisation in CLIPPED)

    def recorded(self, path: Path) -> np.ndarray:
        """(H, W) digital numbers, uint16 or float32, as in the file. Raises `UserError` as `read_mosaic` does."""
        return read_mosaic(path, self.sensor, self.headless_size, self.levels, self.lens_shading)

    def gains(self, path: Path, recorded: np.ndarray) -> Gains:
        """The gains that normalise a mosaic, `recorded` (H, W). Raises `UserError` as `gains_of` does."""
        return gains_of(path, recorded, self.sensor, self.normalisation)

    def facts(self, raws: Iterable[Path]) -> tuple:
        """All that decides how these mosaics are read, beside their own content: for digests."""
        facts = (astuple(self.sensor), self.headless_size)
        if any(path.suffix.lower() in CAMERA_FILES for path in raws):
            facts += (self.levels, self.lens_shading)
        if self.normalisation == "off":
            return facts
        return *facts, self.normalisation, [storage.fingerprint(table) for table in tables_of(raws)]

    def for_training(self) -> "Reader":
        """The reader whose mosaics have the CFA order that a network is trained for: this one, if none is mapped."""
        return self

    def aligned(self, photo: np.ndarray) -> np.ndarray:
        """The photograph (H, W, 3) of a mosaic, with its pixels where this reader puts those of the mosaic."""
        return photo

    def mosaic_tensor(self, mosaic: np.ndarray) -> Tensor:
        """(H, W) digital numbers -> (1, H, W) float32, 1 is white."""
        return mosaic_tensor(mosaic, self.sensor)


# --- mosaics ---------------------------------------------------------------------------------------------------------


def read_mosaic(
    path: Path,
    sensor: Sensor,
    headless_size: tuple[int, int] = (0, 0),
    levels: Levels = "file",
    lens_shading: bool = False,
) -> np.ndarray:
    """Read one mosaic, (H, W), digital numbers (uint16 or float32).

    The formats are:
    - PNG, PGM or TIFF with one channel;
    - NPY, (H, W) or R, G, G, B at half resolution (H/2, W/2, 4);
    - RAW without a header, 16-bit little-endian, of `headless_size` (height, width);
    - a camera's own file (DNG, NEF, CR2, ...), its visible area, read by LibRaw, with `levels` and `lens_shading` as
      `read_camera_file` has them.

    Real numbers (NPY, TIFF) up to 1 are fractions of white. Raises `UserError` if the file is missing or damaged, is
    not a Bayer mosaic of even sides and more than 8 bits, or contradicts `sensor`.
    """
    suffix = path.suffix.lower()
    with reading(path):
        if suffix == ".npy":
            mosaic = _read_npy(path, sensor)
        elif suffix == ".raw":
            mosaic = _read_headless(path, headless_size)
        elif suffix == ".pgm":
            mosaic = _read_pgm(path)
        elif suffix in CAMERA_FILES:
            mosaic = read_camera_file(path, sensor, levels, lens_shading)
        else:
            mosaic = _read_image(path)
    if mosaic.dtype.kind == "f" and mosaic.size and mosaic.max() <= 1:
        mosaic = mosaic * np.float32(sensor.white_level)
    elif mosaic.dtype.kind == "f" and mosaic.size and mosaic.min() >= 0 and mosaic.max() < 16:
        raise UserError(
            f"{path} has real numbers up to {mosaic.max():g}: neither fractions of white, which end at 1, nor digital "
            "numbers; clip or scale them"
        )
    _check_mosaic(path, mosaic, sensor)
    return mosaic if mosaic.dtype == np.uint16 else mosaic.astype(np.float32)


def _check_mosaic(path: Path, mosaic: np.ndarray, sensor: Sensor) -> None:
    if mosaic.ndim != 2:
        raise UserError(f"{path} is not a mosaic: its shape is {mosaic.shape}, not (height, width)")
    if mosaic.dtype.itemsize == 1:
        raise UserError(f"{path} has at most 8 bits a pixel; a RAW mosaic needs its full bit depth (a 16-bit file)")
    height, width = mosaic.shape
    if height % 2 or width % 2 or not mosaic.size:
        raise UserError(f"{path} is {height}x{width} (height x width), but a Bayer mosaic needs even sides: crop it")
    lowest, highest = 0 if mosaic.dtype.kind == "u" else mosaic.min(), mosaic.max()
    if not np.isfinite(highest) or highest > sensor.white_level or lowest < 0:
        raise UserError(
            f"{path} has values from {mosaic.min():g} to {highest:g}, outside 0 to the white level "
            f"{sensor.white_level:g}: check {LEVEL_OPTION}"
        )


def _read_image(path: Path) -> np.ndarray:
    with open_image(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{path} holds {image.n_frames} images; the file of a mosaic must hold one")
        if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # PhotometricInterpretation: WhiteIsZero
            raise UserError(f"{path} is a negative (TIFF's WhiteIsZero): save it with black as 0")
        return np.array(image)


def _read_npy(path: Path, sensor: Sensor) -> np.ndarray:
    # A memory map never unpickles, and does not reserve what a damaged header promises.
    with NPY_HEADERS:
        mapped = np.lib.format.open_memmap(path, mode="r")
    array = np.array(mapped)
    if array.dtype.kind not in "uif":
        raise UserError(f"{path} holds {array.dtype} values, not integers or real numbers")
    if array.ndim == 3 and array.shape[2] == 4:
        if sensor.cfa != "rggb":
            raise UserError(
                f"{path} has the channels R, G, G, B, which need the CFA order rggb, not {sensor.cfa}: "
                "set --data.cfa rggb (test_model.py: --cfa rggb)"
            )
        height, width, _ = array.shape
        array = array.reshape(height, width, 2, 2).swapaxes(1, 2).reshape(2 * height, 2 * width)
    return array


def _read_headless(path: Path, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if not (height and width):
        raise UserError(f"{path} has no header: give its size with {SIZE_OPTIONS}")
    found, expected = path.stat().st_size, 2 * height * width
    if found != expected:
        raise UserError(f"{path} has {found} bytes, but {height}x{width} 16-bit pixels are {expected} bytes")
    return np.fromfile(path, dtype="<u2").reshape(height, width)


def _read_pgm(path: Path) -> np.ndarray:
    """Pillow would stretch 10 bits to 16, and OpenCV prints its own errors and reserves what a header promises."""
    content = path.read_bytes()
    header = PGM_HEADER.match(content)
    if not header:
        raise UserError(f"cannot read {path}: it is not a PGM file")
    kind, (width, height, largest) = header[1], map(int, header.groups()[1:])
    if largest > 65535:
        raise UserError(f"{path} has values up to {largest}; a PGM file has at most 65535")
    depth, pixels = 1 if largest < 256 else 2, content[header.end() :]
    if kind == b"P2":  # numbers as text
        numbers = np.array(pixels.split()[: width * height], np.uint8 if depth == 1 else np.uint16)
    else:
        numbers = np.frombuffer(pixels, f">u{depth}", min(width * height, len(pixels) // depth))
    if numbers.size < width * height:
        raise UserError(f"cannot read {path}: it is truncated, {numbers.size} of {width}x{height} pixels are there")
    return numbers.reshape(height, width).astype(numbers.dtype.newbyteorder("="))


# --- opening files ---------------------------------------------------------------------------------------------------


def check_file(path: Path) -> None:
    """Raise `UserError` unless there is a regular file at `path`. Reading from a pipe could wait for ever."""
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder, but should be a file: rename it, or remove it")
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to {os.readlink(path)}, which is missing: restore that file, or remove it")
    if path.exists():
        raise UserError(f"{path} is a pipe, socket or device, but should be a file: remove it")
    raise UserError(f"no file {path}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While the file at `path` is read: turn an error into a `UserError` that names it."""
    try:
        check_file(path)
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # decoders raise many types for damaged files, some with the advice to load unsafely
        raise UserError(f"cannot read {path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:  # such as "Permission denied"
        return error.strerror
    text = error.args[0] if error.args else ""
    text = text.decode(errors="replace") if isinstance(text, bytes) else storage.first_line(error)  # bytes: LibRaw's
    return f"it is damaged, truncated, or of another format ({text})"


@contextmanager
def open_image(path: Path) -> Iterator:
    """The PIL image at `path`, not decoded yet."""
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")  # what Pillow warns of is read all the same, or refused below
    try:
        opened = Image.open(path, formats=IMAGE_FORMATS)
    except Image.DecompressionBombError:
        limit = f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise UserError(f"{path} is too large, images may have {limit}: shrink it, or cut it into parts") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"cannot read {path}: it is not an image ({', '.join(IMAGE_FORMATS)}), or damaged") from None
    with opened:
        yield opened
