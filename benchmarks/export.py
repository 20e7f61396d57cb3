"""The table of docs/phones.md: each model exported to each target and precision, compared with PyTorch and timed.

python benchmarks/export.py NAME=CHECKPOINT ... --images RAWS --targets PHOTOS --calibrate RAWS [--size 1088x1920]

Each model is exported by export.py, to all targets that hold it, in float32, float16 and 8-bit integers. The files are
not kept.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT

from errors import UserError, run_cli

PRECISIONS = ("fp32", "fp16", "int8")
HEADING = ("model", "file", "bytes", "operators", "ms", "largest difference", "dB to PyTorch", "dB to target")


def export(checkpoint: str, given: argparse.Namespace) -> dict[str, Any]:
    """What export.json says of a checkpoint's files. Raises `UserError` if it cannot be exported."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--checkpoint", checkpoint, "-o", folder, "--size", given.size, "--precision", *PRECISIONS]
        data = ["--images", given.images, "--targets", given.targets, "--calibrate", given.calibrate]
        command = [sys.executable, ROOT / "export.py", *options, *data]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"export.py failed for {checkpoint}: {done.stderr.strip().splitlines()[-1]}")
        return json.loads((Path(folder) / "export.json").read_text())


def rows(name: str, told: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of a model: PyTorch's own first, for its PSNR against ground truth."""
    own = next(file["psnr_of_pytorch"] for file in told["files"] if file["psnr_of_pytorch"] is not None)
    found = [(name, "PyTorch", "", "", "", "", "", f"{own:.2f}")]
    for file in told["files"]:
        against, score = file["psnr_against_pytorch"], file["psnr"]
        found.append(
            (
                name,
                f"`{file['file']}`",
                f"{file['bytes']:,}",
                f"{sum(file['operators'].values())}",
                f"{file['milliseconds']:.0f}",
                f"{file['largest_difference']:.1e}",
                "equal" if against is None else f"{against:.1f}",
                "" if score is None else f"{score:.2f}",
            )
        )
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("models", nargs="+", metavar="NAME=CHECKPOINT", help="a file, or released:NAME")
    options.add_argument("--images", required=True, metavar="DIR", help="mosaics to compare on")
    options.add_argument("--targets", required=True, metavar="DIR", help="their photographs")
    options.add_argument("--calibrate", required=True, metavar="DIR", help="other mosaics, for the ranges of int8")
    options.add_argument("--size", default="1088x1920", metavar="HxW", help="of model.tflite, and timed (%(default)s)")
    given = options.parse_args()
    if unnamed := [model for model in given.models if "=" not in model]:
        raise UserError(f"'{unnamed[0]}' is not NAME=CHECKPOINT")
    print(f"| {' | '.join(HEADING)} |\n{'|---' * len(HEADING)}|")
    for model in given.models:
        name, checkpoint = model.split("=", 1)
        for row in rows(name, export(checkpoint, given)):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    run_cli(main)
