"""Trainers of the paper's modes with random frozen networks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from config import PRESETS, Backbones, Compute, Config
from data.inputs import prepare
from data.reference import Reference
from data.sensor import SENSORS
from tasks.features import Networks
from tasks.isp import build_generator
from tasks.modes import build_trainer
from training.steps import Batch, Trainer

from ..camera_folder import BLACK, seen, smooth, write, write_photo
from ..fit_runs import vary

CPU = torch.device("cpu")
SENSOR = SENSORS["fujifilm"]


@pytest.fixture(scope="module", autouse=True)
def copied_networks(cached_networks):
    """All tests use copies of frozen networks that are initialised once."""


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """make_config(compute, **train): the preset fujifilm-efficient with random networks and patches of 64 pixels."""

    def make(compute: Compute = Compute(), **train) -> Config:  # noqa: B008 - frozen
        base = PRESETS["fujifilm-efficient"]
        data = replace(base.data, patch=64, batch=2)
        random = Backbones("random", vit="test_vit")
        return replace(base, data=data, train=replace(base.train, **train), compute=compute, backbones=random)

    return make


@pytest.fixture(scope="session")
def make_trainer() -> Callable[[Config], Trainer]:
    """make_trainer(config): the trainer of the config's mode, always with the same weights."""

    def make(config: Config) -> Trainer:
        torch.manual_seed(0)
        generator = build_generator(config.model, "")[1].to(memory_format=torch.channels_last)
        return build_trainer(config, generator, Networks(config, CPU))

    return make


@pytest.fixture(scope="session")
def batch() -> Batch:
    """Two random patches of 64 pixels; photographs of other scenes."""
    random = torch.Generator().manual_seed(0)
    mosaic, target = (torch.rand(2, channels, 64, 64, generator=random) for channels in (1, 3))
    return Batch(prepare(mosaic, SENSOR, "packed"), Reference(SENSOR)(mosaic), target)


@pytest.fixture
def larger_config(cheap_config, make_pairs, tmp_path):
    """A cheap run with twelve scenes on each side."""
    root = tmp_path / "larger"
    make_pairs(root / "train" / "mediatek_raw", root / "train" / "fujifilm", 12, 0)
    make_pairs(root / "val" / "mediatek_raw", root / "val" / "fujifilm", 2, 1)
    return vary(cheap_config, data={"root": str(root), "val_count": 0, "test_count": 0})


@pytest.fixture
def own(tmp_path) -> Path:
    """raws/ with six DNG files of two ISOs, and photos/ with six photographs of other names."""
    for i in range(6):
        black, iso = BLACK + 20 * (i % 2), 100 + 700 * (i % 2)
        write(tmp_path / "raws" / f"{i}.dng", seen(smooth(i)), black=black, iso=iso)
        write_photo(tmp_path / "photos" / f"photo_{i}.png", smooth(i))
    return tmp_path
