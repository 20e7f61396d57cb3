"""Fixtures of all tests: small pairs of images, run folders without the training, commands run in this process."""

import copy
import dataclasses
import functools
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import storage
from config import Backbones, Config, Data, to_dict
from data.notes import note
from data.sensor import SENSORS
from models import build_model, model_spec
from pretrained import backbones, perceptual
from training.checkpoint import save_generator

from . import fit_runs, raw2raw_runs
from .benchmark_runs import FOLDER, load_benchmark

STEPS = 10  # from one checkpoint of a made run to the next


class Bomb:
    """Unpickling one makes the folder `path`."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(autouse=True)
def notes_are_new():
    """Each test sees notes that an earlier one has seen."""
    note.cache_clear()


@pytest.fixture
def bomb(tmp_path) -> Bomb:
    """An object that makes a folder when it is unpickled; the test fails if that happened."""
    yield Bomb(tmp_path / "unpickled")
    assert not (tmp_path / "unpickled").exists()


# --- data and runs without training ----------------------------------------------------------------------------------


def write_pairs(raws: Path, photos: Path, count: int, seed: int, size: tuple[int, int] = (64, 64)) -> None:
    """Write `count` 10-bit mosaics and photographs, named 0.png, 1.png, ..., each pair of the same coarse noise."""
    rng = np.random.default_rng(seed)
    raws.mkdir(parents=True)
    photos.mkdir(parents=True)
    for name in range(count):
        scene = rng.random((size[0] // 8, size[1] // 8, 3)).repeat(8, 0).repeat(8, 1)
        iio.imwrite(raws / f"{name}.png", (64 + 900 * scene[..., 1]).astype(np.uint16))
        iio.imwrite(photos / f"{name}.png", (255 * scene).astype(np.uint8))


@pytest.fixture(scope="session")
def make_pairs():
    """make_pairs(raws, photos, count, seed, size): two new folders with `count` pairs (height, width = size)."""
    return write_pairs


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, model, count, **data): the folder of a run with `count` checkpoints of random weights.

    Its dataset has four training pairs and three validation pairs; `data` are other fields of the config's section.
    """
    root = tmp_path / "data"
    write_pairs(root / "train" / "mediatek_raw", root / "train" / "fujifilm", 4, seed=0)
    write_pairs(root / "val" / "mediatek_raw", root / "val" / "fujifilm", 3, seed=1)

    def make(name: str = "tiny", model: str = "efficient", count: int = 5, **data) -> Path:
        fields = {"root": str(root), "val_count": 0, "test_count": 0} | data
        networks = Backbones("random", vit="test_vit")
        config = Config(run=name, model=model, data=Data(**fields), backbones=networks)
        run = tmp_path / "runs" / name
        storage.write_json(run / "config.json", to_dict(config))
        description = {
            "model": model,
            "input_format": model_spec(model).input_format,
            "sensor": dataclasses.asdict(SENSORS["fujifilm"]),
            "config": to_dict(config),
            "weights": {},
        }
        for index in range(count):
            torch.manual_seed(index)
            step = STEPS * (index + 1)
            save_generator(run / "checkpoints" / f"step_{step:07d}.pt", build_model(model), step, description)
        return run

    return make


@pytest.fixture
def make_files(tmp_path):
    """make_files(model): (a file of weights as the authors release them, folder of two mosaics, of two photographs)."""

    def make(model: str = "efficient") -> tuple[Path, Path, Path]:
        torch.manual_seed(1)
        torch.save(build_model(model).state_dict(), tmp_path / "weights.pth")
        write_pairs(tmp_path / "raws", tmp_path / "photos", 2, seed=4)
        return tmp_path / "weights.pth", tmp_path / "raws", tmp_path / "photos"

    return make


@pytest.fixture(scope="session")
def raw2raw_cameras(tmp_path_factory) -> Path:
    """The folder of `raw2raw_runs.make_cameras`. Tests do not change it."""
    return raw2raw_runs.make_cameras(tmp_path_factory.mktemp("cameras") / "data")


@pytest.fixture(scope="session")
def raw2raw_trained(raw2raw_cameras, tmp_path_factory) -> Path:
    """A run of `raw2raw_runs.train` that starts from transport. Tests do not change it."""
    options = ("--data.layout", "cameras", "--data.root", str(raw2raw_cameras), "--mapping.start", "transport")
    with one_thread():
        return raw2raw_runs.train(tmp_path_factory.mktemp("runs"), "raw", *options, "--mapping.lr", "1e-3")


@pytest.fixture
def raw2raw_run(raw2raw_trained, tmp_path) -> Path:
    """A copy of it, with the same dataset."""
    return Path(shutil.copytree(raw2raw_trained, tmp_path / "runs" / "raw"))


@pytest.fixture
def call(monkeypatch, capsys):
    """call(script, *arguments): a command's exit status and everything it printed, run in this process."""

    def run(script, *arguments: object) -> tuple[int, str]:
        from errors import run_cli

        monkeypatch.setattr("sys.argv", [script.__name__, *map(str, arguments)])
        try:
            run_cli(script.main)
            status = 0
        except SystemExit as end:
            status = end.code or 0
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


# --- benchmarks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def load(monkeypatch):
    """load(name): a benchmark as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield load_benchmark
    sys.modules.pop("common", None)


# --- training in the test process ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fit_dataset(tmp_path_factory) -> Path:
    """The folder of `fit_runs.make_dataset`. Tests do not change it."""
    return fit_runs.make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small_config(fit_dataset, tmp_path) -> Config:
    """Two steps in each stage; see `fit_runs.make_config`."""
    return fit_runs.make_config(fit_dataset, tmp_path / "runs")


@pytest.fixture
def cheap_config(small_config) -> Config:
    """`small_config` with a single critic, on a small ViT, and no other frozen network."""
    return fit_runs.vary(small_config, train=fit_runs.CHEAP, pretrain={"content": 0})


BUILDERS = {
    (module, name): functools.cache(getattr(module, name))
    for module, names in ((backbones, ("vgg19", "alexnet", "vit")), (perceptual, ("lpips_plus", "dists")))
    for name in names
}


@pytest.fixture(scope="module")
def cached_networks():
    """Frozen networks, which must be random, are initialised once in all modules that use this; tests get copies."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), build in BUILDERS.items():
            patch.setattr(module, name, lambda *a, build=build, **k: copy.deepcopy(build(*a, **k)))
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread in the block; then the number of threads, signal handlers and the default dtype are as before."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def restored():
    """One thread during the test; nothing that it changes in the process stays changed (see `one_thread`)."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def restored_module():
    """The same for all tests and fixtures of a module."""
    with one_thread():
        yield
