"""How a mistake of the user ends: one sentence and an exit status, never a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Callable

# A file system's ways to refuse, as far as this platform knows them.
_NAMES = "EACCES EDQUOT EEXIST EIO EISDIR EMFILE ENAMETOOLONG ENOLCK ENOSPC ENOTDIR EPERM EROFS"
_REFUSALS = {getattr(errno, name) for name in _NAMES.split(" ") if hasattr(errno, name)}


class UserError(Exception):
    """Something the user can mend. The message says what was found, where, and what to do."""


def run_cli(main: Callable[[], None]) -> None:
    """Run `main` and exit: 0, 2 for a `UserError` or a file system that refuses, 130 for Ctrl-C."""
    try:
        main()
    except UserError as error:
        sys.exit(_say(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted", 130))
    except BrokenPipeError:  # whoever read our output, such as `head`, has had enough
        os._exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(_say(f"error: cannot use a file{where}: {error.strerror}; what was there before is untouched", 2))


def _say(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return status
