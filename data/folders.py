"""Datasets on disk: where files lie, which belong together, which are for validation, and how a patch is read.

Everything here is deterministic: a split depends on file names alone, so it is the same on every machine.
"""

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.sensor import CFA_ORDERS, Sensor
from errors import UserError

CAMERA_FILES = {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".raf", ".rw2", ".orf", ".pef"}  # read by LibRaw
MOSAIC_FILES = {".png", ".pgm", ".tif", ".tiff", ".npy", ".raw"} | CAMERA_FILES
PHOTO_FILES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Split:
    """RAW mosaics and photographs. `paired`: the i-th of one shows the scene of the i-th of the other."""

    raws: tuple[Path, ...]
    photos: tuple[Path, ...]
    paired: bool
    coupled: bool = False  # the i-th of one always comes with the i-th of the other, though they show different scenes

    def __len__(self) -> int:
        return len(self.raws)

    def take(self, indices: Sequence[int]) -> "Split":
        """The pairs at `indices`, in that order."""
        return Split(tuple(self.raws[i] for i in indices), tuple(self.photos[i] for i in indices), self.paired)


EMPTY = Split((), (), paired=True)

# Dataset -> names of the RAW and the photograph folder below train/, val/ and test/.
LAYOUTS = {
    "zrr": ("huawei_raw", "canon"),  # Zurich RAW to RGB, 448x448; its 1.2k test pairs come in test/
    "fujifilm": ("mediatek_raw", "fujifilm"),  # Fujifilm UltraISP, 256x256; only train/ has photographs
    "ntire26": ("raws", "jpegs"),  # NTIRE 2026 unpaired-ISP challenge
    "folders": ("", ""),  # a folder of mosaics here, one of photographs there
}


# --- splits ----------------------------------------------------------------------------------------------------------


def open_dataset(
    layout: str,
    root: str,
    raw: str = "",
    photos: str = "",
    pairs: str = "auto",
    val: int = 1024,
    test: int = 1024,
    exclude: str = "",
) -> dict[str, Split]:
    """{"train", "val", "test"} of a dataset (section 4.1).

    Where `root` has no val/ or test/ with pairs, so many pairs are drawn from train/: the ones whose names come first
    by SHA-256. `exclude` names a text file with names (stems, one a line) to leave out of train/, as the paper does
    with misaligned ones. `raw` and `photos` are the two folders of layout "folders". `pairs` says whether equal names
    mean one scene: "yes", "no", or "auto", which is yes for "zrr" and "fujifilm", and elsewhere yes where all names are
    equal. An unpaired dataset has no validation pairs.

    Raises `UserError` for what is missing, unpaired or too small.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown dataset layout '{layout}'; known are: {', '.join(LAYOUTS)}")
    if layout == "folders":
        if not (raw and photos):
            raise UserError(
                "layout 'folders' needs --data.raw and --data.photos, a folder of mosaics and one of photos"
            )
        splits = {"train": _plain(Path(raw), Path(photos), pairs), "val": EMPTY, "test": EMPTY}
    else:
        if not root:
            raise UserError(f"name the folder of the {layout} dataset with --data.root")
        pairs = "yes" if pairs == "auto" and layout != "ntire26" else pairs
        splits = {part: _part(Path(root) / part, *LAYOUTS[layout], pairs) for part in ("train", "val", "test")}
    if exclude:
        splits["train"] = _without(splits["train"], Path(exclude))
    for part, count in (("val", val), ("test", test)):
        if not splits[part] and splits["train"].paired and count:
            splits["train"], splits[part] = _draw(splits["train"], count, part)
    return splits


def mosaics(folder: Path) -> Split:
    """The mosaics of a folder, without photographs."""
    return Split(tuple(_files(folder, MOSAIC_FILES).values()), (), paired=False)


def unpaired(split: Split, mode: str, seed: int) -> Split:
    """Take the correspondence away from a training split.

    - "shuffled" (as released): one permutation of the photographs, fixed by `seed`; every scene is on both sides.
    - "disjoint": half of the scenes give their mosaics, the other half their photographs; none is on both sides.

    A split without correspondence is returned as it is.
    """
    if mode not in ("shuffled", "disjoint"):
        raise UserError(f"unknown unpaired mode '{mode}'; known are: shuffled, disjoint")
    if not split.paired:
        return split
    if mode == "shuffled":
        order = np.random.default_rng(seed).permutation(len(split))
        return Split(split.raws, tuple(split.photos[i] for i in order), paired=False, coupled=True)
    if len(split) < 2:
        raise UserError("disjoint unpaired training needs at least two scenes")
    order = _by_hash(split.raws)
    half = len(order) // 2
    return Split(split.take(order[:half]).raws, split.take(order[half:]).photos, paired=False)


def _by_hash(paths: Sequence[Path]) -> list[int]:
    """Indices in an order that looks random and depends on the file names alone."""
    return sorted(range(len(paths)), key=lambda i: hashlib.sha256(paths[i].stem.encode()).digest())


def _draw(train: Split, count: int, part: str) -> tuple[Split, Split]:
    if 2 * count > len(train):
        raise UserError(
            f"{len(train)} training pairs are too few to draw {count} for '{part}': "
            f"set --data.{part}-count to {len(train) // 4} or less"
        )
    order = _by_hash(train.raws)
    return train.take(sorted(order[count:])), train.take(sorted(order[:count]))


def _files(folder: Path, suffixes: set[str]) -> dict[str, Path]:
    """Files by stem, in the order of their names; numbers count as numbers."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    if not found:
        raise UserError(f"no images in {folder} (looked for {', '.join(sorted(suffixes))})")
    found.sort(key=lambda path: (path.stem.zfill(12), path.name))
    files = {path.stem: path for path in found}
    if len(files) < len(found):
        twice = next(path for path in found if files[path.stem] != path)
        raise UserError(f"{twice} and {files[twice.stem].name} have one name: which of them is meant is unclear")
    return files


def _part(folder: Path, raw_name: str, photo_name: str, pairs: str) -> Split:
    """train/, or val/ or test/ where they hold pairs."""
    raw, photos = folder / raw_name, folder / photo_name
    if folder.name == "train":
        return _plain(raw, photos, pairs)
    return _plain(raw, photos, "yes") if pairs != "no" and raw.is_dir() and photos.is_dir() else EMPTY


def _plain(raw: Path, photos: Path, pairs: str) -> Split:
    """A folder of mosaics and one of photographs."""
    mosaics, pictures = _files(raw, MOSAIC_FILES), _files(photos, PHOTO_FILES)
    alone = sorted(mosaics.keys() ^ pictures.keys())
    if pairs == "yes" and alone:
        side = raw if alone[0] in mosaics else photos
        raise UserError(
            f"{raw} and {photos} must hold the same names, but {len(alone)} are on one side only (the first: "
            f"'{alone[0]}' in {side.name}); for unpaired data set --data.pairs no"
        )
    if alone or pairs == "no":
        return Split(tuple(mosaics.values()), tuple(pictures.values()), paired=False)
    return Split(tuple(mosaics.values()), tuple(pictures[stem] for stem in mosaics), paired=True)


def _without(train: Split, exclude: Path) -> Split:
    if not exclude.is_file():
        raise UserError(f"no file {exclude} with the names to exclude")
    if not train.paired:
        raise UserError(f"{exclude} names pairs to exclude, but these folders do not hold pairs")
    named = {line.strip() for line in exclude.read_text(errors="replace").splitlines()} - {""}
    called = [{raw.stem, raw.name, photo.name} for raw, photo in zip(train.raws, train.photos, strict=True)]
    unknown = sorted(named.difference(*called))
    if unknown:
        raise UserError(f"{exclude}: {len(unknown)} names are of no training pair, the first is '{unknown[0]}'")
    kept = [i for i, names in enumerate(called) if not names & named]
    if not kept:
        raise UserError(f"{exclude} leaves no training pair")
    return train.take(kept)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """One process at a time makes `root`; the others wait, such as the seeds of one experiment started together."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.with_name(f".{root.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- files -----------------------------------------------------------------------------------------------------------


def read_mosaic(path: Path, sensor: Sensor, headless_size: tuple[int, int] = (0, 0)) -> np.ndarray:
    """One mosaic, (H, W), digital numbers (uint16 or float32), checked against `sensor`.

    Single-channel PNG, PGM or TIFF; NPY, (H, W) or half-resolution R, G, G, B (H/2, W/2, 4), digital numbers or
    fractions of white; RAW, headless little-endian 16-bit of `headless_size` (height, width); or a camera's own file
    (DNG, NEF, CR2, ...), visible area, through LibRaw.
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
    if mosaic.ndim != 2:
        raise UserError(f"{path} is no mosaic: it has the shape {mosaic.shape}, not height x width")
    if mosaic.dtype == np.uint8:
        raise UserError(f"{path} has 8 bits a pixel; a RAW mosaic needs its full bit depth (a 16-bit file)")
    height, width = mosaic.shape
    if height % 2 or width % 2 or not mosaic.size:
        raise UserError(f"{path} is {height}x{width} (height x width); a Bayer mosaic has even sides: crop it")
    if not np.isfinite(mosaic.max()) or mosaic.max() > sensor.white_level or mosaic.min() < 0:
        raise UserError(
            f"{path} has values from {mosaic.min():g} to {mosaic.max():g}, outside 0 to the white level "
            f"{sensor.white_level:g}: is the bit depth right (--data.white-level)?"
        )
    return mosaic


def read_photo(path: Path) -> np.ndarray:
    """One photograph, (H, W, 3) uint8 sRGB."""
    return _decode(path, index=0, mode="RGB", rotate=True)


def _decode(path: Path, **options) -> np.ndarray:
    import imageio.v3 as iio

    try:
        return iio.imread(path, plugin="pillow", **options)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's ways of saying broken or truncated
        raise UserError(f"cannot read {path}: {error}") from None


def _read_npy(path: Path, sensor: Sensor) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if array.dtype.kind not in "uif":
        raise UserError(f"{path} holds {array.dtype}, not numbers")
    if array.dtype.kind == "f" and array.size and array.max() <= 1:
        array = array * np.float32(sensor.white_level)
    if array.ndim == 3 and array.shape[2] == 4:
        if sensor.cfa != "rggb":
            raise UserError(f"{path} has the channels R, G, G, B of an RGGB sensor, but the CFA order is {sensor.cfa}")
        height, width, _ = array.shape
        array = array.reshape(height, width, 2, 2).swapaxes(1, 2).reshape(2 * height, 2 * width)
    return array if array.dtype in (np.uint8, np.uint16) else array.astype(np.float32)


def _read_headless(path: Path, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if not (height and width):
        raise UserError(f"{path} has no header: name its size with --data.raw-height and --data.raw-width")
    found, expected = path.stat().st_size, 2 * height * width
    if found != expected:
        raise UserError(f"{path} has {found} bytes; {height}x{width} 16-bit pixels are {expected}")
    return np.fromfile(path, dtype="<u2").reshape(height, width)


def _read_pgm(path: Path) -> np.ndarray:
    import cv2

    mosaic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # Pillow would stretch 10 bits to 16
    if mosaic is None:
        raise UserError(f"cannot read {path}: it is no PGM file, or cut short")
    return mosaic


def _read_camera_file(path: Path, sensor: Sensor) -> np.ndarray:
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            mosaic = raw.raw_image_visible.copy()
            colours = "".join("rgbg"[index] for index in raw.raw_colors_visible[:2, :2].flat)
            black = raw.black_level_per_channel
    except (rawpy.LibRawError, OSError) as error:
        raise UserError(f"LibRaw cannot read {path}: {error}") from None
    if mosaic.ndim != 2 or colours not in CFA_ORDERS:
        raise UserError(f"{path} is not from a Bayer sensor")
    if colours != sensor.cfa:
        raise UserError(f"{path} has the CFA order {colours}, not {sensor.cfa}: set --data.cfa {colours}")
    if abs(black[0] - sensor.black_level[0]) > 0.01 * sensor.white_level:
        advice = f"set --data.black-level {' '.join(f'{black[i]:g}' for i in (0, 1, 3, 2))}"  # LibRaw: R, G, B, G2
        raise UserError(f"{path} says that its black level is {black[0]:g}, not {sensor.black_level[0]:g}: {advice}")
    return mosaic


# --- patches ---------------------------------------------------------------------------------------------------------


def random_window(
    shape: tuple[int, int], patch: int, rng: np.random.Generator, path: Path, even: bool
) -> tuple[slice, slice]:
    """A `patch` x `patch` window; `even` starts keep the CFA order."""
    if min(shape[:2]) < patch:
        raise UserError(f"{path} is {shape[0]}x{shape[1]}, smaller than a patch of {patch}: lower --data.patch")
    stride = 2 if even else 1
    row, column = (stride * int(rng.integers(0, (side - patch) // stride + 1)) for side in shape[:2])
    return slice(row, row + patch), slice(column, column + patch)


def centre(image: np.ndarray, most: int = 512) -> np.ndarray:
    """The middle square of (H, W, ...), of `most` pixels a side at most, at an even position, which keeps the CFA."""
    side = min(*image.shape[:2], most) // 2 * 2
    top, left = ((length - side) // 4 * 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def flip(image: np.ndarray, rows: bool, columns: bool) -> np.ndarray:
    """Mirror an even-sized (H, W, ...) image such that a mosaic keeps its CFA order.

    Mirroring alone would swap the colours of neighbouring sites. So the mirror lies on the last but one row (column):
    what moves out at one edge is filled by reflection at the other. A photograph moves along with its mosaic.
    """
    if rows:
        image = np.concatenate((image[1:2], image[:-1]))[::-1]
    if columns:
        image = np.concatenate((image[:, 1:2], image[:, :-1]), axis=1)[:, ::-1]
    return image
