"""Compare maps from one camera's mosaics to another's, on two simulated cameras whose exact truth is known.

python benchmarks/raw_to_raw.py PHOTOS --out DIR [--lights mixed single] [--seeds 0 1 2] [--rows ROW ...]

For each light and seed it simulates a dataset from a folder of photographs (other sides, lights and noise), fits or
trains the maps on the unpaired mosaics, and scores them on the pairs, which are of other photographs. DIR gets the
datasets, the runs, and a file for each finished row, which is not run again: to continue, give the same command.
With --results it prints the tables of all rows that are finished, as Markdown.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import common  # noqa: F401 - adds the repository's root to sys.path
import numpy as np
import torch
from torch import Tensor

import fit
import storage
from config import PRESETS
from data.camera import Profile
from data.raw_maps import CHOICES, LinearMap, colors_of, thumbnail
from data.simulate import simulate
from data.simulate_cameras import RECORD
from data.two_cameras import CAMERAS, OTHER, TwoCameras
from errors import UserError, run_cli
from evaluation.raw_measures import RAW_MEASURES
from models.transforms import apply, terms
from tasks.camera_maps import fit_maps
from tasks.cameras import find_profiles, open_two_cameras, with_cameras
from tasks.mapping import open_mapper
from tasks.raw_scoring import PROTOCOL, Map, columns_of, score_maps

CPU = torch.device("cpu")
PATCH = 256  # side of the mosaics in pixels
MEASURES = ("psnr", "ssim", "mae", "kl")
BASELINE = "transport"  # the row to beat

# All mappers are trained with these settings, which were fixed before a trained one was scored: what one core can pay
# (a step takes about a second). The paper's are 85,750 steps at a rate of 1e-5, on patches with 16 times the pixels.
TRAINING = (
    "raw2raw --data.layout cameras --data.patch 128 --data.workers 0 "
    "--log.samples 1 --log.val-every 200 --log.save-every 200 --log.state-every 100 "
    "--mapping.steps 200 --mapping.lr 1e-4 --mapping.critic-lr 2e-4 --mapping.ema 0.99"
)
# With a start other than the identity, the weight of the identity loss is 0: it asks the map to b to leave b's mosaics
# as they are, and the start changes them. Critics without normalisation see an image's mean colour.
STARTED = "--mapping.identity 0 --mapping.critic-norm none --mapping.start"

# Row -> options of fit.py. The training of each ends at its last step; no pair decides anything.
TRAINED = {
    "cyclegan-identity": "",  # the paper's losses and critics
    "cyclegan, its own generators": "--model cyclegan",
    "cyclegan-identity, critics without norm": "--mapping.critic-norm none",
    "mapper-transport": f"{STARTED} transport",
    "mapper-statistics": f"{STARTED} statistics",
    "mapper-profiles": f"{STARTED} profiles",
    "mapper-statistics, pooled head": f"{STARTED} statistics --model mapper-pooled",
    "mapper-statistics, critics with norm": "--mapping.identity 0 --mapping.start statistics",
}
PAIRED = {"paired 3x3": False, "paired quadratic": True}  # fitted to the test pairs themselves: oracles
ROWS = (*CHOICES, *TRAINED, *PAIRED)


# --- datasets --------------------------------------------------------------------------------------------------------


def make_dataset(photos: str, folder: Path, lights: str, seed: int) -> None:
    """Simulate the two cameras, unless the folder holds the dataset already. Raises `UserError` as `simulate`."""
    if not (folder / RECORD).is_file():
        simulate(photos, folder, seed=seed, patch=PATCH, cameras="two", lights=lights)


def open_dataset(folder: Path) -> tuple[TwoCameras, dict[str, Profile | None]]:
    """The files of both cameras, and the cameras' profiles."""
    preset = PRESETS["raw2raw"]
    config = replace(preset, data=replace(preset.data, layout="cameras", root=str(folder)))
    config = with_cameras(config, ())
    return open_two_cameras(config), find_profiles(config)


# --- maps ------------------------------------------------------------------------------------------------------------


PlanesMap = Callable[[Tensor], Tensor]


def build_map(row: str, cameras: TwoCameras, profiles: Mapping[str, Profile | None]) -> Map:
    """A map that is not trained: of data/raw_maps.py, fitted to the unpaired mosaics, or fitted to the pairs."""
    fitted = fit_pairs(cameras, PAIRED[row]) if row in PAIRED else fit_maps(row, cameras, profiles)
    return lambda planes, to: fitted[to](planes)


def thumbnails_of_pairs(cameras: TwoCameras, to: str) -> tuple[Tensor, Tensor]:
    """Thumbnails (N, 4, s, s) of the pairs' mosaics that are mapped to camera `to`, and of what they should become."""
    planes = [cameras.pair(pair) for pair in cameras.pairs if pair.camera == OTHER[to]]
    sources, truths = (torch.cat([thumbnail(each) for each in side]) for side in zip(*planes, strict=True))
    return sources, truths


def fit_pairs(cameras: TwoCameras, quadratic: bool) -> dict[str, PlanesMap]:
    """{camera to map to: planes -> planes}: least squares on the pairs' thumbnails.

    A matrix of R, mean G, B or, `quadratic`, the polynomial of 14 terms that the mapper predicts for each patch.
    """
    return {to: (_quadratic if quadratic else _matrix)(*thumbnails_of_pairs(cameras, to)) for to in CAMERAS}


def _matrix(sources: Tensor, truths: Tensor) -> LinearMap:
    colors = [colors_of(side).flatten(0, 1) for side in (sources, truths)]
    return LinearMap(tuple(map(tuple, torch.linalg.lstsq(*colors).solution.T.tolist())))


def _quadratic(sources: Tensor, truths: Tensor) -> PlanesMap:
    source, truth = (side.double().transpose(0, 1).flatten(1) for side in (sources, truths))  # (4, pixels)
    values = torch.stack([source[list(term)].prod(0) for term in terms(4)], 1)
    # The two greens are nearly equal: of all solutions that are as good, gelsd finds the smallest.
    found = torch.linalg.lstsq(values, (truth - source).T, rcond=1e-6, driver="gelsd").solution  # (terms, 4)
    grid = found.T.reshape(1, -1, 1, 1).float()
    return lambda planes: apply(planes, grid, patch=2)


def train_mapper(row: str, folder: Path, seed: int, runs: Path, name: str) -> Map:
    """Train the mappers of a row, or continue, and open the last checkpoint."""
    place = ("--data.root", str(folder), "--runs", str(runs), "--run", name, "--seed", str(seed))
    config, resume = fit.parse([*options_of(row).split(), *place, "--resume"])
    checkpoints = fit.train(config, resume) / "checkpoints"
    return open_mapper(str(checkpoints / f"step_{config.mapping.steps:07d}.pt"), CPU).map


def options_of(row: str) -> str:
    """The options of fit.py of a row that is trained; "" of others."""
    return f"{TRAINING} {TRAINED[row]}".strip() if row in TRAINED else ""


# --- rows ------------------------------------------------------------------------------------------------------------


def run_row(row: str, lights: str, seed: int, out: Path) -> None:
    """Fit or train the map of a row, score it on all pairs, and write its file, unless there is one.

    Raises `UserError` if the file is of other settings.
    """
    file = file_of(out, lights, seed, row)
    if file.is_file():
        if (known := read_row(file)["options"]) != options_of(row):
            raise UserError(f"{file} is of other settings ({known}): remove it, or give another --out")
        return
    folder, name = out / f"cams_{lights}_{seed}", f"{file.stem}_{lights}_{seed}"
    cameras, profiles = open_dataset(folder)
    trained = row in TRAINED
    maps = {row: train_mapper(row, folder, seed, out / "runs", name) if trained else build_map(row, cameras, profiles)}
    means = score_maps(maps, cameras, columns_of(cameras, MEASURES, PROTOCOL), CPU)[row][1]
    storage.write_json(file, {"row": row, "options": options_of(row), "pairs": len(cameras.pairs), "means": means})
    print(f"{lights}, seed {seed}, {row}: {means['psnr_ab']:.2f} and {means['psnr_ba']:.2f} dB", flush=True)


def file_of(out: Path, lights: str, seed: int, row: str) -> Path:
    """Where a row's scores are kept."""
    return out / "scores" / f"{lights}_{seed}" / f"{row.replace(',', '').replace(' ', '-')}.json"


def read_row(file: Path) -> dict:
    """What `run_row` has written. Raises `UserError` for anything else."""
    try:
        found = json.loads(file.read_text())
        return found | {"means": {name: float(value) for name, value in found["means"].items()}}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{file} holds no scores of this benchmark: remove it") from None


# --- tables ----------------------------------------------------------------------------------------------------------


def table(out: Path, lights: str, seeds: list[int], rows: list[str]) -> list[str]:
    """The finished rows of one kind of light, in Markdown: means and, of PSNR, standard deviations over the seeds.

    "over transport" is the mean of both directions' PSNR minus that of the transport in the same dataset: the mean of
    these differences, and the smallest.
    """
    labels = [RAW_MEASURES[name].label for name in MEASURES[1:]]
    head = ("map", "seeds", "PSNR a→b", "PSNR b→a", f"over {BASELINE}", *labels)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        files = {seed: file_of(out, lights, seed, row) for seed in seeds}
        found = {seed: read_row(file)["means"] for seed, file in files.items() if file.is_file()}
        if not found:
            continue
        cells = [row, ", ".join(map(str, found))]
        for column in ("psnr_ab", "psnr_ba"):
            values = [means[column] for means in found.values()]
            cells.append(f"{np.mean(values):.2f} ± {np.std(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}")
        cells.append(_over_baseline(found, out, lights))
        for name in MEASURES[1:]:
            both = [np.mean([means[f"{name}_{end}"] for means in found.values()]) for end in ("ab", "ba")]
            cells.append(", ".join(f"{value:.{RAW_MEASURES[name].digits}f}" for value in both))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _over_baseline(found: dict[int, dict[str, float]], out: Path, lights: str) -> str:
    """Mean and smallest difference of PSNR (dB) from the transport, over the seeds where that is known."""
    files = {seed: file_of(out, lights, seed, BASELINE) for seed in found}
    over = [found[seed]["psnr"] - read_row(file)["means"]["psnr"] for seed, file in files.items() if file.is_file()]
    return f"{np.mean(over):+.2f} ({min(over):+.2f})" if over else ""


# --- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photos", help="a folder of photographs, or the word demo, as for data.simulate")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of datasets and scores")
    kinds = ("mixed", "single")
    options.add_argument("--lights", nargs="+", choices=kinds, default=kinds, help="in a scene (both kinds)")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="(0 1 2)")
    options.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help="only these maps")
    options.add_argument("--results", action="store_true", help="only print the tables of the finished rows")
    given = options.parse_args()
    for row in () if given.results else given.rows:
        for lights in given.lights:
            for seed in given.seeds:
                make_dataset(given.photos, given.out / f"cams_{lights}_{seed}", lights, seed)
                run_row(row, lights, seed, given.out)
    measured = ", ".join(f"{RAW_MEASURES[name].label}" for name in MEASURES[1:])
    print(f"\nPSNR and what it is over {BASELINE} (mean, smallest) in dB; {measured}: a→b, b→a")
    for lights in given.lights:
        print("\n".join(("", f"{lights} light", "", *table(given.out, lights, given.seeds, given.rows))))


if __name__ == "__main__":
    run_cli(main)
