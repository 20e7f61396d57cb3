"""Whole runs of a few steps on six tiny scenes: the files of every mode, starting points, and what training reaches."""

import json

import cv2
import pytest
import torch

import config as settings
import fit
import storage
from data.inputs import prepare
from data.sensor import SENSORS
from evaluation.metrics import psnr
from models import build_model

from .fit_runs import CHEAP, read_log, read_scores, vary

pytestmark = pytest.mark.usefixtures("restored", "cached_networks")

# --- every mode ------------------------------------------------------------------------------------------------------

VGG, ALEXNET, VIT, LPIPS, DISTS = "vgg", "alexnet", "vit", "lpips", "dists"
UNPAIRED = {"tv", "content", "color", "lin0", "lin3"}
ALL_CRITICS = {"color", "lin0", "lin3"}
# Name -> what differs from `small_config`, the terms of training, its critics, and the frozen networks.
RUNS = {
    "shuffled": ({}, UNPAIRED, ALL_CRITICS, {VGG, ALEXNET, VIT}),
    "disjoint": (
        {"data": {"unpaired": "disjoint", "flips": True}},
        UNPAIRED,
        ALL_CRITICS,
        {VGG, ALEXNET, VIT},
    ),
    "as-released": ({"as_released": True}, UNPAIRED, ALL_CRITICS, {VGG, ALEXNET, VIT}),
    "image-critics": (
        {"train": {"color_critic": "vgg", "texture_critics": ("grey",)}},
        {"tv", "content", "color", "grey"},
        {"color", "grey"},
        {VGG},
    ),
    "sharp-color": (
        {"train": CHEAP | {"blur_color": False}, "backbones": {"vit_size": 0}, "pretrain": {"content": 0}},
        {"tv", "color"},
        {"color"},
        {VIT},
    ),
    "one-texture-critic": (
        {"train": {"adv_lin0": 0, "adv_color": 0}},
        {"tv", "content", "lin3"},
        {"lin3"},
        {VGG, ALEXNET},
    ),
    "paired": ({"train": {"mode": "paired", "dists": 0}}, {"tv", "color", "content", "lpips"}, set(), {VGG, LPIPS}),
    "paired-dists": (
        {"train": {"mode": "paired", "lpips": 0, "content": 0, "mse": 1}, "pretrain": {"content": 0}},
        {"tv", "color", "mse", "dists"},
        set(),
        {DISTS},
    ),
    "paired-gan": (
        {"train": {"mode": "paired_gan", "lpips": 0, "dists": 0}},
        {"tv", "color", "content", "lin0", "lin3"},
        {"lin0", "lin3"},
        {VGG, ALEXNET},
    ),
    "rmfa-tiny": (
        {"model": "rmfa-tiny", "train": CHEAP, "pretrain": {"content": 0}},
        {"tv", "color"},
        {"color"},
        {VIT},
    ),
    "robust": ({"model": "robust", "train": CHEAP, "pretrain": {"content": 0}}, {"tv", "color"}, {"color"}, {VIT}),
    "bilinear-cosine-ema": (
        {
            "data": {"demosaic": "bilinear"},
            "train": CHEAP | {"schedule": "cosine", "ema": 0.9},
            "pretrain": {"content": 0},
        },
        {"tv", "color"},
        {"color"},
        {VIT},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_with_all_its_files(name, small_config):
    parts, terms, critics, networks = RUNS[name]
    config = vary(small_config, **parts)
    folder = fit.train(config)

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["val_psnr"].keys() == {"demosaiced", "pretrained", "final"}
    assert all(3 < value < 60 for value in summary["val_psnr"].values())
    assert summary["weights"] == dict.fromkeys(networks, "random (seed 0)")
    assert settings.load(folder / "config.json") == config

    pretrained, trained = read_log(folder, "pretrain"), read_log(folder, "train")
    assert [line["step"] for line in pretrained] == [line["step"] for line in trained] == [1, 2, 2]
    wanted = {f"loss/{t}" for t in terms} | {f"norm/{t}" for t in terms}
    wanted |= {f"critic/{c}/{key}" for c in critics for key in ("loss", "gap", "r1", "r2")}
    assert trained[0].keys() >= wanted
    assert {name.split("/")[1] for name in trained[0] if name.startswith("norm/")} == terms
    signs = {f"health/{name}" for name in ("mesh", "structure", "cast")}
    assert trained[2].keys() == {"stage", "step", "val_psnr", *signs}
    assert trained[2]["val_psnr"] == summary["val_psnr"]["final"]

    files = {"pretrained.pt", "step_0000001.pt", "step_0000002.pt"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == files
    saved = torch.load(folder / "checkpoints" / "step_0000002.pt", weights_only=True)
    assert (saved["model"], saved["step"], saved["weights"]) == (config.model, 2, summary["weights"])
    assert settings.from_dict(saved["config"]) == config
    build_model(config.model).load_state_dict(saved["generator"])
    assert {path.name for path in (folder / "samples").iterdir()} == {"pretrain_0000002.png", "train_0000002.png"}
    assert any((folder / "tensorboard").iterdir())


# --- scores, samples, seeds ------------------------------------------------------------------------------------------


def test_the_saved_generator_has_the_score_of_the_summary(cheap_config):
    run = fit.build_run(vary(cheap_config, train={"ema": 0.5}), resume=False)
    run.train()
    generator = build_model("efficient")
    generator.load_state_dict(storage.load(run.folder / "checkpoints" / "step_0000002.pt")["generator"])
    validation = run.task.validation
    assert validation.measure(validation.render(generator)) == run.scores["final"] == read_scores(run.folder)["final"]


def test_the_sample_grid_has_three_columns_and_a_row_for_each_scene(cheap_config):
    grid = cv2.imread(str(fit.train(cheap_config) / "samples" / "train_0000002.png"))
    assert grid.shape == (2 * 64 + 3 * 2, 3 * 64 + 4 * 2, 3)


def test_two_runs_of_one_config_are_equal_and_another_seed_differs(cheap_config):
    seeds = {"a": 0, "b": 0, "c": 1}
    logs = [(fit.train(vary(cheap_config, run=r, seed=s)) / "log.jsonl").read_bytes() for r, s in seeds.items()]
    assert logs[0] == logs[1] != logs[2]


def test_folders_without_pairs_have_no_scores_but_samples(cheap_config, fit_dataset):
    apart = fit_dataset / "apart"
    data = {"layout": "folders", "root": "", "raw": str(apart / "raws"), "photos": str(apart / "photos")}
    folder = fit.train(vary(cheap_config, data=data))
    assert read_scores(folder) == {"demosaiced": None, "pretrained": None, "final": None}
    assert (folder / "samples" / "train_0000002.png").exists()


def test_pretraining_approaches_the_reference(cheap_config):
    stages = {"pretrain": {"steps": 60, "lr": 1e-2, "tv": 0}, "train": {"steps": 0}, "log": {"every": 60}}
    run = fit.build_run(vary(cheap_config, **stages), resume=False)
    stage = run.task.stages[0]
    batch = stage.prepare(next(stage.batches(0)))

    def score() -> float:
        return psnr(stage.algorithm.generator(batch.inputs), batch.reference).mean().item()

    before = score()
    run.train()
    assert score() > before + 3


def test_the_stages_get_the_config_s_mosaics_references_and_photographs(cheap_config):
    run = fit.build_run(cheap_config, resume=False)
    pretraining, training = run.task.stages
    loaded, again = (next(training.batches(0)) for _ in range(2))
    batch = training.prepare(loaded)
    assert torch.equal(again["mosaic"], loaded["mosaic"])
    assert loaded.keys() == {"mosaic", "target"} and batch.reference is None  # no term compares with the reference
    assert batch.inputs.shape == (2, 4, 16, 16) and torch.equal(batch.target, loaded["target"])
    assert pretraining.prepare(next(pretraining.batches(0))).reference.shape == (2, 3, 32, 32)
    assert torch.equal(batch.inputs, prepare(loaded["mosaic"], SENSORS["fujifilm"], "packed"))


# --- where a run starts ----------------------------------------------------------------------------------------------


def test_a_run_can_start_from_a_checkpoint(cheap_config):
    before = fit.train(cheap_config)
    path = before / "checkpoints" / "step_0000002.pt"
    folder = fit.train(vary(cheap_config, run="next", init=str(path)))
    first = storage.load(folder / "checkpoints" / "pretrained.pt")["generator"]
    saved = storage.load(path)["generator"]
    assert all(torch.equal(first[key], saved[key]) for key in saved)
    assert read_scores(folder)["pretrained"] == read_scores(before)["final"]
    assert [line["step"] for line in read_log(folder, "pretrain")] == [0]


def test_a_run_without_a_model_has_that_of_its_initial_checkpoint(cheap_config):
    path = fit.train(vary(cheap_config, model="robust")) / "checkpoints" / "pretrained.pt"
    folder = fit.train(vary(cheap_config, run="next", model="", init=str(path)))
    assert settings.load(folder / "config.json").model == "robust"
    assert storage.load(folder / "checkpoints" / "step_0000002.pt")["model"] == "robust"


def test_pretraining_can_be_skipped(cheap_config):
    folder = fit.train(vary(cheap_config, pretrain={"steps": 0}))
    assert read_scores(folder)["pretrained"] is not None
    assert [line["step"] for line in read_log(folder, "train")] == [1, 2, 2]


def test_a_lengthened_run_records_its_new_length(cheap_config):
    folder = fit.train(cheap_config)
    fit.train(vary(cheap_config, train={"steps": 4}), resume=True)
    assert settings.load(folder / "config.json").train.steps == 4
