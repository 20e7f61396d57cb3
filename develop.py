"""Develop photographs: camera files in, JPEG, PNG or 16-bit TIFF out, with a trained or released generator.

python develop.py [--run NAME | --checkpoint FILE] FILES_OR_FOLDERS -o OUT [--format jpg] [--wb camera] [--ev X]
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch

import storage
from config import config as default
from data import camera
from data.camera_files import CAMERA_FILES
from data.files import MOSAIC_FILES
from data.folders import mosaics
from data.notes import note
from data.photographs import FORMATS, encode
from errors import UserError, printable, run_cli
from evaluation.contact_sheet import PAGE, SHEET, Tile, tiles_of, write_contact_sheet
from evaluation.report import refuse_foreign
from tasks import choice
from tasks.development import Developer, Shot, Wishes
from tasks.device import choose_device
from tasks.model import open_model
from training.log import Progress

QUALITY = 95  # of JPEG files
DEPTH = 3  # files that are read ahead, and written, at most
IN_FLIGHT, DECODED = 400 << 20, 8  # bytes of them at a time; bytes of mosaic and photograph for one of a camera file


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
    add("--camera", metavar="FILE", help="profile (python -m data.camera) of mosaics that are not camera files")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: cuda if available")
    given = options.parse_args(arguments)
    for wrong, sentence in (
        ("" in (given.output, given.run, given.runs, given.checkpoint, given.camera), "an option is empty"),
        (given.run and given.checkpoint, "--run and --checkpoint exclude each other"),
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


@dataclass(frozen=True)
class Job:
    """A file and the photograph that it becomes."""

    source: Path
    target: Path


def jobs_of(given: argparse.Namespace) -> list[Job]:
    """The files of the command line, this share of them. Raises `UserError` if two would become one photograph."""
    sources, output = [], Path(given.output)
    for path in map(Path, given.inputs):
        sources += mosaics(path).raws if path.is_dir() else [path]
    sources = list(dict.fromkeys(sources))
    jobs, taken = [], {}
    for source in sources:
        job = Job(source, output / (source.stem + FORMATS[given.format]))
        if job.target in taken:
            raise UserError(f"{taken[job.target]} and {source} would both become {job.target}: develop them apart")
        taken[job.target] = source
        jobs.append(job)
    folders = {source.parent.resolve() for source in sources}
    if output.resolve() in folders and FORMATS[given.format] in MOSAIC_FILES:
        raise UserError(
            f"{output} holds mosaics, and {given.format} files beside them would be taken for such: choose "
            "another --output, or --format jpg"
        )
    return jobs if given.n is None else jobs[given.remainder or 0 :: given.n]


# --- the work --------------------------------------------------------------------------------------------------------


class Batch:
    """Develops jobs, and keeps what there is to say of them.

    While one file is in the network, threads read the next ones, and encode and write the last ones: at most `depth` of
    each, so that large files do not fill the memory.
    """

    def __init__(self, developer: Developer, given: argparse.Namespace, device: torch.device, depth: int):
        self.developer, self.given, self.device, self.depth = developer, given, device, depth
        self.failed: list[str] = []  # a sentence for each file
        self.remarks: Counter[str] = Counter()  # what is unlike the training, and of how many files
        self.tiles: list[Tile] = []  # of the contact sheet, if there will be one

    def run(self, jobs: Sequence[Job]) -> None:
        """Develop all jobs. A file that cannot be developed does not stop the others."""
        writes: deque[Future] = deque()
        with ThreadPoolExecutor(2) as pool, Progress("developed", 0, len(jobs), unit="file") as progress:
            numbers = count(1)
            for job, reading in self._reading(pool, jobs):
                with self._noting_failure():
                    writes.append(pool.submit(self._write, job, self._develop(reading.result())))
                del reading  # and the mosaic: a large one would stay in memory until its photograph is written
                self._finish(writes, self.depth - 1)
                progress.update(next(numbers))
            self._finish(writes, 0)

    def _reading(self, pool: ThreadPoolExecutor, jobs: Sequence[Job]) -> Iterator[tuple[Job, Future]]:
        """The jobs with their files, which are read ahead."""
        coming, waiting = iter(jobs), deque()
        while True:
            for job in islice(coming, self.depth - len(waiting)):
                waiting.append((job, pool.submit(self.developer.read, job.source)))
            if not waiting:
                return
            yield waiting.popleft()

    def _finish(self, writes: deque[Future], remaining: int) -> None:
        """Wait until no more than so many photographs are being written."""
        while len(writes) > remaining:
            with self._noting_failure():
                self.tiles += writes.popleft().result()

    def _develop(self, shot: Shot) -> np.ndarray:
        self.remarks.update(shot.remarks)
        return self.developer.develop(shot, self.device)

    def _write(self, job: Job, image: np.ndarray) -> list[Tile]:
        content = encode(image, self.given.format, self.given.quality or QUALITY, job.source)
        storage.write_bytes(job.target, content)
        return [Tile.of(job.target, image)] if self.given.page else []

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.failed.append(str(error))


def depth_for(jobs: Sequence[Job]) -> int:
    """How many files may be read ahead, and how many written at a time."""
    largest = max((job.source.stat().st_size for job in jobs if job.source.is_file()), default=1)
    return max(1, min(DEPTH, IN_FLIGHT // (largest * DECODED)))


def main() -> None:
    given = parse(sys.argv[1:])
    device = choose_device(given.device)
    jobs = jobs_of(given)
    if given.page:
        refuse_foreign(Path(given.output) / PAGE, SHEET, "no page of develop.py: move it, or leave out --page")
    if given.camera and all(job.source.suffix.lower() in CAMERA_FILES for job in jobs):
        raise UserError("--camera is for mosaics that are not camera files, and there is none: leave it out")
    model = open_model(str(choice.chosen(given)[2]), device)
    profile = camera.load(Path(given.camera)) if given.camera else None
    plain, size = (profile.sensor, profile.size) if profile else (model.sensor, (0, 0))
    wishes = Wishes(given.wb, given.ev, bits=16 if given.format == "tif16" else 8)
    developer = Developer(model, wishes, plain, size)
    kept = [] if given.overwrite else [job.target for job in jobs if job.target.exists()]
    missing = [job for job in jobs if job.target not in set(kept)] if kept else jobs
    if kept:
        note(
            f"{len(kept)} of {len(jobs)} photographs are there already and are kept, however they were developed: "
            "--overwrite replaces them"
        )
    batch = Batch(developer, given, device, depth_for(missing))
    try:
        batch.run(missing)
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: use --device cpu") from None
    for remark, files in batch.remarks.items():
        note(f"{files} of {len(missing)} files are {remark}")
    developed = len(missing) - len(batch.failed)
    print(f"developed {developed} of {len(jobs)} files with {model.name} of {model.source}: {given.output}")
    if given.page and (tiles := batch.tiles + tiles_of(kept)):
        print(f"page: {write_contact_sheet(Path(given.output), tiles)}")
    if batch.failed:
        for sentence in batch.failed:
            print(f"error: {printable(sentence)}", file=sys.stderr)
        print(f"{len(batch.failed)} of {len(missing)} files could not be developed", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_cli(main)
