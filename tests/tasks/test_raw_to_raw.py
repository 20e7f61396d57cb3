"""The raw-to-raw task as the training loop sees it: its mappers, trainer, batches and validation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from config import Config
from data.two_cameras import TwoCameras
from models import build_mapper
from tasks.camera_maps import fit_maps
from tasks.cameras import find_profiles, open_two_cameras, with_cameras
from tasks.raw_to_raw import build_generator, build_task, build_trainer, planned_steps
from training.distributed import ALONE
from training.task import Task

from ..fit_runs import vary
from ..mapper_runs import make_config, write_dataset
from ..two_cameras import write_folders

pytestmark = pytest.mark.usefixtures("restored_module")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cameras") / "data")


@pytest.fixture
def config(root, tmp_path) -> Config:
    return make_config(root, tmp_path / "runs")


def build(config: Config) -> Task:
    return build_task(config, CPU, ALONE, False)


def _means(cameras: TwoCameras) -> dict[str, torch.Tensor]:
    """Of the planes of each camera's unpaired mosaics, (4,)."""
    paths = cameras.unpaired
    return {name: torch.cat([cameras.planes(path, name) for path in paths[name]]).mean((0, 2, 3)) for name in paths}


def step(task: Task, number: int = 1) -> dict[str, float]:
    """Make a step; returns its statistics."""
    stage = task.stages[0]
    batches = stage.batches(number - 1)
    statistics = stage.algorithm.step(stage.prepare(next(batches)), number)
    batches.close()
    return {name: float(value) for name, value in statistics.items()}


# --- the networks ----------------------------------------------------------------------------------------------------


def test_a_task_says_what_it_trains(config):
    task = build(config)
    assert task.summary.startswith("mapper-plain on cpu, mosaics of two cameras to train on, 8 of a and 8 of b; 16")
    assert task.description["model"] == "mapper-plain" and task.config["model"] == "mapper-plain"
    assert task.description["sensors"]["b"]["cfa"] == "grbg"
    assert task.description["cameras"]["a"]["model"] == "a" and task.identity.keys() == {"a", "b", "cameras"}
    assert [(stage.name, stage.result, stage.steps) for stage in task.stages] == [("train", "final", 2)]
    assert planned_steps(config) == {"train": 2}


def test_without_a_name_the_network_is_the_paper_s(root):
    cameras = open_two_cameras(make_config(root, root))
    assert build_generator("", "", cameras)[0] == "mapper"


def test_weights_depend_on_the_seed_alone(config):
    states = [build(vary(config, seed=seed)).generator.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_maps_of_both_directions_are_fitted_and_invert_each_other(config):
    """Optimal transport does; the gains make the mean of a's mosaics that of b's."""
    cameras = open_two_cameras(config)
    maps = fit_maps("transport", cameras, find_profiles(config))
    matrices = [torch.tensor(maps[to].matrix) for to in "ab"]
    torch.testing.assert_close(matrices[0] @ matrices[1], torch.eye(3), atol=1e-3, rtol=0)
    gains = fit_maps("gains", cameras, find_profiles(config))
    means = _means(cameras)
    for to, other in (("a", "b"), ("b", "a")):
        mapped = gains[to](means[other].view(1, 4, 1, 1)).flatten()
        torch.testing.assert_close(mapped[[0, 3]], means[to][[0, 3]], rtol=1e-3, atol=0)


def test_the_start_is_of_the_direction_that_it_was_fitted_for(config):
    mapper = build(vary(config, mapping={"start": "gains"})).generator
    means = _means(open_two_cameras(config))
    torch.testing.assert_close(mapper.start_b.diagonal()[[0, 3]], (means["b"] / means["a"])[[0, 3]], rtol=1e-3, atol=0)
    torch.testing.assert_close(mapper.start_a @ mapper.start_b, torch.eye(4), rtol=0, atol=1e-4)


def test_a_checkpoint_of_other_levels_is_noted(config, tmp_path, capsys):
    import fit

    path = fit.train(vary(config, mapping={"steps": 1})) / "checkpoints" / "step_0000001.pt"
    cameras = open_two_cameras(config)
    assert build_generator("", str(path), cameras)[0] == "mapper-plain"
    assert "other levels" not in capsys.readouterr().err
    cameras.readers["b"] = cameras.readers["a"]
    build_generator("", str(path), cameras)
    assert "was trained on cameras of other levels or CFA orders" in capsys.readouterr().err


# --- the trainer -----------------------------------------------------------------------------------------------------


def test_the_settings_reach_the_trainer(config):
    mapping = {
        "lr": 3e-4,
        "critic_lr": 7e-4,
        "adversarial": 2.0,
        "cycle": 3.0,
        "identity": 4.0,
        "ema": 0.5,
        "replay": 2,
    }
    mapping |= {"clip_norm": 1.5, "halved": True, "averaged_logits": True, "beta1": 0.3, "beta2": 0.8}
    trainer = build_trainer(vary(config, mapping=mapping), build_mapper("mapper-plain"), ALONE)
    assert (trainer.adversarial, trainer.cycle, trainer.identity) == (2.0, 3.0, 4.0)
    assert trainer.rates == {"lr/mapper": 3e-4, "lr/critics": 7e-4}
    assert (trainer.clip_norm, trainer.critic_scale, trainer.replay, trainer.ema_decay) == (1.5, 0.5, 2, 0.5)
    assert all(optimizer.defaults["betas"] == (0.3, 0.8) for optimizer in (trainer.optimizer, trainer.critic_optimizer))
    assert all(critic(torch.rand(2, 4, 24, 24)).shape == (2,) for critic in trainer.critics.values())


def test_as_released_clips_halves_averages_and_keeps_patches(config):
    text, released = (
        build_trainer(vary(config, as_released=flag), build_mapper("mapper-plain"), ALONE) for flag in (False, True)
    )
    assert (text.clip_norm, text.critic_scale, text.replays) == (0.0, 1.0, {})
    assert text.critics["a"](torch.rand(1, 4, 32, 32)).ndim == 3
    assert (released.clip_norm, released.critic_scale, released.replays["b"].size) == (2.0, 0.5, 50)
    assert released.critics["a"](torch.rand(1, 4, 32, 32)).shape == (1,)


def test_the_critics_norm_is_an_option(config):
    """With it, an image's brightness is hidden behind the first layer; without it, the features are as they are."""
    with_norm, without = (
        build_trainer(vary(config, mapping={"critic_norm": norm}), build_mapper("mapper-plain"), ALONE).critics["a"]
        for norm in ("instance", "none")
    )
    kinds = [{type(layer).__name__ for layer in critic.modules()} for critic in (with_norm, without)]
    assert "InstanceNorm2d" in kinds[0] and "InstanceNorm2d" not in kinds[1]


def test_a_step_changes_mappers_and_critics(config):
    task = build(config)
    before = {name: value.clone() for name, value in task.stages[0].algorithm.state()["critic/a"].items()}
    heads = task.generator.heads["b"][-1].weight.clone()
    statistics = step(task)
    assert not torch.equal(task.generator.heads["b"][-1].weight, heads)
    assert any(not torch.equal(v, before[k]) for k, v in task.stages[0].algorithm.state()["critic/a"].items())
    assert statistics["loss/cycle"] == statistics["loss/identity"] == 0  # of the identity


def test_batches_have_planes_of_both_cameras(config):
    stage = build(config).stages[0]
    batches = stage.batches(0)
    first, second = (stage.prepare(next(batches)) for _ in range(2))
    assert first.a.shape == first.b.shape == (2, 4, 24, 24) and first.a.dtype == torch.float32
    assert first.a.min() >= 0 and first.b.max() <= 1 and not torch.equal(first.a, second.a)
    batches.close()
    later = stage.batches(1)
    assert torch.equal(stage.prepare(next(later)).b, second.b)
    later.close()


# --- validation ------------------------------------------------------------------------------------------------------


def test_validation_changes_no_weight_statistic_or_random_number(config):
    """It uses running statistics, and the mode and the statistics of training stay as they are."""
    task = build(config)
    step(task)
    mapper = task.stages[0].algorithm.result.train()
    before, random = {name: value.clone() for name, value in mapper.state_dict().items()}, torch.get_rng_state()
    render = task.validation.render(mapper)
    scores = [task.validation.measure(render) for _ in range(2)]
    task.validation.samples(mapper)
    assert scores[0] == scores[1] and mapper.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in mapper.state_dict().items())


def test_the_score_is_the_mean_psnr_of_both_directions(config):
    task, cameras = build(config), open_two_cameras(config)
    errors = [(source - truth).square().mean().log10() for source, truth in map(cameras.pair, cameras.pairs)]
    assert task.validation.count == len(errors) == 16
    identity = task.validation.measure(task.validation.baselines["identity"])
    assert identity == pytest.approx(-10 * torch.stack(errors).mean().item(), abs=1e-3)


@pytest.mark.parametrize("count", (1, 3))
def test_samples_are_a_mosaic_what_becomes_of_it_and_its_truth(config, count):
    task = build(vary(config, log={"samples": count}))
    rows = task.validation.samples(task.generator)
    assert len(rows) == count and all(len(row) == 3 for row in rows)
    assert all(image.shape == (3, 32, 32) and image.min() >= 0 and image.max() <= 1 for row in rows for image in row)
    assert all(torch.equal(row[0], row[1]) and not torch.equal(row[1], row[2]) for row in rows)  # the identity


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_the_public_dataset_is_validated_on_its_polynomials(root, tmp_path):
    """Those of a to b here halve every channel, those of b to a double it: a scale is all that is wrong."""
    source = open_two_cameras(make_config(root, root))
    for name, folder, scale in (("a", "iphone-x", 0.5), ("b", "samsung-s9", 2.0)):
        for part, paths in (("unpaired", source.unpaired[name]), ("paired", source.unpaired[name][:3])):
            (tmp_path / part / folder / "dng").mkdir(parents=True)
            for path in paths:
                (tmp_path / part / folder / "dng" / path.name).symlink_to(path)
        mapping = tmp_path / "paired" / folder / "mapping"
        mapping.mkdir()
        for path in source.unpaired[name][:3]:
            savemat(mapping / f"{path.stem}.mat", {"mapping_matrix": scale * np.eye(16, 4)})
    levels = {name: vars(source.readers[name].sensor) for name in "ab"}
    config = make_config(tmp_path, tmp_path / "runs", data={"layout": "raw2raw"} | levels["a"], data_b=levels["b"])
    task = build(config)
    assert task.validation.count == 6
    task.generator.start_from("b", torch.eye(4) / 2)
    task.generator.start_from("a", torch.eye(4) * 2)
    assert task.validation.measure(task.validation.render(task.generator)) > 100


def test_two_folders_have_samples_but_no_score(tmp_path):
    found = write_folders(tmp_path)
    data = {"layout": "folders", "root": "", "raw": str(found["a"])}
    config = make_config(Path(), tmp_path / "runs", data=data, data_b={"raw": str(found["b"])})
    task = build(with_cameras(config, []))
    assert task.validation.count == 0 and task.validation.measure(task.validation.render(task.generator)) is None
    rows = task.validation.samples(task.generator)
    assert [len(row) for row in rows] == [3, 3] and rows[0][0].shape == (3, 24, 24)
