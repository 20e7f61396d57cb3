"""What the files of a run's folder say of it. Reading changes nothing there, and opens no checkpoint."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import storage
from errors import UserError
from evaluation.tables import folder_of, read_best, read_ranking

TAIL = 1 << 18  # bytes at the end of a log that hold its last step and its last validation


# --- the log and the ranking -----------------------------------------------------------------------------------------


def read_history(run: Path | None) -> tuple[list[dict], list[dict], str]:
    """(lines of log.jsonl, ranking, what it is ranked by) of a run; empty without one.

    Raises `UserError` if one of the files is damaged.
    """
    if run is None:
        return [], [], ""
    lines, best = read_log(run / "log.jsonl"), read_best(run)
    if not best:
        return lines, [], ""
    header, ranking = read_ranking(folder_of(run, best["protocol"].split(":")[0]) / "ranking.csv")
    if not (ranking and {"data", "protocol"} <= header.keys()):
        return lines, [], ""
    return lines, ranking, f"{best['ranked_by']} on {header['data'].split(',')[0]}; {header['protocol']}"


def read_log(path: Path, tail: int = 0) -> list[dict]:
    """The lines of a log.jsonl, or those in its last `tail` bytes; the last one may be incomplete.

    Raises `UserError` for another line that fit.py cannot have written.
    """
    if not path.is_file():
        return []
    with storage.naming(path), open(path, "rb") as file:
        skipped = max(0, path.stat().st_size - tail) if tail else 0
        file.seek(skipped)
        texts = file.read().splitlines()
    if skipped:
        texts = texts[1:]  # the first one is incomplete
    if texts and not texts[-1].endswith(b"}"):
        texts.pop()  # the run was stopped, or is writing it now
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except (ValueError, RecursionError):  # RecursionError: thousands of nested brackets
            lines.append(None)
        if not _is_log_line(lines[-1]):
            where = f"{path}, line {number}" if not skipped else f"{path}, line {len(texts) - number + 1} from the end,"
            raise UserError(f"{where} is damaged: remove this line, then the report shows the others")
    return lines


def _is_log_line(line: object) -> bool:
    """Whether `line` is the log's first line, which has facts, or has numbers of a step, of which some may be NaN."""
    if not isinstance(line, dict) or not isinstance(line.get("stage"), str):
        return False
    if "step" not in line:
        weights = line.get("weights", {})
        return isinstance(weights, dict) and isinstance(line.get("warning", ""), str)
    numbers = [value for name, value in line.items() if name != "stage"]
    small = all(isinstance(x, float) or (isinstance(x, int) and abs(x) < 1 << 63) for x in numbers)
    return small and isinstance(line["step"], int)


# --- how far a run is, and how good ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LastLogged:
    """How far a run's log goes, and the newest validation PSNR in it."""

    stage: str = ""  # "" if no step is logged
    step: int = 0  # in the stage
    psnr: float | None = None  # dB; None: not validated, or not finite


def read_last(run: Path) -> LastLogged:
    """Where the log of a run ends. Raises `UserError` if the log is damaged there."""
    lines = [line for line in read_log(run / "log.jsonl", TAIL) if "step" in line]
    scores = [line["val_psnr"] for line in lines if "val_psnr" in line]
    psnr = scores[-1] if scores and math.isfinite(scores[-1]) else None
    return LastLogged(lines[-1]["stage"], lines[-1]["step"], psnr) if lines else LastLogged()


def read_summary(run: Path) -> dict[str, float | None]:
    """The validation PSNR of a finished run by name, such as "demosaiced", "final"; None: no pairs, or infinite.

    Empty if the run is not finished. Raises `UserError` if summary.json is damaged.
    """
    path = run / "summary.json"
    if not path.is_file():
        return {}
    try:
        scores = json.loads(path.read_text())["val_psnr"]
        return {str(name): score if isinstance(score, int | float) else None for name, score in scores.items()}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged: remove it; resuming the run (fit.py --resume) writes it again") from None


def is_running(run: Path) -> bool:
    """Whether a process is training in the folder."""
    return storage.is_locked(run / ".lock")


# --- its files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """The files of a run by kind, which is their folder, or their name in the run's own folder."""

    counts: dict[str, int]
    sizes: dict[str, int]  # bytes
    modified: float  # when a file was last written, in seconds since 1970; 0 without files

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def read_usage(run: Path) -> Usage:
    """How much space the files of a run take. Links are not followed, and hidden files counted as "other"."""
    counts, sizes, modified = {}, {}, 0.0
    for path, status in _files(run):
        first, *others = os.path.relpath(path, run).split(os.sep)
        kind = "other" if first.startswith(".") else first + "/" * bool(others)
        counts[kind], sizes[kind] = counts.get(kind, 0) + 1, sizes.get(kind, 0) + status.st_size
        modified = max(modified, status.st_mtime)
    return Usage(counts, sizes, modified)


def _files(folder: Path | str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
                continue
            status = None
            with suppress(FileNotFoundError):  # a running run has renamed it meanwhile
                status = entry.stat(follow_symlinks=False)
            if status:
                yield entry.path, status
