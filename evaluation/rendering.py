"""Render test images with several models, write and score them, and choose what the report shows."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

import storage
from data.camera_files import orientation_of
from data.files import Reader
from data.folders import Split
from data.loader import whole_files
from data.notes import note
from data.photographs import read_photo, upright
from data.reference import Reference
from errors import UserError
from evaluation.evaluators import PairedEvaluator
from evaluation.metrics import MEASURES, to_8_bit
from evaluation.report import Scene
from evaluation.tables import Table

SHOWN = 4  # number of worst and of best images in the report
DEMOSAICED = "demosaiced"  # the row of the demosaiced reference in tables
WRITTEN = ".test_model.json"  # in a folder of results: the names of the files there that test_model.py writes


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
        """Write (H, W, 3) uint8, and return the pixels that a reader of the file gets. Raises `UserError`."""
        options = {"quality": self.quality, "subsampling": 0} if self.suffix == "jpg" else {"compress_level": 3}
        # In memory first: on a full disk, Pillow's errors do not say that it is full.
        try:
            encoded = iio.imwrite("<bytes>", image, plugin="pillow", extension=f".{self.suffix}", **options)
        except (OSError, ValueError) as error:  # such as a JPEG of more than 65,535 pixels a side
            reason = storage.first_line(error)
            raise UserError(f"{path.name} of {image.shape[0]}x{image.shape[1]} cannot be written: {reason}") from None
        try:
            with storage.writing(path) as temporary:
                temporary.write_bytes(encoded)
        except OSError as error:
            raise UserError(f"cannot write images to {path.parent}: {error.strerror}") from None
        return iio.imread(encoded, plugin="pillow") if self.suffix == "jpg" else image

    def name_of(self, mosaic: Path | str) -> str:
        """The name of the file for a mosaic: its own, with the suffix of this format."""
        return f"{Path(mosaic).stem}.{self.suffix}"


# --- files that must not be overwritten ------------------------------------------------------------------------------


def refuse_collisions(candidates: Sequence[Candidate], render_set: RenderSet) -> None:
    """Raise `UserError` if the models' images would replace the input files, or each other."""
    files = (*render_set.split.raws, *render_set.split.photos)
    sources = {folder for file in files for folder in (file.parent.resolve(), file.resolve().parent)}  # also of links
    for i, candidate in enumerate(candidates):
        before = candidates[:i]
        if candidate.folder.resolve() in sources:
            raise UserError(f"{candidate.folder} holds the input files: name another folder with --output")
        if candidate.folder in {other.folder for other in before}:
            raise UserError(f"two of the models would write to {candidate.folder}: name each model only once")
        if candidate.label in {DEMOSAICED, *(other.label for other in before)}:
            raise UserError(
                f"two rows of the table would be called '{candidate.label}': is a model compared with itself? If not, "
                "rename one of them"
            )


def reserve(
    candidates: Sequence[Candidate],
    render_set: RenderSet,
    image_format: ImageFormat,
    folder: Path,
    scored: bool,
    others: Sequence[str] = (),
) -> None:
    """Note in each folder which files a test with --output `folder` writes there: the next test may replace them.

    These are the images, the report, the tables if it is `scored`, and the names in `others`. Raises `UserError` as
    `reserve_files` does.
    """
    names = defaultdict(set, {folder: {"report.html", *others, *(["compare.csv"] if scored else [])}})
    for model in candidates:
        if model.folder:
            images = {image_format.name_of(path) for path in render_set.split.raws}
            names[model.folder] |= images | ({"metrics.csv"} if scored else set())
    reserve_files(names)


def reserve_files(names: Mapping[Path, set[str]]) -> None:
    """Note in each folder, {folder: names}, which files a test writes there: the next test may replace them.

    Raises `UserError`, before anything is written, if one of these files exists and no earlier test has noted it:
    then it is the user's.
    """
    noted = {place: _noted(place / WRITTEN) for place in names}
    for place, own in names.items():
        foreign = sorted(name for name in own - noted[place] if os.path.lexists(place / name))
        if foreign:
            others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise UserError(
                f"{place / foreign[0]}{others} would be overwritten, but no earlier test has listed it in {WRITTEN}: "
                "name another folder with --output, or move it away"
            )
    for place, own in names.items():
        if stale := sorted(name for name in noted[place] - own if (place / name).exists()):
            note(
                f"{place} also holds {len(stale)} files of an earlier test, such as {stale[0]}, which stay as they are"
            )
        try:
            storage.write_json(place / WRITTEN, sorted(own | noted[place]))
        except OSError as error:
            raise UserError(f"cannot write to {place}: {error.strerror}") from None


def _noted(path: Path) -> set[str]:
    """The names in a file that `reserve` wrote; none if it is damaged."""
    if not path.is_file():  # reading a pipe could wait for ever
        return set()
    try:
        names = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


# --- rendering and scoring -------------------------------------------------------------------------------------------


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
                paths = [model.folder / image_format.name_of(name) for name in batch_names]
                written = [image_format.write(path, array) for path, array in zip(paths, arrays, strict=True)]
                images = torch.from_numpy(np.stack(written)).permute(0, 3, 1, 2).to(device)
            if target is not None:
                scores.append(evaluator.evaluate(images, target))
        names += batch_names
        progress(len(names))
    joined = [{c: torch.cat([batch[c] for batch in v]).cpu() for c in evaluator.functions if v} for v in values]
    return [evaluator.summarize(names, columns) if columns else ({}, {}) for columns in joined]


# --- tables and the report's scenes ----------------------------------------------------------------------------------


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


def print_means(means: list[dict], header: dict[str, str]) -> None:
    """Print the table of means."""
    for key, value in header.items():
        print(f"{key}: {value}")
    width = max((len(row["model"]) for row in means), default=0)
    for row in means:
        measures = {column: MEASURES[column] for column in row if column in MEASURES}
        values = (f"{measure.label} {row[column]:.{measure.digits}f}" for column, measure in measures.items())
        print(f"  {row['model']:<{width}}  " + "  ".join(values))


def choose_scenes(
    models: Sequence[Candidate], render_set: RenderSet, rows: dict[str, dict[str, float]], image_format: ImageFormat
) -> tuple[list[Scene], list[str]]:
    """The images for the report, with captions: the worst and best by the first measure; unscored, some evenly spaced.

    `rows` are the scores of the first of the models; the others' images are beside its own. All are turned as the
    camera was, if it noted that; the images on the disk, and scores, are of mosaics as they were recorded.
    """
    model, *others = [candidate for candidate in models if candidate.folder]
    split, measure = render_set.split, next(iter(next(iter(rows.values()), {})), "")
    order, captions = list(range(0, len(split.raws), -(-len(split.raws) // (2 * SHOWN)))), []
    if measure:
        sign = 1 if MEASURES[measure].higher_is_better else -1
        ranked = sorted(range(len(split.raws)), key=lambda i: sign * rows[split.raws[i].name][measure])
        worst = ranked[: min(SHOWN, len(ranked) // 2)]
        best = ranked[: len(worst) - 1 if worst else None : -1][:SHOWN]
        order = worst + best
        numbered = [("worst", i) for i in range(len(worst))] + [("best", i) for i in range(len(best))]
        captions = [f"{kind} {i + 1} of {len(ranked)}" for kind, i in numbered]

    def read(candidate: Candidate, mosaic: Path) -> np.ndarray:
        return iio.imread(candidate.folder / image_format.name_of(mosaic), plugin="pillow")

    scenes = []
    for i in order:
        path = split.raws[i]
        mosaic = render_set.reader.mosaic_tensor(render_set.reader.mosaic(path))[None]
        reference = to_8_bit(render_set.reference(mosaic))[0].permute(1, 2, 0).numpy()
        turn = partial(upright, orientation=orientation_of(path))
        target = turn(read_photo(split.photos[i])) if render_set.has_targets else None
        compared = {other.label: turn(read(other, path)) for other in others}
        images = turn(reference), turn(read(model, path)), target
        scenes.append(Scene(path.name, *images, rows.get(path.name, {}), compared))
    return scenes, captions or [""] * len(order)
