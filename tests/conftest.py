"""A run as training leaves it, without the training: tiny scenes, and generators with random weights."""

import dataclasses
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from config import Backbones, Config, Data, to_dict
from data.sensor import Sensor
from models import build_model
from training import checkpoint


def write_pairs(raws: Path, photos: Path, count: int, seed: int, size: tuple[int, int] = (64, 64)) -> None:
    """10-bit mosaics and photographs of the same smooth noise."""
    rng = np.random.default_rng(seed)
    raws.mkdir(parents=True)
    photos.mkdir(parents=True)
    for name in range(count):
        scene = rng.random((size[0] // 8, size[1] // 8, 3)).repeat(8, 0).repeat(8, 1)
        iio.imwrite(raws / f"{name}.png", (64 + 900 * scene[..., 1]).astype(np.uint16))
        iio.imwrite(photos / f"{name}.png", (255 * scene).astype(np.uint8))


@pytest.fixture(scope="session")
def make_pairs():
    """make_pairs(raws, photos, count, seed, size): folders of pairs."""
    return write_pairs


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, model, count): a run's folder, with `count` checkpoints and three validation pairs."""
    root = tmp_path / "data"
    write_pairs(root / "train" / "mediatek_raw", root / "train" / "fujifilm", 4, seed=0)
    write_pairs(root / "val" / "mediatek_raw", root / "val" / "fujifilm", 3, seed=1)

    def make(name: str = "tiny", model: str = "efficient", count: int = 5, **data) -> Path:
        fields = {"root": str(root), "val_count": 0, "test_count": 0} | data
        backbones = Backbones("random", vit="vit_tiny_patch16_224")
        config = Config(run=name, model=model, data=Data(**fields), backbones=backbones)
        run = tmp_path / "runs" / name
        checkpoint.write_json(run / "config.json", to_dict(config))
        for index in range(count):
            torch.manual_seed(index)
            generator = build_model(model)
            description = {
                "step": 10 * (index + 1),
                "model": model,
                "input_format": generator.input_format,
                "sensor": dataclasses.asdict(Sensor()),
                "config": to_dict(config),
                "weights": {},
            }
            path = run / "checkpoints" / f"step_{10 * (index + 1):07d}.pt"
            checkpoint.save_generator(path, generator, **description)
        return run

    return make


@pytest.fixture
def call(monkeypatch, capsys):
    """call(script, *arguments): its exit status and what it said, run in this process."""

    def run(script, *arguments: object) -> tuple[int, str]:
        from errors import run_cli

        monkeypatch.setattr("sys.argv", [script.__name__, *map(str, arguments)])
        try:
            run_cli(script.main)
            status = 0
        except SystemExit as end:
            status = end.code or 0
        said = capsys.readouterr()
        return status, said.out + said.err

    return run
