"""Render test images with several models, write and score them, and choose what the report shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

import storage
from data.files import Reader, read_photo
from data.folders import Split
from data.loader import whole_files
from data.reference import Reference
from errors import UserError
from evaluation.evaluators import PairedEvaluator
from evaluation.metrics import MEASURES, to_8_bit
from evaluation.report import Scene
from evaluation.tables import Table

SHOWN = 4  # number of worst and of best images in the report


@dataclass(frozen=True)
class Candidate:
    """A model under test."""

    label: str  # its row in tables
    folder: Path | None  # where its images are written; None: nowhere
    render: Callable[[Tensor], Tensor]  # mosaics (N, 1, H, W) -> (N, 3, H, W), in [0, 1] or 8 bits
    facts: dict[str, str]  # lines for the header of its table


@dataclass(frozen=True)
class RenderSet:
    """The mosaics to render, with their ground truth if there is one."""

    split: Split
    reader: Reader
    reference: Reference
    name: str  # for tables

    @property
    def has_targets(self) -> bool:
        return bool(self.split.paired and self.split.photos)


@dataclass(frozen=True)
class ImageFormat:
    """How images are written."""

    suffix: str  # "png" or "jpg"
    quality: int  # of JPEG files, 1 to 100

    def write(self, path: Path, image: np.ndarray) -> np.ndarray:
        """Write (H, W, 3) uint8, and return the pixels that a reader of the file gets."""
        options = {"quality": self.quality, "subsampling": 0} if self.suffix == "jpg" else {"compress_level": 3}
        with storage.writing(path) as temporary:
            iio.imwrite(temporary, image, plugin="pillow", **options)
        return iio.imread(path, plugin="pillow") if self.suffix == "jpg" else image


@torch.inference_mode()
def run_test(
    candidates: Sequence[Candidate],
    render_set: RenderSet,
    evaluator: PairedEvaluator,
    image_format: ImageFormat,
    device: torch.device,
    progress: Callable[[int], None],
) -> list[tuple[dict, dict]]:
    """Render all mosaics with every candidate and write the images.

    Returns (scores of each file, means) of each candidate, for the images as written; empty without ground truth.
    """
    names, values = [], [[] for _ in candidates]
    pixels = 1 << (23 if device.type == "cuda" else 18)
    for batch_names, mosaic, target in whole_files(render_set.split, render_set.reader, pixels):
        mosaic, target = mosaic.to(device), None if target is None else target.to(device)
        for model, scores in zip(candidates, values, strict=True):
            images = to_8_bit(model.render(mosaic))
            if model.folder:
                arrays = images.permute(0, 2, 3, 1).cpu().numpy()
                paths = [model.folder / f"{Path(name).stem}.{image_format.suffix}" for name in batch_names]
                written = [image_format.write(path, array) for path, array in zip(paths, arrays, strict=True)]
                images = torch.from_numpy(np.stack(written)).permute(0, 3, 1, 2).to(device)
            if target is not None:
                scores.append(evaluator.evaluate(images, target))
        names += batch_names
        progress(len(names))
    joined = [{c: torch.cat([batch[c] for batch in v]).cpu() for c in evaluator.functions if v} for v in values]
    return [evaluator.summarize(names, columns) if columns else ({}, {}) for columns in joined]


def shorter_side(photo: Path) -> int:
    """The shorter side of a photograph in pixels, without decoding it. Raises `UserError` for other files."""
    try:
        return min(iio.improps(photo, plugin="pillow", index=0).shape[:2])
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {photo}: {error}") from None


def write_tables(
    candidates: Sequence[Candidate], results: Sequence[tuple[dict, dict]], header: dict[str, str], folder: Path
) -> list[dict]:
    """Write metrics.csv for each model, and compare.csv for several. Returns a row of means for each model."""
    means = []
    for model, (rows, mean) in zip(candidates, results, strict=True):
        if mean and model.folder:
            Table(model.facts | header, tuple(mean), rows, mean).write(model.folder / "metrics.csv")
        if mean:
            means.append({"model": model.label, "images": len(rows), **mean})
    if len(candidates) > 1 and means:
        rows = {row["model"]: {key: row[key] for key in tuple(row)[2:]} for row in means}
        Table(header, tuple(means[0])[2:], rows, None, "model").write(folder / "compare.csv")
    return means


def choose_scenes(
    model: Candidate, render_set: RenderSet, rows: dict[str, dict[str, float]], image_format: ImageFormat
) -> tuple[list[Scene], list[str]]:
    """The images for the report, with captions: the worst and best by the first measure, or the first ones unscored."""
    split, measure = render_set.split, next(iter(next(iter(rows.values()), {})), "")
    order, captions = list(range(len(split.raws)))[: 2 * SHOWN], []
    if measure:
        sign = 1 if MEASURES[measure].higher_is_better else -1
        ranked = sorted(range(len(split.raws)), key=lambda i: sign * rows[split.raws[i].name][measure])
        worst = ranked[: min(SHOWN, len(ranked) // 2)]
        best = ranked[: len(worst) - 1 if worst else None : -1][:SHOWN]
        order = worst + best
        numbered = [("worst", i) for i in range(len(worst))] + [("best", i) for i in range(len(best))]
        captions = [f"{kind} {i + 1} of {len(ranked)}" for kind, i in numbered]
    scenes = []
    for i in order:
        path = split.raws[i]
        mosaic = render_set.reader.mosaic_tensor(render_set.reader.mosaic(path))[None]
        reference = to_8_bit(render_set.reference(mosaic))[0].permute(1, 2, 0).numpy()
        output = iio.imread(model.folder / f"{path.stem}.{image_format.suffix}", plugin="pillow")
        target = read_photo(split.photos[i]) if render_set.has_targets else None
        scenes.append(Scene(path.name, reference, output, target, rows.get(path.name, {})))
    return scenes, captions or [""] * len(order)
