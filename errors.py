"""How a command ends: a user's mistake gives one line and an exit status, only a bug gives a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Callable

# The errors with which a file system refuses a request, as far as this platform has them.
_NAMES = "EACCES EDQUOT EEXIST EIO EISDIR EMFILE ENAMETOOLONG ENOLCK ENOSPC ENOTDIR EPERM EROFS"
_REFUSALS = {getattr(errno, name) for name in _NAMES.split(" ") if hasattr(errno, name)}


class UserError(Exception):
    """A mistake that the user can correct. The message says what happened, where, and what to do."""


def run_cli(main: Callable[[], None]) -> None:
    """Run `main`; on failure, print one line and exit.

    The exit status is 2 for a `UserError` or a file that cannot be read or written, 130 for Ctrl-C, and 141 if the
    reader of the output closed the pipe. Other exceptions pass through.
    """
    try:
        main()
    except UserError as error:
        sys.exit(_report(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_report("interrupted", 130))
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it: end without a message
        os._exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        file = error.filename or "a file"
        sys.exit(_report(f"error: cannot read or write {file}: {error.strerror}; existing files are unchanged", 2))


def _report(message: str, status: int) -> int:
    """Print `message` to stderr; returns `status`."""
    print(message, file=sys.stderr, flush=True)
    return status
