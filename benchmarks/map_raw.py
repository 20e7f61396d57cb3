"""Times map_raw.py, camera file to camera file: the whole command, Python's start included, and its memory.

python benchmarks/map_raw.py [--sizes 12] [--json FILE]

The file is an uncompressed 14-bit RGGB mosaic (DNG), the result a 12-bit GRBG one. A map in closed form takes the same
time whatever it was fitted to, and a mapper whatever it has learned: this one has fresh weights. M is the factor by
which its encoder sees the planes downsampled.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch
from common import LARGE, alternate, camera_file, machine, parser, peak, report, spread

import config as settings
from config import PRESETS
from data.camera import Profile
from data.camera import to_dict as describe
from data.raw_maps import LinearMap
from data.sensor import Sensor
from errors import run_cli
from models import build_mapper
from tasks.closed_form import ClosedForm, save
from training.checkpoint import save_generator

SENSORS = {"a": Sensor(**LARGE), "b": Sensor("grbg", (256.0,) * 4, 4095.0)}
SIZES = {"12": (3000, 4000), "48": (6000, 8000)}  # megapixels: (height, width)
UNKNOWN = {"make": "", "model": "", "count": 1, "red_gain": (1.0,) * 3, "blue_gain": (1.0,) * 3, "gains_noted": False}
UNKNOWN |= {"size": (3000, 4000), "iso": (0.0, 0.0), "black_by_iso": {}, "color_matrix": None, "noise": None}
MATRIX = ((0.8, 0.1, 0.0), (0.1, 0.9, 0.1), (0.0, 0.2, 0.7))
CPU = torch.device("cpu")


def maps_in(folder: Path) -> dict[str, list[str]]:
    """Maps to camera b, written into a folder: what a table calls each, and its options of map_raw.py."""
    profiles = {name: Profile(sensor=sensor, **UNKNOWN) for name, sensor in SENSORS.items()}
    closed, checkpoint = folder / "closed.json", folder / "mapper.pt"
    save(closed, ClosedForm("", "transport", "b", LinearMap(MATRIX), profiles))
    torch.manual_seed(0)
    description = {
        "model": "mapper",
        "sensors": {name: vars(sensor) for name, sensor in SENSORS.items()},
        "cameras": {name: describe(profile) for name, profile in profiles.items()},
        "config": settings.to_dict(PRESETS["raw2raw"]),
    }
    save_generator(checkpoint, build_mapper("mapper"), 0, description)
    ways = {"closed form": ["--map", str(closed)]}
    for times in (1, 4, 16):
        ways[f"mapper, M = {times}"] = ["--checkpoint", str(checkpoint), "--downsample", str(times)]
    return ways


def measure(ways: dict[str, list[str]], repeats: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """({name: seconds of each run}, {name: most memory in MiB}) of scripts with their arguments."""
    memory = {}

    def run(name: str) -> None:
        memory[name] = max(memory.get(name, 0), peak(ways[name]))

    return alternate({name: partial(run, name) for name in ways}, repeats, CPU), memory


def main() -> None:
    options = parser(__doc__, repeats=2)
    options.add_argument("--sizes", nargs="+", default=["12"], choices=SIZES, help="megapixels (12)")
    given = options.parse_args()
    figures = {"benchmark": "map_raw", "machine": machine(CPU), "repeats": given.repeats, "sizes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for size in given.sizes:
            source = folder / f"{size}.dng"
            source.write_bytes(camera_file(SIZES[size]))
            start = ["map_raw.py", "--input", str(source), "--to", "b", "--overwrite", "--device", "cpu", "--output"]
            ways = {name: [*start, str(folder / f"{size} {name}"), *way] for name, way in maps_in(folder).items()}
            times, memory = measure(ways, given.repeats)
            rows = [(f"{size} megapixels", "s", "lowest", "highest", "MiB")]
            found = {name: spread(values, 2) | {"peak_mib": memory[name]} for name, values in times.items()}
            rows += [(name, *values.values()) for name, values in found.items()]
            figures["sizes"][size] = found
            report(f"map_raw.py on {figures['machine']['threads']} threads", figures, rows, given.json)


if __name__ == "__main__":
    run_cli(main)
