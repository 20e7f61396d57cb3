"""Turn photographs into RAW mosaics of a simulated camera, with exact ground truth.

The image formation is `data.unprocess`. One camera serves a whole dataset, because one camera is what an ISP learns.
The files are laid out as Fujifilm UltraISP is: `<root>/{train,val,test}/{mediatek_raw,fujifilm}/<i>.png`.

    python -m data.simulate PHOTOS OUT          # a folder of photographs
    python -m data.simulate demo OUT            # the photographs inside the scikit-image wheel
"""

import errno
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from data.folders import alone
from data.unprocess import CFA, Camera, expose, unprocess
from errors import UserError, run_cli

Cut = tuple[str, str, float, int, int]  # split, photograph, scale, top, left (of the patch, in the scaled photograph)

SPLITS = ("train", "val", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
CANNOT_BE_MADE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG)

# The photographs inside the scikit-image wheel: split, most patches taken, licence (from the docstrings of
# skimage.data). Val and test are whole photographs. The two motorcycles show one scene, so they share a side. What is
# furthest from a phone's scene gives fewer patches; the Hubble field, all but black, gives none.
MIDDLEBURY = "Middlebury stereo 2014, Scharstein et al., GCPR 2014 (no licence named; cite when used)"
DEMO_SCALES = (1.0, 0.7, 0.5, 0.35)
DEMO = {
    "astronaut.png": ("train", 64, "NASA, public domain"),
    "motorcycle_left.png": ("train", 64, MIDDLEBURY),
    "motorcycle_right.png": ("train", 64, MIDDLEBURY),
    "rocket.jpg": ("train", 32, "SpaceX, public domain"),
    "ihc.png": ("train", 24, "CMMI, no known copyright restrictions"),
    "retina.jpg": ("train", 24, "Mikael Häggström, CC0"),
    "chelsea.png": ("test", 24, "Stefan van der Walt, CC0"),
    "coffee.png": ("val", 24, "Rachel Michetti, CC0"),
}


# ---------------------------------------------------------------------------------------------------------------------
# Photographs, and which patch of which photograph goes where


def read_photograph(path: Path) -> np.ndarray:
    """uint8 HxWx3, upright. Raises OSError, ValueError or SyntaxError (so says Pillow) for a broken file."""
    import imageio.v3 as iio

    return iio.imread(path, plugin="pillow", index=0, mode="RGB", rotate=True)


def survey(folder: Path, side: int) -> tuple[dict[str, tuple[int, int]], str]:
    """Decode every image under `folder`: {path in folder: (height, width)} of the usable ones, and what was skipped.

    Decoding is the one way to find a truncated file before the splits are drawn.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the photographs")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    shapes, broken, small = {}, [], []
    for path in progress(paths, "reading"):
        try:
            height, width = read_photograph(path).shape[:2]
        except (OSError, ValueError, SyntaxError):
            broken.append(path.name)
            continue
        if min(height, width) < side:
            small.append(path.name)
        else:
            shapes[str(path.relative_to(folder))] = height, width
    skipped = [
        f"{len(names)} {what} (such as {names[0]})"
        for names, what in ((broken, "unreadable"), (small, f"smaller than {side} x {side}"))
        if names
    ]
    if not shapes:
        raise UserError(f"{folder} holds no usable image: {', '.join(skipped)}")
    return shapes, ", ".join(skipped)


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
    """uint8 HxWx3 smaller by `scale` in (0, 1], by area averaging."""
    import cv2

    size = [max(1, round(side * scale)) for side in photo.shape[1::-1]]
    return photo if scale == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


def pick(cuts: list[Cut], most: int, rng: np.random.Generator) -> list[Cut]:
    """At most `most` of them, drawn without replacement, in their order."""
    return [cuts[i] for i in sorted(rng.permutation(len(cuts))[:most])]


def split(
    shapes: dict[str, tuple[int, int]],
    patch: int,
    stride: int,
    scales: Sequence[float],
    val: int,
    test: int,
    rng: np.random.Generator,
) -> list[Cut]:
    """Give whole photographs to val and test (a quarter of them each at the most), the rest to train.

    With one or two photographs that cannot be: then the splits share photographs, but no pixel.
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


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def progress(items: list, what: str):
    """A tqdm bar, for a `with`, so that it ends its line before an error is told; in a log file, one now and then."""
    from tqdm import tqdm

    return tqdm(items, desc=what, mininterval=0.1 if sys.stderr.isatty() else 10)


def write_png(path: Path, array: np.ndarray) -> None:
    """Write uint8 HxWx3 or uint16 HxW."""
    import imageio.v3 as iio

    path.write_bytes(iio.imwrite("<bytes>", array, extension=".png"))  # so that a full disk is an OSError


def describe(camera: Camera, cuts: list[Cut], seed: int, patch: int) -> str:
    """camera.json: the camera and all that decides what is written, so that equal text means an equal dataset."""
    counts = {side: sum(cut[0] == side for cut in cuts) for side in SPLITS}
    plan = zlib.crc32(repr(sorted(cuts)).encode())
    return (
        json.dumps({"camera": asdict(camera), "seed": seed, "patch": patch, "counts": counts, "plan": plan}, indent=1)
        + "\n"
    )


def write_patches(
    root: Path, cuts: list[Cut], load: Callable[[str], np.ndarray], camera: Camera, seed: int, patch: int
) -> None:
    """Cut, unprocess and expose every patch. Its noise depends on seed, split and number, not on what came before."""
    for side in SPLITS:
        for kind in ("mediatek_raw", "fujifilm"):
            (root / side / kind).mkdir(parents=True)
    counts = dict.fromkeys(SPLITS, 0)
    cuts = sorted(cuts, key=lambda cut: cut[1:3])
    with progress(cuts, "writing") as bar:
        for (name, scale), group in groupby(bar, key=lambda cut: cut[1:3]):
            photo = shrink(load(name), scale)
            for side, _, _, top, left in group:
                truth = photo[top : top + patch, left : left + patch]
                number = counts[side]
                counts[side] += 1
                rng = np.random.default_rng([seed, SPLITS.index(side), number])
                write_png(root / side / "mediatek_raw" / f"{number}.png", expose(unprocess(truth, camera), camera, rng))
                write_png(root / side / "fujifilm" / f"{number}.png", truth)


def refuse_existing(root: Path) -> Path:
    """The absolute path, if nothing but an empty folder is there."""
    root = root.resolve()
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise UserError(f"{root} exists already; give another place, or remove it")
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
    """Write the dataset beside `root` and rename it, so that `root` is there whole or not at all."""
    root = refuse_existing(root)
    sources = sorted({(side, name) for side, name, *_ in cuts})
    draft = root.with_name(root.name + ".partial")
    if draft.exists():
        shutil.rmtree(draft)  # what a killed run left
    try:
        draft.mkdir(parents=True)
        write_patches(draft, cuts, load, camera, seed, patch)
        lines = [f"{side}\t{name}\t{licences.get(name, 'licence: that of the photograph')}" for side, name in sources]
        (draft / "sources.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (draft / "camera.json").write_text(describe(camera, cuts, seed, patch), encoding="utf-8")
        draft.rename(root)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in CANNOT_BE_MADE:
            raise UserError(f"cannot make {root}: {error.strerror} ({error.filename})") from error
        raise


def demo_photographs() -> dict[str, np.ndarray]:
    """{file name: uint8 HxWx3} of DEMO, read from the installed scikit-image wheel itself: nothing is downloaded."""
    from importlib.resources import files

    folder = Path(str(files("skimage"))) / "data"
    missing = [name for name in DEMO if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}; install scikit-image 0.26 from its wheel")
    return {name: read_photograph(folder / name) for name in DEMO}


def make_demo(root: Path | str, patch: int = 128, seed: int = 0, **camera) -> None:
    """Write the demo dataset to `root`; nothing to do if it is there, complete and with the same settings.

    camera: as for `Camera.random`. Raises UserError if `root` holds anything else.
    """
    root, photos, rng, cuts = Path(root), demo_photographs(), np.random.default_rng(seed), []
    check_patch(patch)
    for name, (side, most, _) in DEMO.items():
        boxes = grid(photos[name].shape[:2], patch, patch // 2, DEMO_SCALES)
        # The black corners of the retina teach nothing, and a min-max stretch divides by zero on them.
        small = {scale: shrink(photos[name], scale) for scale in DEMO_SCALES}
        boxes = [(s, y, x) for s, y, x in boxes if small[s][y : y + patch, x : x + patch].std(axis=(0, 1)).max() > 4]
        cuts += pick([(side, name, *box) for box in boxes], most, rng)
    lens = Camera.random(seed, **camera)
    if missing := set(SPLITS) - {cut[0] for cut in cuts}:
        raise UserError(f"patch {patch} is too large for the demo photographs: no patch for {', '.join(missing)}")
    licences = {name: row[2] for name, row in DEMO.items()}
    with alone(root):
        told = root / "camera.json"
        complete = told.is_file() and len(list(root.glob("*/*/*.png"))) == 2 * len(cuts)
        if not complete or told.read_text(encoding="utf-8") != describe(lens, cuts, seed, patch):
            write_dataset(root, cuts, photos.__getitem__, lens, seed, patch, licences)


def check_patch(patch: int) -> None:
    """Refuse a patch that would cut a CFA block."""
    if patch < 2 or patch % 2:
        raise UserError(f"patch is {patch}; it must be even and positive, as the CFA repeats every two pixels")


def simulate(
    photos: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    seed: int = 0,
    patch: int | None = None,
    stride: int | None = None,
    scales: tuple[float, ...] = (1.0,),
    val: int = 64,
    test: int = 64,
    cfa: CFA = "rggb",
    black: tuple[int, int, int, int] = (58, 60, 61, 62),
    white: int = 1023,
    matrix: int | None = None,
    shot: Annotated[float | None, tyro.conf.arg(metavar="VARIANCE")] = None,
) -> None:
    """Turn photographs into a dataset of RAW mosaics and their ground truth.

    Args:
        photos: Folder of photographs, or the word demo (for a folder of that name: ./demo). demo takes the photographs
            inside scikit-image and ignores stride, scales, val and test.
        out: Folder to write; it must not exist.
        seed: Decides the camera, the noise and the splits.
        patch: Side of a patch in pixels, even (256; demo 128).
        stride: Step of the grid the patches are cut on (the side of a patch).
        scales: Also cut from photographs shrunk by these factors, in (0, 1].
        val: Most patches for validation, from photographs that training does not see.
        test: Most patches for testing, likewise.
        cfa: Colours at the upper left of the mosaic, row by row.
        black: Black levels of R, Gr, Gb, B.
        white: White level, and the largest value.
        matrix: One of the four published colour matrices, 0 to 3 (a random mixture).
        shot: Shot noise, 0 for none (drawn from 1e-5 to 1e-4); read noise follows from it.
    """
    fixed = dict(matrix=matrix, shot=shot, cfa=cfa, black=black, white=white)
    if seed < 0:
        raise UserError(f"seed is {seed}; it must not be negative")
    if photos == "demo":
        make_demo(out, patch or 128, seed, **fixed)
        return
    patch = patch or 256
    check_patch(patch)
    camera = Camera.random(seed, **fixed)
    if not scales or not all(0 < scale <= 1 for scale in scales) or min(val, test, stride or patch) < 0:
        raise UserError("scales must lie in (0, 1], and stride, val and test must not be negative")
    refuse_existing(out)  # before all photographs are read
    folder, rng = Path(photos), np.random.default_rng(seed)
    shapes, skipped = survey(folder, patch)
    if skipped:
        print(f"skipped {skipped}", file=sys.stderr)
    cuts = split(shapes, patch, stride or patch, scales, val, test, rng)
    if not any(cut[0] == "train" for cut in cuts):
        raise UserError(f"{folder} leaves no patch for training; give more photographs or a smaller patch")
    write_dataset(out, cuts, lambda name: read_photograph(folder / name), camera, seed, patch, {})


if __name__ == "__main__":
    run_cli(partial(tyro.cli, simulate, prog="python -m data.simulate"))
