"""Many files through one model: the next are read, and the last are written, while one is at work."""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import storage
from data.files import reading
from data.folders import mosaics
from errors import UserError, printable
from training.log import Progress

DEPTH = 3  # files that are read ahead, and written, at most
IN_FLIGHT, DECODED = 400 << 20, 8  # bytes of them at a time; bytes of mosaic and result for one of a camera file


@dataclass(frozen=True)
class Job:
    """A file and the one that it becomes."""

    source: Path
    target: Path


def jobs_of(inputs: Sequence[str], target_of: Callable[[Path], Path], verb: str) -> list[Job]:
    """The files of a command line, those in its folders too.

    Raises `UserError` if two would become one file, or if nothing of what is named exists.
    """
    sources = []
    if not any(Path(path).exists() for path in inputs):
        raise UserError(f"no file or folder {inputs[0]}")
    for path in map(Path, inputs):
        sources += mosaics(path).raws if path.is_dir() else [path]
    jobs, taken = [], {}
    for source in dict.fromkeys(sources):
        job = Job(source, target_of(source))
        if job.target in taken:
            raise UserError(f"{taken[job.target]} and {source} would both become {job.target}: {verb} them apart")
        taken[job.target] = source
        jobs.append(job)
    return jobs


def mark(marker: Path, facts: dict[str, Any], otherwise: str) -> None:
    """Write the file that says by what an output folder is made.

    Raises `UserError` with the sentence `otherwise` if it is there already and says something else.
    """
    if not marker.is_file():
        storage.write_json(marker, facts)
        return
    with reading(marker):
        before = json.loads(marker.read_text("utf-8"))
    if before != json.loads(json.dumps(facts)):  # as the file holds them: lists for tuples
        raise UserError(otherwise)


def depth_for(jobs: Sequence[Job]) -> int:
    """How many files may be read ahead, and how many written at a time."""
    largest = max((job.source.stat().st_size for job in jobs if job.source.is_file()), default=1)
    return max(1, min(DEPTH, IN_FLIGHT // (largest * DECODED)))


class Batch:
    """Does jobs, and keeps what there is to say of them.

    While one file is at work, threads read the next ones, and encode and write the last ones: at most `depth` of each,
    so that large files do not fill the memory.

    Args:
        stage: what is done to a file, such as "developed".
        read: source -> what is read of it; in a thread.
        work: what was read -> the result; in the main thread, for the device.
        write: (job, result) -> anything to keep; in a thread.
    """

    def __init__(
        self,
        stage: str,
        read: Callable[[Path], Any],
        work: Callable[[Any], Any],
        write: Callable[[Job, Any], Any],
        depth: int,
    ):
        self.stage, self.read, self.work, self.write, self.depth = stage, read, work, write, depth
        self.failed: list[str] = []  # a sentence for each file
        self.kept: list[Any] = []  # what `write` returned, in the jobs' order

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs. A file that cannot be read, or raises another `UserError`, does not stop the others."""
        writes: deque[Future] = deque()
        with ThreadPoolExecutor(2) as pool, Progress(self.stage, 0, len(jobs), unit="file") as progress:
            numbers = count(1)
            for job, reading in self._reading(pool, jobs):
                with self._noting_failure():
                    writes.append(pool.submit(self.write, job, self.work(reading.result())))
                del reading  # and the mosaic: a large one would stay in memory until its result is written
                self._finish(writes, self.depth - 1)
                progress.update(next(numbers))
            self._finish(writes, 0)

    def end(self, files: int) -> None:
        """Name the files that failed, of so many, and exit with status 1 if there are any."""
        if not self.failed:
            return
        for sentence in self.failed:
            print(f"error: {printable(sentence)}", file=sys.stderr)
        print(f"{len(self.failed)} of {files} files could not be {self.stage}", file=sys.stderr)
        sys.exit(1)

    def _reading(self, pool: ThreadPoolExecutor, jobs: Sequence[Job]) -> Iterator[tuple[Job, Future]]:
        """The jobs with their files, which are read ahead."""
        coming, waiting = iter(jobs), deque()
        while True:
            for job in islice(coming, self.depth - len(waiting)):
                waiting.append((job, pool.submit(self.read, job.source)))
            if not waiting:
                return
            yield waiting.popleft()

    def _finish(self, writes: deque[Future], remaining: int) -> None:
        """Wait until no more than so many results are being written."""
        while len(writes) > remaining:
            with self._noting_failure():
                self.kept.append(writes.popleft().result())

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.failed.append(str(error))
