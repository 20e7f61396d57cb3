"""What benchmarks share: timing alternatives in turn, memory, ratios, the machine, a camera file, and the report.

Import it before any module of the repository: it adds the repository's root to `sys.path`.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script in this folder would otherwise not find the modules of the repository

PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless")  # whose versions a report names


# --- options and facts of the machine --------------------------------------------------------------------------------


def positive(text: str) -> int:
    """An option's number, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def parser(description: str, repeats: int) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks; its description is the first line of `description`."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--repeats", type=positive, default=repeats, help="measurements of each way (%(default)s)")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return options


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware and the versions on which figures were measured."""
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
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


# --- measuring -------------------------------------------------------------------------------------------------------


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """How long one call of `run` takes, including what the device computes after it returns."""
    _synchronize(device)
    start = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(alternatives: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each alternative, `repeats` times, after one call of each to warm up.

    They take turns, so that whatever slows the machine for a while slows all of them.
    """
    times = {name: [] for name in alternatives}
    for run in alternatives.values():
        run()
    for _ in range(repeats):
        for name, run in alternatives.items():
            times[name].append(seconds(run, device))
    return times


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    """The most memory (MiB) that a call of `run` adds: on the GPU, or resident in this process (Linux only)."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        seconds(run, device)
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**20)
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory, which may still be resident
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    run()
    return round((_resident("VmHWM") - before) / 1024)


# The peak as the process itself sees it: what wait4() tells of a child includes this process, from which it was forked.
PEAK = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def peak(arguments: list[str]) -> int:
    """The most memory (MiB) that a Python process of this script and its arguments has at a time (Linux only)."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1]) // 1024


def _resident(entry: str) -> int:
    """An entry of /proc/self/status in KiB: VmRSS, the resident memory, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry))


# --- camera files ----------------------------------------------------------------------------------------------------


def dng(mosaic: np.ndarray, black: int = 60, white: int = 1023) -> bytes:
    """A DNG file of an uncompressed 16-bit RGGB mosaic, with the fewest tags that LibRaw needs (Adobe DNG 1.4)."""
    height, width = mosaic.shape
    pixels = mosaic.astype("<u2").tobytes()
    types = {"B": (1, 1), "s": (2, 1), "H": (3, 2), "I": (4, 4), "i": (10, 8)}  # struct's code -> TIFF's type and size
    text, short, long, ratio = "s", "H", "I", "i"
    identity = [value for i in range(9) for value in (int(i % 4 == 0), 1)]
    tags = [(256, long, [width]), (257, long, [height]), (258, short, [16]), (259, short, [1]), (262, short, [32803])]
    tags += [(271, text, b"x\0"), (272, text, b"x\0"), (273, long, [0]), (277, short, [1]), (278, long, [height])]
    tags += [(279, long, [len(pixels)]), (33421, short, [2, 2]), (33422, "B", [0, 1, 1, 2]), (50706, "B", [1, 4, 0, 0])]
    tags += [(50714, short, [black]), (50717, long, [white]), (50721, ratio, identity), (50778, short, [21])]
    values = [value if code == text else struct.pack(f"<{len(value)}{code}", *value) for _, code, value in tags]
    start = 8 + 2 + 12 * len(tags) + 4  # of the values that do not fit into the four bytes of their tag's entry
    long_values = b"".join(value for value in values if len(value) > 4)
    entries, offset = [], start
    for (tag, code, _), value in zip(tags, values, strict=True):
        number, size = types[code]
        content = struct.pack("<I", start + len(long_values)) if tag == 273 else value  # 273: where the pixels start
        if len(value) > 4:
            content, offset = struct.pack("<I", offset), offset + len(value)
        entries.append(struct.pack("<HHI", tag, number, len(value) // size) + content.ljust(4, b"\0"))
    header = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags))
    return header + b"".join(entries) + b"\0" * 4 + long_values + pixels


LARGE = {"cfa": "rggb", "black_level": (512.0,) * 4, "white_level": 16383.0}  # of `camera_file`


def camera_file(size: tuple[int, int]) -> bytes:
    """An uncompressed 14-bit DNG of this (height, width), of the levels `LARGE`: a photograph with noise, enlarged."""
    from PIL import Image
    from skimage import data

    photo = Image.fromarray(data.astronaut()).resize(size[::-1], Image.Resampling.BICUBIC)
    linear, mosaic = np.asarray(photo), np.empty(size, np.uint16)
    rng = np.random.default_rng(0)
    curve = 512 + 15871 * (np.arange(256) / 255) ** 2.2
    for row, column, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        plane = curve[linear[row::2, column::2, colour]]
        mosaic[row::2, column::2] = plane + rng.integers(-40, 41, plane.shape)
    return dng(mosaic, black=512, white=16383)


# --- reporting -------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, lowest and highest value."""
    return {
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """How many times as fast `fast` is as `slow`: the spread of the ratios of measurements of the same turn."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)], digits=3)


def label(name: str) -> str:
    """What a printed table calls an alternative; in the JSON files, this repository is "ours"."""
    return name.replace("ours", "this repository")


def report(title: str, figures: dict[str, Any], rows: Sequence[Sequence[Any]], file: Path | None) -> None:
    """Print `rows` as a table, the first one being its heading, and write the figures as JSON to `file`, if any."""
    cells = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    print(title)
    for first, *others in cells:
        line = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print(" ", first.ljust(widths[0]), *line, sep="  ")
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n")
