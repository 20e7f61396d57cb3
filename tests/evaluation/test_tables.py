"""Score tables, claims and rankings on disk."""

import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from evaluation.tables import (
    ScoreTables,
    Table,
    best_checkpoint,
    checkpoints,
    find_checkpoint,
    folder_of,
    read_best,
    read_ranking,
    read_table,
    select,
    write_ranking,
)

ROOT = Path(__file__).resolve().parents[2]


def score_tables(run: Path, columns: tuple[str, ...] = ("psnr",), data: str = "2 files, abc") -> ScoreTables:
    return ScoreTables(run / "scores", "paper", columns, {"protocol": "paper: as printed", "data": data})


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with checkpoints of steps 20, 100 and 1000, and files that are not checkpoints of a step."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for step in (1000, 20, 100):
        (folder / f"step_{step:04d}.pt").write_text(f"weights {step}")
    for other in ("pretrained.pt", ".step_0300.partial.pt", "step_x.pt"):
        (folder / other).write_text("")
    return folder.parent


# --- one table -------------------------------------------------------------------------------------------------------


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = {'a, "b".png': {"psnr": 20.5, "lpips": 0.25}, "ü.png": {"psnr": math.inf}}
    table = Table({"data": "x: y", "protocol": "p"}, ("psnr", "lpips"), rows, {"psnr": math.inf, "lpips": 0.25})
    table.write(tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv") == table
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "# data: x: y"


def test_the_format_of_a_table(tmp_path):
    """Existing runs hold such files."""
    rows = {"a.png": {"psnr": 20.5, "ssim": 0.25}, "b.png": {"psnr": math.inf}}
    Table({"data": "2 files"}, ("psnr", "ssim"), rows, {"psnr": math.inf, "ssim": 0.25}).write(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == (
        "# data: 2 files\nfile,psnr,ssim\na.png,20.500000,0.250000\nb.png,inf,\nmean,inf,0.250000\n"
    )
    Table({}, ("psnr",), {"tiny": {"psnr": 1.0}}, None, "model").write(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "model,psnr\ntiny,1.000000\n"


@pytest.mark.parametrize(
    "text",
    (
        "",
        "# a: b\n",
        "file,psnr\na,1\n",
        "file,psnr\na,x\nmean,1\n",
        "file,psnr\n\nmean,1\n",
        "\x00",
        "\x00" * 200_000,
        "file,p\nmean",
    ),
)
def test_a_file_that_is_not_a_table_is_read_as_none(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert read_table(tmp_path / "t.csv") is None
    assert read_table(tmp_path / "not there.csv") is None


# --- a run's checkpoints ---------------------------------------------------------------------------------------------


def test_the_index_of_a_checkpoint_is_its_position_in_the_order_of_steps(run):
    assert [path.stem for path in checkpoints(run)] == ["step_0020", "step_0100", "step_1000"]
    assert [path.stem for path in select(run, 2, [0])] == ["step_0020", "step_1000"]
    assert [path.stem for path in select(run, 100, range(0, 100, 25))] == ["step_0020"]


def test_selecting_no_checkpoint_is_a_user_error(run, tmp_path):
    with pytest.raises(UserError, match="it has 3, none of index modulo 100 in 25, 50"):
        select(run, 100, [25, 50])
    with pytest.raises(UserError, match="it has 0"):
        select(tmp_path)


# --- the tables of a run ---------------------------------------------------------------------------------------------


def test_the_networks_of_a_table_are_those_of_its_columns(run):
    table = Table({"checkpoint": "c", "data": "d", "weights": "random", "lpips": "random (seed 0)"}, (), {}, {})
    tables = score_tables(run)
    assert tables.networks(table) == {}
    assert dataclasses.replace(tables, columns=("psnr", "lpips")).networks(table) == {"lpips": "random (seed 0)"}
    assert "lpips" in dataclasses.replace(tables, protocol="unpaired").networks(table)


def test_where_tables_lie(run, tmp_path):
    assert folder_of(run, "paper") == run / "scores" and folder_of(run, "unpaired") == run / "scores" / "unpaired"
    tables, folder = score_tables(run), run / "scores"
    assert tables.path(run / "checkpoints" / "step_0020.pt") == folder / "step_0020.csv"
    assert tables.path(tmp_path / "other" / "checkpoints" / "step_0020.pt") == folder / "other_step_0020.csv"
    assert tables.path(tmp_path / "released.pt") == folder / "released.csv"


def test_a_stored_score_is_valid_for_the_same_checkpoint_data_and_columns_only(run):
    first, second, _ = checkpoints(run)
    score_tables(run).write(first, {"a": {"psnr": 20.0}}, {"psnr": 20.0})
    assert score_tables(run).is_complete(first) and not score_tables(run).is_complete(second)
    assert not score_tables(run, data="3 files, abc").is_complete(first)
    assert not score_tables(run, ("psnr", "ssim")).is_complete(first)
    first.write_text("other weights")
    assert not score_tables(run).is_complete(first)


def test_a_table_preserves_its_other_columns_if_the_data_are_the_same(run):
    path = checkpoints(run)[0]
    score_tables(run).write(path, {"a": {"psnr": 20.0}}, {"psnr": 20.0})
    score_tables(run, ("ssim",)).write(path, {"a": {"ssim": 0.5}}, {"ssim": 0.5})
    assert score_tables(run, ("psnr", "ssim")).is_complete(path)
    assert score_tables(run).read(path).rows == {"a": {"psnr": 20.0, "ssim": 0.5}}
    score_tables(run, ("ssim",), data="other").write(path, {"a": {"ssim": 0.5}}, {"ssim": 0.5})
    assert score_tables(run, ("ssim",), data="other").read(path).columns == ("ssim",)


def test_a_claim_excludes_other_processes_until_its_process_dies(run):
    first, second, third = checkpoints(run)
    code = f"""
import sys, time
from pathlib import Path
from evaluation.tables import ScoreTables
wanted = [Path({str(first)!r}), Path({str(second)!r})]
with ScoreTables(Path({str(run / "scores")!r}), "paper", ("psnr",), {{}}).claim(wanted):
    print("claimed", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert holder.stdout.readline() == b"claimed\n"
        with score_tables(run).claim([first, second, third]) as claimed:
            assert claimed == [third]
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with score_tables(run).claim([first, second], wait=True) as claimed:
        assert claimed == [first, second]


# --- ranking ---------------------------------------------------------------------------------------------------------


def scored(run: Path, values: list[float]) -> ScoreTables:
    """Tables of the run's checkpoints with these PSNRs, in the order of steps."""
    for path, value in zip(checkpoints(run), values, strict=True):
        score_tables(run).write(path, {"a": {"psnr": value}}, {"psnr": value})
    return score_tables(run)


@pytest.mark.parametrize(
    ("values", "higher_is_better", "steps"),
    (
        ([20.0, 22.0, 21.0], True, [100, 1000, 20]),
        ([20.0, 22.0, 21.0], False, [20, 1000, 100]),
        ([20.0, 20.0, math.inf], True, [1000, 20, 100]),
        ([20.0, math.nan, 21.0], True, [1000, 20]),
    ),
)
def test_a_ranking_starts_with_the_best(run, values, higher_is_better, steps):
    ranking = scored(run, values).ranking(run, higher_is_better)
    assert [row["step"] for row in ranking] == steps
    assert [row["rank"] for row in ranking] == list(range(1, len(steps) + 1))


def test_a_ranking_is_written_and_its_first_row_is_the_best(run):
    tables = scored(run, [20.0, math.inf, 21.0])
    write_ranking(run, tables, tables.ranking(run, True))
    facts, rows = read_ranking(run / "scores" / "ranking.csv")
    assert facts == tables.facts
    assert [(row["rank"], row["checkpoint"], row["psnr"]) for row in rows][1] == (2.0, "step_1000", 21.0)
    assert best_checkpoint(run) == run / "checkpoints" / "step_0100.pt"


def test_the_formats_of_a_ranking_and_of_the_best(run):
    """Existing runs hold such files."""
    tables = scored(run, [20.0, 22.0, 21.0])
    write_ranking(run, tables, tables.ranking(run, True))
    assert (run / "scores" / "ranking.csv").read_text() == (
        "# protocol: paper: as printed\n# data: 2 files, abc\nrank,checkpoint,step,psnr\n"
        "1,step_0100,100,22.0\n2,step_1000,1000,21.0\n3,step_0020,20,20.0\n"
    )
    best = read_best(run)
    assert len(best.pop("sha256")) == 64
    assert best == {
        "checkpoint": "checkpoints/step_0100.pt",
        "step": 100,
        "ranked_by": "psnr",
        "psnr": 22.0,
        "of": 3,
        "protocol": "paper: as printed",
        "data": "2 files, abc",
    }


def test_a_ranking_is_written_though_its_best_checkpoint_changes_meanwhile(run):
    tables = scored(run, [20.0, 22.0, 21.0])
    ranking = tables.ranking(run, True)
    (run / "checkpoints" / "step_0100.pt").write_text("changed")
    (run / "scores" / "step_0100.csv").unlink()
    write_ranking(run, tables, ranking)
    assert read_ranking(run / "scores" / "ranking.csv")[1][0]["psnr"] == 22.0


def test_without_a_ranking_the_last_checkpoint_is_taken_with_a_note(run, capsys):
    assert find_checkpoint(run).stem == "step_1000"
    assert "is not ranked (process_set.py): its last checkpoint is taken, step_1000" in capsys.readouterr().err
    assert find_checkpoint(run, 100).stem == "step_0100"
    with pytest.raises(UserError, match="has no checkpoint of step 7"):
        find_checkpoint(run, 7)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoints yet"):
        find_checkpoint(run)


def test_a_best_checkpoint_that_is_missing_or_changed_is_a_user_error(run):
    assert read_best(run) == {} and read_ranking(run / "scores" / "ranking.csv") == ({}, [])
    with pytest.raises(UserError, match="not ranked yet"):
        best_checkpoint(run)
    tables = scored(run, [20.0, 22.0, 21.0])
    write_ranking(run, tables, tables.ranking(run, True))
    (run / "best.json").write_text((run / "best.json").read_text()[:20])
    with pytest.raises(UserError, match="best.json is damaged"):
        best_checkpoint(run)
    write_ranking(run, tables, tables.ranking(run, True))
    (run / "checkpoints" / "step_0100.pt").write_text("changed")
    with pytest.raises(UserError, match="changed or been removed since: rank the run again.*--run run"):
        best_checkpoint(run)
