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
    *("EACCES", "EBUSY", "EDQUOT", "EEXIST", "EFBIG", "EIO", "EISDIR", "ELOOP", "EMFILE", "ENAMETOOLONG", "ENFILE"),
    *("ENOENT", "ENOLCK", "ENOSPC", "ENOSYS", "ENOTDIR", "EOPNOTSUPP", "EPERM", "EROFS"),
    *("EHOSTDOWN", "EINVAL", "ENOTCONN", "EREMOTEIO", "ESTALE", "ETIMEDOUT"),  # of network file systems
)
_NO_PROCESS = (errno.EAGAIN, errno.E2BIG, errno.ENOMEM)  # why no process can be started
_REFUSALS = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}

_SHARED_MEMORY = (
    "the shared memory (/dev/shm) is too small for the processes that read patches: enlarge it (docker run --shm-size) "
    "or set --data.workers 0"
)
# How PyTorch and Python report what a user can mend as a RuntimeError, and the sentence for it.
_RUNTIME_ERRORS = {
    "unable to allocate shared memory": _SHARED_MEMORY,
    "unable to write to file </torch": _SHARED_MEMORY,
    "DefaultCPUAllocator: can't allocate": "the memory is full: free some, or give the command smaller or fewer images",
    "CUDA out of memory": "the device's memory is full: use --device cpu, or give the command smaller or fewer images",
    "can't start new thread": "no more threads can be started here: raise the limit of processes (ulimit -u)",
}


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
        if error.errno in _NO_PROCESS:
            sys.exit(_report(f"error: no process can be started: {error.strerror}", 2))
        if error.errno not in _REFUSALS or (error.errno in (errno.ENOENT, errno.EINVAL) and not error.filename):
            raise
        file = error.filename or "a file"
        sys.exit(_report(f"error: cannot read or write {file}: {error.strerror}; existing files are unchanged", 2))
    except (MemoryError, RuntimeError) as error:
        found = [sentence for text, sentence in _RUNTIME_ERRORS.items() if text in str(error)]
        if isinstance(error, MemoryError):
            found = [_RUNTIME_ERRORS["DefaultCPUAllocator: can't allocate"]]
        if not found:
            raise
        sys.exit(_report(f"error: {found[0]}", 2))


def printable(text: str) -> str:
    """The text in one line that every encoding can hold: file names may contain line breaks or be no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _report(message: str, status: int) -> int:
    """Print `message` to stderr; returns `status`."""
    with suppress(OSError):  # a terminal that was closed
        print(printable(message), file=sys.stderr, flush=True)
    return status
