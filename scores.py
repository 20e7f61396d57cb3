"""What a run's checkpoints scored: tables on disk, who is at work on which, and the ranking.

runs/NAME/scores/step_0000500.csv              a row a file, then the mean; the head says what it is of
runs/NAME/scores/ranking.csv                   all that is scored, best first
runs/NAME/scores/unpaired/...                  the same by measures that need no pairs
runs/NAME/best.json                            the first of the latest ranking
"""

import csv
import fcntl
import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from errors import UserError
from pretrained.files import sha256_of
from training.checkpoint import write_bytes, write_json

MEAN = "mean"  # names the last row of a table


@dataclass(frozen=True)
class Table:
    """A CSV file: `head` stands in comment lines `# key: value` before it."""

    head: dict[str, str]
    columns: tuple[str, ...]
    rows: dict[str, dict[str, float]]  # file -> column -> value; a measure of the whole set stands in the mean alone
    mean: dict[str, float] | None  # the last row
    first: str = "file"  # what heads the column of names

    def write(self, path: Path) -> None:
        text = io.StringIO()
        text.writelines(f"# {key}: {value}\n" for key, value in self.head.items())
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((self.first, *self.columns))
        for name, values in (*self.rows.items(), *([(MEAN, self.mean)] if self.mean else [])):
            writer.writerow((name, *(_text(values.get(column)) for column in self.columns)))
        write_bytes(path, text.getvalue().encode(errors="surrogateescape"))  # a file's name need not be Unicode


def read_table(path: Path) -> Table | None:
    """The table at `path`; None where there is none, or something else."""
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
        count = next(i for i, line in enumerate(lines) if not line.startswith("# "))
        head = dict(line[2:].split(": ", 1) for line in lines[:count])
        columns, *rows = csv.reader(lines[count:])
        values = {row[0]: _values(columns[1:], row[1:]) for row in rows}
        return Table(head, tuple(columns[1:]), values, values.pop(MEAN), columns[0])
    except (OSError, ValueError, LookupError, StopIteration, csv.Error):
        return None


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _values(columns: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    return {column: float(text) for column, text in zip(columns, texts, strict=True) if text}


def folder_of(run: Path, protocol: str) -> Path:
    """Where the tables of a protocol lie."""
    return run / "scores" / ("" if protocol == "paper" else protocol)


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, in the order of their steps; the position in this list is a checkpoint's index."""
    found = [path for path in (run / "checkpoints").glob("step_*.pt") if path.stem[5:].isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The training step in a checkpoint's name; -1 where there is none."""
    digits = checkpoint.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else -1


def select(run: Path, n: int = 1, remainders: Sequence[int] = (0,)) -> list[Path]:
    """The checkpoints whose index modulo `n` is one of `remainders`. Raises `UserError` where there is none."""
    found = checkpoints(run)
    chosen = [path for index, path in enumerate(found) if index % n in remainders]
    if not chosen:
        which = f", none of index modulo {n} in {', '.join(map(str, remainders))}" if found else ""
        raise UserError(f"no checkpoint to score in {run / 'checkpoints'}: it has {len(found)}{which}")
    return chosen


@dataclass(frozen=True)
class Board:
    """The tables of one question: how checkpoints do by these `columns` of a protocol, on the data in `asked`."""

    folder: Path
    protocol: str
    columns: tuple[str, ...]  # the first one ranks
    asked: dict[str, str]
    digests: dict[Path, tuple[int, str]] = field(default_factory=dict)

    def path(self, checkpoint: Path) -> Path:
        """Its table; a step of another run takes that run's name along."""
        ours = step_of(checkpoint) < 0 or checkpoint.parent in [run / "checkpoints" for run in self.folder.parents]
        return self.folder / (
            f"{checkpoint.stem}.csv" if ours else f"{checkpoint.parents[1].name}_{checkpoint.stem}.csv"
        )

    def read(self, checkpoint: Path) -> Table | None:
        """What this very checkpoint scored when it was asked the same."""
        table = read_table(self.path(checkpoint))
        return table if table and self.head(checkpoint).items() <= table.head.items() else None

    def done(self, checkpoint: Path) -> bool:
        table = self.read(checkpoint)
        return table is not None and set(self.columns) <= set(table.columns)

    def write(self, checkpoint: Path, rows: dict[str, dict[str, float]], mean: dict[str, float], **notes: str) -> None:
        """Store a checkpoint's scores; what it scored by other measures, asked the same, is kept."""
        before = self.read(checkpoint)
        columns = self.columns
        if before and before.rows.keys() == rows.keys():
            columns = (*columns, *(column for column in before.columns if column not in columns))
            rows = {name: before.rows[name] | values for name, values in rows.items()}
            mean, notes = before.mean | mean, before.head | notes
        Table(self.head(checkpoint) | notes, columns, rows, mean).write(self.path(checkpoint))

    def head(self, checkpoint: Path) -> dict[str, str]:
        """What the head of its table must say."""
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0
        if self.digests.get(checkpoint, (None,))[0] != stamp:  # hash a file once, and again if it is another
            self.digests[checkpoint] = stamp, sha256_of(checkpoint) if stamp else ""
        return {"checkpoint": checkpoint.name, "sha256": self.digests[checkpoint][1], **self.asked}

    @contextmanager
    def claim(self, wanted: Sequence[Path], wait: bool = False) -> Iterator[list[Path]]:
        """Those of `wanted` that no other process is scoring; nobody else gets them meanwhile.

        A claim is a lock on one byte of one file: it ends with the process that holds it, however that ends.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".claims", "a") as file:
            mine = []
            for checkpoint in wanted:
                place = int.from_bytes(hashlib.sha256(self.path(checkpoint).stem.encode()).digest()[:7])
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
                    mine.append(checkpoint)
                except (BlockingIOError, PermissionError):  # another process has it
                    continue
            yield mine

    def ranking(self, run: Path, higher_is_better: bool) -> list[dict]:
        """What is scored, best first by the first column: {"rank", "checkpoint", "step", column: mean, ...}."""
        by, scored = self.columns[0], []
        for checkpoint in checkpoints(run):
            table = self.read(checkpoint)
            if table and by in table.mean and not math.isnan(table.mean[by]):
                scored.append({"checkpoint": checkpoint.stem, "step": step_of(checkpoint), **table.mean})
        scored.sort(key=lambda row: (-row[by] if higher_is_better else row[by], row["step"]))
        return [{"rank": place, **row} for place, row in enumerate(scored, 1)]


def write_ranking(run: Path, board: Board, ranking: list[dict]) -> None:
    """scores/ranking.csv, and the first of it as the run's best."""
    columns = [name for name in ranking[0] if all(name in row for row in ranking)]
    text = io.StringIO()
    text.writelines(f"# {key}: {value}\n" for key, value in board.asked.items())
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(ranking)
    write_bytes(board.folder / "ranking.csv", text.getvalue().encode())
    best, by = ranking[0], board.columns[0]
    place = f"checkpoints/{best['checkpoint']}.pt"
    sha256 = board.head(run / place)["sha256"]
    value = best[by] if math.isfinite(best[by]) else str(best[by])
    record = {"checkpoint": place, "step": best["step"], "sha256": sha256, "ranked_by": by, by: value}
    write_json(run / "best.json", record | {"of": len(ranking)} | board.asked)


def read_ranking(path: Path) -> tuple[dict[str, str], list[dict]]:
    """(what was asked, rows best first) of a ranking.csv; empty where there is none."""
    if not path.is_file():
        return {}, []
    lines = path.read_text().splitlines()
    head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    return head, [{key: value if key == "checkpoint" else float(value) for key, value in row.items()} for row in rows]


def read_best(run: Path) -> dict:
    """What the latest ranking recorded; empty where there was none. Raises `UserError` where it is broken."""
    path = run / "best.json"
    if not path.is_file():
        return {}
    try:
        best = json.loads(path.read_text())
    except ValueError:
        best = None
    if not isinstance(best, dict) or not {"checkpoint", "sha256", "protocol", "ranked_by"} <= best.keys():
        raise UserError(f"{path} is broken: rank {run.name} again")
    return best


def best_checkpoint(run: Path) -> Path:
    """The checkpoint that the latest ranking named. Raises `UserError` where there is none, or another by now."""
    best = read_best(run)
    if not best:
        raise UserError(f"{run} is not ranked yet: rank it (process_set.py --run {run.name}), or name a --step")
    checkpoint = run / best["checkpoint"]
    if not checkpoint.is_file() or sha256_of(checkpoint) != best["sha256"]:
        raise UserError(f"{checkpoint} is not what it was when it was ranked the best: rank {run.name} again")
    return checkpoint
