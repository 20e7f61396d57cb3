"""How a dataset's files are read, and where they are kept decoded: in memory, or in one memory-mapped file."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.demosaic import Reference
from data.folders import Split, alone, read_mosaic, read_photo
from data.sensor import Sensor
from errors import UserError

PLACES = ("auto", "memory", "disk", "off")
PART = 0.5  # of the free memory or disk that a cache may take, where nobody said that it shall be there
FORMAT = 1  # of a cache on disk: count up where what is read of a file changes
PROBES = 8  # files of each kind that are decoded to tell the size of all
Kept = dict[Path, tuple[np.ndarray, Tensor | None]]  # a file's pixels, and a mosaic's span


@dataclass(frozen=True)
class Reader:
    """How this dataset's files become tensors."""

    sensor: Sensor
    headless_size: tuple[int, int] = (0, 0)  # (height, width) of headless .raw files

    def mosaic(self, path: Path) -> np.ndarray:
        return read_mosaic(path, self.sensor, self.headless_size)

    def mosaic_tensor(self, mosaic: np.ndarray) -> Tensor:
        """(H, W) digital numbers -> (1, H, W) float32, 1 is white."""
        return torch.from_numpy(mosaic.astype(np.float32))[None] / self.sensor.white_level


@dataclass
class Files:
    """What is read of a split's files, from the files themselves: the spans alone are remembered."""

    reader: Reader
    reference: Reference
    spans: dict[Path, Tensor] = field(default_factory=dict)

    def mosaic(self, path: Path) -> tuple[np.ndarray, Tensor]:
        """(H, W) digital numbers, and the span (2,) of their reference (`data.demosaic.Reference`)."""
        mosaic = self.reader.mosaic(path)
        if path not in self.spans:  # demosaicing a whole file is worth remembering
            self.spans[path] = self.reference.span(self.reader.mosaic_tensor(mosaic)[None])[0]
        return mosaic, self.spans[path]

    def photo(self, path: Path) -> np.ndarray:
        """(H, W, 3) uint8."""
        return read_photo(path)


@dataclass
class InMemory(Files):
    """The same from memory."""

    kept: Kept = field(default_factory=dict)

    def mosaic(self, path: Path) -> tuple[np.ndarray, Tensor]:
        return self.kept[path]

    def photo(self, path: Path) -> np.ndarray:
        return self.kept[path][0]


class OnDisk(InMemory):
    """The same from one file, mapped into memory, which all processes of a machine share.

    The index beside it says what lies where. It is written last: without it, there is no cache.
    """

    def __init__(self, files: Files, index: Path):
        super().__init__(files.reader, files.reference)
        # Copy on write, as torch wants memory that it could write to.
        content = np.memmap(index.with_suffix(".bin"), np.uint8, mode="c")
        for path, offset, dtype, shape, span in json.loads(index.read_text())["files"]:
            pixels = np.ndarray(shape, dtype, content, offset)
            self.kept[Path(path)] = pixels, None if span is None else torch.tensor(span)


def keep(split: Split, files: Files, place: str, folder: Path, draws: int, processes: int = 1) -> Files:
    """The split's files decoded, if `place` says so: "memory", "disk" (in `folder`), "off", or "auto".

    "auto" takes memory where half of what is free suffices and one process alone needs it, or else the disk, likewise,
    or else nothing; nothing, too, where `draws` samples are too few to read most files twice. A cache on disk is found
    again by the next run. Raises `UserError` where a file cannot be read, or what was asked for does not fit.
    """
    if place not in PLACES:
        raise UserError(f"unknown place '{place}' for the cache; known are: {', '.join(PLACES)}")
    if place == "memory" and processes > 1:
        raise UserError("several processes share a cache on disk, each would need its own in memory: --data.cache disk")
    if place == "off" or (place == "auto" and draws < 2 * max(len(split.raws), len(split.photos))):
        return files
    index = folder / f"decoded-{_digest(split, files)}.json"
    if place in ("auto", "disk") and _is_whole(index):
        return OnDisk(files, index)
    need, memory, disk = _size(split, files), free_memory(), _free_disk(folder)
    if place == "auto":
        fits = {"memory": need <= PART * memory and processes == 1, "disk": need <= PART * disk}
        place = next((name for name, there in fits.items() if there), "off")
    elif need > (memory if place == "memory" else disk):
        raise UserError(
            f"the decoded files take {_gib(need)}, but {place} has {_gib(memory if place == 'memory' else disk)} free: "
            "set --data.cache off, or --data.cache-dir to another disk"
        )
    if place == "off":
        print(f"the decoded files take {_gib(need)}: too much to keep, they are read anew each time", file=sys.stderr)
        return files
    if place == "memory":
        return InMemory(files.reader, files.reference, kept=dict(_decode(split, files, f"decoding {_gib(need)}")))
    with alone(index):
        if not _is_whole(index):  # or another run has just made it
            _write(split, files, index, f"decoding {_gib(need)} to {folder}")
    return OnDisk(files, index)


def _decode(split: Split, files: Files, what: str) -> Iterator[tuple[Path, tuple[np.ndarray, Tensor | None]]]:
    from tqdm import tqdm

    def decode(task: tuple[bool, Path]) -> tuple[Path, tuple[np.ndarray, Tensor | None]]:
        is_raw, path = task
        return path, files.mosaic(path) if is_raw else (files.photo(path), None)

    tasks = [*((True, path) for path in dict.fromkeys(split.raws)), *((False, p) for p in dict.fromkeys(split.photos))]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quiet = 0.1 if sys.stderr.isatty() else 20
    with ThreadPoolExecutor(threads) as pool, tqdm(desc=what, total=len(tasks), unit="file", mininterval=quiet) as bar:
        for start in range(0, len(tasks), 4 * threads):  # no further ahead: files can be large, and Ctrl-C waits
            for done in pool.map(decode, tasks[start : start + 4 * threads]):
                yield done
                bar.update()


def _write(split: Split, files: Files, index: Path, what: str) -> None:
    """A kill or a full disk leaves a part that nobody takes for the whole; the next start overwrites it."""
    content, rows = index.with_suffix(".bin"), []
    beside, beside_index = (path.with_name(f".{path.name}.partial") for path in (content, index))
    try:
        with open(beside, "wb") as file:
            for path, (pixels, span) in _decode(split, files, what):
                file.write(bytes(-file.tell() % 64))  # aligned
                place = None if span is None else span.tolist()
                rows.append((str(path), file.tell(), pixels.dtype.str, pixels.shape, place))
                file.write(np.ascontiguousarray(pixels).data)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        beside_index.write_text(json.dumps({"bytes": size, "files": rows}))
        os.replace(beside, content)
        os.replace(beside_index, index)
    except BaseException:
        beside.unlink(missing_ok=True)
        beside_index.unlink(missing_ok=True)
        raise


def _is_whole(index: Path) -> bool:
    try:
        return index.with_suffix(".bin").stat().st_size == json.loads(index.read_text())["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(split: Split, files: Files) -> str:
    """Of what decides the content: which files, as they are, how they are read, and what their spans are of."""
    told = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in (*split.raws, *split.photos)]
    how = FORMAT, astuple(files.reader), astuple(files.reference.sensor), files.reference.demosaic.__name__
    return hashlib.sha256(repr((sorted(set(told)), how)).encode()).hexdigest()[:16]


def _size(split: Split, files: Files) -> int:
    """Bytes of all files decoded, estimated from a few of them."""
    total = 0
    for paths, read in ((split.raws, files.reader.mosaic), (split.photos, files.photo)):
        some = paths[:: -(-len(paths) // PROBES)]
        total += len(set(paths)) * sum(read(path).nbytes for path in some) // len(some)
    return total


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its control group where that is less."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = Path("/sys/fs/cgroup")
        most, taken = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        return min(free, int(most) - int(taken))
    except (OSError, ValueError):  # no control group, or one without a limit
        return free


def _free_disk(folder: Path) -> int:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
