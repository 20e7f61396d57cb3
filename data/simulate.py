"""Turns photographs into RAW mosaics of a simulated camera, with exact ground truth.

    python -m data.simulate PHOTOS OUT          # a folder of photographs
    python -m data.simulate demo OUT            # the photographs inside the scikit-image wheel

The files have the layout of Fujifilm UltraISP (`data.cuts`).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from data.cuts import Cut, check_patch, grid, locked, pick, progress, refuse_existing, write_dataset
from data.demo import make_demo
from data.files import PHOTO_FILES
from data.notes import note
from data.photographs import read_photo
from data.sensor import Cfa
from data.unprocess import Camera
from errors import UserError, run_cli

SUFFIXES = sorted(PHOTO_FILES | {".bmp"})


def survey(folder: Path, side: int) -> tuple[dict[str, tuple[int, int]], str]:
    """Decode every image under `folder`, because only this finds truncated files before the splits are drawn.

    Returns {path in `folder`: (height, width)} of the usable images, at least `side` pixels high and wide, and a text
    about the others. Simulated datasets in the folder are left out. Raises `UserError` if no image is usable.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the photographs")
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    made = {file.parent.relative_to(folder) for file in folder.rglob("*/camera.json")}  # simulated datasets
    paths = (path for path in paths if not made.intersection(path.parents))
    names = [str(path) for path in paths if not any(part.startswith(".") for part in path.parts)]
    images = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    others = sorted({*names} - {*images})
    if not images:
        found = f"{len(others)} other files, such as {others[0]}" if others else "no file"
        raise UserError(f"{folder} holds no image ({', '.join(SUFFIXES)}), but {found}")
    shapes, broken, small = {}, [], []
    for name in progress(images, "reading"):
        try:
            height, width = read_photo(folder / name).shape[:2]
        except UserError as error:
            broken.append(str(error))
            continue
        if min(height, width) < side:
            small.append(name)
        else:
            shapes[name] = height, width
    reasons = (broken, "unreadable"), (small, f"smaller than {side} x {side}"), (others, "of other formats")
    skipped = [f"{len(examples)} {reason} (the first: {examples[0]})" for examples, reason in reasons if examples]
    if not shapes:
        raise UserError(f"{folder} holds no usable image: {', '.join(skipped)}")
    return shapes, ", ".join(skipped)


def split(
    shapes: dict[str, tuple[int, int]],
    patch: int,
    stride: int,
    scales: Sequence[float],
    val: int,
    test: int,
    rng: np.random.Generator,
) -> list[Cut]:
    """Assign whole photographs to val and test (at most a quarter of them each), and the others to train.

    One or two photographs cannot be assigned whole: then the splits share photographs, but no pixel.
    """
    names = [str(name) for name in rng.permutation(sorted(shapes))]
    wanted, cuts = {"val": val, "test": test}, []
    if len(names) < 3:
        pool = [(name, *box) for name in names for box in grid(shapes[name], patch, patch, (1.0,))]
        rng.shuffle(pool)
        for side, count in wanted.items():
            cuts += [(side, *pool.pop()) for _ in range(min(count, max(1, len(pool) // 4), len(pool)))]
        return cuts + [("train", *box) for box in pool]
    for side, count in wanted.items():
        pool = []
        for _ in range(max(1, len(shapes) // 4)):
            if len(pool) < count:
                name = names.pop()
                pool += [(side, name, *box) for box in grid(shapes[name], patch, stride, scales)]
        cuts += pick(pool, count, rng)
    return cuts + [("train", name, *box) for name in names for box in grid(shapes[name], patch, stride, scales)]


def simulate_folder(
    folder: Path,
    out: Path,
    camera: Camera,
    seed: int,
    patch: int,
    stride: int,
    scales: Sequence[float],
    val: int,
    test: int,
) -> None:
    """Write a dataset from a folder of photographs; the arguments are those of `simulate`."""
    check_patch(patch)
    if not scales or not all(0 < scale <= 1 for scale in scales) or min(val, test) < 0 or stride < 1:
        raise UserError("scales must lie in (0, 1], stride must be at least 1, val and test must not be negative")
    out = refuse_existing(out)  # before all photographs are read
    shapes, skipped = survey(folder, patch)
    if skipped:
        note(f"skipped {skipped}")
    cuts = split(shapes, patch, stride, scales, val, test, np.random.default_rng(seed))
    if not any(cut[0] == "train" for cut in cuts):
        raise UserError(f"{folder} leaves no patch for training; give more photographs or a smaller patch")
    with locked(out, wait=False):
        write_dataset(out, cuts, lambda name: read_photo(folder / name), camera, seed, patch, {})


def simulate(
    photos: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    seed: int = 0,
    patch: int | None = None,
    stride: int | None = None,
    scales: tuple[float, ...] = (1.0,),
    val: int = 64,
    test: int = 64,
    cfa: Cfa = Camera.cfa,
    black: tuple[int, int, int, int] = Camera.black,
    white: int = Camera.white,
    matrix: int | None = None,
    shot: Annotated[float | None, tyro.conf.arg(metavar="VARIANCE")] = None,
) -> None:
    """Turn photographs into a dataset of RAW mosaics and their ground truth.

    Args:
        photos: Folder of photographs, or the word demo (for a folder of that name: ./demo). demo takes the photographs
            inside scikit-image, and has its own stride, scales, val and test.
        out: Folder to create; it must be absent or empty.
        seed: Determines the camera, the noise and the splits.
        patch: Side of a patch in pixels, even (256; demo 128).
        stride: Step of the grid on which patches are cut (the side of a patch).
        scales: Also cut patches from photographs that are shrunk by these factors, in (0, 1].
        val: Maximum number of validation patches, from photographs that are not used for training.
        test: Maximum number of test patches, likewise.
        cfa: Colours of the mosaic's top left 2x2 block, row by row.
        black: Black levels of R, Gr, Gb, B.
        white: White level, and the largest value.
        matrix: One of the four published colour matrices, 0 to 3 (a random mixture).
        shot: Shot noise, 0 for none (drawn from 1e-5 to 1e-4); read noise follows from it.
    """
    if seed < 0:
        raise UserError(f"seed is {seed}, but must not be negative")
    fixed = dict(matrix=matrix, shot=shot, cfa=cfa, black=black, white=white)
    if photos == "demo":
        if (stride, scales, val, test) != (None, (1.0,), 64, 64):
            raise UserError("the demo dataset has its own stride, scales, val and test: leave these options out")
        make_demo(out, 128 if patch is None else patch, seed, **fixed)
    else:
        camera, patch = Camera.random(seed, **fixed), 256 if patch is None else patch
        stride = patch if stride is None else stride
        simulate_folder(Path(photos), out, camera, seed, patch, stride, scales, val, test)


if __name__ == "__main__":
    run_cli(partial(tyro.cli, simulate, prog="python -m data.simulate"))
