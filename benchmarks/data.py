"""What the loader delivers against what the step consumes; and Menon on the device against colour-demosaicing.

python benchmarks/data.py [--device cpu] [--workers 0 1 2 4] [--consumes IMAGES_A_SECOND] [--json FILE]

The loader reads pairs of `--side` pixels, 16-bit mosaics and 8-bit photographs as PNG, made for the occasion from
scikit-image's photographs: from their files, from memory, and from a memory-mapped file. `--consumes` is what
benchmarks/train_step.py printed (1 / seconds an image): with it, each row says whether the loader keeps ahead.
"""

import tempfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from common import alternate, machine, parser, ratios, report, seconds, spread  # noqa: I001 - finds ours

from build import choose_device
from data.demosaic import Reference, menon2007
from data.files import Files, Reader, keep
from data.folders import Split
from data.loader import Patches, training_batches
from data.sensor import Sensor
from errors import run_cli


def make_pairs(folder: Path, count: int, side: int) -> Split:
    """Crops of photographs, and mosaics of them with noise (which compresses as badly as a sensor's)."""
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


def delivered(split: Split, files: Files, asked, workers: int, device: torch.device) -> list[float]:
    """Samples a second, of several stretches of batches, without the start of the workers."""
    patches = Patches(split, files, asked.patch, seed=0, flips=False)
    batches = training_batches(patches, asked.batch, 0, workers, device)
    stretch, rates = max(1, asked.samples // asked.batch), []
    list(islice(batches, 2 * max(1, workers)))
    for _ in range(asked.repeats):
        rates.append(stretch * asked.batch / seconds(lambda: list(islice(batches, stretch)), device))
    return rates


def demosaicing(asked, device: torch.device) -> tuple[dict, list[tuple]]:
    """Images a second of both, on integers, where their results are the same."""
    from colour_demosaicing import demosaicing_CFA_Bayer_Menon2007 as theirs

    images = np.random.default_rng(0).integers(60, 1024, (asked.batch, asked.patch, asked.patch))
    mosaic = torch.from_numpy(images.astype(np.float32))[:, None].to(device)
    some = images[:4].astype(np.float64)
    worst = max(
        np.abs(theirs(image, "RGGB").transpose(2, 0, 1) - ours).max()
        for image, ours in zip(some, menon2007(mosaic[:4]).double().cpu().numpy(), strict=True)
    )
    assert worst < 1e-3, f"the two differ by {worst} of 1023"
    ways = {
        "colour-demosaicing": lambda: [theirs(image, "RGGB") for image in some],
        f"menon2007 on {device}": lambda: menon2007(mosaic),
    }
    times = alternate(ways, asked.repeats, device)
    slow, fast = ([t / count for t in times[way]] for way, count in zip(ways, (len(some), asked.batch), strict=True))
    figures = {
        "batch": asked.batch,
        "milliseconds_an_image": {w: spread([1e3 * t for t in v]) for w, v in zip(ways, (slow, fast), strict=True)},
        "times_as_fast": ratios(slow, fast),
        "largest_difference_of_1023": float(worst),
    }
    rows = [(way, *values.values()) for way, values in figures["milliseconds_an_image"].items()]
    return figures, rows


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--device", default="auto")
    options.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2, 4])
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--patch", type=int, default=256)
    options.add_argument("--side", type=int, default=256, help="of the files (%(default)s: Fujifilm's; ZRR's are 448)")
    options.add_argument("--files", type=int, default=128, help="pairs (%(default)s)")
    options.add_argument("--samples", type=int, default=256, help="in each measurement (%(default)s)")
    options.add_argument("--consumes", type=float, default=0.0, help="images a second that the step takes")
    asked = options.parse_args()
    device, sensor = choose_device(asked.device), Sensor()
    menon, menon_rows = demosaicing(asked, device)
    loader, rows = {}, []
    with tempfile.TemporaryDirectory() as name:
        split = make_pairs(Path(name), asked.files, asked.side)
        for place in ("off", "memory", "disk"):
            files = keep(split, Files(Reader(sensor), Reference(sensor)), place, Path(name) / "cache", asked.samples)
            for workers in asked.workers:
                rate = spread(delivered(split, files, asked, workers, device), 1)
                loader[f"{place}, {workers} workers"] = rate
                ahead = f"{rate['median'] / asked.consumes:.1f} x" if asked.consumes else "-"
                where = {"off": "files", "memory": "memory", "disk": "memory-mapped file"}[place]
                rows.append((where, f"{workers} workers", *rate.values(), ahead))
    figures = {
        "benchmark": "data",
        "machine": machine(device),
        "repeats": asked.repeats,
        "files": f"{asked.files} pairs of {asked.side}x{asked.side}, PNG",
        "batch": asked.batch,
        "patch": asked.patch,
        "samples_a_second": loader,
        "step_consumes": asked.consumes,
        "menon2007": menon,
        "ratio_menon2007": menon["times_as_fast"]["median"],
    }
    report("Demosaicing, ms an image", figures, [("", "median", "lowest", "highest"), *menon_rows], None)
    print(f"  {menon['times_as_fast']['median']:.1f} times as fast\n")
    heads = ("", "", "samples a second", "lowest", "highest", "of what the step takes")
    report(f"Loader, {figures['files']}, {asked.batch} x {asked.patch}", figures, [heads, *rows], asked.json)


if __name__ == "__main__":
    run_cli(main)
