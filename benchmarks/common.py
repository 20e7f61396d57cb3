"""What the benchmarks share: alternating measurements in one process, ratios pair by pair, the machine, the report."""

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script here finds the modules beside this folder

PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless")


def parser(description: str, repeats: int) -> argparse.ArgumentParser:
    """With the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--repeats", type=int, default=repeats, help="measurements of each, in turn (%(default)s)")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return options


def machine(device: torch.device) -> dict[str, Any]:
    """Where a figure comes from."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """What one `run` takes, until the device has finished it."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(contestants: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each contestant, `repeats` times, in turn: what slows the machine for a while slows all of them."""
    times = {name: [] for name in contestants}
    for run in contestants.values():  # the first time is a warm-up
        run()
    for _ in range(repeats):
        for name, run in contestants.items():
            times[name].append(seconds(run, device))
    return times


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, lowest and highest."""
    return {
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """How many times `fast` is as fast: of each pair of neighbours in time."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)], digits=3)


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    """The most memory (MiB) that a `run` adds: on the GPU, or resident in this process (Linux)."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        seconds(run, device)
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**20)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed may still be resident
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    run()
    return round((_resident("VmHWM") - before) / 1024)


def _resident(what: str) -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def report(title: str, figures: dict[str, Any], rows: Sequence[Sequence[Any]], file: Path | None) -> None:
    """Print a table; write the figures as JSON where asked."""
    cells = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    print(title)
    for first, *others in cells:
        line = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print(" ", first.ljust(widths[0]), *line, sep="  ")
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n")
