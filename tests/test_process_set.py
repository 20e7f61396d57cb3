"""Fanning the scoring out: real sessions, real kills, and the same ranking in the end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import inference
import process_set
from build import open_run
from scores import best_checkpoint, checkpoints, read_ranking

ROOT = Path(__file__).resolve().parents[1]
needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")


@pytest.fixture
def environment(tmp_path):
    """A tmux server of the test's own, of someone whose panes remain when they end; and one thread a process."""
    sockets = tmp_path / "tmux"
    sockets.mkdir()
    (sockets / ".tmux.conf").write_text("set -g remain-on-exit on\n")
    changes = {"TMUX_TMPDIR": str(sockets), "HOME": str(sockets), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    values = {key: value for key, value in os.environ.items() if key != "TMUX"} | changes
    yield values
    if shutil.which("tmux"):
        subprocess.run(["tmux", "kill-server"], env=values, capture_output=True)


def command(run: Path, *arguments: object) -> list[str]:
    script = str(ROOT / "process_set.py")
    return [sys.executable, script, f"--run={run.name}", f"--runs={run.parent}", *map(str, arguments)]


def start(run: Path, environment: dict, *arguments: object) -> subprocess.Popen:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # A shell in the background hands on an ignored SIGINT; a terminal does not.
    heeded = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(command(run, *arguments), env=environment, preexec_fn=heeded, **streams)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    said = process.communicate(timeout=120)[0]
    return process.returncode, said


def await_(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def tables(run: Path) -> dict[str, int]:
    """Score file -> when it was written."""
    return {path.stem: path.stat().st_mtime_ns for path in (run / "scores").glob("step_*.csv")}


def brute_force(run: Path) -> list[str]:
    """All checkpoints by PSNR, one by one, in this process."""
    _, config = open_run(str(run.parent), run.name)
    board = inference.open_board(run, config, "paired", "paper", ["psnr"])
    scorer = inference.Scorer(config, board, torch.device("cpu"), at_once=1)
    models = {path.stem: inference.open_model(str(path), torch.device("cpu")) for path in checkpoints(run)}
    means = {name: scorer.evaluate([model])[0][1]["psnr"] for name, model in models.items()}
    return sorted(means, key=means.get, reverse=True)


def ranked(run: Path) -> list[str]:
    return [row["checkpoint"] for row in read_ranking(run / "scores" / "ranking.csv")[1]]


# --- real sessions ---------------------------------------------------------------------------------------------------


@needs_tmux
def test_killed_and_started_again_it_ranks_as_a_plain_loop_does(make_run, environment):
    run = make_run("v1.2:final b", count=60)
    first = start(run, environment, "--n", 2, "--step", 1, "--launcher", "tmux")
    await_(lambda: tables(run))
    first.kill()
    subprocess.run(["tmux", "kill-server"], env=environment, check=True)
    first.wait()
    first.stdout.close()
    before = tables(run)
    two = [start(run, environment, "--n", 2, "--step", 1, "--launcher", "tmux") for _ in range(2)]
    for status, said in map(finish, two):
        assert status == 0 and "60 of 60 checkpoints" in said, said
    assert 0 < len(before) < 60 and before.items() <= tables(run).items()
    assert ranked(run) == brute_force(run)
    assert best_checkpoint(run).stem == ranked(run)[0]


@needs_tmux
def test_a_session_that_dies_is_reported_and_the_ranking_is_made(make_run, environment):
    run = make_run(count=40)
    process = start(run, environment, "--n", 40, "--step", 20, "--launcher", "tmux", "--at-once", 1)
    board = run / "scores" / "sessions"
    await_(lambda: len(list(board.glob("*.log"))) == 2)
    names = subprocess.run(["tmux", "ls", "-F", "#S"], env=environment, capture_output=True, text=True).stdout.split()
    subprocess.run(["tmux", "kill-session", "-t", f"={sorted(names)[1]}"], env=environment, check=True)
    status, said = finish(process)
    assert status == 2 and f"session {sorted(names)[1]} was killed; its last lines" in said
    assert "1 of 2 sessions did not do all their work" in said and ranked(run) == ["step_0000010"]


@needs_tmux
def test_ctrl_c_leaves_the_sessions_of_another(make_run, environment):
    """Both wait for a checkpoint that this process holds."""
    run = make_run(count=3)
    _, config = open_run(str(run.parent), run.name)
    board = inference.open_board(run, config, "paired", "paper", ["psnr"])
    with board.claim(checkpoints(run)[:1]):
        first = start(run, environment, "--launcher", "tmux")
        assert "1 sessions, 1 of them new" in first.stdout.readline()
        second = start(run, environment, "--launcher", "tmux")
        assert "1 sessions, 0 of them new" in second.stdout.readline()
        time.sleep(0.5)
        second.send_signal(signal.SIGINT)
        assert finish(second)[0] == 130
    status, said = finish(first)
    assert status == 0 and "3 of 3 checkpoints" in said, said


def test_a_broken_checkpoint_stops_no_other(make_run, environment):
    run = make_run("-odd", count=6)
    checkpoints(run)[2].write_bytes(b"nothing")
    status, said = finish(start(run, environment, "--n", 6, "--step", 2, "--launcher", "local"))
    assert status == 2 and "step_0000030.pt is no readable" in said and "Traceback" not in said
    assert set(ranked(run)) == {"step_0000010", "step_0000050"}
    before = tables(run)
    status, said = finish(start(run, environment, "--n", 6, "--step", 2, "--launcher", "local"))
    assert status == 2 and "1 sessions, 1 of them new" in said and tables(run) == before


def test_ctrl_c_ends_the_sessions_and_detach_leaves_them(make_run, environment):
    run = make_run(count=30)
    process = start(run, environment, "--launcher", "local")
    await_(lambda: list((run / "scores" / "sessions").glob("*.log")) if (run / "scores").exists() else False)
    process.send_signal(signal.SIGINT)
    status, said = finish(process)
    assert status == 130 and "the sessions are ended" in said
    left = tables(run)
    time.sleep(0.5)
    assert tables(run) == left and len(left) < 30
    status, said = finish(start(run, environment, "--launcher", "local", "--detach"))
    assert status == 0 and not (run / "best.json").exists()
    await_(lambda: len(tables(run)) == 30)


def test_slurm_gets_an_array_of_the_remainders(make_run, environment, tmp_path):
    """Printed where there is no sbatch; and a stand-in for sbatch runs the tasks of the array that it was handed."""
    run = make_run(count=4)
    bare = environment | {"PATH": str(tmp_path / "no programs")}
    status, said = finish(start(run, bare, "--n", 4, "--step", 2, "--launcher", "slurm", "--sbatch=--gpus=1"))
    assert status == 0 and "#SBATCH --array=0,2\n" in said and "#SBATCH --gpus=1\n" in said and not tables(run)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(
        f"#!/bin/sh\ncat > {tmp_path}/job.sh\nfor i in 0 2; do SLURM_ARRAY_TASK_ID=$i setsid sh {tmp_path}/job.sh "
        ">/dev/null 2>&1 </dev/null & done\necho '7;cluster'\n"
    )
    (programs / "squeue").write_text("#!/bin/sh\necho running\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    known = environment | {"PATH": f"{programs}:{environment['PATH']}"}
    status, said = finish(start(run, known, "--n", 4, "--step", 2, "--launcher", "slurm"))
    assert status == 0 and "job array 7" in said and len(tables(run)) == 2 and len(ranked(run)) == 2


# --- what needs no session -------------------------------------------------------------------------------------------


def test_rank_ranks_what_is_there(make_run, call):
    run = make_run()
    options = (f"--run={run.name}", f"--runs={run.parent}")
    status, said = call(process_set, "--rank", *options)
    assert status == 2 and "nothing in" in said and "--n N --step S" in said
    call(inference, 10, 30, *options)
    status, said = call(process_set, "--rank", *options)
    assert status == 0 and "2 of 5 checkpoints" in said and len(ranked(run)) == 2
    call(inference, 10, 30, *options, "--rank", "unpaired")
    status, said = call(process_set, "--rank", "unpaired", *options)
    assert status == 0 and "content" in said
    _, rows = read_ranking(run / "scores" / "unpaired" / "ranking.csv")
    assert rows[0]["unpaired"] <= rows[1]["unpaired"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (("--n", 4, "--step", 5), "--step must lie between 1 and --n"),
        (("--n", 100, "--step", 0), "--step must lie between 1 and --n"),
        (("--launcher", "slurm", "--sbatch", "'--gpus=1"), "invalid split value"),
        (("--run", "none"), "no run"),
    ),
)
def test_a_mistake_ends_in_a_sentence(make_run, call, arguments, sentence):
    run = make_run()
    status, said = call(process_set, f"--run={run.name}", f"--runs={run.parent}", *arguments)
    assert status == 2 and sentence in said and "Traceback" not in said


def test_a_run_without_checkpoints_ends_in_a_sentence(make_run, call):
    run = make_run(count=0)
    status, said = call(process_set, f"--run={run.name}", f"--runs={run.parent}", "--n", 100, "--step", 25)
    assert status == 2 and "no checkpoint to score" in said


def sessions(run: Path, *arguments: str) -> list[process_set.Session]:
    asked = process_set.parse([f"--run={run.name}", f"--runs={run.parent}", *arguments])
    _, config = open_run(asked.runs, asked.run)
    board = inference.open_board(run, config, asked.rank, asked.protocol, asked.measures)
    return process_set.plan(asked, run, board)


@pytest.mark.parametrize(("visible", "given"), (("", ["0", "1", "0", "1"]), ("5,7", ["5", "7", "5", "7"])))
def test_sessions_take_the_gpus_in_turn(make_run, monkeypatch, visible, given):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    planned = sessions(make_run(count=4), "--n=4", "--step=1")
    assert [session.environment["CUDA_VISIBLE_DEVICES"] for session in planned] == given
    assert [session.remainder for session in planned] == ["0", "1", "2", "3"]


def test_slurm_gives_the_gpus_itself(make_run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    planned = sessions(make_run(count=2), "--n=2", "--launcher=slurm")
    assert planned and all("CUDA_VISIBLE_DEVICES" not in session.environment for session in planned)


def test_a_session_name_has_no_letter_that_tmux_misreads(make_run):
    names = [
        session.name for name in ("v1.2:final b", "ü") for session in sessions(make_run(name), "--n=2", "--step=1")
    ]
    assert len(set(names)) == 4 and all(name.isascii() and not set(name) & set(".: $%@=") for name in names)


def test_secrets_are_not_handed_on(make_run, monkeypatch):
    monkeypatch.setenv("AWS_SECRET", "x")
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setenv("TORCH_HOME", "weights")
    environment = sessions(make_run())[0].environment
    assert "AWS_SECRET" not in environment and "HF_TOKEN" not in environment and environment["TORCH_HOME"] == "weights"
