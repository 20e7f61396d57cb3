"""Whether a GPU delegate takes all of a TFLite file: LiteRT's own benchmark program says so, without a phone.

It is the WebGPU delegate on Vulkan, in 32-bit floating point; a phone's own delegate may still differ. A software
Vulkan, such as SwiftShader, will do. TensorFlow's model analyser is no alternative: since 2.18 it checks nothing.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from errors import UserError
from exporting.targets import PhoneFile

PROGRAM = "litert-benchmark"
SECONDS = 300  # a software GPU is slow
NO_GPU = ("No adapters found", "Failed to initialize WebGPU environment", "Failed to load GPU accelerator")


def find_program() -> Path:
    """The program, which the package ai-edge-litert installs. Raises `UserError` if it or Vulkan is missing."""
    program = Path(sys.executable).parent / PROGRAM
    if not program.is_file():
        raise UserError(f"--check-gpu needs {PROGRAM} of ai-edge-litert 2.3 or newer, and there is no {program}")
    if not os.environ.get("VK_ICD_FILENAMES"):
        raise UserError(
            "--check-gpu needs Vulkan: set VK_ICD_FILENAMES to a driver's .json, such as SwiftShader's "
            "(vk_swiftshader_icd.json, part of Chromium)"
        )
    return program


def is_fully_delegated(file: PhoneFile, program: Path) -> bool:
    """Whether the GPU delegate takes every operator. Raises `UserError` if no GPU delegate starts here."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file.name
        path.write_bytes(file.content)
        options = ("--model", str(path), "--use_gpu", "--require_full_delegation", "--num_runs", "1")
        try:
            done = subprocess.run(
                [program, *options, "--warmup_runs", "0"], capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{PROGRAM} did not end within {SECONDS} seconds: leave out --check-gpu") from None
    printed = done.stdout + done.stderr
    if any(sign in printed for sign in NO_GPU) and "Fully accelerated: True" not in printed:
        raise UserError(
            "--check-gpu found no GPU: VK_ICD_FILENAMES must name a working Vulkan driver, and the loader "
            "libvulkan.so.1 be installed or in LD_LIBRARY_PATH"
        )
    return done.returncode == 0 and "Fully accelerated: True" in printed
