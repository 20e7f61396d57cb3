"""What a command line ends with: a sentence and a status for what the user can mend, a traceback for what is ours."""

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
    def main() -> None:
        if error:
            raise error

    try:
        run_cli(main)
    except SystemExit as leaving:
        return leaving.code
    return 0


def test_success_is_0_and_silent(capsys):
    assert status_of(None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_user_error_is_2_and_one_sentence(capsys):
    assert status_of(UserError("no folder x: name one")) == 2
    assert capsys.readouterr() == ("", "error: no folder x: name one\n")


def test_an_interrupt_is_130(capsys):
    assert status_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM))
def test_a_file_system_that_refuses_is_2_and_names_the_file(number, capsys):
    assert status_of(OSError(number, "refused here", "runs/demo/last.pt")) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "refused here" in said and "runs/demo/last.pt" in said
    assert len(said.splitlines()) == 1


def test_a_full_disk_without_a_name_is_a_sentence_too(capsys):
    assert status_of(OSError(errno.ENOSPC, "No space left on device")) == 2
    assert capsys.readouterr().err.startswith("error: cannot use a file: No space left on device")


@pytest.mark.parametrize("error", (ValueError("ours"), OSError(errno.ENOENT, "no file"), AssertionError()))
def test_our_own_mistakes_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run_cli(lambda: (_ for _ in ()).throw(error))


def test_a_status_of_the_script_s_own_is_kept():
    with pytest.raises(SystemExit, match="143"):
        run_cli(lambda: sys.exit(143))


def test_a_reader_that_has_had_enough_ends_it_quietly():
    script = "from errors import run_cli; run_cli(lambda: [print(i, flush=True) for i in range(10**5)])"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 128 + signal.SIGPIPE
