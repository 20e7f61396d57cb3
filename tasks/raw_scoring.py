"""How mappers between two cameras are scored, and other maps beside them: on pairs of mosaics, in both directions.

A column "psnr_ab" is the PSNR of camera a's mosaics mapped to camera b, against what b sees; "psnr" is the mean of both
directions. The tables are those of `evaluation.tables`: a checkpoint is not scored again unless it, the files or the
protocol have changed.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

import storage
from config import Config
from data.notes import note
from data.two_cameras import Pair, TwoCameras
from errors import UserError
from evaluation import protocols
from evaluation.evaluators import Scores
from evaluation.raw_measures import DIRECTIONS
from evaluation.scoring import CheckpointScorer, require_at_once
from evaluation.tables import ScoreTables, Table, folder_of
from tasks.cameras import open_two_cameras
from tasks.mapping import OpenMapper, open_mapper
from tasks.raw_comparison import compare, describe, without_aligned

# Planes (1, 4, h, w), and the camera "a" or "b" that should have taken them -> planes.
Map = Callable[[Tensor, str], Tensor]
Result = tuple[dict[str, Scores], Scores]  # scores of each file, and means

PROTOCOL = "raw2raw"  # the usual one
READERS = 2  # threads that read pairs ahead: mosaics can be large


# --- any maps --------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def score_maps(
    maps: Mapping[str, Map],
    cameras: TwoCameras,
    columns: Sequence[str],
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
    protocol: str = PROTOCOL,
) -> dict[str, Result]:
    """Score each of the `maps` on all pairs, which are read once: {name of the map: (scores of each file, means)}.

    `columns` are those that `columns_of` returns; `progress` gets the number of pairs that are done. The identity and
    the maps of data/raw_maps.py are scored so beside a mapper. Raises `UserError` for files that cannot be read or
    are no pair, and for a map that changes the size of its planes.
    """
    single = tuple(dict.fromkeys(part for column in columns for part in _parts(column)))
    functions = protocols.build(protocol, single, _refuse_networks)
    rows = {name: {} for name in maps}
    for done, (pair, source, truth) in enumerate(_read(cameras), 1):
        source, truth, end = source.to(device), truth.to(device), _direction(pair)
        measures = {column: function for column, function in functions.items() if column.endswith(f"_{end}")}
        file = pair.source.name if cameras.aligned else pair.source.stem  # both cameras' files are one row
        for name, mapping in maps.items() if measures else ():
            mapped = mapping(source, DIRECTIONS[end][1])
            rows[name].setdefault(file, {}).update(compare(measures, cameras, pair, mapped, truth))
        progress(done)
    return {name: _summarize(scores, columns) for name, scores in rows.items()}


def by_direction(results: Mapping[str, Result]) -> list[dict]:
    """The means of `score_maps` for a table to look at, such as the paper's Table 1: a row for each map and direction.

    A row is {"map": name, "direction": "a->b", "files": n, "psnr": 30.1, ...}: columns without the direction's end.
    """
    rows = []
    for name, (scores, means) in results.items():
        for end, (source, to) in DIRECTIONS.items():
            found = {
                column.removesuffix(f"_{end}"): mean for column, mean in means.items() if column.endswith(f"_{end}")
            }
            files = sum(any(column.endswith(f"_{end}") for column in row) for row in scores.values())
            if found:
                rows.append({"map": name, "direction": f"{source}->{to}", "files": files, **found})
    return rows


def write_results(results: Mapping[str, Result], header: dict[str, str], folder: Path) -> None:
    """Write what `score_maps` returned: FOLDER/NAME/metrics.csv for each map, and compare.csv with the means of all."""
    for name, (rows, means) in results.items():
        Table(header | {"map": name}, tuple(means), rows, means).write(folder / name / "metrics.csv")
    columns = dict.fromkeys(column for _, means in results.values() for column in means)
    Table(header, tuple(columns), {name: means for name, (_, means) in results.items()}, None, "map").write(
        folder / "compare.csv"
    )


def _parts(column: str) -> tuple[str, ...]:
    """The columns of one direction that a column is the mean of: "psnr" -> "psnr_ab", "psnr_ba"."""
    own = any(column.endswith(f"_{end}") for end in DIRECTIONS)
    return (column,) if own else tuple(f"{column}_{end}" for end in DIRECTIONS)


def _direction(pair: Pair) -> str:
    return next(end for end, (source, _) in DIRECTIONS.items() if source == pair.camera)


def _read(cameras: TwoCameras) -> Iterator[tuple[Pair, Tensor, Tensor]]:
    """Each pair with its planes, in order; a few are read ahead."""

    def read(pair: Pair) -> tuple[Pair, Tensor, Tensor]:
        return pair, *cameras.pair(pair)

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(cameras.pairs), 2 * READERS):
            yield from pool.map(read, cameras.pairs[start : start + 2 * READERS])


def _summarize(rows: dict[str, Scores], columns: Sequence[str]) -> Result:
    """Add the means of both directions to each file that has both, and the means over files; in the columns' order.

    Each direction counts the same in the mean, also with unequal numbers of files.
    """
    means = {}
    for part in dict.fromkeys(part for column in columns for part in _parts(column)):
        if values := [row[part] for row in rows.values() if part in row]:
            means[part] = sum(values) / len(values)
    complete = {name: _with_both(row, columns, means.keys()) for name, row in rows.items()}
    return complete, _with_both(means, columns, means.keys())


def _with_both(scores: Scores, columns: Sequence[str], measured: Sequence[str]) -> Scores:
    """The `columns` of these scores; one of both directions is the mean of those `measured`, if all are known here."""
    found = {}
    for column in columns:
        parts = [part for part in _parts(column) if part in measured]
        if parts and all(part in scores for part in parts):
            found[column] = sum(scores[part] for part in parts) / len(parts)
    return found


def _refuse_networks(name: str) -> torch.nn.Module:
    raise UserError(f"measure '{name}' has no function: planes are not scored by networks")


# --- the checkpoints of a run ----------------------------------------------------------------------------------------


def columns_of(cameras: TwoCameras, measures: Sequence[str] = (), protocol: str = PROTOCOL) -> tuple[str, ...]:
    """The columns of a table: each of the `measures`, and its parts in both directions if it is a mean of these.

    Without `measures`, those of the protocol that the pairs can have. Raises `UserError` if there are no pairs, none of
    a direction that is asked for, or no such measure, or if the protocol is one for photographs.
    """
    protocols.find_protocol(protocol, "planes")
    named = protocols.choose(protocol, measures)
    known = {_direction(pair) for pair in cameras.pairs}
    if not known:
        raise UserError(
            "the mosaics of the two cameras have no pairs, of the same scenes: nothing can be scored. Look at the "
            "pictures in the run's samples/, or use a dataset that has pairs (docs/raw_to_raw.md)"
        )
    named = without_aligned(named, measures, cameras)
    columns = dict.fromkeys(part for column in named for part in (column, *_parts(column)))
    missing = [column for column in columns if len(_parts(column)) == 1 and not any(map(column.endswith, known))]
    for column in missing:
        if column in named:
            raise UserError(f"no pair has a mosaic of camera {column[-2]}, which '{column}' needs: leave it out")
    return tuple(column for column in columns if column not in missing)


def open_tables(run: Path, cameras: TwoCameras, measures: Sequence[str] = (), protocol: str = PROTOCOL) -> ScoreTables:
    """The score tables of a run's mappers. They are ranked by the first of the `measures`, by default PSNR.

    Raises `UserError` as `columns_of` does.
    """
    columns = columns_of(cameras, measures or ("psnr",), protocol)
    files = [
        (pair.camera, path.name, storage.fingerprint(path))
        for pair in cameras.pairs
        for path in (pair.source, pair.truth)
    ]
    raws = [path for pair in cameras.pairs for path in (pair.source, pair.truth)]
    read = [cameras.readers[camera].facts(raws) for camera in ("a", "b")]
    charts = [(path.name, cameras.charts[path]) for path in raws if path in cameras.charts]
    charts = [(name, sorted(each.corners.items()), each.orientation) for name, each in charts]
    if cameras.channels != 4 or charts:
        read += [(cameras.channels, charts)]
    digest = hashlib.sha256(repr((files, read)).encode()).hexdigest()[:12]
    facts = {
        "protocol": describe(protocol, cameras),
        "data": f"{len(cameras.pairs)} pairs, {digest}",
    }
    return ScoreTables(folder_of(run, protocol), protocol, columns, facts)


def open_run_tables(
    run: Path, config: Config, rank: str, protocol: str = "", measures: Sequence[str] = ()
) -> ScoreTables:
    """The same of a run by its config, for `tasks.table`. Without a protocol, "", it is `PROTOCOL`.

    Raises `UserError` as `open_tables` and `open_two_cameras` do, and for the `rank` "unpaired".
    """
    if rank != "paired":
        raise UserError(
            f"--rank {rank} judges photographs, but this run makes mosaics of another camera, which are scored on "
            "pairs: leave it out"
        )
    return open_tables(run, open_two_cameras(config), measures, protocol or PROTOCOL)


def open_scorer(config: Config, tables: ScoreTables, device: torch.device, at_once: int = 0) -> "MapperScorer":
    """A scorer of a run's checkpoints for these tables, on the pairs of its dataset."""
    return MapperScorer(tables, open_two_cameras(config), open_mapper, device, at_once)


class MapperScorer(CheckpointScorer):
    """Scores checkpoints of mappers on pairs of mosaics.

    `at_once` checkpoints are opened together, and score each pair that is read; 0: 8 on a GPU, which maps a mosaic
    faster than a file is read, and 1 on a CPU. Mosaics are read anew for each such group: those of a test set can be
    larger than the memory.
    """

    def __init__(
        self,
        tables: ScoreTables,
        cameras: TwoCameras,
        open_mapper: Callable[[str, torch.device], OpenMapper],
        device: torch.device,
        at_once: int = 0,
    ):
        require_at_once(at_once)
        super().__init__(tables, open_mapper, device, group=at_once or (8 if device.type == "cuda" else 1))
        self.cameras = cameras

    def open(self) -> int:
        """The number of mosaics that each checkpoint maps. They are read later, one after another."""
        return len(self.cameras.pairs)

    def kind_of(self, model: OpenMapper) -> Hashable:
        """All mappers are of one kind: each runs alone."""
        return None

    def evaluate(self, models: Sequence[OpenMapper]) -> list[Result]:
        """(scores of each file, means) of each mapper."""
        for model in models:
            note_other_cameras(model, self.cameras)
        maps = {str(number): model.map for number, model in enumerate(models)}
        share = len(models) / len(self.cameras.pairs)

        def mapped(done: int) -> None:
            self._advance(share)

        columns, protocol = self.tables.columns, self.tables.protocol
        return list(score_maps(maps, self.cameras, columns, self.device, mapped, protocol).values())


def note_other_cameras(mapper: OpenMapper, cameras: TwoCameras) -> None:
    """Print a note if a mapper was trained on cameras of other levels or CFA orders than those of the pairs."""
    for name, reader in cameras.readers.items():
        if mapper.sensors[name] != reader.sensor:
            note(
                f"{mapper.name} was trained on a camera {name} with {mapper.sensors[name]}; these mosaics have "
                f"{reader.sensor}: colours may be wrong"
            )
