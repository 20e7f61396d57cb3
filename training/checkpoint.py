"""Files that are whole or not there: state on disk, written beside and renamed, read without unpickling code."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from errors import UserError

FORMAT = 1  # of a generator's checkpoint


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write `path` such that a kill or a full disk at any moment leaves the old file or the new one."""
    replace(path, lambda beside: _write(beside, content))


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make a file beside `path`, and put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        write(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Indented JSON; NaN is refused."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values."""
    buffer = io.BytesIO()  # so that a full disk is an OSError of ours, not a RuntimeError of torch's writer
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, onto the CPU. Raises `UserError` where the file is missing, broken, or not only data."""
    if not path.is_file():
        raise UserError(f"no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign or broken file provokes
        raise UserError(f"{path} is no readable checkpoint: {_gist(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds {type(content).__name__}")
    return content


def _gist(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def save_generator(path: Path, generator: torch.nn.Module, **description: Any) -> None:
    """Write a generator with all that is needed to use it: the small file of checkpoints/."""
    save(path, {"format": FORMAT, **description, "generator": generator.state_dict()})
