"""Sessions and their launchers: real tmux sessions and processes, and a stand-in for Slurm."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from errors import UserError
from evaluation.launchers import LAUNCHERS, Local, Session, Slurm, Tmux

needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")


def session(folder: Path, code: str, remainder: str = "0", **environment: str) -> Session:
    """A session that runs `code` in sh."""
    return Session(f"isp-test-{remainder}", remainder, ("sh", "-c", code), environment, folder)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def tmux(tmp_path, monkeypatch):
    """A tmux server of the test's own, of a user whose panes stay open when their commands end."""
    sockets = tmp_path / "tmux"
    sockets.mkdir()
    (sockets / ".tmux.conf").write_text("set -g remain-on-exit on\n")
    monkeypatch.setenv("TMUX_TMPDIR", str(sockets))
    monkeypatch.setenv("HOME", str(sockets))
    monkeypatch.delenv("TMUX", raising=False)
    yield Tmux()
    if shutil.which("tmux"):
        subprocess.run(["tmux", "kill-server"], capture_output=True)


# --- a session -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "status"), (("echo $GREETING; echo oops >&2", "0"), ("echo hi; exit 3", "3")))
def test_the_script_runs_the_command_shows_its_output_and_records_both(tmp_path, code, status):
    made = session(tmp_path, code, GREETING="hello $USER, 'you'")
    shown = subprocess.run(["sh", "-c", made.script()], capture_output=True, text=True)
    assert made.status.read_text().strip() == status
    assert made.log.read_text() == shown.stdout == ("hello $USER, 'you'\noops\n" if status == "0" else "hi\n")


def test_a_failure_names_the_session_its_end_and_its_last_lines(tmp_path):
    made = session(tmp_path, "")
    assert made.failure() == "session isp-test-0 was killed; its last lines:\n"
    made.log.write_text("".join(f"line {i}\n" for i in range(9)))
    made.status.write_text("2\n")
    assert made.failure() == "session isp-test-0 ended with status 2; its last lines:\n" + "\n".join(
        f"  line {i}" for i in range(4, 9)
    )
    made.status.write_text("0\n")
    assert made.failure() == ""


def test_every_launcher_is_found_by_name():
    assert dict(LAUNCHERS) == {"tmux": Tmux, "local": Local, "slurm": Slurm}


# --- local processes -------------------------------------------------------------------------------------------------


def test_local_sessions_run_until_they_end_or_are_stopped(tmp_path):
    launcher, short, long = Local(), session(tmp_path, "exit 0"), session(tmp_path, "sleep 60", "1")
    assert not launcher.alive(short)
    assert launcher.start([short, long]) == f"they write to {short.log} and so on"
    wait_for(lambda: not launcher.alive(short))
    assert launcher.alive(long) and short.failure() == ""
    launcher.stop(long)
    wait_for(lambda: not launcher.alive(long))
    assert "was killed" in long.failure()
    launcher.stop(long)  # once more: no effect


# --- tmux ------------------------------------------------------------------------------------------------------------


@needs_tmux
def test_tmux_sessions_run_until_they_end_or_are_stopped(tmp_path, tmux):
    short, long = session(tmp_path, "sleep 0.5"), session(tmp_path, "sleep 60", "1")
    assert not tmux.alive(long)
    assert "tmux attach -t =isp-test-0" in tmux.start([short, long])
    wait_for(lambda: not tmux.alive(short))  # though .tmux.conf says that panes remain
    assert tmux.alive(long) and short.failure() == ""
    tmux.start([long])  # as another process_set.py does at the same time: no error, no second session
    tmux.stop(long)
    assert not tmux.alive(long) and "was killed" in long.failure()


def test_without_tmux_the_message_names_another_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="tmux is not installed here: use --launcher local"):
        Tmux().alive(session(tmp_path, ""))


# --- Slurm -----------------------------------------------------------------------------------------------------------


def test_slurm_s_batch_script_is_an_array_of_the_remainders(tmp_path):
    sessions = [session(tmp_path, f"echo remainder {r}", r) for r in ("0", "25")]
    script = Slurm(["--gpus=1"]).batch_script(sessions)
    assert script.startswith("#!/bin/sh\n#SBATCH --job-name=process_set\n#SBATCH --array=0,25\n")
    assert "#SBATCH --gpus=1\n" in script
    subprocess.run(["sh", "-c", script], env=os.environ | {"SLURM_ARRAY_TASK_ID": "25"}, check=True)
    assert sessions[1].log.read_text() == "remainder 25\n" and not sessions[0].log.exists()


def test_without_sbatch_the_batch_script_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher, made = Slurm(), session(tmp_path, "exit 0")
    assert "sbatch is not installed here" in launcher.start([made])
    assert capsys.readouterr().out == launcher.batch_script([made])
    assert not launcher.job and not launcher.alive(made)


def test_slurm_submits_watches_and_cancels_the_job_array(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(f"#!/bin/sh\ncat > {tmp_path}/job.sh\necho '7;cluster'\n")
    (programs / "squeue").write_text(f"#!/bin/sh\necho $* >> {tmp_path}/queried\necho running\n")
    (programs / "scancel").write_text(f"#!/bin/sh\necho $* >> {tmp_path}/cancelled\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    launcher, made = Slurm(), session(tmp_path, "exit 0", "25")
    assert launcher.start([made]) == "job array 7" and launcher.job == "7"
    assert (tmp_path / "job.sh").read_text() == launcher.batch_script([made])
    assert launcher.alive(made) and (tmp_path / "queried").read_text() == "-h -M cluster -j 7_25\n"
    launcher.stop(made)
    assert (tmp_path / "cancelled").read_text() == "-M cluster 7_25\n"
    made.status.write_text("0\n")
    assert not launcher.alive(made)


def test_a_refusal_of_slurm_is_a_user_error(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="sbatch refuses the job array: invalid partition"):
        Slurm().start([session(tmp_path, "")])
