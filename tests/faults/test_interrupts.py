"""Ctrl-C while a command imports its modules, a terminal that is closed, and a full disk."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import errors
import fit
import storage

from ..fit_runs import make_config, vary
from ..training.made_up_task import make_run, make_task, signal_at

ROOT = Path(errors.__file__).parent
SCRIPTS = ("fit.py", "inference.py", "process_set.py", "runs.py", "test_model.py")
COMMANDS = (*([name] for name in SCRIPTS), ["-m", "pretrained.zoo"])
# In place of torch, whose import takes seconds.
SLOW = "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"


@pytest.fixture
def slow_torch(tmp_path) -> dict[str, str]:
    """An environment in which importing torch takes a minute, and prints a line first."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(SLOW)
    return os.environ | {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_ctrl_c_during_the_imports_prints_no_traceback(command, slow_torch):
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, env=slow_torch, **pipes) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "interrupted\n"


def test_ctrl_c_that_is_ignored_stays_ignored(monkeypatch):
    """As in a background job of a shell script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        errors.exit_on_ctrl_c()
        errors.run_cli(lambda: None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_command_that_has_begun_handles_ctrl_c_as_python_does():
    before = signal.getsignal(signal.SIGINT)
    try:
        errors.exit_on_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        errors.run_cli(lambda: None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


class ClosedTerminal:
    """A stream of a terminal that was closed."""

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def flush(self) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.usefixtures("restored")
def test_a_terminal_that_is_closed_lets_the_run_save_its_state(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", ClosedTerminal())
    every = {"state": 100, "validate": 100}
    with pytest.raises(SystemExit) as end:
        make_run(tmp_path, make_task(hook=signal_at(3, signal.SIGHUP)), **every).train()
    assert end.value.code == 128 + signal.SIGHUP
    assert storage.load(tmp_path / "last.pt")["step"] == 3


def test_an_error_on_a_closed_terminal_keeps_its_exit_status(monkeypatch):
    monkeypatch.setattr("sys.stderr", ClosedTerminal())

    def main() -> None:
        raise errors.UserError("nobody reads this")

    with pytest.raises(SystemExit) as end:
        errors.run_cli(main)
    assert end.value.code == 2


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", ("config.json", "last.pt", "step_0000001.pt", "train_0000002.png"))
def test_a_full_disk_ends_a_run_with_the_name_of_the_file(fit_dataset, tmp_path, monkeypatch, capsys, name):
    """The disk is full when the file `name` is renamed to its place: the run's older files stay."""
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    train = {"mode": "paired", "mse": 1, "lpips": 0, "dists": 0, "content": 0}
    config = vary(make_config(fit_dataset, tmp_path), train=train, pretrain={"content": 0})
    with pytest.raises(SystemExit) as end:
        errors.run_cli(lambda: fit.train(config))
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and not any("Traceback" in line for line in lines)
    assert lines[-1].startswith(f"error: cannot read or write {tmp_path / 'tiny'}/")
    assert lines[-1].endswith(f"{name}: No space left on device; existing files are unchanged")
    assert not list(tmp_path.rglob("*.partial*"))
