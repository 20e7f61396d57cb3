"""What misaligned pairs cost: paired training on shifted photographs, on what alignment makes of them, and with masks.

python benchmarks/misalignment.py PAIRS --out DIR [--shifts 0 1 2 4 8] [--ways shifted aligned masked] [--seeds 0 1]

PAIRS is a dataset of layout "fujifilm" with train/ and val/, of the preset's camera. The photograph of each training
pair is moved in a random direction by so many pixels, and turned by up to --rotation degrees. Networks are trained on
these pairs as they are (shifted), after alignment (aligned), and with its masks (masked), and scored on the pairs of
val/, which are not moved. DIR gets the datasets, the runs, and a file for each finished row, which is not run again:
to continue, give the same command. With --results it only makes the table of all rows that are finished.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import common  # noqa: F401 - adds the repository's root to sys.path
import cv2
import numpy as np
import torch

import fit
import storage
from config import Config
from data import alignment
from data.cuts import write_png
from data.files import Reader
from data.folders import LAYOUTS, Split, open_dataset
from data.photographs import read_photo
from data.sensor import SENSORS
from errors import UserError, run_cli
from evaluation.metrics import MEASURES
from tasks.scoring import open_scorer, open_tables
from training.log import Progress

CPU = torch.device("cpu")
COLUMNS = ("psnr", "ssim", "lpips")
SHIFTS = (0.0, 1.0, 2.0, 4.0, 8.0)  # pixels
# Mosaics and photographs lose so many pixels at each side (even: the CFA order stays), so that no pixel of a moved
# photograph is made up. `SUPPORT` of them are the resampling's.
MARGIN, SUPPORT = 16, 4
# Way -> the table's words for its photographs.
WAYS = {"shifted": "as shifted", "aligned": "aligned", "masked": "aligned, with masks"}
ALIGNED = ("aligned", "masked")  # ways that share a dataset
# All networks are trained with these settings, which were fixed before one was scored: "paired, MSE" of quality.py.
TRAINING = (
    "quick --train.mode paired --data.layout fujifilm --data.val-count 0 "
    "--log.samples 1 --log.val-every 4000 --log.save-every 4000 --log.state-every 500"
)
BEGIN, END = "<!-- table of benchmarks/misalignment.py -->", "<!-- end of the table -->"


# --- datasets --------------------------------------------------------------------------------------------------------


def motion(pair: int, shift: float, rotation: float, shape: tuple[int, int]) -> np.ndarray:
    """Where the pixels of a cropped, moved photograph lie in the whole one of this (height, width): (2, 3), affine.

    It takes a column and row. The direction of a pair is the same for all shifts. Raises `UserError` for a motion that
    would leave the photograph.
    """
    height, width = shape
    reach = shift + 2 * math.sin(math.radians(rotation) / 2) * math.hypot(height, width) / 2 + SUPPORT
    if reach > MARGIN:
        raise UserError(f"a shift of {shift:g} and a rotation of {rotation:g} need a margin of {reach:.1f} > {MARGIN}")
    rng = np.random.default_rng(pair)
    direction, turn = rng.uniform(0, 2 * math.pi), rng.uniform(-rotation, rotation)
    found = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1.0)
    found[:, 2] += (shift * math.cos(direction), shift * math.sin(direction))
    found[:, 2] += found[:, :2].sum(1) * MARGIN
    return found


def moved(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 after `motion`, without its margin, resampled once."""
    size = photo.shape[1] - 2 * MARGIN, photo.shape[0] - 2 * MARGIN
    return cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP)


def make_dataset(pairs: str, folder: Path, aligned: bool, shift: float, rotation: float) -> int:
    """Write a dataset of moved photographs, `aligned` again or not, and return its number of training pairs.

    A folder that is complete is only counted. Raises `UserError` if it is of another shift or rotation.
    """
    record, settings = folder / "record.json", {"pairs": pairs, "shift": shift, "rotation": rotation}
    if record.is_file():
        known = json.loads(record.read_text())
        if {name: known[name] for name in settings} != settings:
            raise UserError(f"{folder} is of other pairs, another shift or rotation: give another --out")
        return known["count"]
    layout, sensor = LAYOUTS["fujifilm"], SENSORS["fujifilm"]
    splits = open_dataset("fujifilm", pairs, pairs="yes", val=0, test=0)
    if not splits["val"]:
        raise UserError(f"{pairs} has no val/ with pairs")
    outs = [folder / "train" / layout.raw, folder / "train" / layout.photos, folder / "masks"]
    for out in outs:
        out.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, mosaic, photo in _moved_pairs(splits["train"], Reader(sensor), shift, rotation):
        images = [mosaic, photo]
        if aligned:
            try:
                found = alignment.align(alignment.render(mosaic, sensor), photo, alignment.Options())
            except alignment.NotAligned:
                continue
            images = [mosaic, found.warp(photo), 255 * found.mask.astype(np.uint8)]
            if not found.mask.any():
                continue
        for out, image in zip(outs, images, strict=False):
            write_png(out / f"{name}.png", image)
        count += 1
    if not (folder / "val").exists():
        (folder / "val").symlink_to(Path(pairs, "val").resolve())
    storage.write_json(record, settings | {"count": count})
    return count


def _moved_pairs(
    train: Split, reader: Reader, shift: float, rotation: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, mosaic without its margin, moved photograph) of each pair."""
    inside = slice(MARGIN, -MARGIN)
    with Progress(f"shift {shift:g}", 0, len(train), unit="pair") as progress:
        for pair, raw in enumerate(progress.over(train.raws)):
            mosaic, photo = reader.mosaic(raw), read_photo(train.photos[pair])
            yield raw.stem, mosaic[inside, inside], moved(photo, motion(pair, shift, rotation, mosaic.shape))


# --- rows ------------------------------------------------------------------------------------------------------------


def run_row(pairs: str, out: Path, shift: float, way: str, seed: int, rotation: float) -> None:
    """Make the dataset of a row, train and score its network, and write its file, unless there is one.

    Raises `UserError` if the file is of other settings.
    """
    folder = out / "data" / f"{'aligned' if way in ALIGNED else 'shifted'}_{shift:g}"
    count, file = make_dataset(pairs, folder, way in ALIGNED, shift, rotation), file_of(out, shift, way, seed)
    if file.is_file():
        if (known := read_row(file)["options"]) != TRAINING:
            raise UserError(f"{file} is of other settings ({known}): remove it, or give another --out")
        return
    place = ("--data.root", str(folder), "--runs", str(out / "runs"), "--run", file.stem, "--seed", str(seed))
    masks = ("--data.masks", str(folder / "masks")) if way == "masked" else ()
    config, resume = fit.parse([*TRAINING.split(), *place, *masks, "--resume"])
    means = score(fit.train(config, resume), config)
    storage.write_json(file, {"options": TRAINING, "pairs": count, "means": means})
    print(f"shift {shift:g}, {WAYS[way]}, seed {seed}: {means['psnr']:.2f} dB", flush=True)


def score(run: Path, config: Config) -> dict[str, float]:
    """The mean scores of a run's last checkpoint on its validation pairs; none of networks with random weights."""
    last = run / "checkpoints" / f"step_{config.train.steps:07d}.pt"
    tables = open_tables(run, config, "paired", "", COLUMNS)
    scorer = open_scorer(config, tables, CPU)
    scorer.open()
    if failed := scorer.score([last]):
        raise UserError("; ".join(failed.values()))
    random = {name for name, source in scorer.notes.items() if source.startswith("random")}
    return {name: mean for name, mean in tables.read(last).mean.items() if name in COLUMNS and name not in random}


def file_of(out: Path, shift: float, way: str, seed: int) -> Path:
    """Where a row's scores are kept."""
    return out / "scores" / f"{way}_{shift:g}_{seed}.json"


def read_row(file: Path) -> dict:
    """What `run_row` has written. Raises `UserError` for anything else."""
    try:
        found = json.loads(file.read_text())
        means = {name: float(value) for name, value in found["means"].items()}
        return {"options": found["options"], "pairs": int(found["pairs"]), "means": means}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{file} holds no scores of this benchmark: remove it") from None


# --- the table -------------------------------------------------------------------------------------------------------


def table(out: Path, shifts: Sequence[float], ways: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The finished rows, in Markdown: the mean over the seeds, and each seed's score."""
    head = ("shift, px", "photographs", "training pairs", *(f"{MEASURES[name].label} (each seed)" for name in COLUMNS))
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for shift in shifts:
        for way in ways:
            files = [file_of(out, shift, way, seed) for seed in seeds]
            rows = [read_row(file) for file in files if file.is_file()]
            if not rows:
                continue
            cells = [f"{shift:g}", WAYS[way], str(rows[0]["pairs"])]
            for name in COLUMNS:
                values, digits = [row["means"][name] for row in rows if name in row["means"]], MEASURES[name].digits
                each = ", ".join(f"{value:.{digits}f}" for value in values)
                cells.append(f"{np.mean(values):.{digits}f} ({each})" if values else "")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def around_table(document: Path) -> tuple[str, str]:
    """What stands before and after the place for the table in a document. Raises `UserError` if it has none."""
    text = document.read_text() if document.is_file() else ""
    if not (text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END)):
        raise UserError(f"{document} has no place for the table: the lines {BEGIN} and {END}")
    return text[: text.index(BEGIN)], text[text.index(END) + len(END) :]


def write_table(document: Path, lines: Sequence[str]) -> None:
    """Replace what stands between the markers of a document. Raises `UserError` as `around_table`."""
    before, after = around_table(document)
    storage.write_bytes(document, "\n".join((before + BEGIN, *lines, END + after)).encode())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("pairs", help="a dataset of layout fujifilm, with train/ and val/")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of datasets and scores")
    options.add_argument("--shifts", nargs="+", type=float, default=SHIFTS, metavar="PX", help="(0 1 2 4 8)")
    options.add_argument("--rotation", type=float, default=0.0, metavar="DEG", help="to either side, at most (0)")
    options.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="only these")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1], metavar="SEED", help="of the runs (0 1)")
    options.add_argument("--results", action="store_true", help="only make the table of the finished rows")
    options.add_argument("--write", type=Path, metavar="FILE", help="a document that gets the table, at its markers")
    given = options.parse_args()
    if min(given.shifts) < 0 or given.rotation < 0:
        raise UserError("shifts and the rotation must not be negative")
    if given.write:
        around_table(given.write)  # raises before training
    for seed in () if given.results else given.seeds:
        for shift in given.shifts:
            for way in given.ways:
                run_row(given.pairs, given.out, shift, way, seed, given.rotation)
    lines = table(given.out, given.shifts, given.ways, given.seeds)
    print("\n".join(lines))
    if given.write:
        write_table(given.write, lines)


if __name__ == "__main__":
    run_cli(main)
