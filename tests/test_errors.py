"""The exit status and message of a command: one line for a user's mistake, a traceback for a bug."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import errors
from errors import UserError, run_cli

ROOT = Path(errors.__file__).parent


def status_of(error: BaseException | None) -> int:
    """The exit status of a command that raises `error`."""

    def main() -> None:
        if error:
            raise error

    try:
        run_cli(main)
    except SystemExit as end:
        return end.code
    return 0


def test_success_is_status_0_and_silent(capsys):
    assert status_of(None) == 0
    assert capsys.readouterr() == ("", "")


def test_user_error_is_status_2_and_one_line(capsys):
    assert status_of(UserError("no folder x: name one")) == 2
    assert capsys.readouterr() == ("", "error: no folder x: name one\n")


def test_ctrl_c_is_status_130(capsys):
    assert status_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM))
def test_file_system_error_is_status_2_and_names_the_file(number, capsys):
    assert status_of(OSError(number, "refused here", "runs/demo/last.pt")) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ") and "refused here" in output and "runs/demo/last.pt" in output
    assert len(output.splitlines()) == 1


def test_a_file_that_has_vanished_is_one_line(capsys):
    assert status_of(FileNotFoundError(errno.ENOENT, "No such file or directory", "raws/7.png")) == 2
    assert capsys.readouterr().err.startswith("error: cannot read or write raws/7.png: No such file or directory")


def test_full_disk_without_a_file_name_is_one_line(capsys):
    assert status_of(OSError(errno.ENOSPC, "No space left on device")) == 2
    assert capsys.readouterr().err.startswith("error: cannot read or write a file: No space left on device")


@pytest.mark.parametrize("error", (ValueError("a bug"), OSError(errno.ENOENT, "no file"), AssertionError()))
def test_bug_has_a_traceback(error):
    with pytest.raises(type(error)):
        run_cli(lambda: (_ for _ in ()).throw(error))


def test_exit_status_of_the_command_itself_is_preserved():
    with pytest.raises(SystemExit, match="143"):
        run_cli(lambda: sys.exit(143))


def test_reader_that_closes_the_pipe_ends_the_command_silently():
    script = "from errors import run_cli; run_cli(lambda: [print(i, flush=True) for i in range(10**5)])"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 128 + signal.SIGPIPE
