"""Score tables and rankings of a run's checkpoints, as files in the run's folder.

runs/NAME/scores/step_0000500.csv    one checkpoint: a row for each file, then the mean; the header says what was scored
runs/NAME/scores/ranking.csv         all scored checkpoints, the best first
runs/NAME/scores/PROTOCOL/...        the same for every protocol but `paper`, and for `unpaired`
runs/NAME/best.json                  the first checkpoint of the latest ranking
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import storage
from data.notes import note
from errors import UserError

MEAN = "mean"  # the name of a table's last row


# --- one table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A CSV file of scores. Comment lines `# key: value` before it hold the `header`."""

    header: dict[str, str]
    columns: tuple[str, ...]
    rows: dict[str, dict[str, float]]  # file -> column -> score; scores of the whole set are in the mean only
    mean: dict[str, float] | None  # the last row; None: the table has none
    name_column: str = "file"  # the heading of the first column, which holds the rows' names

    def write(self, path: Path) -> None:
        """Write the file; scores have six decimals, and a missing score is an empty cell."""
        text = io.StringIO()
        text.writelines(f"# {key}: {value}\n" for key, value in self.header.items())
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((self.name_column, *self.columns))
        for name, values in (*self.rows.items(), *([(MEAN, self.mean)] if self.mean else [])):
            writer.writerow((name, *(_to_text(values.get(column)) for column in self.columns)))
        storage.write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))  # file names need not be Unicode


def read_table(path: Path) -> Table | None:
    """The table in the file `path`; None if there is no such file, or it is not a table with a mean.

    Raises `OSError` for a file that cannot be read: it may be a good table.
    """
    try:
        if not path.is_file():  # reading a pipe could wait for ever
            return None
        text = path.read_text("utf-8", errors="surrogateescape")
        lines = text.split("\n")  # names may hold other line breaks
        count = next(i for i, line in enumerate(lines) if not line.startswith("# "))
        header = dict(line[2:].split(": ", 1) for line in lines[:count])
        columns, *rows = csv.reader(io.StringIO("\n".join(lines[count:]), newline=""))
        values = {row[0]: _to_numbers(columns[1:], row[1:]) for row in rows}
        return Table(header, tuple(columns[1:]), values, values.pop(MEAN), columns[0])
    except (ValueError, LookupError, StopIteration, csv.Error):
        return None


def _to_text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _to_numbers(columns: Sequence[str], cells: Sequence[str]) -> dict[str, float]:
    return {column: float(cell) for column, cell in zip(columns, cells, strict=True) if cell}


# --- a run's checkpoints ---------------------------------------------------------------------------------------------


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, sorted by step. The position in this list is a checkpoint's index."""
    return sorted((path for path in (run / "checkpoints").glob("step_*.pt") if step_of(path) >= 0), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The training step in a checkpoint's file name, or -1 if the name has none."""
    name = re.fullmatch(r"step_([0-9]+)", checkpoint.stem)  # [0-9]: other digits, such as ², are no number
    return int(name[1]) if name else -1


def full_name(checkpoint: Path) -> str:
    """A file's name, with that of its run if it is in one: checkpoints of two runs can have the same step."""
    folder = checkpoint.absolute().parent
    return f"{folder.parent.name}_{checkpoint.stem}" if folder.name == "checkpoints" else checkpoint.stem


def select(run: Path, n: int = 1, remainders: Sequence[int] = (0,)) -> list[Path]:
    """The checkpoints whose index modulo `n` is one of `remainders`. Raises `UserError` if there are none."""
    found = checkpoints(run)
    chosen = [path for index, path in enumerate(found) if index % n in remainders]
    if not chosen:
        shown = ", ".join(map(str, remainders[:4])) + (", ..." if remainders[4:] else "")
        which = f", none of index modulo {n} in {shown}" if found else ""
        raise UserError(f"no checkpoint to score in {run / 'checkpoints'}: it has {len(found)}{which}")
    return chosen


# --- the tables of a run ---------------------------------------------------------------------------------------------


def folder_of(run: Path, protocol: str) -> Path:
    """The folder of a run's score tables for a protocol, or for "unpaired"."""
    return run / "scores" / ("" if protocol == "paper" else protocol)


@dataclass(frozen=True)
class ScoreTables:
    """The score tables of a run's checkpoints for one protocol, its `columns` and the data in `facts`."""

    folder: Path
    protocol: str  # a protocol's name, or "unpaired"
    columns: tuple[str, ...]  # the first one ranks
    facts: dict[str, str]  # what scores depend on beside the checkpoint: {"protocol": its summary, "data": ..., ...}
    digests: dict[Path, tuple[int, str]] = field(default_factory=dict)  # checkpoint -> (modification time, SHA-256)

    def path(self, checkpoint: Path) -> Path:
        """The file of a checkpoint's table; its name includes the run for a checkpoint of another run."""
        own = step_of(checkpoint) < 0 or checkpoint.parent in [run / "checkpoints" for run in self.folder.parents]
        name = checkpoint.stem if own else f"{checkpoint.parents[1].name}_{checkpoint.stem}"
        return self.folder / f"{'checkpoint_' if name == 'ranking' else ''}{name}.csv"  # ranking.csv is the ranking

    def read(self, checkpoint: Path) -> Table | None:
        """The stored table, or None if there is none, or the checkpoint, the data or the protocol changed."""
        table = read_table(self.path(checkpoint))
        return table if table and self.header(checkpoint).items() <= table.header.items() else None

    def is_complete(self, checkpoint: Path) -> bool:
        """Whether the stored table is valid and has all `columns`."""
        table = self.read(checkpoint)
        return table is not None and set(self.columns) <= set(table.columns)

    def write(self, checkpoint: Path, rows: dict[str, dict[str, float]], mean: dict[str, float], **notes: str) -> None:
        """Store a checkpoint's scores; other columns of a valid stored table of the same files are preserved.

        `notes` are further lines of the header.
        """
        stored, columns = self.read(checkpoint), self.columns
        before = None if stored else read_table(self.path(checkpoint))
        if before and before.header.get("data") != self.facts.get("data"):
            note(f"scores on other data in {self.folder} are replaced")
        if stored and stored.rows.keys() == rows.keys():
            columns = (*columns, *(column for column in stored.columns if column not in columns))
            rows = {name: stored.rows[name] | values for name, values in rows.items()}
            mean, notes = stored.mean | mean, stored.header | notes
        Table(self.header(checkpoint) | notes, columns, rows, mean).write(self.path(checkpoint))

    def header(self, checkpoint: Path) -> dict[str, str]:
        """The header that a valid table of this checkpoint has, among other lines."""
        modified = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else -1
        if self.digests.get(checkpoint, (None,))[0] != modified:  # hash a file once, and again when it changed
            self.digests[checkpoint] = modified, "" if modified == -1 else storage.sha256_of(checkpoint)
        return {"checkpoint": checkpoint.name, "sha256": self.digests[checkpoint][1], **self.facts}

    @contextmanager
    def claim(self, wanted: Sequence[Path], wait: bool = False) -> Iterator[list[Path]]:
        """Yield those of `wanted` that no other process is scoring; no other process can claim them meanwhile.

        With `wait`, wait until all of them are free. Claims end with the block, or with the process.
        """
        names = {checkpoint: self.path(checkpoint).stem for checkpoint in wanted}
        with storage.claim(self.folder / ".claims", list(names.values()), wait) as claimed:
            yield [checkpoint for checkpoint in wanted if names[checkpoint] in claimed]

    def ranking(self, run: Path, higher_is_better: bool) -> list[dict]:
        """A row for each scored checkpoint, sorted by the first column, the best first.

        A row is {"rank": 1, "checkpoint": "step_0000500", "step": 500, column: mean, ...}. A mean of NaN is left out.
        """
        column, rows = self.columns[0], []
        tables = {checkpoint: table for checkpoint in checkpoints(run) if (table := self.read(checkpoint))}
        self._require_same_networks(tables)
        for checkpoint, table in tables.items():
            if column in table.mean and not math.isnan(table.mean[column]):
                rows.append({"checkpoint": checkpoint.stem, "step": step_of(checkpoint), **table.mean})
        rows.sort(key=lambda row: (-row[column] if higher_is_better else row[column], row["step"]))
        return [{"rank": rank, **row} for rank, row in enumerate(rows, 1)]

    def networks(self, table: Table) -> dict[str, str]:
        """The lines of a table's header that say where the weights behind its scores are from."""
        others = {key: value for key, value in table.header.items() if key not in ("checkpoint", "sha256", *self.facts)}
        if self.protocol == "unpaired":
            return others
        return {column: others[column] for column in self.columns if column in others}

    def _require_same_networks(self, tables: dict[Path, Table]) -> None:
        """Raise `UserError` if a network had other weights for some of the tables than for others."""
        seen = {}
        for checkpoint, table in tables.items():
            for key, value in self.networks(table).items():
                other, before = seen.setdefault(key, (checkpoint, value))
                if value != before:
                    raise UserError(
                        f"{self.path(other)} and {self.path(checkpoint)} cannot be ranked together: '{key}' was "
                        f"{before} for the one and {value} for the other; remove the tables of the wrong one, and "
                        "score those checkpoints again"
                    )


# --- ranking.csv and best.json ---------------------------------------------------------------------------------------


def write_ranking(run: Path, tables: ScoreTables, ranking: list[dict]) -> None:
    """Write ranking.csv, and its first row as the run's best.json."""
    columns = [name for name in ranking[0] if all(name in row for row in ranking)]
    text = io.StringIO()
    text.writelines(f"# {key}: {value}\n" for key, value in tables.facts.items())
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(ranking)
    storage.write_bytes(tables.folder / "ranking.csv", text.getvalue().encode())
    best, column = ranking[0], tables.columns[0]
    checkpoint = f"checkpoints/{best['checkpoint']}.pt"
    sha256 = tables.header(run / checkpoint)["sha256"]
    score = best[column] if math.isfinite(best[column]) else str(best[column])  # JSON has no infinity
    record = {"checkpoint": checkpoint, "step": best["step"], "sha256": sha256, "ranked_by": column, column: score}
    storage.write_json(run / "best.json", record | {"of": len(ranking)} | tables.facts)


def read_ranking(path: Path) -> tuple[dict[str, str], list[dict]]:
    """(the facts of its score tables, rows with the best first) of a ranking.csv; both empty if there is no file.

    Raises `UserError` if the file is damaged.
    """
    if not path.is_file():
        return {}, []
    try:
        lines = path.read_text("utf-8").splitlines()
        facts = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
        reader = csv.DictReader(line for line in lines if not line.startswith("# "))
        rows = [{key: value if key == "checkpoint" else float(value) for key, value in row.items()} for row in reader]
    except (ValueError, TypeError, csv.Error):  # TypeError: a row has more or fewer cells than the heading
        rows = [{}]
    if not all({"rank", "checkpoint", "step"} <= row.keys() for row in rows):
        raise UserError(f"{path} is damaged: rank the run again (process_set.py --rank)")
    return facts, rows


def read_best(run: Path) -> dict:
    """The content of best.json; empty if the run is not ranked yet. Raises `UserError` if the file is damaged."""
    path = run / "best.json"
    if not path.is_file():
        return {}
    try:
        best = json.loads(path.read_text())
    except (ValueError, RecursionError):  # RecursionError: thousands of nested brackets
        best = None
    texts = ("checkpoint", "sha256", "protocol", "ranked_by")
    if not isinstance(best, dict) or not all(isinstance(best.get(key), str) for key in texts):
        raise UserError(f"{path} is damaged: rank the run again (process_set.py --run {run.name})")
    return best


def find_checkpoint(run: Path, step: int | None = None) -> Path:
    """A run's checkpoint of this step; by default the best of its latest ranking or, with a note, the last one.

    Raises `UserError` if there is none.
    """
    if step is None and read_best(run):
        return best_checkpoint(run)
    if not (known := checkpoints(run)):
        raise UserError(f"{run} has no checkpoints yet: train it on (python fit.py --resume)")
    found = [path for path in known if step_of(path) == step]
    if step is None:
        found = [max(known, key=step_of)]
        note(
            f"{run} is not ranked (process_set.py): its last checkpoint is taken, {found[0].stem}; --step names others"
        )
    if not found:
        raise UserError(f"{run} has no checkpoint of step {step}")
    return found[0]


def best_checkpoint(run: Path) -> Path:
    """The best checkpoint of the latest ranking. Raises `UserError` if there is none, or it changed since."""
    best = read_best(run)
    if not best:
        raise UserError(f"{run} is not ranked yet: rank it (process_set.py --run {run.name}), or name a --step")
    checkpoint = run / best["checkpoint"]
    if not checkpoint.is_file() or storage.sha256_of(checkpoint) != best["sha256"]:
        raise UserError(
            f"{checkpoint} was ranked the best, but has changed or been removed since: "
            f"rank the run again (process_set.py --run {run.name})"
        )
    return checkpoint
