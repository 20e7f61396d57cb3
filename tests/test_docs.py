"""The documents name only modules, options and files that exist."""

import importlib
import re
from pathlib import Path

import pytest

import align
import develop
import export
import fit
import inference
import map_raw
import process_set
import runs
import test_model

ROOT = Path(__file__).parents[1]
PACKAGES = "config|data|discriminators|evaluation|exporting|losses|models|pretrained|tasks|training"
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
NAMES = set(re.findall(rf"`((?:{PACKAGES})(?:\.\w+)+)", TEXT))


@pytest.mark.parametrize("name", sorted(name for name in NAMES if not name.endswith((".py", ".json"))))
def test_a_name_of_the_code_can_be_imported(name):
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[depth:]:
            found = getattr(found, attribute)
        return
    pytest.fail(f"no module in {name}")


def test_every_option_in_a_document_exists(capsys):
    for script in (align, develop, export, fit, inference, map_raw, process_set, runs, test_model):
        with pytest.raises(SystemExit):
            script.parse(["--help"])
    known = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out))
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'add_argument\(\s*"(--[a-z][\w-]*)"', script.read_text()))
    # options of pip, git, torchrun and data.simulate
    foreign = {
        "--section.field",
        "--force-reinstall",
        "--no-deps",
        "--version",
        "--nproc-per-node",
        "--nnodes",
        "--seed",
        *("--cameras", "--lights", "--exposure", "--patch", "--stride", "--scales"),
    }

    named = {option.rstrip(".-") for option in re.findall(r"--[a-z][\w.-]*", TEXT)}
    assert named - known - foreign == set()


def test_every_link_to_a_file_of_the_project_is_valid():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
