"""How a command ends: a user's mistake gives one line and an exit status, only a bug gives a traceback."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

# The errors with which a file system refuses a request, as far as this platform has them.
_NAMES = (
    *("EACCES", "EDQUOT", "EEXIST", "EFBIG", "EIO", "EISDIR", "ELOOP", "EMFILE", "ENAMETOOLONG", "ENFILE", "ENOENT"),
    *("ENOLCK", "ENOSPC", "ENOTDIR", "EPERM", "EROFS"),
)
_REFUSALS = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}

_FULL_MEMORY = ("DefaultCPUAllocator: can't allocate", "CUDA out of memory")  # how torch's RuntimeErrors begin


class UserError(Exception):
    """A mistake that the user can correct. The message says what happened, where, and what to do."""


def exit_on_ctrl_c() -> None:
    """Let Ctrl-C end this process at once, with status 130 and without a traceback, until `run_cli` begins.

    A command calls this before its imports: importing torch takes seconds.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in background jobs
        signal.signal(signal.SIGINT, _exit)


def _exit(*_) -> None:
    os._exit(_report("interrupted", 130))


def run_cli(main: Callable[[], None]) -> None:
    """Run `main`; on failure, print one line and exit.

    The exit status is 2 for a `UserError`, a file that cannot be read or written, or a full memory, 130 for Ctrl-C, and
    141 if the reader of the output closed the pipe. Other exceptions pass through.
    """
    for name in ("stdout", "stderr"):  # None if the caller has closed them
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the life of the process
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be Unicode
    try:
        main()
    except UserError as error:
        sys.exit(_report(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_report("interrupted", 130))
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it: end without a message
        os._exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in _REFUSALS or (error.errno == errno.ENOENT and not error.filename):
            raise
        file = error.filename or "a file"
        sys.exit(_report(f"error: cannot read or write {file}: {error.strerror}; existing files are unchanged", 2))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in _FULL_MEMORY):
            raise
        sys.exit(_report("error: the memory is full: free some, or give the command smaller or fewer images", 2))


def printable(text: str) -> str:
    """The text in one line that every encoding can hold: file names may contain line breaks or be no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _report(message: str, status: int) -> int:
    """Print `message` to stderr; returns `status`."""
    with suppress(OSError):  # a terminal that was closed
        print(printable(message), file=sys.stderr, flush=True)
    return status
