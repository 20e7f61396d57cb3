"""Files on disk: written whole or not at all, locked, hashed, and read without running code that they hold."""

import fcntl
import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from errors import UserError

# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; write the file there, and it replaces `path` when the block ends.

    An error, a kill or a full disk leaves the old file as it was. A kill leaves `.NAME.partial.SUFFIX` behind, which
    every reader ignores and the next write replaces.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        with naming(path):
            temporary.unlink(missing_ok=True)  # it may be a link to a file elsewhere
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put `path` into an `OSError` of the block that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all, and wait until it is on the disk."""
    with writing(path) as temporary:
        _write(temporary, content)


def write_together(folder: Path, contents: Mapping[str, bytes | memoryview]) -> None:
    """Write several files, {name: content}: all of them or, on a full disk, none.

    They are put in their places when all are on the disk, the last of `contents` after the others. An old file of its
    name is removed before: where it is, it belongs to the others, even if the process is killed.
    """
    with ExitStack() as stack:  # ends with the first
        for name, content in reversed(contents.items()):
            _write(stack.enter_context(writing(folder / name)), content)
        (folder / [*contents][-1]).unlink(missing_ok=True)


def _write(path: Path, content: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON. NaN and infinity raise `ValueError`."""
    write_bytes(path, to_json(content))


def to_json(content: Any) -> bytes:
    """Indented JSON. NaN and infinity raise `ValueError`."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, for `load`."""
    buffer = io.BytesIO()  # torch.save to a path reports a full disk as a RuntimeError, not as an OSError
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


# --- reading ---------------------------------------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint or state dict onto the CPU; only tensors and plain values, never code.

    Raises `UserError` if the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        require_intact(path)
        with warnings.catch_warnings(action="ignore"):  # of foreign files: old formats, sparse tensors
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (UserError, MemoryError, PermissionError):
        raise
    except Exception:  # foreign and damaged files raise many types, some with the advice to load without safety
        reason = "it is damaged, not written by torch.save, or holds more than tensors and plain values"
        raise UserError(f"{path} is not a readable checkpoint or weights file: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint or state dict")
    return content


def require_intact(path: Path) -> None:
    """Raise `UserError` if a file of torch.save has a part whose CRC-32 is wrong, which torch.load does not check.

    Also for compressed parts, which torch.save never writes: a small file could fill the memory with them. Files of an
    old format, from before PyTorch 1.6, have no checksums.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as parts:
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
            raise UserError(f"{path} was not written by torch.save: its parts are compressed")
        if changed := parts.testzip():
            raise UserError(f"{path} is damaged: the checksum of its part {changed} is wrong; put back a copy of it")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with naming(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path, part: int = 4096, blocks: int = 8) -> str:
    """The size of a file, and a hash of its first and last `part` bytes and of `blocks` between them.

    Quick, and rarely that of another image: the blocks matter for formats that are not compressed.
    """
    size, digest = path.stat().st_size, hashlib.sha256()
    with naming(path), open(path, "rb") as file:
        for start in (0, *(size * block // (blocks + 1) for block in range(1, blocks + 1)), max(0, size - part)):
            file.seek(start)
            digest.update(file.read(part))
    return f"{size}:{digest.hexdigest()[:16]}"


def first_line(error: Exception) -> str:
    """The start of a library's error message, short enough for one sentence."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2])


# --- locking ---------------------------------------------------------------------------------------------------------


@contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file `path` during the block; it ends with the process, however that ends.

    Yields whether the lock is held: always True with `wait`; without, False if another process holds it.
    """
    with _opened_for_locking(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError as error:
            raise _without_locks(path, error) from None
        else:
            held = True
        yield held


def is_locked(path: Path) -> bool:
    """Whether another process holds the `lock` of the file `path`. Neither creates nor changes the file."""
    if not path.is_file():
        return False
    with naming(path), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # ends with the block; many may ask at once
        except BlockingIOError:
            return True
        except OSError as error:
            raise _without_locks(path, error) from None
    return False


@contextmanager
def claim(path: Path, names: Sequence[str], wait: bool = False) -> Iterator[list[str]]:
    """Yield those of `names` that no other process has claimed through `path`, and hold these claims during the block.

    With `wait`, wait for all of them. Each claim is a lock on one byte of the file, chosen by the name's hash, so it
    ends with the process, however that ends. Do not nest claims through one path: closing one releases all.
    """
    with _opened_for_locking(path) as file:
        mine = []
        for name in names:
            position = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:7])
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, position)
            except (BlockingIOError, PermissionError):  # another process has claimed it
                continue
            except OSError as error:
                raise _without_locks(path, error) from None
            mine.append(name)
        yield mine


def _opened_for_locking(path: Path) -> IO[str]:
    """The file, created if it does not exist. Raises `UserError` for a pipe, which would be waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file: remove it")
    return open(path, "a")


def _without_locks(path: Path, error: OSError) -> UserError:
    return UserError(f"the file system of {path.parent} has no locks ({error.strerror}): use another folder, on a disk")
