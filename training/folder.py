"""A run's folder: which process may train there, and last.pt, the state from which the run continues."""

import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, uint8

import storage
from errors import UserError

FORMAT = 3  # of last.pt. The first format had no number; runs of that time trained other critics. 2 hashed data less.
RESULTS = ("last.pt", "checkpoints/[!.]*.pt", "summary.json", "scores", "test", "report.html")


@contextmanager
def claim_folder(folder: Path, resume: bool) -> Iterator[None]:
    """Create or reuse a run's folder and lock it during the block.

    A run that ended before it saved anything may be begun anew under its name; its log is kept as log.previous.jsonl.
    Raises `UserError` if another process trains there, or if there is a run already that is not to be resumed.
    """
    with storage.lock(folder / ".lock", wait=False) as locked:
        if not locked:
            raise UserError(f"another process is training {folder}")
        if not (folder / "config.json").exists() and (foreign := _foreign(folder)):
            raise UserError(f"{folder} holds something else than a run, such as {foreign}: name another run with --run")
        if not resume and any(path for pattern in RESULTS for path in folder.glob(pattern)):
            raise UserError(f"{folder} exists: continue it with --resume, or name another run with --run")
        if not resume:
            log = folder / "log.jsonl"
            first_line = b'{"stage": "start"'
            if log.exists() and (log.read_bytes().count(b"\n") > 1 or not log.read_bytes().startswith(first_line)):
                os.replace(log, _free_name(folder))
        yield


def _foreign(folder: Path) -> str:
    """A file or folder that no run writes; "" if there is none."""
    known = {"log.jsonl", "config.json", "data.json", "tensorboard", "samples", "best.json", *RESULTS}
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    own = ("log.previous", "checkpoints")
    return next((name for name in names if name not in known and not name.startswith(own)), "")


def _free_name(folder: Path) -> Path:
    """log.previous.jsonl, or the first of log.previous.2.jsonl, ... that is not taken."""
    names = (folder / f"log.previous{'' if i == 1 else f'.{i}'}.jsonl" for i in itertools.count(1))
    return next(path for path in names if not os.path.lexists(path))


# --- last.pt ---------------------------------------------------------------------------------------------------------


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the `state` of a run, with its format and a checksum, to last.pt."""
    content = {"format": FORMAT, **state}
    storage.save(folder / "last.pt", {**content, "checksum": checksum(content)})


def read_state(folder: Path) -> dict[str, Any]:
    """The state in last.pt, as it was saved.

    Raises `UserError` if the file is missing, damaged, changed by hand, or of another version of this framework.
    """
    path = folder / "last.pt"
    state = storage.load(path)
    if not {"stage", "step", "trainer"} <= state.keys():
        raise UserError(f"{path} holds no state of a run: put the run's own last.pt there, or name another run (--run)")
    if "format" not in state:
        raise UserError(
            f"{folder} was begun by an earlier version of this framework, whose training differs (docs/fidelity.md): "
            "start another run with --run NAME; its checkpoints can be used, e.g. with --init"
        )
    if state["format"] != FORMAT:
        raise UserError(
            f"{path} has the format {state['format']!r}, and this version of the framework reads {FORMAT}: continue "
            "the run with the version that began it"
        )
    expected = state.pop("checksum", None)
    try:
        unchanged = checksum(state) == expected
    except (RuntimeError, TypeError, ValueError):  # tensors without values, and the like
        unchanged = False
    if not unchanged:
        raise UserError(
            f"{path} is damaged or was changed (its checksum is wrong): put back a copy of it, or start another run, "
            f"such as from one of the run's checkpoints (--run NAME --init {folder}/checkpoints/...)"
        )
    kinds = {"stage": int, "step": int, "psnr": dict, "weights": dict, "data": str, "log": tuple | list}
    if not (_has_kinds(state, kinds | {"rng": Tensor, "config": dict, "trainer": dict}) and len(state["log"]) == 2):
        raise UserError(f"{path} holds no state of a run, though its checksum is right: put back a copy of it")
    return state


def _has_kinds(values: dict[str, Any], kinds: dict[str, type]) -> bool:
    return all(isinstance(values.get(name), kind) for name, kind in kinds.items())


def checksum(content: Any) -> str:
    """The SHA-256 of nested dicts, lists and tuples of tensors and plain values, with all types and shapes."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().flatten().contiguous().view(uint8).numpy())
        elif isinstance(value, dict):
            digest.update(f"dict{len(value)}".encode())
            for key, item in value.items():
                add(key)
                add(item)
        elif isinstance(value, list | tuple):
            digest.update(f"{type(value).__name__}{len(value)}".encode())
            for item in value:
                add(item)
        else:
            digest.update(f"{value!r},".encode())

    add(content)
    return digest.hexdigest()
