"""Times camera file to JPEG: develop.py against LibRaw's postprocess() with the same JPEG encoder, and their memory.

python benchmarks/develop.py [--model efficient] [--sizes 12 48 100] [--files 4] [--json FILE]

The files are uncompressed 14-bit DNGs of a photograph, enlarged, mosaicked and with noise. "One by one" reads, develops
and writes each file before the next; "overlapping" is what develop.py does. Memory is the peak of a process of its own
that develops one file, Python and PyTorch included.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import rawpy
import torch
from common import LARGE, alternate, camera_file, label, machine, parser, peak, ratios, report, spread

import develop
import storage
from data.photographs import encode
from data.sensor import Sensor
from errors import run_cli
from models import build_model
from tasks.batch import DEPTH, Batch, Job
from tasks.development import Developer, Wishes
from tasks.device import choose_device
from tasks.model import Model
from training.checkpoint import save_generator

SENSOR = Sensor(**LARGE)
SIZES = {"12": (3000, 4000), "48": (6000, 8000), "100": (8660, 11548)}  # megapixels: (height, width)


def ways(folder: Path, model: Model, files: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """The ways to develop the DNG files in `folder`."""
    jobs = [Job(path, folder / f"{path.stem}.jpg") for path in sorted(folder.glob("*.dng"))[:files]]
    given = Namespace(format="jpg", quality=95, page=False)

    def run(depth: int) -> None:
        photographs = develop.Photographs(Developer(model, Wishes(), model.sensor), given, device)
        batch = Batch("developed", photographs.developer.read, photographs.develop, photographs.write, depth)
        batch.run(jobs)
        assert not batch.failed, batch.failed

    def libraw() -> None:
        for job in jobs:
            with rawpy.imread(str(job.source)) as raw:
                image = raw.postprocess(use_camera_wb=True)
            storage.write_bytes(job.target, encode(image, "jpg", 95, job.source))

    return {"LibRaw": libraw, "ours, one by one": lambda: run(1), "ours, overlapping": lambda: run(DEPTH)}


def main() -> None:
    options = parser(__doc__, repeats=3)
    options.add_argument("--model", default="efficient", help="(%(default)s)")
    options.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="megapixels (all)")
    options.add_argument("--files", type=int, default=4, help="files that are developed in turn (%(default)s)")
    options.add_argument("--device", default="auto", help="as for fit.py (%(default)s)")
    given = options.parse_args()
    device = choose_device(given.device)
    torch.manual_seed(0)
    generator = build_model(given.model).eval().requires_grad_(False)
    figures = {"benchmark": "develop", "machine": machine(device), "repeats": given.repeats, "sizes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "model.pt"
        description = {"model": given.model, "sensor": vars(SENSOR)}
        save_generator(checkpoint, generator, 0, description)
        model = Model("", given.model, generator.to(device, memory_format=torch.channels_last), SENSOR, None)
        for size in given.sizes:
            folder = Path(temporary) / size
            folder.mkdir()
            content = camera_file(SIZES[size])
            for number in range(given.files):
                (folder / f"{number}.dng").write_bytes(content)
            times = alternate(ways(folder, model, given.files, device), given.repeats, device)
            one = ["develop.py", str(folder / "0.dng"), "--checkpoint", str(checkpoint), "-o", str(folder / "out")]
            rows = [(f"{size} megapixels", "s a file", "lowest", "highest", "times as fast as LibRaw")]
            found = {}
            for way, values in times.items():
                found[way] = spread([t / given.files for t in values], 2)
                faster = ratios(times["LibRaw"], values)["median"]
                rows.append((label(way), *found[way].values(), faster))
                found[way]["times_as_fast_as_libraw"] = faster
            found["peak_mib"] = peak([*one, "--device", str(device)])
            figures["sizes"][size] = found
            report(f"{given.model} on {device}; develop.py takes {found['peak_mib']} MiB", figures, rows, given.json)


if __name__ == "__main__":
    run_cli(main)
