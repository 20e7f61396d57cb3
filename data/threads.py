"""Threads: work on many files in several of them, with a progress bar; and OpenMP's."""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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


def use_one_openmp_thread() -> None:
    """Let every OpenMP library of this process, LibRaw's and torch's, use one thread.

    A forked process needs this: the threads that its parent had are gone, and OpenMP would wait for them for ever.
    """
    loaded = Path("/proc/self/maps")  # without it, this is no Linux, where processes are not forked
    lines = loaded.read_text().splitlines() if loaded.exists() else []
    for library in {found[0] for line in lines if (found := re.search(r"/.*/lib(gomp|i?omp)[^/]*\.so[^/]*$", line))}:
        ctypes.CDLL(library).omp_set_num_threads(1)
