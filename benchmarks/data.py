"""Times the training data loader, and Menon's demosaicing on the device against the package colour-demosaicing.

python benchmarks/data.py [--device cpu] [--workers 0 1 2 4] [--consumes IMAGES_A_SECOND] [--json FILE]

The loader reads pairs of `--side` pixels, 16-bit mosaics and 8-bit photographs as PNG, which are made from
scikit-image's photographs: from the files, from memory, and from a memory-mapped file. To see whether the loader is
faster than the training step, pass the step's rate as `--consumes`: 1 / (seconds an image of benchmarks/train_step.py).
"""

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from common import alternate, machine, parser, positive, ratios, report, seconds, spread

from data.cache import Files, cached_files
from data.files import Reader
from data.folders import Split
from data.loader import training_batches
from data.menon import menon2007
from data.patches import OfWhole, Patches
from data.reference import Reference
from data.sensor import SENSORS
from errors import run_cli
from tasks.device import choose_device

SOURCES = {"off": "files", "memory": "memory", "disk": "memory-mapped file"}  # data.cache -> what the loader reads


def make_pairs(folder: Path, count: int, side: int) -> Split:
    """Write crops of photographs, and their mosaics with noise (which compresses as badly as a sensor's)."""
    from skimage import data as photographs

    rng, images = np.random.default_rng(0), [photographs.astronaut(), photographs.coffee(), photographs.chelsea()]
    raws, photos = [], []
    for index in range(count):
        image = images[index % len(images)]
        image = np.tile(image, (-(-side // image.shape[0]) + 1, -(-side // image.shape[1]) + 1, 1))
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
        crop = image[top : top + side, left : left + side]
        mosaic = crop[..., 1].copy()
        mosaic[0::2, 0::2], mosaic[1::2, 1::2] = crop[0::2, 0::2, 0], crop[1::2, 1::2, 2]
        noisy = 64 + 3.5 * mosaic + rng.normal(0, 6, mosaic.shape)
        raws.append(folder / f"{index}_raw.png")
        photos.append(folder / f"{index}.png")
        cv2.imwrite(str(raws[-1]), noisy.clip(0, 1023).astype(np.uint16))
        cv2.imwrite(str(photos[-1]), crop[..., ::-1])
    return Split(tuple(raws), tuple(photos), paired=False)


def loader_rates(patches: Patches, given: argparse.Namespace, workers: int, device: torch.device) -> list[float]:
    """Samples a second of `--repeats` measurements, once the workers have started."""
    batches = training_batches(patches, given.batch, 0, workers, device)
    count, rates = max(1, given.samples // given.batch), []
    list(islice(batches, 2 * max(1, workers)))
    for _ in range(given.repeats):
        rates.append(count * given.batch / seconds(lambda: list(islice(batches, count)), device))
    return rates


def time_loader(given: argparse.Namespace, device: torch.device) -> tuple[dict[str, dict], list[tuple]]:
    """({"CACHE, N workers": samples a second}, rows of the table)."""
    sensor, figures, rows = SENSORS["fujifilm"], {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = make_pairs(folder, given.files, given.side)
        files, spans = Files(Reader(sensor)), OfWhole(Reference(sensor).span, sensor)
        for path in split.raws:  # a run computes each range only once, so this is not part of its rate
            spans(path, files.mosaic(path))
        for cache, source in SOURCES.items():
            decoded = cached_files(split, files, cache, folder / "cache", given.samples)
            patches = Patches(split, decoded, given.patch, seed=0, spans=spans)
            for workers in given.workers:
                rate = spread(loader_rates(patches, given, workers, device), 1)
                figures[f"{cache}, {workers} workers"] = rate
                times = f"{rate['median'] / given.consumes:.1f} x" if given.consumes else "-"
                rows.append((source, f"{workers} workers", *rate.values(), times))
    return figures, rows


def time_demosaicing(given: argparse.Namespace, device: torch.device) -> tuple[dict, list[tuple]]:
    """(figures, rows of the table) of both implementations, after a check that their results are the same.

    They demosaic integers, on which `menon2007` is exact.
    """
    from colour_demosaicing import demosaicing_CFA_Bayer_Menon2007 as package

    images = np.random.default_rng(0).integers(60, 1024, (given.batch, given.patch, given.patch))
    mosaic = torch.from_numpy(images.astype(np.float32))[:, None].to(device)
    few = images[:4].astype(np.float64)
    worst = max(
        np.abs(package(image, "RGGB").transpose(2, 0, 1) - result).max()
        for image, result in zip(few, menon2007(mosaic[:4]).double().cpu().numpy(), strict=True)
    )
    assert worst < 1e-3, f"the two implementations differ by {worst} of 1023"
    alternatives = {
        "colour-demosaicing": lambda: [package(image, "RGGB") for image in few],
        f"menon2007 on {device}": lambda: menon2007(mosaic),
    }
    times = alternate(alternatives, given.repeats, device)
    counts = len(few), given.batch
    slow, fast = ([t / count for t in values] for values, count in zip(times.values(), counts, strict=True))
    milliseconds = {name: spread([1e3 * t for t in values]) for name, values in zip(times, (slow, fast), strict=True)}
    figures = {
        "batch": given.batch,
        "milliseconds_an_image": milliseconds,
        "times_as_fast": ratios(slow, fast),
        "largest_difference_of_1023": float(worst),
    }
    return figures, [(name, *values.values()) for name, values in milliseconds.items()]


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--device", default="auto", help="as for fit.py (%(default)s)")
    options.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2, 4], help="numbers of reading processes")
    options.add_argument("--batch", type=positive, default=32, help="patches in a batch (%(default)s)")
    options.add_argument("--patch", type=positive, default=256, help="side of a patch in pixels (%(default)s)")
    options.add_argument(
        "--side", type=positive, default=256, help="side of the files (%(default)s: Fujifilm; 448: ZRR)"
    )
    options.add_argument("--files", type=positive, default=128, help="number of pairs (%(default)s)")
    options.add_argument("--samples", type=positive, default=256, help="patches in each measurement (%(default)s)")
    options.add_argument("--consumes", type=float, default=0.0, help="images a second that a training step takes")
    given = options.parse_args()
    if min(given.workers) < 0:
        options.error("--workers must not be negative")
    device = choose_device(given.device)
    menon, menon_rows = time_demosaicing(given, device)
    loader, loader_rows = time_loader(given, device)
    figures = {
        "benchmark": "data",
        "machine": machine(device),
        "repeats": given.repeats,
        "files": f"{given.files} pairs of {given.side}x{given.side}, PNG",
        "batch": given.batch,
        "patch": given.patch,
        "samples_a_second": loader,
        "step_consumes": given.consumes,
        "menon2007": menon,
        "ratio_menon2007": menon["times_as_fast"]["median"],
    }
    report("Demosaicing", figures, [("", "ms an image", "lowest", "highest"), *menon_rows], None)
    print(f"  menon2007 is {menon['times_as_fast']['median']:.1f} times as fast\n")
    title = f"Loader, {figures['files']}, batches of {given.batch} x {given.patch}x{given.patch}"
    heading = ("read from", "", "samples a second", "lowest", "highest", "times the step's rate")
    report(title, figures, [heading, *loader_rows], given.json)


if __name__ == "__main__":
    run_cli(main)
