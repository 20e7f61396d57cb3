"""Cuts patches from photographs and writes them as a dataset of a simulated camera, with exact ground truth.

The image formation is `data.unprocess`. One camera is used for a whole dataset, because an ISP is trained for one. The
layout is Fujifilm UltraISP's: <root>/{train,val,test}/{mediatek_raw,fujifilm}/<number>.png. Beside it, camera.json
describes the camera and the plan, sources.txt lists the photographs of each split with their licences.
"""

import errno
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np

import storage
from data.folders import LAYOUTS
from data.unprocess import Camera, expose, unprocess
from errors import UserError, printable

Cut = tuple[str, str, float, int, int]  # split, photograph, scale, top, left (of the patch, in the scaled photograph)

SPLITS = ("train", "val", "test")
LAYOUT = LAYOUTS["fujifilm"]
RECORDS = ("camera.json", "simulation.json")  # what describes a dataset of one simulated camera, and of two
CANNOT_CREATE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG)

# --- cutting ---------------------------------------------------------------------------------------------------------


def check_patch(patch: int) -> None:
    """Raise `UserError` for a patch that would cut a 2x2 block of the CFA."""
    if patch < 2 or patch % 2:
        raise UserError(f"patch is {patch}, but must be even and positive, because the CFA repeats every two pixels")


def grid(shape: tuple[int, int], patch: int, stride: int, scales: Sequence[float]) -> list[tuple[float, int, int]]:
    """All (scale, top, left) at which a patch fits into a photograph of this (height, width)."""
    sizes = [(scale, *(max(1, round(side * scale)) for side in shape)) for scale in scales]
    return [
        (scale, top, left)
        for scale, height, width in sizes
        for top in range(0, height - patch + 1, stride)
        for left in range(0, width - patch + 1, stride)
    ]


def shrink(photo: np.ndarray, scale: float) -> np.ndarray:
    """A photograph (H, W, 3), uint8, resized by `scale` in (0, 1] with area averaging."""
    import cv2

    size = [max(1, round(side * scale)) for side in photo.shape[1::-1]]
    return photo if scale == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


def pick(cuts: list[Cut], most: int, rng: np.random.Generator) -> list[Cut]:
    """At most `most` of the cuts, drawn without replacement, in their order."""
    return [cuts[i] for i in sorted(rng.permutation(len(cuts))[:most])]


# --- writing ---------------------------------------------------------------------------------------------------------


def progress(items: list, description: str):
    """A tqdm bar over `items`; in a log file, a line every ten seconds.

    Use it in a `with` statement, which ends its line before an error message is printed.
    """
    from tqdm import tqdm

    return tqdm(items, desc=description, mininterval=0.1 if sys.stderr.isatty() else 10)


def refuse_existing(root: Path) -> Path:
    """The absolute path of a folder to create. Raises `UserError` unless it is an empty folder, or can be created."""
    try:
        root.resolve(strict=True)
    except RuntimeError:  # a loop of links
        raise UserError(f"{root} is a link that leads to itself: give another folder") from None
    except OSError:
        if root.is_symlink():
            raise UserError(f"{root} is a link to a folder that is missing: give another folder") from None
    root = root.resolve()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if existing != root and not existing.is_dir():
        raise UserError(f"cannot create {root}: {existing} is not a folder")
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise UserError(f"{root} exists; give another folder, or remove it")
    return root


def write_dataset(
    root: Path,
    cuts: list[Cut],
    load: Callable[[str], np.ndarray],
    camera: Camera,
    seed: int,
    patch: int,
    licences: dict[str, str],
) -> None:
    """Write the dataset whole or not at all. The caller holds the lock of `root` (`locked`).

    Args:
        root: the folder to create; it must be absent or empty.
        cuts: the patches to write.
        load: reads a photograph by the name that `cuts` use, (H, W, 3) uint8.
        camera: takes the mosaics.
        seed: of the noise.
        patch: side of a patch in pixels.
        licences: of the photographs, by name.

    Raises `UserError` if `root` is not empty or cannot be created.
    """
    root = refuse_existing(root)
    with temporary_folder(root, "camera.json", describe(camera, cuts, seed, patch)) as temporary:
        write_sources(temporary, cuts, licences)
        _write_patches(temporary, cuts, load, camera, seed, patch)


def write_sources(root: Path, cuts: list[Cut], licences: dict[str, str]) -> None:
    """Write sources.txt: split, photograph and licence of each photograph."""
    sources = sorted({(side, name) for side, name, *_ in cuts})
    licence = "licence: that of the photograph"
    lines = [f"{side}\t{printable(name)}\t{licences.get(name, licence)}" for side, name in sources]
    (root / "sources.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def locked(root: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of the dataset at the absolute path `root`, which does not exist yet or is complete.

    Raises `UserError` if another process holds it, unless told to `wait`, and if `root` cannot be created.
    """
    try:
        with storage.lock(root.with_name(f".{root.name}.lock"), wait) as held:
            if not held:
                raise UserError(f"another process is writing {root}: wait for it, or give another folder")
            yield
    except OSError as error:
        if error.errno not in CANNOT_CREATE:
            raise
        raise UserError(f"cannot create {root}: {error.strerror} ({error.filename})") from error


@contextmanager
def temporary_folder(root: Path, record: str, description: str) -> Iterator[Path]:
    """A hidden folder beside `root` that is renamed to `root` when the block ends; an error removes it.

    The file `record`, one of `RECORDS`, with the text `description`, is written first: by it, a folder that a killed
    process left is known to be of no value. Raises `UserError` if another folder of that name is there.
    """
    temporary = root.with_name(f".{root.name}.partial")
    if temporary.exists() and any(temporary.iterdir()) and not any((temporary / name).is_file() for name in RECORDS):
        raise UserError(f"{temporary} is in the way, and not of this command: move it, or write the dataset elsewhere")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        (temporary / record).write_text(description, encoding="utf-8")
        yield temporary
        temporary.rename(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def is_complete(root: Path, record: str, description: str, images: int) -> bool:
    """Whether `root` holds a dataset of this description, in the file `record`, and this many PNG files."""
    written = root / record
    if not written.is_file() or written.read_text("utf-8", "replace") != description:
        return False
    return len(list(root.glob("*/*/*.png"))) == images


def describe(camera: Camera, cuts: list[Cut], seed: int, patch: int) -> str:
    """The text of camera.json: the camera and the plan. Equal texts mean equal datasets."""
    counts = {side: sum(cut[0] == side for cut in cuts) for side in SPLITS}
    plan = zlib.crc32(repr(sorted(cuts)).encode())
    content = {"camera": asdict(camera), "seed": seed, "patch": patch, "counts": counts, "plan": plan}
    return json.dumps(content, indent=1) + "\n"


def _write_patches(
    root: Path, cuts: list[Cut], load: Callable[[str], np.ndarray], camera: Camera, seed: int, patch: int
) -> None:
    """Write mosaic and ground truth of each patch. Its noise depends on seed, split and number alone."""
    for side in sorted({cut[0] for cut in cuts}):
        for folder in (LAYOUT.raw, LAYOUT.photos):
            (root / side / folder).mkdir(parents=True)
    counts = dict.fromkeys(SPLITS, 0)
    cuts = sorted(cuts, key=lambda cut: cut[1:3])
    with progress(cuts, "writing") as bar:
        for (name, scale), group in groupby(bar, key=lambda cut: cut[1:3]):
            photo = shrink(load(name), scale)
            for side, _, _, top, left in group:
                truth = photo[top : top + patch, left : left + patch]
                if truth.shape[:2] != (patch, patch):
                    raise UserError(f"{name} has become smaller since it was surveyed: start again")
                number = counts[side]
                counts[side] += 1
                rng = np.random.default_rng([seed, SPLITS.index(side), number])
                write_png(root / side / LAYOUT.raw / f"{number}.png", expose(unprocess(truth, camera), camera, rng))
                write_png(root / side / LAYOUT.photos / f"{number}.png", truth)


def write_png(path: Path, array: np.ndarray) -> None:
    """Write a PNG file, (H, W, 3) uint8 or (H, W) uint16."""
    import imageio.v3 as iio

    path.write_bytes(iio.imwrite("<bytes>", array, extension=".png"))  # so that a full disk raises an OSError
