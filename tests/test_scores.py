"""Score tables, claims and rankings on disk."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from scores import Board, Table, best_checkpoint, checkpoints, read_ranking, read_table, select, write_ranking

ROOT = Path(__file__).resolve().parents[1]


def board(folder: Path, columns: tuple[str, ...] = ("psnr",), data: str = "2 files, abc") -> Board:
    return Board(folder / "scores", "paper", columns, {"protocol": "paper: as printed", "data": data})


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with checkpoints of steps 20, 100 and 1000, and what must not count as one."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for step in (1000, 20, 100):
        (folder / f"step_{step:04d}.pt").write_text(f"weights {step}")
    for other in ("pretrained.pt", ".step_0300.partial.pt", "step_x.pt"):
        (folder / other).write_text("")
    return folder.parent


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_comes_back_as_it_was(tmp_path):
    rows = {'a, "b".png': {"psnr": 20.5, "lpips": 0.25}, "ü.png": {"psnr": math.inf}}
    table = Table({"data": "x: y", "protocol": "p"}, ("psnr", "lpips"), rows, {"psnr": math.inf, "lpips": 0.25})
    table.write(tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv") == table
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "# data: x: y"


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
def test_what_is_no_table_is_none(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert read_table(tmp_path / "t.csv") is None
    assert read_table(tmp_path / "not there.csv") is None


# --- which checkpoints -----------------------------------------------------------------------------------------------


def test_the_index_is_the_place_in_the_order_of_steps(run):
    assert [path.stem for path in checkpoints(run)] == ["step_0020", "step_0100", "step_1000"]
    assert [path.stem for path in select(run, 2, [0])] == ["step_0020", "step_1000"]
    assert [path.stem for path in select(run, 100, range(0, 100, 25))] == ["step_0020"]


def test_no_checkpoint_of_that_index_is_a_sentence(run, tmp_path):
    with pytest.raises(UserError, match="it has 3, none of index modulo 100 in 25, 50"):
        select(run, 100, [25, 50])
    with pytest.raises(UserError, match="it has 0"):
        select(tmp_path)


# --- what is done ----------------------------------------------------------------------------------------------------


def test_a_score_counts_for_this_checkpoint_and_this_question_alone(run):
    first, second, _ = checkpoints(run)
    board(run).write(first, {"a": {"psnr": 20.0}}, {"psnr": 20.0})
    assert board(run).done(first) and not board(run).done(second)
    assert not board(run, data="3 files, abc").done(first)
    assert not board(run, ("psnr", "ssim")).done(first)
    first.write_text("other weights")
    assert not board(run).done(first)


def test_other_measures_of_the_same_question_are_kept(run):
    path = checkpoints(run)[0]
    board(run).write(path, {"a": {"psnr": 20.0}}, {"psnr": 20.0})
    board(run, ("ssim",)).write(path, {"a": {"ssim": 0.5}}, {"ssim": 0.5})
    assert board(run, ("psnr", "ssim")).done(path)
    assert board(run).read(path).rows == {"a": {"psnr": 20.0, "ssim": 0.5}}
    board(run, ("ssim",), data="other").write(path, {"a": {"ssim": 0.5}}, {"ssim": 0.5})
    assert board(run, ("ssim",), data="other").read(path).columns == ("ssim",)


def test_a_claim_holds_against_other_processes_until_its_holder_dies(run):
    first, second, third = checkpoints(run)
    code = f"""
import sys, time
from pathlib import Path
from scores import Board
some = [Path({str(first)!r}), Path({str(second)!r})]
with Board(Path({str(run / "scores")!r}), "paper", ("psnr",), {{}}).claim(some):
    print("mine", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert holder.stdout.readline() == b"mine\n"
        with board(run).claim([first, second, third]) as mine:
            assert mine == [third]
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with board(run).claim([first, second], wait=True) as mine:
        assert mine == [first, second]


# --- ranking ---------------------------------------------------------------------------------------------------------


def scored(run: Path, values: list[float]) -> Board:
    for path, value in zip(checkpoints(run), values, strict=True):
        board(run).write(path, {"a": {"psnr": value}}, {"psnr": value})
    return board(run)


@pytest.mark.parametrize(
    ("values", "higher", "order"),
    (
        ([20.0, 22.0, 21.0], True, [100, 1000, 20]),
        ([20.0, 22.0, 21.0], False, [20, 1000, 100]),
        ([20.0, 20.0, math.inf], True, [1000, 20, 100]),
        ([20.0, math.nan, 21.0], True, [1000, 20]),
    ),
)
def test_the_best_is_first(run, values, higher, order):
    ranking = scored(run, values).ranking(run, higher)
    assert [row["step"] for row in ranking] == order
    assert [row["rank"] for row in ranking] == list(range(1, len(order) + 1))


def test_the_ranking_is_written_and_its_first_is_the_best(run):
    made = scored(run, [20.0, math.inf, 21.0])
    write_ranking(run, made, made.ranking(run, True))
    head, rows = read_ranking(run / "scores" / "ranking.csv")
    assert head == made.asked
    assert [(row["rank"], row["checkpoint"], row["psnr"]) for row in rows][1] == (2.0, "step_1000", 21.0)
    assert best_checkpoint(run) == run / "checkpoints" / "step_0100.pt"


def test_a_best_that_changes_meanwhile_is_not_taken_later(run):
    made = scored(run, [20.0, 22.0, 21.0])
    ranking = made.ranking(run, True)
    (run / "checkpoints" / "step_0100.pt").write_text("changed")
    (run / "scores" / "step_0100.csv").unlink()
    write_ranking(run, made, ranking)
    assert read_ranking(run / "scores" / "ranking.csv")[1][0]["psnr"] == 22.0


def test_a_best_that_is_gone_or_another_is_not_taken(run):
    with pytest.raises(UserError, match="not ranked yet"):
        best_checkpoint(run)
    made = scored(run, [20.0, 22.0, 21.0])
    write_ranking(run, made, made.ranking(run, True))
    (run / "best.json").write_text((run / "best.json").read_text()[:20])
    with pytest.raises(UserError, match="best.json is broken"):
        best_checkpoint(run)
    write_ranking(run, made, made.ranking(run, True))
    (run / "checkpoints" / "step_0100.pt").write_text("changed")
    with pytest.raises(UserError, match="rank run again"):
        best_checkpoint(run)
