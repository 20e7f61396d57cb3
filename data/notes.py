"""Notes to the user on stderr: what was left out, or done otherwise than somebody may expect."""

import functools
import sys

from errors import printable


@functools.cache  # a dataset is opened several times in a command
def note(sentence: str) -> None:
    """Print one line, `note: ...`, to stderr. A process prints each sentence once."""
    print(f"note: {printable(sentence)}", file=sys.stderr, flush=True)
