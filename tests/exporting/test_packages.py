"""Packages that export.py needs are named, with the command, where they are missing."""

import re
from pathlib import Path

import pytest

from errors import UserError
from exporting import packages

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("target, named", (("onnx", "onnx, onnxscript, onnxruntime"), ("tflite", "ai-edge-litert")))
def test_missing_packages_are_named_with_the_command(target, named, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"--to {target} needs {named}.*pip install -r requirements-export.txt"):
        packages.require(target)


def test_the_file_lists_them_with_bounds():
    lines = (ROOT / "requirements-export.txt").read_text().splitlines()
    bounded = re.findall(r"^([\w-]+)>=[\d.]+,<[\d.]+$", "\n".join(lines), re.MULTILINE)
    wanted = {package for modules in packages.PACKAGES.values() for package in modules.values()}
    assert wanted - {"flatbuffers"} == set(bounded)  # LiteRT depends on flatbuffers, and has the right version
