"""Notes to the user on stderr: what was left out, or done otherwise than somebody may expect."""

import functools
import sys


@functools.cache  # a dataset is opened several times in a command
def note(sentence: str) -> None:
    """Print one line, `note: ...`, to stderr. A process prints each sentence once."""
    print(f"note: {printable(sentence)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text in one line that every encoding can hold: file names may contain line breaks or be no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
