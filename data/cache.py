"""Decoded files for training: read anew each time, held in memory, or in one memory-mapped file on disk."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import storage
from data.files import Reader
from data.folders import Split
from data.masks import read_mask
from data.notes import note
from data.photographs import read_photo
from data.threads import in_threads
from errors import UserError

CACHES = ("auto", "memory", "disk", "off")
SHARE = 0.5  # "auto" uses at most this share of the free memory or disk
FORMAT = 4  # of a cache on disk: increase it when files are decoded or stored differently
SAMPLED = 8  # mosaics, and photographs, that are decoded to estimate the size of all


# --- where decoded files come from -----------------------------------------------------------------------------------


@dataclass
class Files:
    """The decoded files of a split; this class reads them anew each time."""

    reader: Reader

    def mosaic(self, path: Path) -> np.ndarray:
        """(H, W) digital numbers, uint16 or float32."""
        return self.reader.mosaic(path)

    def photo(self, path: Path) -> np.ndarray:
        """(H, W, 3) uint8 sRGB."""
        return self.reader.aligned(read_photo(path))

    def mask(self, path: Path) -> np.ndarray:
        """(H, W) bool: where a photograph is aligned with its mosaic."""
        return self.reader.aligned(read_mask(path))


@dataclass
class InMemory(Files):
    """Files that were decoded into memory."""

    decoded: dict[Path, np.ndarray] = field(default_factory=dict)

    def mosaic(self, path: Path) -> np.ndarray:
        return self.decoded[path]

    def photo(self, path: Path) -> np.ndarray:
        return self.decoded[path]

    def mask(self, path: Path) -> np.ndarray:
        return self.decoded[path]


class OnDisk(InMemory):
    """Files that were decoded into one .bin file, which all processes of a machine map into their memory.

    `index` is a .json file beside it with the position, dtype and shape of each image. It is written last: without it,
    there is no cache.
    """

    def __init__(self, reader: Reader, index: Path):
        super().__init__(reader)
        content = np.memmap(index.with_suffix(".bin"), np.uint8, mode="c")  # copy on write: torch needs writable memory
        for path, offset, dtype, shape in json.loads(index.read_text())["files"]:
            self.decoded[Path(path)] = np.ndarray(shape, dtype, content, offset)


# --- decoding all files of a split -----------------------------------------------------------------------------------


def cached_files(split: Split, files: Files, cache: str, folder: Path, draws: int, processes: int = 1) -> Files:
    """Decode all files of a split once, if `cache` says so.

    Args:
        split: the training split.
        files: reads the files.
        cache: "memory", "disk", "off", or "auto". "auto" takes memory if half of the free memory suffices and there is
            one process; else disk, if half of the free disk suffices; else "off". It is also "off" if so few samples
            are drawn that most files would be read no more than once.
        folder: for caches on disk. The next run with the same files and reader uses the same cache.
        draws: samples that the run draws from the split.
        processes: training processes on this machine.

    Returns:
        `files` itself, `InMemory` or `OnDisk`.

    Raises:
        UserError: unknown `cache`, a file that cannot be read, or a "memory" or "disk" that does not suffice.
    """
    if cache not in CACHES:
        raise UserError(f"unknown cache '{cache}'; known are: {', '.join(CACHES)}")
    if cache == "memory" and processes > 1:
        raise UserError("--data.cache memory needs a copy for each process; several processes share --data.cache disk")
    if cache == "off" or (cache == "auto" and draws < 2 * max(len(split.raws), len(set(split.photos)))):
        return files
    index = folder / f"decoded-{_digest(split, files.reader)}.json"
    if cache in ("auto", "disk") and (stored := _open(split, files.reader, index)):
        return stored
    cache, size = _choose(cache, split, files, folder, processes)
    if cache == "off":
        note(f"the decoded files take {size}, too much for a cache: they are read anew each time")
        return files
    if cache == "memory":
        return InMemory(files.reader, dict(_decode(split, files, f"decoding {size}")))
    with storage.lock(index.with_name(f".{index.name}.lock")):
        if stored := _open(split, files.reader, index):  # another process has written it meanwhile
            return stored
        _write(split, files, index, f"decoding {size} to {folder}")
    return OnDisk(files.reader, index)


def _choose(cache: str, split: Split, files: Files, folder: Path, processes: int) -> tuple[str, str]:
    """("memory", "disk" or "off"; the size of all decoded files in words). Raises `UserError` if they do not fit."""
    need, free = _decoded_size(split, files), {"memory": free_memory(), "disk": _free_disk(folder)}
    if cache == "auto":
        usable = [name for name in free if need <= SHARE * free[name] and (name == "disk" or processes == 1)]
        return next(iter(usable), "off"), _gib(need)
    if need > free[cache]:
        advice = {"memory": "disk or off", "disk": "off, or --data.cache-dir to a folder on another disk"}[cache]
        raise UserError(
            f"the decoded files take {_gib(need)}, but {cache} has {_gib(free[cache])} free: set --data.cache {advice}"
        )
    return cache, _gib(need)


def _decode(split: Split, files: Files, description: str) -> Iterator[tuple[Path, np.ndarray]]:
    """Each file of the split and its pixels."""
    tasks = [(files.mosaic, path) for path in dict.fromkeys(split.raws)]
    tasks += [(files.photo, path) for path in dict.fromkeys(split.photos)]
    tasks += [(files.mask, path) for path in split.masks]
    yield from in_threads(lambda task: (task[1], task[0](task[1])), tasks, description)


# --- the cache on disk -----------------------------------------------------------------------------------------------


def _write(split: Split, files: Files, index: Path, description: str) -> None:
    index.unlink(missing_ok=True)  # a damaged cache has one; it must never describe the new content
    rows = []
    with storage.writing(index.with_suffix(".bin")) as temporary, open(temporary, "wb") as file:
        for path, pixels in _decode(split, files, description):
            file.write(bytes(-file.tell() % 64))  # alignment
            rows.append((str(path), file.tell(), pixels.dtype.str, pixels.shape))
            file.write(np.ascontiguousarray(pixels).data)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    storage.write_bytes(index, json.dumps({"bytes": size, "files": rows}).encode())


def _open(split: Split, reader: Reader, index: Path) -> OnDisk | None:
    """The cache, or None if there is none that is whole and holds all files of the split."""
    try:
        whole = index.with_suffix(".bin").stat().st_size == json.loads(index.read_text())["bytes"]
        stored = OnDisk(reader, index) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if stored and {*split.raws, *split.photos, *split.masks} <= stored.decoded.keys() else None


def _digest(split: Split, reader: Reader) -> str:
    """A hash of all that decides a cache's content: the files, their dates and content, and how they are read."""
    paths = {*split.raws, *split.photos, *split.masks}
    states = {(str(path.absolute()), path.stat().st_mtime_ns, storage.fingerprint(path)) for path in paths}
    return hashlib.sha256(repr((sorted(states), FORMAT, reader.facts(split.raws))).encode()).hexdigest()[:16]


# --- sizes -----------------------------------------------------------------------------------------------------------


def _decoded_size(split: Split, files: Files) -> int:
    """Bytes of all files decoded, estimated from a few of them."""
    total = 0
    for paths, read in ((split.raws, files.mosaic), (split.photos, files.photo), (split.masks, files.mask)):
        if not paths:  # the mosaics of one of two cameras have no photographs, and most pairs no masks
            continue
        sample = paths[:: -(-len(paths) // SAMPLED)]
        total += len(set(paths)) * sum(read(path).nbytes for path in sample) // len(sample)
    return total


def free_memory() -> int:
    """Bytes that this process may still use: of the machine's memory, or of its control group's if that is less."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no control group, or one without a limit
        return free


def _free_disk(folder: Path) -> int:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
