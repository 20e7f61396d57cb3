"""Runs of fit.py with masks of their pairs: they train otherwise, are known again, and are refused without effect."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import fit
import storage
from errors import UserError

from .fit_runs import read_scores, same, vary

pytestmark = pytest.mark.usefixtures("restored", "cached_networks")
LIGHT = {"mode": "paired", "mse": 1, "lpips": 0, "dists": 0, "content": 0}


def write_masks(folder: Path, aligned: slice) -> Path:
    """Masks of the six training pairs: the rows in `aligned` are."""
    folder.mkdir(exist_ok=True)
    for name in range(6):
        mask = np.zeros((64, 64), np.uint8)
        mask[aligned] = 255
        cv2.imwrite(str(folder / f"{name}.png"), mask)
    return folder


@pytest.fixture
def config(cheap_config):
    return vary(cheap_config, train=LIGHT, pretrain={"content": 0})


def weights(folder: Path) -> dict:
    return storage.load(folder / "checkpoints" / "step_0000002.pt")["generator"]


def test_a_mask_changes_the_paired_stage_alone_and_masks_of_ones_nothing(config, tmp_path):
    plain = fit.train(config)
    ones = str(write_masks(tmp_path / "ones", slice(None)))
    half = str(write_masks(tmp_path / "half", slice(0, 33)))
    with_ones = fit.train(vary(config, run="ones", data={"masks": ones}))
    with_half = fit.train(vary(config, run="half", data={"masks": half}))
    assert same(weights(with_ones), weights(plain)) and not same(weights(with_half), weights(plain))
    assert read_scores(with_half)["pretrained"] == read_scores(plain)["pretrained"]
    known = json.loads((with_half / "data.json").read_text())
    assert [name for name, _ in known["masks"]] == [f"{name}.png" for name in range(6)]
    assert "masks" not in json.loads((plain / "data.json").read_text())


def test_a_resumed_run_needs_the_same_masks_wherever_they_are(config, tmp_path):
    masks, more = write_masks(tmp_path / "masks", slice(0, 40)), {"steps": 3}
    folder = fit.train(vary(config, data={"masks": str(masks)}))
    options = ["--runs", str(folder.parent), "--run", folder.name, "--resume", "--train.steps", "3", "--data.masks"]
    moved = masks.rename(tmp_path / "moved")
    others = write_masks(tmp_path / "others", slice(0, 41))
    for other in (str(others), ""):
        with pytest.raises(UserError, match="the dataset is not the one that"):
            fit.train(*fit.parse([*options, other]))
    fit.train(*fit.parse([*options, str(moved)]))
    straight = fit.train(vary(config, run="straight", data={"masks": str(moved)}, train=more))
    final = "checkpoints/step_0000003.pt"
    assert same(storage.load(folder / final)["generator"], storage.load(straight / final)["generator"])


ROOT = ("fujifilm-efficient", "--data.root", "x", "--data.masks", "y")


@pytest.mark.parametrize(
    "more",
    (
        (),
        ("--train.mode", "synthetic"),
        ("--train.mode", "paired", "--train.steps", "0"),
        (
            "--train.mode",
            "paired",
            "--train.content",
            "0",
            "--train.color",
            "0",
            "--train.lpips",
            "0",
            "--train.dists=0",
        ),
    ),
)
def test_masks_without_effect_are_refused(more):
    with pytest.raises(
        UserError, match="a setting has no effect: mode .* has no term that compares pairs, for --data.m"
    ):
        fit.parse([*ROOT, *more])
    fit.parse([*ROOT, "--train.mode", "paired_gan"])


def test_mappers_take_no_masks():
    with pytest.raises(UserError, match="a setting has no effect: task raw2raw does not use data.masks"):
        fit.parse(["raw2raw", "--data.root", "x", "--data.masks", "y"])


def test_masks_of_an_incomplete_folder_are_refused_before_training(config, tmp_path):
    masks = write_masks(tmp_path / "masks", slice(None))
    (masks / "3.png").unlink()
    with pytest.raises(UserError, match="has no mask of 1 of the 6 training pairs .the first: '3.png'"):
        fit.train(vary(config, data={"masks": str(masks)}))
    assert not list(Path(config.runs, config.run).glob("*.json*"))
