"""Export a trained or released generator to a phone's model file, and compare what it computes with PyTorch.

python export.py [--run NAME] [--step N] -o DIR [--to onnx tflite] [--precision fp32 fp16 int8]
python export.py --checkpoint FILE -o DIR [--images RAWS --targets PHOTOS] [--calibrate RAWS]
python export.py --score PSNR MILLISECONDS      the Mobile AI challenge's score of a latency that a phone has measured
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import storage
from config import config as default
from data.conditions import check_noted
from data.files import Reader, advising
from data.folders import Split, mosaics
from data.inputs import PACKED_CHANNELS, WITH_CONTEXT
from data.notes import note
from data.sensor import offsets
from errors import UserError, run_cli
from evaluation.metrics import psnr, to_8_bit
from exporting import gpu, packages, scenes
from exporting.checks import Reference, check, milliseconds
from exporting.graphs import RAW_INPUTS
from exporting.score import FORMULAS, score
from exporting.targets import PRECISIONS, TARGETS, PhoneFile, Source, choose_targets, file_names
from tasks import choice
from tasks.data import open_data
from tasks.model import Model, open_model
from training.log import Progress

COMPARED, CALIBRATED = 8, 16  # mosaics, at most
FULL_HD = (1088, 1920)  # (height, width) of the Mobile AI challenge

# --- the command line ------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit together."""
    options = argparse.ArgumentParser("export.py", description="Export a generator to a phone's model file.")
    add = options.add_argument
    choice.add_options(options, unless="--checkpoint")
    add("--data-root", metavar="DIR", help="the folder of the run's dataset, if it has moved")
    add("-o", "--output", metavar="DIR", help="folder of the model files and of export.json")
    add("--to", nargs="+", choices=TARGETS, metavar="T", help="onnx, tflite (default: those that hold the model)")
    add("--precision", nargs="+", choices=PRECISIONS, metavar="P", help="fp32, fp16, int8 (default: fp32 fp16)")
    add("--size", type=_size, metavar="HxW", help="of the mosaic: model.tflite, and what is timed (default: 1088x1920)")
    add("--raw-input", choices=RAW_INPUTS, help="packed digital numbers, levels inside (dn, default), or normalised")
    add("--calibrate", metavar="DIR", help="a folder of mosaics for int8 (default: the run's training mosaics)")
    add("--images", metavar="DIR", help="a folder of mosaics to compare on (default: the run's validation mosaics)")
    add("--targets", metavar="DIR", help="photographs with the names of --images: the ground truth")
    add("--check-gpu", action="store_true", help="run each TFLite file by LiteRT's GPU delegate, all of it (Vulkan)")
    points = options.add_argument_group("the challenge's score; nothing is exported")
    numbers = ("PSNR", "MS")
    points.add_argument("--score", nargs=2, type=float, metavar=numbers, help="PSNR in dB, a phone's milliseconds")
    points.add_argument("--score-formula", choices=FORMULAS, help="of the challenge of this year (default: 2022)")
    points.add_argument("--score-constant", type=float, metavar="C", help="2021: weight of time; 2022: C (default: 1)")
    given = options.parse_args(arguments)
    _refuse_ineffective(options, given)
    given.run = given.run or (None if given.checkpoint else default.run)
    given.precision = list(dict.fromkeys(given.precision or ("fp32", "fp16")))
    given.size, given.raw_input = given.size or FULL_HD, given.raw_input or "dn"
    return given


def _size(text: str) -> tuple[int, int]:
    """(height, width) of HxW: even, at least 8."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    height, width = map(int, found.groups()) if found else (0, 0)
    if min(height, width) < 8 or height % 2 or width % 2:
        raise argparse.ArgumentTypeError(f"'{text}' is no size of a mosaic such as 1088x1920: even, at least 8")
    return height, width


def _refuse_ineffective(options: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Exit with status 2 for missing or empty options, and for options that would have no effect."""
    for name in [name for name, value in vars(given).items() if value == ""]:
        options.error(f"--{name.replace('_', '-')} is empty: give it a value, or leave it out")
    exporting = ("run", "step", "data_root", "checkpoint", "output", "to", "precision", "size", "raw_input")
    exporting += ("calibrate", "images", "targets", "check_gpu")
    for needed, fits, names in (
        ("an export, not --score", given.score is None, exporting),
        ("--score", given.score is not None, ("score_formula", "score_constant")),
        ("a run, not --checkpoint", not given.checkpoint, ("run", "step", "data_root")),
        ("--images", given.images, ("targets",)),
        ("--precision int8", "int8" in (given.precision or ()), ("calibrate",)),
        ("--to tflite", "tflite" in (given.to or TARGETS), ("check_gpu",)),
    ):
        for name in names:
            if not fits and getattr(given, name) not in (None, False):
                options.error(f"--{name.replace('_', '-')} needs {needed}")
    if given.score is None and not given.output:
        options.error("-o is missing: the folder of the model files")


# --- what is exported, and compared on -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A model, the mosaics that its files are compared on, and those that int8 is calibrated on."""

    path: Path
    model: Model
    source: Source
    scenes: list[scenes.Scene]
    compared_on: str
    samples: list[torch.Tensor]


def open_job(given: argparse.Namespace) -> Job:
    """All that the command line names. Raises `UserError` if int8 has nothing to be calibrated on."""
    _, config, path = choice.chosen(given, given.data_root or "")
    model = open_model(str(path), torch.device("cpu"))
    spec = model.spec
    source = Source(model.name, model.generator, spec.input_format, model.sensor, given.raw_input, spec.minimum)
    source.check_size("--size", given.size)
    named = reader = Reader(model.sensor, normalisation=model.normalisation, lens_shading=model.lens_shading)
    own, int8 = {}, "int8" in given.precision
    if config and not (given.images and (given.calibrate or not int8)):
        own, opened, _ = open_data(config)
        reader = opened.for_training()
        named = named if config.data.map else reader  # files that the user names are of the model's camera already
    calibrated = mosaics(Path(given.calibrate)) if given.calibrate else own.get("train")
    if int8 and not calibrated:
        raise UserError("int8 needs mosaics to set its ranges by: --calibrate DIR, a folder of them")
    compared, label = _compared(given, own, calibrated)
    found, samples = list(scenes.synthetic_scenes(model.sensor, spec.minimum)), []
    with advising(f"--images and --calibrate take mosaics as the model's camera records them, {model.sensor}"):
        if compared:
            found = _read(compared, named if given.images else reader, given.size, COMPARED)
        if int8:
            chosen = named if given.calibrate else reader
            samples = _read(calibrated, chosen, given.size, CALIBRATED)
    for scene in (*found, *samples):
        source.check_size(scene.name, scene.mosaic.shape[-2:])
    return Job(path, model, source, found, f"{len(found)} {label}", [scene.mosaic for scene in samples])


def _compared(given: argparse.Namespace, own: dict[str, Split], calibrated: Split | None) -> tuple[Split | None, str]:
    """The mosaics to compare on, of those that there are the best, and what they are called; None: made-up ones."""
    if given.images:
        return mosaics(Path(given.images), Path(given.targets) if given.targets else None), "mosaics of --images"
    for split in ("val", "train"):
        if own.get(split):
            return own[split], f"{split} mosaics of the run {given.run}"
    return calibrated, "mosaics of --calibrate" if calibrated else "synthetic mosaics"


def _read(split: Split, reader: Reader, largest: tuple[int, int], count: int) -> list[scenes.Scene]:
    """Some of a split's mosaics, with their photographs if they are paired."""
    chosen = scenes.evenly(range(len(split.raws)), count)
    check_noted([split.raws[index] for index in chosen], reader.normalisation)
    photos = split.photos if split.paired else [None] * len(split.raws)
    return [scenes.read_scene(reader, split.raws[index], photos[index], largest) for index in chosen]


# --- exporting -------------------------------------------------------------------------------------------------------


def export(given: argparse.Namespace, job: Job, targets: Sequence[str]) -> list[tuple[PhoneFile, dict[str, Any]]]:
    """(file, figures) of each target and precision; nothing is on the disk yet.

    Raises `UserError` if a file differs from PyTorch by more than the bound of its precision.
    """
    program = gpu.find_program() if given.check_gpu else None
    reference, threads = Reference(job.source, job.scenes), torch.get_num_threads()
    timed, done = job.scenes[0].of_size(given.size), []
    kinds = [(target, precision) for target in targets for precision in given.precision]

    def measure(image: torch.Tensor, target: torch.Tensor) -> float:
        return psnr(to_8_bit(image), target).item()

    with Progress("exported", 0, len(kinds), unit="format") as progress:
        for number, (target, precision) in enumerate(kinds, start=1):
            for file in TARGETS[target](job.source, precision, given.size, job.samples):
                figures = check(file, reference, measure, threads)
                figures["milliseconds"] = milliseconds(file, job.source, timed, threads)
                if program and target == "tflite":
                    figures["gpu_delegate_takes_all"] = gpu.is_fully_delegated(file, program)
                done.append((file, figures))
            progress.update(number)
    return done


def describe(given: argparse.Namespace, job: Job, done: Sequence[tuple[PhoneFile, dict[str, Any]]]) -> dict[str, Any]:
    """The content of export.json."""
    model, sensor = job.model, job.model.sensor
    normalised = given.raw_input == "normalised"
    inputs = {"raw": f"float32, {'as data.inputs.prepare gives it' if normalised else 'packed digital numbers'}"}
    if job.source.input_format in WITH_CONTEXT:
        inputs["context"] = "float32, as data.inputs.context_of gives it for the whole mosaic"
    files = [
        {
            "file": file.name,
            "target": file.target,
            "precision": file.precision,
            "mosaic_size": file.size or "any",
            "bytes": len(file.content),
            "sha256": hashlib.sha256(file.content).hexdigest(),
            **figures,
        }
        for file, figures in done
    ]
    used = sorted({file.target for file, _ in done})
    return {
        "checkpoint": job.path.name,
        "sha256": storage.sha256_of(job.path),
        "run": given.run,
        "model": model.name,
        "parameters": sum(parameter.numel() for parameter in model.generator.parameters()),
        "inputs": inputs,
        "output": "float32, sRGB in [0, 1]",
        "packed_channels": {channel: offsets(sensor.cfa)[channel] for channel in PACKED_CHANNELS},
        "raw_input": given.raw_input,
        "sensor": asdict(sensor),
        "normalisation": model.normalisation,
        "compared_on": job.compared_on,
        "calibrated_on": len(job.samples),
        "timed_on": {"mosaic_size": given.size, "threads": torch.get_num_threads()},
        "packages": {name: number for target in used for name, number in packages.versions(target).items()},
        "files": files,
    }


def write(folder: Path, done: Sequence[tuple[PhoneFile, dict[str, Any]]], description: dict[str, Any]) -> None:
    """Write the files and export.json: all of them or, on a full disk, none."""
    contents = {file.name: file.content for file, _ in done}
    storage.write_together(folder, contents | {"export.json": storage.to_json(description)})


def refuse_others(folder: Path, names: Sequence[str]) -> None:
    """Raise `UserError` if the folder has files of another export that this one would leave beside its own."""
    others = sorted(path.name for suffix in TARGETS for path in folder.glob(f"model*.{suffix}"))
    if left := [name for name in others if name not in names]:
        raise UserError(f"{folder} has files of another export ({', '.join(left)}): remove them, or name another -o")


def show(description: dict[str, Any]) -> None:
    """Print a line for each file, and what the caller has to know."""
    print(f"{'file':<26}{'bytes':>9}{'ms':>9}{'largest diff':>14}{'dB to PyTorch':>15}{'dB to target':>14}  operators")
    for file in description["files"]:
        against, own = (f"{file[key]:.2f}" if file[key] else "" for key in ("psnr_against_pytorch", "psnr"))
        operators = " ".join(f"{name}x{n}" if n > 1 else name for name, n in file["operators"].items())
        figures = f"{file['bytes']:>9,}{file['milliseconds']:>9.1f}{file['largest_difference']:>14.1e}"
        gpu_says = {True: "; GPU: all", False: "; GPU: not all"}.get(file.get("gpu_delegate_takes_all"), "")
        print(f"{file['file']:<26}{figures}{against or 'equal':>15}{own:>14}  {operators}{gpu_says}")
    size, threads = "x".join(map(str, description["timed_on"]["mosaic_size"])), description["timed_on"]["threads"]
    print(f"compared with PyTorch on {description['compared_on']}; ms of {size} on this machine, threads: {threads}")
    if description["normalisation"] != "off":
        note(
            f"the model was trained with --data.normalise {description['normalisation']}: whoever calls it multiplies "
            "what is above black by the mosaic's gains first (docs/phones.md says how)"
        )


def main() -> None:
    given = parse(sys.argv[1:])
    if given.score is not None:
        formula = given.score_formula or "2022"
        print(f"score of {formula}: {score(*given.score, formula, given.score_constant):.6g}")
        return
    job = open_job(given)
    targets = choose_targets(given.to, job.source)
    for target in targets:
        packages.require(target)
    if given.check_gpu and "tflite" not in targets:
        raise UserError(f"--check-gpu is for TFLite files, which cannot hold {job.source.name}: leave it out")
    folder = Path(given.output)
    refuse_others(folder, [name for t in targets for p in given.precision for name in file_names(t, p)])
    done = export(given, job, targets)
    description = describe(given, job, done)
    write(folder, done, description)
    show(description)
    print(f"files: {given.output}")


if __name__ == "__main__":
    run_cli(main)
