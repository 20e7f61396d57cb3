"""Turns photographs into RAW mosaics of a simulated camera, with exact ground truth.

    python -m data.simulate PHOTOS OUT          # a folder of photographs
    python -m data.simulate demo OUT            # the photographs inside the scikit-image wheel
    python -m data.simulate PHOTOS OUT --cameras two        # unpaired mosaics of two cameras, and pairs to test

The files of one camera have the layout of Fujifilm UltraISP (`data.cuts`), those of two that of
`data.simulate_cameras`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from data.cuts import RECORDS, Cut, check_patch, grid, locked, pick, progress, refuse_existing, write_dataset
from data.demo import make_demo
from data.files import PHOTO_FILES
from data.notes import note
from data.photographs import read_photo
from data.sensor import Cfa
from data.simulate_cameras import Exposure, Lights, Settings, make_demo_cameras, write_cameras
from data.simulate_cameras import split as split_cameras
from data.unprocess import Camera
from errors import UserError, run_cli

VAL = TEST = 64
SUFFIXES = sorted(PHOTO_FILES | {".bmp"})


def survey(folder: Path, side: int) -> tuple[dict[str, tuple[int, int]], str]:
    """Decode every image under `folder`, because only this finds truncated files before the splits are drawn.

    Returns {path in `folder`: (height, width)} of the usable images, at least `side` pixels high and wide, and a text
    about the others. Simulated datasets in the folder are left out. Raises `UserError` if no image is usable.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the photographs")
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    made = {file.parent.relative_to(folder) for name in RECORDS for file in folder.rglob(f"*/{name}")}  # simulated
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


def _survey(folder: Path, side: int) -> dict[str, tuple[int, int]]:
    """{name: (height, width)} of the usable photographs, as `survey` has it, with a note about the others."""
    shapes, skipped = survey(folder, side)
    if skipped:
        note(f"skipped {skipped}")
    return shapes


def _check_grid(scales: Sequence[float], stride: int) -> None:
    if not scales or not all(0 < scale <= 1 for scale in scales) or stride < 1:
        raise UserError("scales must lie in (0, 1], stride must be at least 1")


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
    if min(val, test) < 0:
        raise UserError("val and test must not be negative")
    _check_grid(scales, stride)
    out = refuse_existing(out)  # before all photographs are read
    shapes = _survey(folder, patch)
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
    val: int = VAL,
    test: int = TEST,
    cfa: Cfa = Camera.cfa,
    black: tuple[int, int, int, int] = Camera.black,
    white: int = Camera.white,
    matrix: int | None = None,
    shot: Annotated[float | None, tyro.conf.arg(metavar="VARIANCE")] = None,
    cameras: Literal["one", "two"] = "one",
    lights: Lights | None = None,
    exposure: Exposure | None = None,
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
        cameras: Pairs of mosaic and photograph (one), or mosaics of two cameras (two), which have no val to shot.
        lights: Of two cameras: two lights in each scene, or a single one (mixed).
        exposure: Of two cameras: in a fixed relation, or chosen by each camera for each mosaic (fixed).
    """
    patch = (128 if photos == "demo" else 256) if patch is None else patch
    camera = dict(matrix=matrix, shot=shot, cfa=cfa, black=black, white=white)
    _refuse_options(photos, cameras, seed, (stride, scales), (val, test), camera, (lights, exposure))
    stride = patch if stride is None else stride
    if cameras == "two":
        _two_cameras(photos, out, Settings(seed, patch, lights or "mixed", exposure or "fixed"), stride, scales)
    elif photos == "demo":
        make_demo(out, patch, seed, **camera)
    else:
        simulate_folder(Path(photos), out, Camera.random(seed, **camera), seed, patch, stride, scales, val, test)


def _refuse_options(photos, cameras, seed, steps, counts, camera, scene) -> None:
    """Raise `UserError` for a negative seed, and for options that have no effect in this combination."""
    if seed < 0:
        raise UserError(f"seed is {seed}, but must not be negative")
    default = dict(matrix=None, shot=None, cfa=Camera.cfa, black=Camera.black, white=Camera.white)
    if cameras == "one" and any(scene):
        raise UserError("lights and exposure are options of two cameras: leave them out, or add --cameras two")
    if cameras == "two" and (counts != (VAL, TEST) or camera != default):
        raise UserError(
            "two cameras have their own levels and noise, and no validation or test patches: leave out val, test, cfa, "
            "black, white, matrix and shot"
        )
    if photos == "demo" and (*steps, *counts) != (None, (1.0,), VAL, TEST):
        raise UserError("the demo dataset has its own stride, scales, val and test: leave these options out")


def _two_cameras(photos: str, out: Path, settings: Settings, stride: int, scales: Sequence[float]) -> None:
    """Write a dataset of two cameras; the arguments are those of `simulate`."""
    if photos == "demo":
        make_demo_cameras(out, settings)
        return
    folder = Path(photos)
    _check_grid(scales, stride)
    out = refuse_existing(out)  # before all photographs are read
    cuts = split_cameras(_survey(folder, settings.patch), settings.patch, stride, scales, settings.seed)
    with locked(out, wait=False):
        write_cameras(out, cuts, lambda name: read_photo(folder / name), settings, {})


if __name__ == "__main__":
    run_cli(partial(tyro.cli, simulate, prog="python -m data.simulate"))
