"""The packages that only export.py needs: a sentence where they are missing."""

from importlib.metadata import version
from importlib.util import find_spec

from errors import UserError

# Target -> {module to import: package that has it}.
PACKAGES = {
    "onnx": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    "tflite": {"ai_edge_litert": "ai-edge-litert", "flatbuffers": "flatbuffers"},
}
INSTALL = "pip install -r requirements-export.txt"


def require(target: str) -> None:
    """Raise `UserError`, with the command that installs them, if packages of the target are missing."""
    missing = [package for module, package in PACKAGES[target].items() if find_spec(module) is None]
    if missing:
        raise UserError(f"--to {target} needs {', '.join(missing)}, not installed here: {INSTALL}")


def versions(target: str) -> dict[str, str]:
    """The versions of the target's packages, and of PyTorch."""
    return {package: version(package) for package in ("torch", *PACKAGES[target].values())}
