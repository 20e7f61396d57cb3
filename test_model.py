"""Render and score the test split, or any folder of mosaics, with the best or any other checkpoint.

python test_model.py [--run NAME] [--step N] [--split val] [--compare RUN_OR_MODEL ...]
python test_model.py --checkpoint FILE --input DIR [--target DIR] --output DIR [--protocol paper]

`pytest` does not collect this file: its tests lie in tests/.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

import metrics
from build import Model, build_measures, choose_device, open_data, open_model, open_run
from config import Config, to_dict
from config import config as default
from data.demosaic import Reference
from data.files import Reader
from data.folders import Split, mosaics, open_dataset, read_photo
from data.loader import whole_files
from data.sensor import CFA_ORDERS, Sensor
from errors import UserError, run_cli
from judges import Paired
from pretrained import zoo
from pretrained.files import sha256_of
from report import Report, Scene, write_report
from scores import Table, best_checkpoint, checkpoints, folder_of, read_best, read_ranking, step_of
from training.checkpoint import replace
from training.log import Progress

DEMOSAICED = "demosaiced"
SHOWN = 4  # worst and best images in the report, each


@dataclass(frozen=True)
class Candidate:
    """A model under test, where its images go, and what its table says of it."""

    label: str
    folder: Path | None  # none: not written
    render: Callable[[Tensor], Tensor]  # mosaics (N, 1, H, W) -> (N, 3, H, W), in [0, 1] or 8 bits
    facts: dict[str, str]


@dataclass(frozen=True)
class Material:
    """What models are tested on."""

    split: Split
    reader: Reader
    reference: Reference
    name: str


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser("test_model.py", description="Render and score mosaics with a model.")
    add = options.add_argument
    add("--run", metavar="NAME", help=f"the run ({default.run}, unless there is --input)")
    add("--runs", default=default.runs, metavar="DIR", help="the folder of all runs (%(default)s)")
    add("--step", type=int, metavar="N", help="a checkpoint of the run by its step (the best, as process_set.py ranks)")
    add("--checkpoint", metavar="FILE", help="any checkpoint of ours, a released file, or released:NAME")
    add("--compare", nargs="+", default=[], metavar="MODEL", help="further runs (their best), files, or released:NAME")
    add("--split", choices=("test", "val"), default="test", help="of the run's dataset (%(default)s)")
    add("--data-root", default="", metavar="DIR", help="where the run's dataset lies here, if elsewhere")
    add("--input", metavar="DIR", help="a folder of mosaics, instead of a run's dataset")
    add("--target", metavar="DIR", help="photographs with the names of the mosaics: the ground truth")
    add("--output", metavar="DIR", help="where images, metrics.csv and, with --input, report.html go (the run's test/)")
    add("--protocol", default="paper", choices=metrics.PROTOCOLS, help="(%(default)s)")
    add("--measures", nargs="+", default=[], choices=metrics.MEASURES, metavar="M", help="instead of the protocol's")
    add("--weights", choices=("pretrained", "auto", "random"), help="of measures with a network (the run's)")
    add("--format", choices=("png", "jpg"), default="png", help="of the images (%(default)s)")
    add("--quality", type=int, choices=range(1, 101), default=95, metavar="Q", help="of JPEG files (%(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda where there is one")
    camera = options.add_argument_group("camera of --input (the checkpoint's)")
    camera.add_argument("--cfa", choices=CFA_ORDERS)
    camera.add_argument("--black-level", type=float, nargs=4, metavar=("R", "Gr", "Gb", "B"))
    camera.add_argument("--white-level", type=float)
    camera.add_argument("--raw-height", type=int, default=0, help="of headless .raw files")
    camera.add_argument("--raw-width", type=int, default=0, help="of headless .raw files")
    asked = options.parse_args(arguments)
    if asked.target and not asked.input:
        options.error("--target goes with --input")
    if asked.input and not (asked.output and (asked.checkpoint or asked.run)):
        options.error("--input needs --output, and --checkpoint or --run")
    if asked.input and asked.measures and not asked.target:
        options.error("--measures need the ground truth: --target")
    if not asked.input:
        asked.run = asked.run or default.run
    return asked


def open_material(asked: argparse.Namespace, config: Config | None, model: Model) -> Material:
    """The mosaics to render, with their ground truth where there is one."""
    if not asked.input:
        splits, reader, reference = open_data(config)
        split = splits[asked.split]
        if not split:
            raise UserError(f"the dataset of {asked.run} has no {asked.split} pairs; see --split, or name an --input")
        return Material(split, reader, reference, f"{asked.split} split of {config.data.root or config.data.raw}")
    known = model.sensor
    sensor = Sensor(
        asked.cfa or known.cfa,
        tuple(asked.black_level or known.black_level),
        known.white_level if asked.white_level is None else asked.white_level,
    )
    reader = Reader(sensor, (asked.raw_height, asked.raw_width))
    split = mosaics(Path(asked.input))
    if asked.target:
        split = open_dataset("folders", "", asked.input, asked.target, "yes", val=0, test=0)["train"]
    return Material(split, reader, Reference(sensor), asked.input)


def candidate(label: str, folder: Path, model: Model, path: Path, camera: Sensor, told: bool) -> Candidate:
    """A model as one under test, for mosaics of `camera`, whose black levels count if the user `told` them."""
    sensor = camera if told else model.levels(camera)
    parameters = sum(parameter.numel() for parameter in model.generator.parameters())
    facts = {"checkpoint": str(path), "sha256": sha256_of(path), "model": f"{model.name}, {parameters:,} parameters"}
    return Candidate(label, folder, lambda mosaic: model.develop(mosaic, sensor), facts)


def compared(
    asked: argparse.Namespace, folder: Path, device: torch.device, camera: Sensor, told: bool
) -> Iterator[Candidate]:
    """What --compare names: the best of other runs, files, released models."""
    for source in asked.compare:
        run = Path(asked.runs) / source
        is_run = (run / "config.json").is_file()
        path = best_checkpoint(run) if is_run else zoo.locate(source)
        ours = path.parent.name == "checkpoints"  # then steps alone would collide
        name = f"{path.parent.parent.name}_{path.stem}" if ours else path.stem
        model = open_model(str(path), device)
        place = folder / re.sub(r"[^\w.-]", "_", name)
        yield candidate(source if is_run else name, place, model, path, camera, told)


# --- rendering and scoring -------------------------------------------------------------------------------------------


def write_image(path: Path, image: np.ndarray, quality: int) -> np.ndarray:
    """Write (H, W, 3) uint8 as PNG or JPEG, and return what a reader of that file sees."""
    options = {"quality": quality, "subsampling": 0} if path.suffix == ".jpg" else {"compress_level": 3}
    replace(path, lambda beside: iio.imwrite(beside, image, plugin="pillow", **options))
    return iio.imread(path, plugin="pillow") if path.suffix == ".jpg" else image


@torch.inference_mode()
def run_test(
    candidates: Sequence[Candidate], material: Material, judge: Paired, asked: argparse.Namespace, device: torch.device
) -> list[tuple[dict, dict]]:
    """Render with every model, write the images, and return (rows, mean) of each; both empty without ground truth."""
    names, seen = [], [[] for _ in candidates]
    pixels = 1 << (23 if device.type == "cuda" else 18)
    with Progress("rendered", 0, len(material.split.raws), unit="image") as progress:
        for some, mosaic, target in whole_files(material.split, material.reader, pixels):
            mosaic, target = mosaic.to(device), None if target is None else target.to(device)
            for model, looks in zip(candidates, seen, strict=True):
                images = metrics.to_8_bit(model.render(mosaic))
                if model.folder:
                    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
                    paths = [model.folder / f"{Path(name).stem}.{asked.format}" for name in some]
                    read = [write_image(path, array, asked.quality) for path, array in zip(paths, arrays, strict=True)]
                    images = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(device)
                if target is not None:
                    looks.append(judge.look(images, target))
            names += some
            progress.update(len(names))
    joined = [{c: torch.cat([look[c] for look in looks]).cpu() for c in judge.functions if looks} for looks in seen]
    return [judge.conclude(names, columns) if columns else ({}, {}) for columns in joined]


def shorter_side(photo: Path) -> int:
    """Of a photograph, pixels, without decoding it. Raises `UserError` where it is none."""
    try:
        return min(iio.improps(photo, plugin="pillow", index=0).shape[:2])
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {photo}: {error}") from None


def open_judge(
    asked: argparse.Namespace, config: Config | None, split: Split, device: torch.device
) -> tuple[Paired, dict[str, str]]:
    """The measures of the protocol, without those that cannot be taken here unless they were asked for, and notes."""
    if not (split.paired and split.photos):
        return Paired({}), {}
    columns, notes = list(metrics.choose(asked.protocol, asked.measures)), {}
    side = min(map(shorter_side, split.photos))
    if "ms_ssim" in columns and side < metrics.MS_SSIM_MINIMUM and not asked.measures:
        columns.remove("ms_ssim")
        notes["ms_ssim"] = f"left out: it needs sides of {metrics.MS_SSIM_MINIMUM} pixels, the smallest here is {side}"
    policy = asked.weights or (config.backbones.weights if config else "pretrained")
    functions, weights = build_measures(asked.protocol, columns, policy, device)
    for column, source in weights.items():
        if source.startswith("random") and not asked.measures:
            del functions[column]
            weights[column] = "left out: its weights are not on this machine"
    return Paired(functions), notes | weights


# --- what is written -------------------------------------------------------------------------------------------------


def write_tables(
    candidates: Sequence[Candidate], results: Sequence[tuple[dict, dict]], head: dict[str, str], folder: Path
) -> list[dict]:
    """metrics.csv of each model, compare.csv of several; returns a row a model."""
    means = []
    for model, (rows, mean) in zip(candidates, results, strict=True):
        if mean and model.folder:
            Table(model.facts | head, tuple(mean), rows, mean).write(model.folder / "metrics.csv")
        if mean:
            means.append({"model": model.label, "images": len(rows), **mean})
    if len(candidates) > 1 and means:
        rows = {row["model"]: {key: row[key] for key in tuple(row)[2:]} for row in means}
        Table(head, tuple(means[0])[2:], rows, None, "model").write(folder / "compare.csv")
    return means


def scenes(
    model: Candidate, material: Material, rows: dict[str, dict[str, float]], asked: argparse.Namespace
) -> tuple[list[Scene], list[str]]:
    """The worst and the best images by the first measure, or the first ones where nothing is scored; with captions."""
    split, by = material.split, next(iter(next(iter(rows.values()), {})), "")
    order, captions = list(range(len(split.raws)))[: 2 * SHOWN], []
    if by:
        better = 1 if metrics.MEASURES[by].higher_is_better else -1
        ranked = sorted(range(len(split.raws)), key=lambda i: better * rows[split.raws[i].name][by])
        worst = ranked[: min(SHOWN, len(ranked) // 2)]
        best = ranked[: len(worst) - 1 if worst else None : -1][:SHOWN]
        order = worst + best
        numbered = [("worst", i) for i in range(len(worst))] + [("best", i) for i in range(len(best))]
        captions = [f"{kind} {i + 1} of {len(ranked)}" for kind, i in numbered]
    chosen = []
    for i in order:
        path = split.raws[i]
        mosaic = material.reader.mosaic_tensor(material.reader.mosaic(path))[None]
        reference = metrics.to_8_bit(material.reference(mosaic))[0].permute(1, 2, 0).numpy()
        output = iio.imread(model.folder / f"{path.stem}.{asked.format}", plugin="pillow")
        target = read_photo(split.photos[i]) if split.paired and split.photos else None
        chosen.append(Scene(path.name, reference, output, target, rows.get(path.name, {})))
    return chosen, captions or [""] * len(order)


def run_facts(run: Path | None) -> tuple[list[dict], list[dict], str]:
    """(log, ranking, what it is by) of a run; empty without one."""
    if run is None:
        return [], [], ""
    log, best = run / "log.jsonl", read_best(run)
    lines = log.read_text().splitlines() if log.is_file() else []
    lines = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be half written
    if not best:
        return lines, [], ""
    head, ranking = read_ranking(folder_of(run, best["protocol"].split(":")[0]) / "ranking.csv")
    return lines, ranking, f"{best['ranked_by']} on {head['data'].split(',')[0]}; {head['protocol']}" if ranking else ""


def open_candidates(
    asked: argparse.Namespace, run: Path | None, path: Path, model: Model, material: Material, device: torch.device
) -> list[Candidate]:
    """The model under test, and what --compare names. Raises `UserError` where images would overwrite each other."""
    folder = Path(asked.output) if asked.output else run / "test"
    files = (*material.split.raws, *material.split.photos)
    sources = {place for file in files for place in (file.parent.resolve(), file.resolve().parent)}  # also of links
    camera, told = material.reader.sensor, bool(asked.input and asked.black_level)
    place = folder if asked.output and not asked.compare else folder / path.stem
    label = asked.run if asked.run and not asked.checkpoint else path.stem
    found = [candidate(label, place, model, path, camera, told)]
    found += compared(asked, folder, device, camera, told)
    for i, other in enumerate(found):
        if other.folder.resolve() in sources:
            raise UserError(f"{other.folder} holds the files to be read: name another folder with --output")
        if other.folder in {before.folder for before in found[:i]}:
            raise UserError(f"two of the models would write to {other.folder}: compare each but once")
        if other.label in {DEMOSAICED, *(before.label for before in found[:i])}:
            raise UserError(f"two rows of the table would be called '{other.label}': rename one of the files or runs")
    return found


def main() -> None:
    asked = parse(sys.argv[1:])
    device = choose_device(asked.device)
    run, config = open_run(asked.runs, asked.run, asked.data_root) if asked.run else (None, None)
    path = choose_checkpoint(asked, run)
    model = open_model(str(path), device)
    config = config or model.config
    material = open_material(asked, config, model)
    candidates = open_candidates(asked, run, path, model, material, device)
    judge, notes = open_judge(asked, config, material.split, device)
    head = {"data": material.name, "images": f"{len(material.split.raws)}, {asked.format}"}
    if judge.functions:
        candidates.append(Candidate(DEMOSAICED, None, material.reference, {}))
        head["protocol"] = f"{asked.protocol}: {metrics.PROTOCOLS[asked.protocol].summary}"
    head |= notes
    try:
        results = run_test(candidates, material, judge, asked, device)
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: take --device cpu") from None
    folder = Path(asked.output) if asked.output else run / "test"
    means = write_tables(candidates, results, head, folder)
    page = (run if run and not asked.output else folder) / "report.html"
    log, ranking, ranked_by = run_facts(run)
    pictures, captions = scenes(candidates[0], material, results[0][0], asked)
    frozen = "; ".join(f"{name}: {source}" for name, source in log[0].get("weights", {}).items()) if log else ""
    facts = candidates[0].facts | {"sha256": candidates[0].facts["sha256"][:12], "frozen networks": frozen} | head
    report = Report(
        title=candidates[0].label,
        facts={name: fact for name, fact in facts.items() if fact},
        config=to_dict(config) if config else {},
        log=log,
        ranking=ranking,
        ranked_by=ranked_by,
        means=means,
        labels={name: f"{m.label} ({m.unit})" if m.unit else m.label for name, m in metrics.MEASURES.items()},
        digits={name: m.digits for name, m in metrics.MEASURES.items()},
        scenes=pictures,
        captions=captions,
        warning=log[0].get("warning", "") if log else "",
    )
    write_report(page, report)
    show(means, head)
    print(f"images: {candidates[0].folder}\nreport: {page}")


def choose_checkpoint(asked: argparse.Namespace, run: Path | None) -> Path:
    """The checkpoint under test."""
    if asked.checkpoint:
        return zoo.locate(asked.checkpoint)
    if asked.step is None:
        return best_checkpoint(run)
    found = [path for path in checkpoints(run) if step_of(path) == asked.step]
    if not found:
        raise UserError(f"{run} has no checkpoint of step {asked.step}")
    return found[0]


def show(means: list[dict], head: dict[str, str]) -> None:
    """The table of means, on the terminal."""
    for key, value in head.items():
        print(f"{key}: {value}")
    width = max((len(row["model"]) for row in means), default=0)
    for row in means:
        measures = {column: metrics.MEASURES[column] for column in row if column in metrics.MEASURES}
        values = (f"{measure.label} {row[column]:.{measure.digits}f}" for column, measure in measures.items())
        print(f"  {row['model']:<{width}}  " + "  ".join(values))


if __name__ == "__main__":
    run_cli(main)
