"""Turn photographs into RAW mosaics of a simulated camera, with exact ground truth.

The image formation is that of *Unprocessing Images for Learned Raw Denoising* (Brooks et al., CVPR 2019, Sec. 3),
run backwards from an sRGB photograph: tone curve, gamma, colour matrix, gains, then mosaic, noise and quantisation.
One camera serves a whole dataset, because one camera is what an ISP learns. The files are laid out as Fujifilm
UltraISP is: `<root>/{train,val,test}/{mediatek_raw,fujifilm}/<i>.png`.

    python -m data.simulate PHOTOS OUT          # a folder of photographs
    python -m data.simulate demo OUT            # the photographs inside the scikit-image wheel
"""

import errno
import fcntl
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from data.sensor import CHANNELS, offsets
from errors import UserError, run_cli

CFA = Literal["rggb", "bggr", "grbg", "gbrg"]
Cut = tuple[str, str, float, int, int]  # split, photograph, scale, top, left (of the patch, in the scaled photograph)

SPLITS = ("train", "val", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
CANNOT_BE_MADE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG)

# XYZ -> camera of four real cameras, as published with the code of Brooks et al.
XYZ2CAM = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
RGB2XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)

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
# The camera


@dataclass(frozen=True)
class Camera:
    """What stays the same from one exposure to the next."""

    rgb2cam: tuple[tuple[float, float, float], ...]  # linear sRGB -> camera RGB; each row sums to 1, so grey stays grey
    red_gain: float  # white balance: the ISP multiplies red by this (green by 1)
    blue_gain: float  # white balance: the ISP multiplies blue by this
    rgb_gain: float  # digital gain: the ISP multiplies all three by this
    shot: float  # variance of the noise is shot * signal + read, with the signal in [0, 1]
    read: float
    cfa: CFA = "rggb"  # colours at (0, 0), (0, 1), (1, 0), (1, 1)
    black: tuple[int, int, int, int] = (58, 60, 61, 62)  # black level at R, Gr (green in red's row), Gb, B
    white: int = 1023  # white level, and the largest value stored: 10 bits

    def __post_init__(self) -> None:
        if self.cfa not in CFA.__args__:
            raise UserError(f"cfa is {self.cfa!r}; it must be one of {', '.join(CFA.__args__)}")
        if not 0 <= min(self.black) <= max(self.black) < self.white <= 65535:
            raise UserError(f"black {self.black}, white {self.white}: needs 0 <= black < white <= 65535")
        if min(self.shot, self.read) < 0:
            raise UserError(f"shot noise {self.shot}, read noise {self.read}: neither may be negative")

    @classmethod
    def random(cls, seed: int, matrix: int | None = None, shot: float | None = None, **fixed) -> "Camera":
        """Draw a camera as Brooks et al. do (Sec. 3.1-3.4); the same seed gives the same camera.

        matrix: index into XYZ2CAM instead of a random convex mixture. shot: shot noise instead of a drawn one. The
        draw is from [1e-5, 1e-4], a sensor in daylight, below their [1e-4, 1.2e-2]: the ground truth is meant to be
        within a small network's reach. fixed: other fields of Camera.
        """
        rng = np.random.default_rng(seed)
        weights = rng.uniform(size=len(XYZ2CAM))
        gains = dict(rgb_gain=1 / rng.normal(0.8, 0.1), red_gain=rng.uniform(1.9, 2.4), blue_gain=rng.uniform(1.5, 1.9))
        drawn = np.exp(rng.uniform(np.log(1e-5), np.log(1e-4)))
        shot = drawn if shot is None else shot
        read = np.exp(2.18 * np.log(shot) + 1.20 + rng.normal(0, 0.26)) if shot > 0 else 0.0
        if matrix is not None and not 0 <= matrix < len(XYZ2CAM):
            raise UserError(f"matrix is {matrix}; it must be 0 to {len(XYZ2CAM) - 1}")
        xyz2cam = np.average(XYZ2CAM, axis=0, weights=weights) if matrix is None else XYZ2CAM[matrix]
        rgb2cam = xyz2cam @ RGB2XYZ
        rgb2cam /= rgb2cam.sum(axis=1, keepdims=True)
        return cls(tuple(map(tuple, rgb2cam.tolist())), **gains, shot=float(shot), read=float(read), **fixed)


# ---------------------------------------------------------------------------------------------------------------------
# The stages. Images are float HxWx3 in [0, 1] unless said otherwise; each stage is followed by what undoes it.


def smoothstep(image: np.ndarray) -> np.ndarray:
    """Tone curve of the ISP, 3x^2 - 2x^3."""
    return image**2 * (3 - 2 * image)


def inverse_smoothstep(image: np.ndarray) -> np.ndarray:
    """What `smoothstep` was applied to, in closed form."""
    return 0.5 - np.sin(np.arcsin(1 - 2 * np.clip(image, 0, 1)) / 3)


def gamma_compress(image: np.ndarray) -> np.ndarray:
    """Linear to sRGB, as the power 1/2.2 that Brooks et al. use."""
    return np.maximum(image, 0) ** (1 / 2.2)


def gamma_expand(image: np.ndarray) -> np.ndarray:
    """sRGB to linear, as the power 2.2."""
    return np.maximum(image, 0) ** 2.2


def apply_matrix(image: np.ndarray, matrix: Sequence[Sequence[float]]) -> np.ndarray:
    """Multiply each pixel (a column) by a 3x3 matrix."""
    return image @ np.asarray(matrix).T


def apply_gains(image: np.ndarray, camera: Camera) -> np.ndarray:
    """White balance and digital gain, as an ISP applies them; the result may exceed 1."""
    return image * camera.rgb_gain * np.array([camera.red_gain, 1, camera.blue_gain])


def safe_invert_gains(image: np.ndarray, camera: Camera) -> np.ndarray:
    """Undo `apply_gains`, but let highlights (mean above 0.9) rise to 1.

    Plain division would leave no RAW value above 1 / gain, where a real sensor saturates (Sec. 3.2).
    """
    gains = 1 / (camera.rgb_gain * np.array([camera.red_gain, 1, camera.blue_gain]))
    highlight = (np.maximum(image.mean(axis=-1, keepdims=True) - 0.9, 0) / 0.1) ** 2
    return image * np.maximum(highlight + (1 - highlight) * gains, gains)


def unprocess(photo: np.ndarray, camera: Camera) -> np.ndarray:
    """sRGB photograph (HxWx3, uint8 or float in [0, 1]) -> linear camera RGB (float64 HxWx3 in [0, 1])."""
    image = photo / 255.0 if photo.dtype == np.uint8 else photo
    image = gamma_expand(inverse_smoothstep(image))
    image = safe_invert_gains(apply_matrix(image, camera.rgb2cam), camera)
    return np.clip(image, 0, 1)


def mosaic(image: np.ndarray, cfa: CFA) -> np.ndarray:
    """HxWx3 -> HxW: keep one colour at each pixel. H and W are even."""
    raw = np.empty(image.shape[:2], image.dtype)
    for site, colour in enumerate(cfa):
        raw[site // 2 :: 2, site % 2 :: 2] = image[site // 2 :: 2, site % 2 :: 2, "rgb".index(colour)]
    return raw


def black_levels(camera: Camera) -> np.ndarray:
    """Black level (int 2x2) at the four sites of the CFA."""
    levels = np.empty((2, 2), int)
    for name, black in zip(CHANNELS, camera.black, strict=True):
        levels[offsets(camera.cfa)[name]] = black
    return levels


def add_noise(raw: np.ndarray, shot: float, read: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of variance shot * raw + read (Sec. 3.1); may leave [0, 1]."""
    return raw + rng.normal(size=raw.shape) * np.sqrt(shot * raw + read)


def quantise(raw: np.ndarray, camera: Camera) -> np.ndarray:
    """HxW in [0, 1] -> uint16 in [0, white]: 0 becomes the black level of its site, 1 the white level."""
    black = np.tile(black_levels(camera), (raw.shape[0] // 2, raw.shape[1] // 2))
    return np.clip(np.rint(black + raw * (camera.white - black)), 0, camera.white).astype(np.uint16)


def expose(linear: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Linear camera RGB (HxWx3 in [0, 1], H and W even) -> what the sensor stores (uint16 HxW)."""
    return quantise(add_noise(mosaic(linear, camera.cfa), camera.shot, camera.read, rng), camera)


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


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """One process at a time: the others wait, such as the seeds of one experiment that are started together."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.with_name(f".{root.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
