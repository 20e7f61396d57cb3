"""What a transform for each patch is worth: mappers trained on pairs, which no user has, tested on other photographs.

python benchmarks/mapper_heads.py PHOTOS --out DIR [--rows ROW ...] [--steps N]

Trained on the exact truth, a mapper shows what its head can express and its encoder can see, without the errors of
training without pairs. DIR gets three simulated datasets with mixed light, trained mappers, and a file for each
finished row, which is not run again. Prints two tables in Markdown: PSNR and the error of the predicted transforms; and
PSNR where the encoder sees larger mosaics downsampled by M (the paper's Table 4).
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import common  # adds the repository's root to sys.path
import numpy as np
import torch
from raw_to_raw import fit_pairs, open_dataset
from torch import Tensor
from torch.nn import functional as F

import storage
from data.cuts import locked
from data.photographs import read_photo
from data.raw_maps import LinearMap, colors_of
from data.simulate import survey
from data.simulate_cameras import RECORD, SIDES, Settings, split, write_cameras
from data.spectra import load_transform
from data.two_cameras import CAMERAS, OTHER, Pair, TwoCameras
from errors import UserError, run_cli
from evaluation.raw_measures import psnr
from models import build_mapper
from models.encoders import PATCH
from models.mapper import Mapper
from models.transforms import apply, terms

SEED = 0  # of the datasets and of training
SIDE, LARGE = 256, 512  # of the mosaics in pixels; the larger ones are for M
CROP = 64  # side of what is trained on, in pixels of the planes: 16 patches
STEPS, BATCH = 2000, 4  # the same for all (--steps gives others); a batch has 4 crops of each camera
RATE = 3e-4  # of Adam, at first; it falls to 0 as a cosine
TIMES = (1, 2, 4, 8, 16)  # M

TRAINED = ("mapper", "mapper-pooled", "mapper-plain")
START = "3x3"  # fitted to the training pairs: what all mappers start from
# From the truth: one matrix for a scene, or one in the middle of each patch, interpolated as the mapper does.
ORACLES = ("3x3 of each test pair", "mean of exact T", "exact T of each patch", "exact T")
# R, Gr, Gb, B -> R, mean G, B, and back.
TO_COLORS = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]], dtype=torch.float64)
TO_PLANES = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
ROWS = ("identity", START, *TRAINED, *ORACLES)

Samples = Mapping[str, list[tuple[Tensor, Tensor]]]  # {camera to map to: [(source, truth), ...]}, planes (1, 4, h, w)


# --- datasets --------------------------------------------------------------------------------------------------------


def make_dataset(photos: Path, folder: Path, side: int, exchanged: bool) -> None:
    """Simulate two cameras with mosaics of `side` pixels, unless the folder holds them already.

    All datasets divide the photographs in the same way. Where `exchanged`, pairs are made of those that are unpaired
    otherwise, and the other way round. Raises `UserError` for unusable photographs.
    """
    if (folder / RECORD).is_file():
        return
    shapes, _ = survey(photos, max(SIDE, LARGE))
    cuts = split(shapes, side, side, (1.0,), SEED)
    if exchanged:
        kept = [cut for cut in cuts if cut[0] == "paired"]
        others = [(SIDES[number % 2], *cut[1:]) for number, cut in enumerate(kept)]
        cuts = [("paired", *cut[1:]) for cut in cuts if cut[0] != "paired"] + others
    with locked(folder, wait=False):
        write_cameras(folder, cuts, lambda name: read_photo(photos / name), Settings(SEED, side), {})


def samples_of(cameras: TwoCameras) -> Samples:
    """All pairs, in memory."""
    return {to: [cameras.pair(pair) for pair in _pairs_to(cameras, to)] for to in CAMERAS}


def _pairs_to(cameras: TwoCameras, to: str) -> list[Pair]:
    return [pair for pair in cameras.pairs if pair.camera == OTHER[to]]


def draw(samples: Samples, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(sources, truths) (2 x BATCH, 4, CROP, CROP), of the direction to b, then to a; turned and mirrored at random."""
    chosen = []
    for to in ("b", "a"):
        for index in rng.integers(len(samples[to]), size=BATCH):
            pair = torch.cat(samples[to][index])
            top, left = (int(rng.integers(length - CROP + 1)) for length in pair.shape[2:])
            pair = pair[:, :, top : top + CROP, left : left + CROP].rot90(int(rng.integers(4)), (2, 3))
            chosen.append(pair.flip(3) if rng.integers(2) else pair)
    sources, truths = torch.stack(chosen, 1)
    return sources, truths


# --- maps ------------------------------------------------------------------------------------------------------------


def train(
    name: str, samples: Samples, start: Mapping[str, LinearMap], steps: int, report: Callable[[str], None] = print
) -> Mapper:
    """Train a mapper with L1 on crops of pairs, from linear maps."""
    torch.manual_seed(SEED)
    rng, mapper = np.random.default_rng(SEED), build_mapper(name).to(memory_format=torch.channels_last)
    for to, fitted in start.items():
        mapper.start_from(to, fitted.of_planes())
    optimizer = torch.optim.Adam(mapper.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for step in range(1, steps + 1):
        sources, truths = draw(samples, rng)
        loss = F.l1_loss(mapper(sources, "ba"), truths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 0:
            report(f"{name}, step {step}: L1 {np.mean(losses[-100:]):.5f}")
    return mapper.eval()


def transforms_of(mapper: Mapper, planes: Tensor, to: str) -> Tensor:
    """The linear part (h, w, 3, 3), of R, mean G, B, of what a mapper predicts at the centres of its patches."""
    with torch.inference_mode():
        grid = mapper.parameters_of(planes, to)[0].unflatten(0, (4, -1))[:, -4:]  # the last four terms are the channels
        corrections = grid.permute(2, 3, 0, 1) + torch.eye(4)  # of the planes that `start_from` gives
        return TO_COLORS @ (corrections @ getattr(mapper, f"start_{to}")).double() @ TO_PLANES


def grid_of(transforms: Tensor) -> Tensor:
    """The mapper's parameters (1, 4 x 14, h, w), without squares and products, of transforms (h, w, 3, 3)."""
    matrices = TO_PLANES @ transforms @ TO_COLORS - torch.eye(4, dtype=torch.float64)
    grid = torch.zeros(4, len(terms(4)), *transforms.shape[:2])
    grid[:, -4:] = matrices.permute(2, 3, 0, 1)
    return grid.flatten(0, 1)[None]


def exact_transform(pair: Pair, to: str) -> Tensor:
    """T (H, W, 3, 3) of a pair, to camera b, or its inverse, to camera a."""
    found = torch.from_numpy(load_transform(pair.source.parents[1] / "transforms" / f"{pair.source.stem}.npz"))
    return found if to == "b" else found.inverse()


def at_centres(transform: Tensor, height: int, width: int) -> Tensor:
    """T (H, W, 3, 3) in the middle of each of the patches (height, width, 3, 3), or its mean, if there is only one.

    The middle lies between four pixels.
    """
    if (height, width) == (1, 1):
        return transform.mean((0, 1), keepdim=True)
    rows, columns = (PATCH * torch.arange(count) + PATCH // 2 for count in (height, width))
    near = [transform[rows - i][:, columns - j] for i in (0, 1) for j in (0, 1)]
    return torch.stack(near).mean(0)


def transform_error(predicted: Tensor, exact: Tensor) -> float:
    """The mean over patches (h, w, 3, 3) of ||T - T*|| / ||T*||, Frobenius norms."""
    difference = (predicted.double() - exact).flatten(-2).norm(dim=-1)
    return (difference / exact.flatten(-2).norm(dim=-1)).mean().item()


def apply_transform(planes: Tensor, transform: Tensor) -> Tensor:
    """Planes (1, 4, H, W) -> T (H, W, 3, 3) times R, mean G, B of each pixel; both greens are equal then."""
    matrices = TO_PLANES @ transform @ TO_COLORS
    return torch.einsum("hwij,njhw->nihw", matrices, planes.double()).to(planes)


def best_matrix(source: Tensor, truth: Tensor) -> LinearMap:
    """The 3x3 matrix of R, mean G, B with the least squared error for one pair."""
    found = torch.linalg.lstsq(colors_of(source)[0], colors_of(truth)[0]).solution.T
    return LinearMap(tuple(map(tuple, found.tolist())))


# --- rows ------------------------------------------------------------------------------------------------------------


class Runner:
    """The datasets in memory, and the rows."""

    def __init__(self, photos: Path, out: Path, steps: int):
        self.out, self.steps, self.cameras = out, steps, {}
        for name, side, exchanged in (("train", SIDE, True), ("test", SIDE, False), ("large", LARGE, False)):
            make_dataset(photos, out / f"heads_{name}", side, exchanged)
            self.cameras[name] = open_dataset(out / f"heads_{name}")[0]
        self.start = fit_pairs(self.cameras["train"], quadratic=False)
        self.training: Samples = {}

    def mapper(self, name: str) -> Mapper:
        """The trained mapper; it is trained once and kept in a file."""
        file = self.out / "heads" / f"{name}-{self.steps}.pt"
        if file.is_file():
            mapper = build_mapper(name)
            mapper.load_state_dict(storage.load(file))
            return mapper.eval()
        self.training = self.training or samples_of(self.cameras["train"])
        mapper = train(name, self.training, self.start, self.steps)
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.save(file, mapper.state_dict())
        return mapper

    def measure(self, row: str) -> dict[str, list[float]]:
        """{"PSNR": [to b, to a], "T": ..., and for mappers "M 1": ...}: means over the test pairs."""
        mapper = self.mapper(row) if row in TRAINED else None
        found = {"PSNR": [], "T": []}
        for to in ("b", "a"):
            scores = [self._one(row, mapper, pair, to) for pair in _pairs_to(self.cameras["test"], to)]
            for name, values in zip(found, zip(*scores, strict=True), strict=True):
                found[name].append(float(np.mean(values)))
        return found | (self._downsampled(mapper) if mapper else {})

    def _one(self, row: str, mapper: Mapper | None, pair: Pair, to: str) -> tuple[float, float]:
        """(PSNR, error of T) of a pair."""
        source, truth = self.cameras["test"].pair(pair)
        exact = exact_transform(pair, to)
        centres = at_centres(exact, *(-(-side // PATCH) for side in source.shape[2:]))
        if mapper:
            predicted, mapped = transforms_of(mapper, source, to), mapper.map_planes(source, to)
        elif row == "exact T":
            predicted, mapped = centres, apply_transform(source, exact)
        elif "exact T" in row:
            predicted = centres if "patch" in row else exact.mean((0, 1), keepdim=True)
            mapped = apply(source, grid_of(predicted), PATCH)
        else:
            matrices = {"identity": LinearMap(), START: self.start[to]}
            fitted = matrices[row] if row in matrices else best_matrix(source, truth)
            predicted, mapped = torch.tensor(fitted.matrix)[None, None], fitted(source)
        return float(psnr(mapped, truth)), transform_error(predicted, centres)

    def _downsampled(self, mapper: Mapper) -> dict[str, list[float]]:
        """PSNR of the larger pairs for each M, both directions."""
        found = {f"M {times}": [] for times in TIMES}
        for to in ("b", "a"):
            scores = {name: [] for name in found}
            for pair in _pairs_to(self.cameras["large"], to):
                source, truth = self.cameras["large"].pair(pair)
                for times, values in zip(TIMES, scores.values(), strict=True):
                    values.append(float(psnr(mapper.map_planes(source, to, times), truth)))
            for name, values in scores.items():
                found[name].append(float(np.mean(values)))
        return found


def settings(steps: int) -> dict[str, float]:
    """What decides a row's figures, beside the photographs."""
    return {"seed": SEED, "side": SIDE, "large": LARGE, "crop": CROP, "steps": steps, "batch": BATCH, "rate": RATE}


def finished(file: Path, steps: int) -> dict | None:
    """The figures of a row, if its file is there. Raises `UserError` if it is of other settings, or damaged."""
    if not file.is_file():
        return None
    try:
        found = dict(json.loads(file.read_text()))
    except (TypeError, ValueError):
        raise UserError(f"{file} is no row of this benchmark: remove it") from None
    if found.pop("settings", None) != settings(steps):
        raise UserError(f"{file} is of other settings: remove it with the mapper beside it, or give another --out")
    return found


def lines(rows: Mapping[str, dict[str, list[float]]], columns: Iterable[str]) -> list[str]:
    """A table in Markdown: both directions of each column."""
    columns = list(columns)
    table = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row, found in rows.items():
        cells = [", ".join(f"{value:.{3 if name == 'T' else 2}f}" for value in found[name]) for name in columns]
        table.append(f"| {row} | {' | '.join(cells)} |")
    return table


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photos", type=Path, help="a folder of photographs")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of datasets and scores")
    options.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help="only these (all)")
    options.add_argument("--steps", type=common.positive, default=STEPS, help="of training (%(default)s)")
    given, runner, found = options.parse_args(), None, {}
    for row in given.rows:
        file = given.out / "heads" / f"{row.replace(' ', '-')}.json"
        found[row] = finished(file, given.steps)
        if found[row] is None:
            runner = runner or Runner(given.photos, given.out, given.steps)
            found[row] = runner.measure(row)
            storage.write_json(file, {"settings": settings(given.steps)} | found[row])
            print(f"{row}: {found[row]}", flush=True)
    print("\n".join(("", *lines(found, ("PSNR", "T")))))
    print("\n".join(("", *lines({row: found[row] for row in found if "M 1" in found[row]}, [f"M {m}" for m in TIMES]))))


if __name__ == "__main__":
    run_cli(main)
