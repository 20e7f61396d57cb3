"""Who may import whom, that importing does nothing, and a few habits that no product file may have."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "models", "losses", "discriminators", "pretrained", "training")
FILES = sorted(ROOT.glob("*.py")) + sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
TEXTS = [path for kind in ("*.md", "*.txt", "*.toml", "Makefile", "docs/*.md") for path in ROOT.glob(kind)]


def module_of(path: Path) -> str:
    """data/__init__.py -> data, data/folders.py -> data.folders."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(module: str) -> set[str]:
    """The product's modules that one imports, anywhere in it: `from data import folders` is data.folders."""
    found, path = set(), MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join(filter(None, (*parents, source)))
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else source for name in names}
    return found & MODULES.keys()


def package_of(module: str) -> str:
    return module.partition(".")[0]


def foreign(module: str) -> set[str]:
    """The product's modules outside its own package that one imports, without `errors`."""
    return {name for name in imports(module) if package_of(name) != package_of(module)} - {"errors"}


SCRIPTS = {module for module in MODULES if "." not in module} - set(PACKAGES) - {"config", "errors", "metrics"}


def test_the_walls_stand_where_this_file_thinks():
    assert {"fit", "config", "training.steps", "losses.balance", "data.folders", "pretrained.zoo"} <= MODULES.keys()
    assert "losses.balance" in foreign("training.steps") and "config" in foreign("fit")


@pytest.mark.parametrize(
    "module", [m for m in MODULES if package_of(m) in ("data", "models", "losses", "discriminators", "metrics")]
)
def test_the_parts_know_nothing_of_each_other(module):
    assert not foreign(module)


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) == "pretrained"])
def test_pretrained_knows_models_in_the_zoo_alone(module):
    allowed = {"models"} if module == "pretrained.zoo" else set()
    assert {package_of(name) for name in foreign(module)} <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) == "training"])
def test_training_knows_of_the_losses_how_to_balance_them(module):
    assert foreign(module) <= {"losses.balance"}


@pytest.mark.parametrize("module", MODULES)
def test_config_is_read_by_scripts_alone(module):
    assert "config" not in imports(module) or module in SCRIPTS


@pytest.mark.parametrize("module", ("config", "errors"))
def test_config_and_errors_stand_on_nothing(module):
    assert not foreign(module)


def test_importing_does_nothing(tmp_path):
    """No output, file, thread, connection, or CUDA; signals, the threads and random numbers of torch as they were."""
    code = f"""
import importlib, random, signal, socket, threading
import numpy, torch

def refuse(*_, **__):
    raise AssertionError("an import opened a connection or started a thread")

def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    numbers = [torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate()]
    return handlers, numbers, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = threading.Thread.start = refuse
before = state()
for module in {sorted(MODULES)!r}:
    importlib.import_module(module)
    assert state() == before, module
    assert not torch.cuda.is_initialized() and threading.active_count() == 1, module
"""
    changes = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment = {key: value for key, value in os.environ.items() if key != "TORCH_HOME"} | changes
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout and not done.stderr
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("path", FILES + TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_path_of_some_machine(path):
    found = re.findall(r"\.\./shared|(?<![\w.-])/(?:work|home|root|Users|mnt|tmp/venv)/\S*", path.read_text())
    assert not found


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_says_what_it_is(module):
    tree = parse(MODULES[module])
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    without = [node.name for node in public if not node.name.startswith("_") and not ast.get_docstring(node)]
    assert ast.get_docstring(tree) and set(without) <= {"main"}


@pytest.mark.parametrize("module", MODULES)
def test_files_are_read_without_running_their_code(module):
    tree = parse(MODULES[module])
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        arguments = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        if ast.unparse(call.func) in ("torch.load", "torch.hub.load_state_dict_from_url"):
            assert arguments.get("weights_only") is True, f"line {call.lineno}"
        if ast.unparse(call.func) in ("np.load", "numpy.load"):
            assert not arguments.get("allow_pickle"), f"line {call.lineno}"
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not names & {"pickle", "dill", "joblib", "marshal", "shelve"}
