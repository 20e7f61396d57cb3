"""Which package may import which, that importing does nothing, and rules that every product file must follow."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {"align", "develop", "export", "fit", "inference", "map_raw", "process_set", "runs", "test_model"}
ROOT_MODULES = COMMANDS | {"config", "errors", "storage"}
ANYBODY = {"errors", "storage"}  # modules that every other may import
# Package -> the packages and modules that it may import beside itself and ANYBODY.
WALLS = {
    "data": set(),
    "models": set(),
    "losses": set(),
    "discriminators": set(),
    "pretrained": {"models"},
    "training": {"losses"},
    "evaluation": {"data", "losses", "models"},
    "exporting": {"data", "models"},
    "tasks": {
        "config",
        "data",
        "models",
        "losses",
        "discriminators",
        "pretrained",
        "training",
        "evaluation",
    },
}
NARROW = {  # the modules that use a permission
    "pretrained.zoo": {"models"},
    "training.steps": {"losses.balance"},
    "training.cycle": {"losses.adversarial"},
}
PACKAGES = tuple(WALLS)
SOURCES = sorted(ROOT.glob("*.py")) + sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
OTHERS = sorted(path for name in ("tests", "benchmarks") for path in (ROOT / name).rglob("*.py"))
TEXTS = [path for kind in ("*.md", "*.txt", "*.toml", "Makefile", "docs/*.md", "*.cff") for path in ROOT.glob(kind)]

MAX_FILE, MAX_FUNCTION = 300, 50  # lines
LONG_FILES = {"config.py"}  # every setting of a run, with its explanation, in one place


def module_of(path: Path) -> str:
    """data/__init__.py -> data, data/folders.py -> data.folders."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(module: str) -> set[str]:
    """The product's modules that a module imports, anywhere in it: `from data import folders` is data.folders."""
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
    """The product's modules outside its own package that a module imports, without those that anybody may import."""
    return {name for name in imports(module) if package_of(name) != package_of(module)} - ANYBODY


def test_the_root_holds_commands_settings_and_the_two_common_modules():
    assert {module for module in MODULES if "." not in module} - set(PACKAGES) == ROOT_MODULES


def test_imports_are_found():
    assert {"losses.balance"} == foreign("training.steps")
    assert {"config", "tasks.table", "training.run"} <= foreign("fit")


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module) in WALLS])
def test_a_package_imports_only_what_it_may(module):
    assert {package_of(name) for name in foreign(module)} <= WALLS[package_of(module)]


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) in ("pretrained", "training")])
def test_a_permission_is_used_by_one_module_only(module):
    assert foreign(module) <= NARROW.get(module, set())


@pytest.mark.parametrize("module", MODULES)
def test_only_commands_and_tasks_read_the_config(module):
    assert "config" not in imports(module) or module in COMMANDS or package_of(module) == "tasks"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_command(module):
    allowed = {"inference"} if module == "process_set" else set()  # it starts inference.py and shares its options
    assert imports(module) & COMMANDS <= allowed


def test_the_common_modules_import_nothing():
    assert not imports("errors") and imports("storage") == {"errors"}
    assert foreign("config") == {"data.sensor"}  # cameras' facts


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE or path.name in LONG_FILES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, f"{node.name}, line {node.lineno}"


def test_importing_does_nothing(tmp_path):
    """No output, file, thread, connection or CUDA context; signals, threads and random states stay as they were."""
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


@pytest.mark.parametrize("path", SOURCES + TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_path_of_one_machine(path):
    found = re.findall(r"\.\./shared|(?<![\w.-])/(?:work|home|root|Users|mnt|tmp/venv)/\S*", path.read_text())
    assert not found


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module):
    tree = parse(MODULES[module])
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    without = [node.name for node in public if not node.name.startswith("_") and not ast.get_docstring(node)]
    assert ast.get_docstring(tree) and set(without) <= {"main"}


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_read_in_a_way_that_runs_its_code(module):
    tree = parse(MODULES[module])
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        arguments = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        if ast.unparse(call.func) in ("torch.load", "torch.hub.load_state_dict_from_url"):
            assert arguments.get("weights_only") is True, f"line {call.lineno}"
        if ast.unparse(call.func) in ("np.load", "numpy.load"):
            assert not arguments.get("allow_pickle"), f"line {call.lineno}"
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not names & {"pickle", "dill", "joblib", "marshal", "shelve"}
