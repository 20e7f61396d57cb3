"""Scoring a run in several sessions with process_set.py: real sessions, also interrupted, and the ranking."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import inference
import process_set
from config import open_run
from evaluation.launchers import LAUNCHERS, Local
from evaluation.tables import ScoreTables, best_checkpoint, checkpoints, read_ranking
from tasks.model import open_model
from tasks.scoring import open_scorer, open_tables

CPU = torch.device("cpu")
needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")


def options(run: Path) -> tuple[str, ...]:
    """The options that name a run."""
    return f"--run={run.name}", f"--runs={run.parent}"


def score_tables(run: Path) -> ScoreTables:
    _, config = open_run(str(run.parent), run.name)
    return open_tables(run, config, "paired", "paper", ["psnr"])


def scored(run: Path) -> dict[str, int]:
    """Scored checkpoint -> when its table was written."""
    return {path.stem: path.stat().st_mtime_ns for path in (run / "scores").glob("step_*.csv")}


def logs(run: Path) -> list[Path]:
    """The log files of the sessions that have started."""
    return list((run / "scores" / "sessions").glob("*.log"))


def ranked(run: Path) -> list[str]:
    """The checkpoints in ranking.csv, the best first."""
    return [row["checkpoint"] for row in read_ranking(run / "scores" / "ranking.csv")[1]]


def rank_one_by_one(run: Path) -> list[str]:
    """The checkpoints ranked by PSNR, scored one by one in this process."""
    _, config = open_run(str(run.parent), run.name)
    scorer = open_scorer(config, score_tables(run), CPU, at_once=1)
    models = {path.stem: open_model(str(path), CPU) for path in checkpoints(run)}
    means = {name: scorer.evaluate([model])[0][1]["psnr"] for name, model in models.items()}
    return sorted(means, key=means.get, reverse=True)


# --- real sessions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sessions_here(tmp_path, monkeypatch, restored):
    """Sessions get one thread, no GPU, and their own tmux server, whose panes stay open when a command ends."""
    sockets = tmp_path / "tmux"
    sockets.mkdir()
    (sockets / ".tmux.conf").write_text("set -g remain-on-exit on\n")
    changes = {"TMUX_TMPDIR": str(sockets), "HOME": str(sockets), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(process_set, "INTERVAL", 0.05)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background would pass on SIG_IGN
    yield
    if shutil.which("tmux"):
        subprocess.run(["tmux", "kill-server"], capture_output=True)


def start(run: Path, *arguments: object) -> subprocess.Popen:
    """Start process_set.py as a command."""
    command = [sys.executable, process_set.__file__, *options(run), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """The exit status of a command and everything that it printed."""
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def while_waiting(monkeypatch, condition: Callable[[], object], act: Callable[[], None]) -> None:
    """While process_set.py, run in this process, waits for its sessions: act once when the condition holds."""
    acted = []

    def sleep(seconds: float) -> None:
        if not acted and condition():
            acted.append(True)
            act()
        time.sleep(seconds)

    monkeypatch.setattr(process_set, "time", SimpleNamespace(sleep=sleep))


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def tmux(*arguments: str) -> str:
    return subprocess.run(["tmux", *arguments], capture_output=True, text=True, check=True).stdout


@needs_tmux
def test_after_a_kill_and_with_two_commands_at_once_the_ranking_is_that_of_a_plain_loop(make_run, call, sessions_here):
    run = make_run("v1.2:final b", count=60)
    halves = ("--n", 2, "--step", 1, "--launcher", "tmux")
    assert call(process_set, *options(run), *halves, "--detach")[0] == 0
    wait_for(lambda: scored(run))
    tmux("kill-server")
    before = scored(run)
    other = start(run, *halves)
    for status, output in (call(process_set, *options(run), *halves), finish(other)):
        assert status == 0 and "60 of 60 checkpoints" in output, output
    assert 0 < len(before) < 60 and before.items() <= scored(run).items()
    assert ranked(run) == rank_one_by_one(run)
    assert best_checkpoint(run).stem == ranked(run)[0]


@needs_tmux
def test_a_killed_session_is_reported_and_the_others_are_ranked(make_run, call, sessions_here, monkeypatch):
    run = make_run(count=40)
    killed = []

    def kill() -> None:
        killed.append(sorted(tmux("ls", "-F", "#S").split())[1])
        tmux("kill-session", "-t", f"={killed[0]}")

    while_waiting(monkeypatch, lambda: len(logs(run)) == 2, kill)
    arguments = ("--n", 40, "--step", 20, "--launcher", "tmux", "--at-once", 1)
    status, output = call(process_set, *options(run), *arguments)
    assert status == 2 and f"session {killed[0]} was killed; its last lines" in output
    assert "1 of 2 sessions did not finish" in output and ranked(run) == ["step_0000010"]


@needs_tmux
def test_ctrl_c_does_not_stop_the_sessions_of_another_command(make_run, call, sessions_here, monkeypatch):
    """The session waits for a checkpoint that this process has claimed."""
    run = make_run(count=3)
    with score_tables(run).claim(checkpoints(run)[:1]):
        output = call(process_set, *options(run), "--launcher", "tmux", "--detach")[1]
        assert "1 sessions, 1 of them started now" in output
        (session,) = tmux("ls", "-F", "#S").split()
        while_waiting(monkeypatch, lambda: len(scored(run)) == 2, interrupt)
        status, output = call(process_set, *options(run), "--launcher", "tmux")
        assert status == 130 and "1 sessions, 0 of them started now" in output
        assert tmux("ls", "-F", "#S").split() == [session]
    wait_for(lambda: len(scored(run)) == 3)
    wait_for(lambda: (run / "scores" / "sessions" / f"{session}.status").exists())
    assert (run / "scores" / "sessions" / f"{session}.status").read_text() == "0\n"


def test_a_damaged_checkpoint_stops_no_other_session(make_run, call, sessions_here):
    run = make_run("-odd", count=6)
    checkpoints(run)[2].write_bytes(b"nothing")
    arguments = (*options(run), "--n", 4, "--step", 2, "--launcher", "local")
    status, output = call(process_set, *arguments)
    assert status == 2 and "step_0000030.pt is not a readable" in output and "Traceback" not in output
    assert set(ranked(run)) == {"step_0000010", "step_0000050"}
    before = scored(run)
    status, output = call(process_set, *arguments)
    assert status == 2 and "1 sessions, 1 of them started now" in output and scored(run) == before


@pytest.mark.parametrize("number, expected", ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)))
def test_ctrl_c_and_other_signals_stop_the_sessions(make_run, call, sessions_here, monkeypatch, number, expected):
    run, launchers = make_run(count=30), []
    before = signal.getsignal(number)

    class Recorded(Local):
        def __init__(self, options=()):
            super().__init__(options)
            launchers.append(self)

    monkeypatch.setitem(LAUNCHERS, "local", Recorded)
    while_waiting(monkeypatch, lambda: logs(run), lambda: os.kill(os.getpid(), number))
    status, output = call(process_set, *options(run), "--launcher", "local")
    assert status == expected and "Stopped the sessions that were started here" in output
    (process,) = launchers[0].processes.values()
    assert process.wait(20) == -signal.SIGTERM and len(scored(run)) < 30
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_leave_sessions_running(sessions_here):
    ended = []

    class Launcher:
        def stop(self, session) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append(session)

    with pytest.raises(SystemExit) as end, process_set.exiting_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        except SystemExit:
            process_set.stop(Launcher(), "abc")
            raise
    assert end.value.code == 128 + signal.SIGHUP and ended == list("abc")


def test_an_ignored_signal_stays_ignored(sessions_here):
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process_set.exiting_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_detached_sessions_continue_after_the_command(make_run, sessions_here):
    run = make_run(count=3)
    status, output = finish(start(run, "--launcher", "local", "--detach"))
    assert status == 0 and "1 of them started now" in output and not (run / "best.json").exists()
    wait_for(lambda: len(scored(run)) == 3)


def test_slurm_runs_an_array_of_the_remainders(make_run, call, sessions_here, tmp_path, monkeypatch):
    """Without sbatch, the job is printed; with a stand-in for sbatch, it runs."""
    run, path = make_run(count=4), os.environ["PATH"]
    arguments = (*options(run), "--n", 4, "--step", 2, "--launcher", "slurm", "--sbatch=--gpus=1")
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    status, output = call(process_set, *arguments)
    assert status == 0 and "#SBATCH --array=0,2\n" in output and "#SBATCH --gpus=1\n" in output and not scored(run)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(
        f"#!/bin/sh\ncat > {tmp_path}/job.sh\nfor i in 0 2; do SLURM_ARRAY_TASK_ID=$i setsid sh {tmp_path}/job.sh "
        ">/dev/null 2>&1 </dev/null & done\necho '7;cluster'\n"
    )
    (programs / "squeue").write_text("#!/bin/sh\necho running\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{path}")
    status, output = call(process_set, *arguments)
    assert status == 0 and "job array 7" in output and len(scored(run)) == 2 and len(ranked(run)) == 2


# --- ranking ---------------------------------------------------------------------------------------------------------


def test_rank_alone_ranks_what_is_scored(make_run, call):
    run = make_run()
    status, output = call(process_set, "--rank", *options(run))
    assert status == 2 and "no checkpoint in" in output and "score them with --n N --step S" in output
    call(inference, 10, 30, *options(run))
    status, output = call(process_set, "--rank", *options(run))
    assert status == 0 and "2 of 5 checkpoints" in output and len(ranked(run)) == 2
    call(inference, 10, 30, *options(run), "--rank", "unpaired")
    status, output = call(process_set, "--rank", "unpaired", *options(run))
    assert status == 0 and "content" in output
    _, rows = read_ranking(run / "scores" / "unpaired" / "ranking.csv")
    assert rows[0]["unpaired"] <= rows[1]["unpaired"]
