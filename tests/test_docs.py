"""What the documents name is there."""

import importlib
import re
from pathlib import Path

import pytest

import config as settings
import inference
import process_set
import test_model

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "build|config|data|discriminators|inference|judges|losses|metrics|models|pretrained|process_set|report|scores|"
    "test_model|training"
)
METHOD = (ROOT / "docs" / "method.md").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(rf"`((?:{PACKAGES})(?:\.\w+)+)`", METHOD))))
def test_a_name_of_the_method_is_importable(name):
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


def documents() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


def test_every_option_that_a_document_names_exists(capsys):
    for script in (settings, inference, process_set, test_model):
        with pytest.raises(SystemExit):
            script.parse(["--help"])
    known = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out))
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'add_argument\("(--[a-z][\w-]*)"', script.read_text()))
    # pip's, git's, torchrun's and data.simulate's
    foreign = {
        "--section.field",
        "--force-reinstall",
        "--no-deps",
        "--version",
        "--nproc-per-node",
        "--nnodes",
        "--seed",
    }

    named = {option.rstrip(".-") for option in re.findall(r"--[a-z][\w.-]*", documents())}
    assert named - known - foreign == set()


def test_every_link_within_the_project_leads_somewhere():
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
