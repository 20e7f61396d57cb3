"""What is fitted before training reaches the stages, the log and the checkpoints; the paper's default fits nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fit
from data.folders import Split
from errors import UserError
from pretrained.zoo import open_checkpoint
from tasks import isp, weighting
from tasks.data import _check_simulated, open_data
from tasks.features import Networks
from training.distributed import ALONE

from ..fit_runs import vary

CPU = torch.device("cpu")
QUICK = {"mode": "synthetic", "content": 0, "tv": 0, "color": 0, "lpips": 0, "dists": 0, "mse": 1}


@pytest.fixture
def config(larger_config):
    return larger_config


def test_the_default_fits_nothing(config):
    task = isp.build_task(config, CPU, ALONE, resume=False)
    assert "color_map" not in task.description and "color map" not in task.provenance


@pytest.mark.usefixtures("restored", "cached_networks")
def test_a_run_with_fitted_colours_resumes_and_keeps_the_map(config):
    config = vary(config, data={"reference": "transport"}, pretrain={"data": "synthetic"})
    folder = fit.train(config)
    start = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert start["weights"]["color map"].startswith("distance to the photographs' colours ")
    assert start["weights"]["synthetic camera"].startswith("noise: shot ")
    last = sorted((folder / "checkpoints").glob("step_*.pt"))[-1]
    _, _, description = open_checkpoint(str(last))
    assert len(description["color_map"]["coefficients"]) == 20
    assert description["synthetic_camera"]["sensor"]["cfa"] == "rggb"
    longer = vary(config, train={"steps": config.train.steps + 1})
    assert fit.train(longer, resume=True) == folder


def test_the_stages_get_what_was_fitted(config):
    config = vary(config, data={"reference": "transport"}, pretrain={"data": "synthetic"})
    pretrain, train = isp.build_task(config, CPU, ALONE, resume=False).stages
    for stage, equal in ((pretrain, True), (train, False)):
        batch = stage.prepare(next(stage.batches(0)))
        assert batch.reference is None or torch.equal(batch.reference, batch.target) == equal


@pytest.mark.usefixtures("restored", "cached_networks")
def test_a_network_can_be_trained_on_synthetic_pairs_alone(config):
    config = vary(config, pretrain={"steps": 0}, train=QUICK | {"steps": 3})
    stage = isp.build_task(config, CPU, ALONE, resume=False).stages[1]
    assert [term.name for term in stage.algorithm.terms] == ["mse"]
    assert (fit.train(config) / "summary.json").is_file()


@pytest.mark.usefixtures("restored", "cached_networks")
def test_critics_of_texture_can_be_added_to_synthetic_pairs(config):
    train = QUICK | {"mode": "synthetic_gan", "steps": 3, "critic_warmup": 1, "adv_lin0": 0.1, "adv_lin3": 0.1}
    config = vary(config, pretrain={"steps": 0}, train=train, data={"color_map": "statistics"})
    trainer = isp.build_task(config, CPU, ALONE, resume=False).stages[1].algorithm
    assert [adversary.name for adversary in trainer.adversaries] == ["lin0", "lin3"] and trainer.warmup == 1
    assert (fit.train(config) / "summary.json").is_file()


def test_few_files_are_refused(cheap_config):
    with pytest.raises(UserError, match="a colour map needs at least 10 mosaics and 10 photographs, but there are"):
        isp.build_task(vary(cheap_config, data={"reference": "transport"}), CPU, ALONE, resume=False)


# --- weights ---------------------------------------------------------------------------------------------------------


def test_ranks_do_not_depend_on_tone():
    image = torch.rand(1, 3, 300, 280)
    ranks = weighting.rank_equalised(image.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    darker = weighting.rank_equalised(image.mean(1, keepdim=True).expand(-1, 3, -1, -1) * 0.3 + 0.1)
    assert ranks.shape == (1, 3, 224, 224) and ranks.min() == 0 and ranks.max() == 1
    torch.testing.assert_close(ranks, darker, atol=0.01, rtol=0)


def test_random_weights_know_no_scenes(config):
    config = vary(config, data={"weights": "semantic"})
    task = isp.build_task(config, CPU, ALONE, resume=False)
    assert task.provenance["weights"] == "equal: a ViT with random weights knows no scenes"


@pytest.mark.parametrize("precision", ("float32", "bf16"))
def test_the_vit_is_used_in_the_precision_of_the_run(config, precision):
    config = vary(config, data={"weights": "semantic"}, compute={"precision": precision})
    networks = Networks(config, CPU)
    networks("vit").provenance = "pretrained (x)"
    splits, reader, reference = open_data(config)
    _, facts = weighting.weight_photographs(config, splits["train"], reader, reference, networks, quiet=True)
    assert "p = 0." in facts["weights"]


def test_a_folder_of_mosaics_may_lie_at_the_root(cheap_config):
    with pytest.raises(UserError, match="no folder /absent"):
        open_data(vary(cheap_config, data={"layout": "folders", "root": "", "raw": "/absent", "photos": "/absent"}))
    _check_simulated(Path("/absent").parent.parent / "camera.json", open_data(cheap_config)[1].sensor)


@pytest.mark.parametrize("differ", (True, False))
def test_photographs_are_weighted_if_the_scenes_differ(config, monkeypatch, differ):
    raws, photos = (
        sorted((Path(config.data.root) / "train" / side).iterdir()) for side in ("mediatek_raw", "fujifilm")
    )
    kind = {path: i % 2 if differ else 0 for i, path in enumerate(photos)}
    monkeypatch.setattr(weighting, "_features", stand_in([0] * len(raws), [kind[path] for path in photos]))
    config = vary(config, data={"weights": "semantic"})
    networks = Networks(config, CPU)
    networks("vit").provenance = "pretrained (x)"
    _, reader, reference = open_data(config)
    split = Split(tuple(raws), tuple(photos), paired=False)
    weighted, facts = weighting.weight_photographs(config, split, reader, reference, networks, quiet=True)
    counts = [weighted.photos.count(path) for path in photos]
    if differ:
        assert facts["weights"].startswith("semantic (p = 0.0")
        assert min(counts[0::2]) > max(counts[1::2])
    else:
        assert facts["weights"].startswith("equal: chance explains") and counts == [1] * len(photos)


def stand_in(*sides):
    """Features of each side in turn: a number of its own for each kind of scene, and noise."""
    rng, waiting = np.random.default_rng(0), list(sides)

    def features(images, *_):
        kinds = waiting.pop(0)
        assert len(list(images)) == len(kinds)
        return np.array(kinds)[:, None] * np.array([[1.0, 0.0]]) + rng.normal(size=(len(kinds), 2)) * [0.3, 1.0]

    return features


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (["quick", "--data.reference", "transport"], "no stage compares with --data.reference"),
        (
            ["--data.reference", "transport", "--pretrain.data", "synthetic", "--train.content", "0"],
            "no stage compares with --data.reference",
        ),
        (["--train.mode", "paired", "--data.weights", "semantic"], "mode paired draws pairs, without --data.weights"),
        (["--data.color-map", "statistics"], "there is no colour map for --data.color-map to fit"),
        (["quick", "--train.critic-warmup", "5"], "mode synthetic has no critics to warm up"),
        (["--pretrain.steps", "0", "--pretrain.data", "synthetic"], "there is no pretraining for --pretrain.data"),
        (["--init", "x.pt", "--pretrain.schedule", "cosine"], "there is no pretraining for --pretrain.data"),
    ),
)
def test_a_setting_without_effect_is_refused(arguments, message):
    with pytest.raises(UserError, match=f"a setting has no effect: {message}"):
        fit.parse(arguments)


@pytest.mark.parametrize(
    "arguments",
    (
        ["--data.reference", "transport"],
        ["--data.reference", "transport", "--train.content", "0"],
        ["quick", "--train.lpips", "1", "--released.swapped-lpips"],
        ["quick", "--train.content", "1", "--released.luminance-content"],
        ["quick", "--data.weights", "semantic"],
        ["quick", "--train.mode", "paired"],
        ["quick", "--data.color-map", "transport"],
        ["quick", "--train.mode", "synthetic_gan", "--train.critic-warmup", "5"],
        ["--data.reference", "transport", "--data.color-map", "statistics"],
        ["--train.mode", "paired", "--data.reference", "transport", "--pretrain.schedule", "cosine"],
    ),
)
def test_a_setting_with_an_effect_is_taken(arguments):
    fit.parse(arguments)
