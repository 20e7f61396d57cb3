"""The benchmarks compare what they say they compare, and their JSON has what is read from it."""

import importlib.util
import io
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from build import Networks, build_generator, build_trainer
from config import PRESETS, Backbones
from data.demosaic import Reference
from data.sensor import Sensor, prepare
from models import MODELS
from training.steps import Batch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def load(monkeypatch):
    """load(name): a benchmark as a module; root scripts of the same name stay what they are."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def module(name: str):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        found = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = found
        spec.loader.exec_module(found)
        return found

    yield module
    sys.modules.pop("common", None)


@pytest.mark.parametrize("lean", (False, True))
def test_the_published_procedure_and_ours_compute_the_same_gradient(load, lean):
    """In float32 within 1e-5, in one memory layout: another's rounding can switch a ReLU, and a gradient with it."""
    from dataclasses import replace

    base = PRESETS["fujifilm-efficient"]
    config = replace(base, data=replace(base.data, patch=64, batch=2))
    config = replace(config, backbones=Backbones("random", vit="vit_tiny_patch16_224"))
    torch.manual_seed(0)
    generator = build_generator("efficient", "")[1]
    networks = Networks(config, CPU)
    trainer = build_trainer(config, generator, networks)
    for network in networks.built.values():
        network.to(memory_format=torch.contiguous_format)
    theirs = load("train_step").Published(generator, trainer, networks, 1e-4, lean, nullcontext)
    sensor, mosaic, target = Sensor(), torch.rand(2, 1, 64, 64), torch.rand(2, 3, 64, 64)
    inputs, reference = prepare(mosaic, sensor, "packed"), Reference(sensor)(mosaic)
    logged = theirs.step(inputs, reference, target, critics=True)
    statistics = trainer.step(Batch(inputs, reference, target), 10)
    ours, expected = (
        torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (generator, theirs.generator)
    )
    assert (ours - expected).norm() < 1e-5 * expected.norm()
    assert all(value == pytest.approx(1, abs=0.05) for value in logged.values())
    assert {f"norm/{name}" for name in logged} <= statistics.keys()


def test_train_step_writes_its_ratios(load, monkeypatch, tmp_path, capsys):
    file = tmp_path / "out.json"
    options = ["--device", "cpu", "--batch", "1", "--patch", "32", "--vit", "vit_tiny_patch16_224"]
    monkeypatch.setattr(sys, "argv", ["x", *options, "--weights", "random", "--repeats", "1", "--json", str(file)])
    load("train_step").main()
    figures = json.loads(file.read_text())
    assert figures["ratio_published"] > 0 and figures["ratio_floor"] > 0
    assert {"ours", "floor", "published"} <= figures["seconds_an_image"].keys()
    assert figures["machine"]["torch"] == torch.__version__.split("+")[0]
    assert "times the floor" in capsys.readouterr().out


def test_the_mosaic_that_libraw_develops_is_the_one_that_we_do(load):
    rawpy = pytest.importorskip("rawpy")
    mosaic = np.random.default_rng(0).integers(60, 1024, (64, 96)).astype(np.uint16)
    with rawpy.imread(io.BytesIO(load("inference").dng(mosaic))) as raw:
        assert (raw.raw_image_visible == mosaic).all()
        assert raw.white_level == 1023 and raw.black_level_per_channel[:3] == [60] * 3
        assert raw.postprocess().shape == (64, 96, 3)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("rmfa-medium", "rmfa-large")])
def test_ours_and_the_released_way_develop_the_same_image(load, name):
    module = load("inference")  # the comparison is an assertion of `developers`
    ways = module.developers(name, (32, 48), CPU)
    assert ways["ours"]().shape == (32, 48, 3)
    assert np.abs(ways["ours, bf16"]().astype(int) - ways["as released"]()).max() <= 4
    networks = module.networks(name, (32, 48), CPU, compiled=False)
    torch.testing.assert_close(networks["channels-last"](), networks["as released"](), rtol=1e-4, atol=1e-5)


def test_ratios_are_taken_pair_by_pair(load):
    load("train_step")
    common = sys.modules["common"]
    assert common.ratios([2.0, 6.0, 9.0], [1.0, 2.0, 9.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}


@pytest.mark.parametrize("name", ("train_step", "data", "inference", "scaling", "paper_run", "scoring"))
def test_every_benchmark_explains_itself(load, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        load(name).main()
    assert end.value.code == 0 and ("--json" in capsys.readouterr().out or name == "paper_run")
