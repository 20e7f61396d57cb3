"""Develop photographs: camera files in, JPEG, PNG or 16-bit TIFF out, with a trained or released generator.

python develop.py [--run NAME | --checkpoint FILE] FILES_OR_FOLDERS -o OUT [--format jpg] [--wb camera] [--ev X]
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import storage
from config import config as default
from data import camera
from data.camera_files import CAMERA_FILES
from data.files import MOSAIC_FILES
from data.notes import note
from data.photographs import FORMATS, encode
from errors import UserError, run_cli
from evaluation.contact_sheet import PAGE, SHEET, Tile, tiles_of, write_contact_sheet
from evaluation.report import refuse_foreign
from tasks import choice
from tasks.adaptation import adapted_reader
from tasks.batch import Batch, Job, depth_for, jobs_of
from tasks.development import Developer, Shot, Wishes
from tasks.device import choose_device
from tasks.model import open_model

QUALITY = 95  # of JPEG files


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit together."""
    options = argparse.ArgumentParser("develop.py", description="Develop RAW files into photographs.")
    add = options.add_argument
    add("inputs", nargs="+", metavar="FILE_OR_FOLDER", help="camera files, other mosaics, or folders of them")
    add("-o", "--output", required=True, metavar="DIR", help="folder of the photographs")
    choice.add_options(options, unless="--checkpoint")
    add("--format", choices=FORMATS, default="jpg", help="jpg, png, or tif16: TIFF of 16 bits (%(default)s)")
    add("--quality", type=int, choices=range(1, 101), metavar="Q", help="JPEG quality, 1 to 100 (95)")
    add(
        "--wb",
        metavar="camera|trained|auto|R,B",
        default="",
        help="light: as the camera noted, as in training, estimated"
        " (gray world), or gains of red and blue; default: as the model was trained",
    )
    add("--ev", type=float, default=0.0, metavar="STOPS", help="brighter or darker by so many stops")
    add("--overwrite", action="store_true", help="replace photographs that are there; otherwise they are kept")
    add("--n", type=int, metavar="N", help="develop the files whose index modulo N is the --remainder")
    add("--remainder", type=int, metavar="R", help="of the index modulo N (0)")
    add("--page", action="store_true", help="also write OUT/index.html, to look at all photographs")
    add("--adapt", metavar="MAP", help="map files to the model's camera first: a checkpoint, or map_raw.py --save's")
    add("--adapt-to", choices=("a", "b"), help="which camera of the map is the model's (default: by name or levels)")
    add("--camera", metavar="FILE", help="profile (python -m data.camera) of mosaics that are not camera files")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: cuda if available")
    given = options.parse_args(arguments)
    for wrong, sentence in (
        (
            "" in (given.output, given.run, given.runs, given.checkpoint, given.camera, given.adapt),
            "an option is empty",
        ),
        (given.run and given.checkpoint, "--run and --checkpoint exclude each other"),
        (given.adapt_to and not given.adapt, "--adapt-to needs --adapt"),
        (given.camera and given.adapt, "--camera has no effect with --adapt, whose map knows the camera"),
        (given.step is not None and given.checkpoint, "--step needs a run, not --checkpoint"),
        (given.quality and given.format != "jpg", "--quality needs --format jpg"),
        (given.remainder is not None and given.n is None, "--remainder needs --n"),
        (given.n is not None and given.n < 1, "--n must be at least 1"),
        (given.n and not 0 <= (given.remainder or 0) < given.n, "--remainder must lie between 0 and --n - 1"),
        (
            given.n is not None and given.page,
            "--page is of all photographs: write it without --n, when all jobs are done",
        ),
        (not -10 <= given.ev <= 10, "--ev must lie between -10 and 10"),
    ):
        if wrong:
            options.error(sentence)
    given.run = given.run or (None if given.checkpoint else default.run)
    given.wb = _white_balance(options, given.wb)
    return given


def _white_balance(options: argparse.ArgumentParser, text: str) -> str | tuple[float, float]:
    if text in ("", "camera", "trained", "auto"):
        return text
    try:
        red, blue = map(float, text.split(","))
        if not (1 / 64 <= red <= 64 and 1 / 64 <= blue <= 64):
            raise ValueError
    except ValueError:
        options.error(f"--wb {text}: choose camera, trained, auto, or two gains of red and blue, such as 2.1,1.6")
    return red, blue


# --- which files -----------------------------------------------------------------------------------------------------


def photographs_of(given: argparse.Namespace) -> list[Job]:
    """The files of the command line, this share of them. Raises `UserError` if two would become one photograph."""
    output, suffix = Path(given.output), FORMATS[given.format]
    jobs = jobs_of(given.inputs, lambda source: output / (source.stem + suffix), "develop")
    folders = {job.source.parent.resolve() for job in jobs}
    if output.resolve() in folders and suffix in MOSAIC_FILES:
        raise UserError(
            f"{output} holds mosaics, and {given.format} files beside them would be taken for such: choose "
            "another --output, or --format jpg"
        )
    return jobs if given.n is None else jobs[given.remainder or 0 :: given.n]


# --- the work --------------------------------------------------------------------------------------------------------


class Photographs:
    """Develops what `Developer.read` returns, writes it, and counts what there is to say of the files."""

    def __init__(self, developer: Developer, given: argparse.Namespace, device: torch.device):
        self.developer, self.given, self.device = developer, given, device
        self.remarks: Counter[str] = Counter()  # what is unlike the training, and of how many files

    def develop(self, shot: Shot) -> np.ndarray:
        """The photograph (H, W, 3)."""
        self.remarks.update(shot.remarks)
        return self.developer.develop(shot, self.device)

    def write(self, job: Job, image: np.ndarray) -> Tile | None:
        """Write it; the tile of the contact sheet, if there will be one."""
        content = encode(image, self.given.format, self.given.quality or QUALITY, job.source)
        storage.write_bytes(job.target, content)
        return Tile.of(job.target, image) if self.given.page else None


def main() -> None:
    given = parse(sys.argv[1:])
    device = choose_device(given.device)
    jobs = photographs_of(given)
    if given.page:
        refuse_foreign(Path(given.output) / PAGE, SHEET, "no page of develop.py: move it, or leave out --page")
    if given.camera and all(job.source.suffix.lower() in CAMERA_FILES for job in jobs):
        raise UserError("--camera is for mosaics that are not camera files, and there is none: leave it out")
    model = open_model(str(choice.chosen(given)[2]), device)
    profile = camera.load(Path(given.camera)) if given.camera else None
    plain, size = (profile.sensor, profile.size) if profile else (model.sensor, (0, 0))
    wishes = Wishes(given.wb, given.ev, bits=16 if given.format == "tif16" else 8)
    adapted = adapted_reader(model, given.adapt, given.adapt_to or "", device) if given.adapt else None
    developer = Developer(model, wishes, plain, size, adapted)
    kept = [] if given.overwrite else [job.target for job in jobs if job.target.exists()]
    missing = [job for job in jobs if job.target not in set(kept)] if kept else jobs
    if kept:
        note(
            f"{len(kept)} of {len(jobs)} photographs are there already and are kept, however they were developed: "
            "--overwrite replaces them"
        )
    photographs = Photographs(developer, given, device)
    batch = Batch("developed", developer.read, photographs.develop, photographs.write, depth_for(missing))
    try:
        batch.run(missing)
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: use --device cpu") from None
    for remark, files in photographs.remarks.items():
        note(f"{files} of {len(missing)} files are {remark}")
    developed = len(missing) - len(batch.failed)
    if adapted:
        print(f"mapped by {adapted.summary}")
    print(f"developed {developed} of {len(jobs)} files with {model.name} of {model.source}: {given.output}")
    if given.page and (tiles := batch.kept + tiles_of(kept)):
        print(f"page: {write_contact_sheet(Path(given.output), tiles)}")
    batch.end(len(missing))


if __name__ == "__main__":
    run_cli(main)
