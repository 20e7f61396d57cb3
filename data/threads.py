"""Work on many files in several threads, with a progress bar."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")
PATIENCE = 2  # seconds: work that takes no longer shows no bar


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], description: str) -> Iterator[Result]:
    """function(item) of each item, in their order; an exception of one of them ends it."""
    from tqdm import tqdm

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    interval = 0.1 if sys.stderr.isatty() else 20
    bar = tqdm(desc=description, total=len(items), unit="file", mininterval=interval, delay=PATIENCE)
    with ThreadPoolExecutor(threads) as pool, bar:
        # A few items at a time: the results can be large, and Ctrl-C waits for those submitted.
        for start in range(0, len(items), 4 * threads):
            for result in pool.map(function, items[start : start + 4 * threads]):
                yield result
                bar.update()
