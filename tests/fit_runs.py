"""Small training runs for tests of fit.py: a tiny dataset, a config of a few steps, and readers of a run's files."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from config import Backbones, Config, Data, Log, Pretrain, Train

CHEAP = {"content": 0, "adv_lin0": 0, "adv_lin3": 0}  # weights of training that need VGG-19 or AlexNet


def write_scenes(raws: Path, photos: Path, names: range, photo_names: range | None = None, side: int = 64) -> None:
    """Write 10-bit mosaics and photographs of smooth noise, named by number."""
    rng = np.random.default_rng(names.start)
    raws.mkdir(parents=True)
    photos.mkdir(parents=True)
    for name, photo_name in zip(names, photo_names or names, strict=True):
        scene = cv2.resize(rng.random((8, 8, 3)), (side, side)).clip(0, 1)
        mosaic = 64 + 900 * scene[..., 1]
        cv2.imwrite(str(raws / f"{name}.png"), mosaic.astype(np.uint16))
        cv2.imwrite(str(photos / f"{photo_name}.png"), (255 * scene).astype(np.uint8))


def make_dataset(folder: Path) -> Path:
    """Six pairs to train on and two to validate on, in Fujifilm's layout; in apart/, five files of different names."""
    write_scenes(folder / "train" / "mediatek_raw", folder / "train" / "fujifilm", range(6))
    write_scenes(folder / "val" / "mediatek_raw", folder / "val" / "fujifilm", range(10, 12))
    write_scenes(folder / "apart" / "raws", folder / "apart" / "photos", range(5), range(20, 25))
    return folder


def make_config(root: Path, runs: Path) -> Config:
    """A run of two steps in each stage, which writes everything at every step."""
    return Config(
        run="tiny",
        runs=str(runs),
        model="efficient",
        device="cpu",
        data=Data(root=str(root), patch=32, batch=2, workers=0, val_count=0, test_count=0),
        backbones=Backbones("random", vit="test_vit"),
        pretrain=Pretrain(steps=2),
        train=Train(steps=2, critic_every=1),
        log=Log(every=1, val_every=2, save_every=1, state_every=1, samples=2),
    )


def vary(config: Config, **parts) -> Config:
    """The config with other fields; the fields of a section are given as a dict."""
    for name, value in parts.items():
        new = dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        config = dataclasses.replace(config, **{name: new})
    return config


def read_log(folder: Path, stage: str) -> list[dict]:
    """The lines of a stage in log.jsonl."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


def read_scores(folder: Path) -> dict[str, float]:
    """The validation scores in summary.json."""
    return json.loads((folder / "summary.json").read_text())["val_psnr"]


def same(a, b) -> bool:
    """Whether two nested structures of tensors and plain values are equal."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b
