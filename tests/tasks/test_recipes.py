"""Published recipes: their rows, what they make of a config, and runs of each, whole, resumed and refused."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import config as settings
import fit
import storage
from config import Config
from errors import UserError
from losses import LOSSES
from models import build_model
from tasks.modes import planned_steps
from tasks.recipes import RECIPES, with_recipe, with_steps
from training.steps import Trainer

from ..fit_runs import read_log, read_scores, same, write_scenes
from .small_networks import HEAVY, use_small

pytestmark = pytest.mark.usefixtures("restored_module", "cached_networks")

OPTIONS = shlex.split("""
demo --data.no-demo --device cpu --backbones.weights random --recipe published --data.batch 2 --data.val-count 0
--data.test-count 0 --log.every 1 --log.val-every 2 --log.save-every 1 --log.state-every 1 --log.samples 1
""")
# Cheaper ones for runs: without networks, and the losses that need large patches.
PATCHES = {
    "lan": ("--data.patch", "162"),
    "microisp": ("--data.patch", "160"),
    "pynet-v2": ("--data.patch", "64"),
    "pynet": ("--data.patch", "64"),
}
FACTORS = {
    "lan": {"train.lpips_alex": 0},
    "microisp": {"vgg.vgg": 0},
    "pynet-v2": {"level3_vgg.vgg": 0, "level2_vgg.vgg": 0, "level1_vgg.vgg": 0},
    "pynet": {f"{stage}.vgg": 0 for stage in ("level3", "level2", "level1", "train")} | {"train.ms_ssim": 0},
}
PER_STAGE = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three pairs to train on and one to validate on, of 192 pixels a side."""
    folder = tmp_path_factory.mktemp("data")
    for part, names in (("train", range(3)), ("val", range(6, 7))):
        write_scenes(folder / part / "mediatek_raw", folder / part / "fujifilm", names, side=192)
    return folder


def options(root: Path, runs: Path, name: str, *more: str) -> list[str]:
    """The command line of a run with `PER_STAGE` steps in each stage."""
    patch = PATCHES.get(name, ("--data.patch", "32"))
    earlier = [stage.name for stage in RECIPES[name].stages[:-1]]
    steps = ["--published.steps", *(word for stage in earlier for word in (stage, str(PER_STAGE)))] if earlier else []
    factors = [word for key, value in FACTORS.get(name, {}).items() for word in (key, str(value))]
    factors = ["--published.weights", *factors] if factors else []
    places = ("--data.root", str(root), "--runs", str(runs), "--run", "one", "--model", name)
    return [*OPTIONS, *places, *patch, *steps, *factors, "--train.steps", str(PER_STAGE), *more]


# --- the rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ends_with_the_stage_train_and_has_known_losses(name):
    recipe = RECIPES[name]
    assert recipe.stages[-1].name == "train" and recipe.mode.needs_pairs
    for stage in recipe.stages:
        assert stage.losses.keys() <= LOSSES.keys() and bool(stage.steps) != bool(stage.epochs)
        assert stage.plan.save_steps == (stage.name == "train")


def completed(name: str, given: tuple[str, ...] = (), **fields) -> Config:
    return with_recipe(Config(model=name, recipe="published", **fields), given)


def test_lan_s_recipe_is_the_published_one():
    config = completed("lan")
    assert (config.data.batch, config.data.patch, config.published.optimizer) == (32, 256, "radam")
    assert (config.train.lr, config.train.steps) == (5e-5, 100_000)
    factors = {"train.huber": 300, "train.chroma": 100, "train.ms_ssim": 30, "train.lpips_alex": 10}
    assert config.published.weights == factors


def test_syenet_s_recipe_is_the_published_one():
    config = with_steps(completed("syenet"), pairs=1000)
    assert planned_steps(config) == {"warm_up": 10 * 250, "train": 200 * 250} and not config.published.epochs
    assert config.published.lr == {"warm_up": 1e-6} and config.train.lr == 1e-3
    assert config.train.schedule == "restarts" and (config.train.beta1, config.train.beta2) == (0.9, 0.999)


def test_pynet_s_stages_go_from_coarse_to_fine():
    config = with_steps(completed("pynet"), pairs=13)  # 12 in a batch, and one more
    steps = {"level5": 9, "level4": 9, "level3": 19, "level2": 19, "level1": 28, "train": 55}
    assert planned_steps(config) == steps
    assert config.published.weights["level3.mse"] == 10 and "level4.vgg" not in config.published.weights
    assert [stage.part.scale() for stage in RECIPES["pynet"].stages] == [32, 16, 8, 4, 2, 1]


def test_what_is_given_stays():
    given = ("data.batch", "train.lr", "train.steps", "published.optimizer")
    base = Config(model="pynet-v2", recipe="published")
    published = replace(base.published, lr={"level3_vgg": 1e-3}, weights={"train.mse": 1.0}, epochs={"level2_mse": 3})
    config = replace(base, data=replace(base.data, batch=5), published=published)
    done = with_recipe(replace(config, train=replace(config.train, lr=1e-2, steps=7)), given)
    assert done.data.batch == 5 and (done.train.lr, done.train.steps) == (1e-2, 7)
    assert done.published.lr["level3_vgg"] == 1e-3 and done.published.lr["level3_mse"] == 1e-4
    assert done.published.weights["train.mse"] == 1 and done.published.weights["train.ssim"] == 40
    assert planned_steps(with_steps(done, pairs=10))["level2_mse"] == 6
    assert with_recipe(done, given) == done


def test_a_run_from_a_checkpoint_trains_the_last_stage_alone():
    steps = planned_steps(with_steps(completed("pynet", init="some.pt"), pairs=12))
    assert steps.pop("train") == 50 and not any(steps.values())


def test_the_paper_s_recipe_changes_nothing():
    config = Config(model="lan")
    assert with_recipe(config, ()) is config and with_steps(config, 10) is config


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_records_what_it_used(name, root, tmp_path, call, monkeypatch):
    use_small(monkeypatch, light=False)
    status, output = call(fit, *options(root, tmp_path, name))
    assert status == 0, output
    folder, stages = tmp_path / "one", RECIPES[name].stages
    assert f"published recipe: {PER_STAGE} steps of {stages[0].name}" in output
    config = settings.load(folder / "config.json")
    assert config.recipe == "published" and planned_steps(config) == {stage.name: PER_STAGE for stage in stages}
    assert read_scores(folder).keys() == {"demosaiced", *(stage.plan.result for stage in stages)}
    for stage in stages:
        line = read_log(folder, stage.name)[0]
        terms = {name for name in stage.losses if config.published.weights[f"{stage.name}.{name}"]}
        assert {key for key in line if key.startswith("loss/")} == {f"loss/{term}" for term in terms}
        assert line["lr/generator"] == pytest.approx(config.train.lr if stage.name == "train" else stage.lr, rel=0.6)
        file = folder / "checkpoints" / ("step_0000002.pt" if stage.name == "train" else f"{stage.plan.result}.pt")
        saved = storage.load(file)
        build_model(name).load_state_dict(saved["generator"])
        assert all(value.isfinite().all() for value in saved["generator"].values())


class Kill(BaseException):
    """Ends a run as a killed process would."""


@pytest.mark.parametrize(("name", "kill"), (("syenet", 2), ("pynet-v2", 5)))
def test_a_killed_run_is_resumed_exactly(name, kill, root, tmp_path, monkeypatch):
    use_small(monkeypatch)
    whole, _ = fit.parse(options(root, tmp_path / "whole", name, "--train.ema", "0.9"))
    fit.train(whole)
    arguments, calls, step = options(root, tmp_path / "killed", name, "--train.ema", "0.9"), [], Trainer.step

    def killed(self, *given):
        calls.append(1)
        if len(calls) == kill:
            raise Kill
        return step(self, *given)

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(Trainer, "step", killed)
        fit.train(fit.parse(arguments)[0])
    fit.train(*fit.parse(["--runs", str(tmp_path / "killed"), "--run", "one", "--resume"]))
    ends = [storage.load(tmp_path / run / "one" / "last.pt") for run in ("whole", "killed")]
    assert same(ends[0]["trainer"], ends[1]["trainer"]) and ends[0]["psnr"] == ends[1]["psnr"]


def test_only_the_parts_that_a_level_uses_are_trained(root, tmp_path, monkeypatch):
    use_small(monkeypatch)
    folder = fit.train(fit.parse(options(root, tmp_path, "pynet-v2"))[0])
    names = ("level3_vgg", "level3_mse", "level2_vgg", "level2_mse", "level1_vgg")
    states = [storage.load(folder / "checkpoints" / f"{name}.pt")["generator"] for name in names]
    states.append(storage.load(folder / "checkpoints" / "step_0000002.pt")["generator"])
    for before, after, trained in zip(states, states[1:], (3, 2, 2, 1, 1), strict=False):
        changed = {int(key.split(".")[1]) for key in before if not torch.equal(before[key], after[key])}
        assert changed == set(range(trained, 4))


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "sentence"),
    (
        (("--model", ""), "--recipe published needs the name of its network: --model lan, microisp"),
        (("--model", "efficient"), "no recipe is published for model 'efficient'; .* is for --model lan, microisp"),
        (("--train.mse", "2"), "no effect: --train.mse is not for --recipe published"),
        (("--train.mode", "paired"), "no effect: --train.mode is not for --recipe published"),
        (("--train.mode", "unpaired"), "no effect: --train.mode is not for --recipe published"),  # its default
        (("--pretrain.steps", "3"), "no effect: --pretrain.steps is not"),
        (("--as-released",), "no effect: --as-released is not"),
        (("--recipe", "paper"), "no effect: --published.weights is for --recipe published"),
        (("--published.weights", "train.mse", "1"), "published.weights names 'train.mse'; known here are: train.huber"),
        (
            ("--published.steps", "train", "1"),
            "published.steps names 'train'; .*none; the last stage's is --train.steps",
        ),
        (("--published.epochs", "train", "1"), "give either steps or epochs of stage train"),
        (("--published.lr", "train", "0"), "the rates of published.lr must be positive"),
        (("--data.weights", "semantic"), "no effect: a published recipe draws pairs, without --data.weights"),
    ),
)
def test_what_has_no_effect_is_refused(more, sentence, root, tmp_path, monkeypatch):
    use_small(monkeypatch)
    with pytest.raises(UserError, match=sentence):
        fit.parse(options(root, tmp_path, "lan", *more))


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    (
        ("lan", ("--data.patch", "64"), "the loss ms_ssim of stage train needs patches of 161 .*train.ms_ssim 0"),
        (
            "lan",
            ("--published.weights", *shlex.split("train.huber 0 train.chroma 0 train.ms_ssim 0 train.lpips_alex 0")),
            "stage 'train' has no loss left",
        ),
        ("pynet", ("--published.weights", "train.ms_ssim", "0"), "the loss vgg of stage level3 needs patches of 128 "),
    ),
)
def test_losses_that_do_not_fit_are_refused(name, more, sentence, root, tmp_path, monkeypatch):
    use_small(monkeypatch)
    with pytest.raises(UserError, match=sentence):
        fit.train(fit.parse(options(root, tmp_path, name, *more))[0])
    assert not list((tmp_path / "one").glob("checkpoints/*"))


def test_patches_must_be_multiples_of_the_coarsest_level(root, tmp_path, monkeypatch):
    use_small(monkeypatch)
    with pytest.raises(UserError, match="level5 makes images of 1/32 .*: make --data.patch a multiple of 32"):
        fit.train(fit.parse(options(root, tmp_path, "pynet", "--data.patch", "66"))[0])
    assert not (tmp_path / "one" / "config.json").exists()  # refused before the run begins


def test_stages_without_steps_are_left_out(root, tmp_path, monkeypatch):
    """They ask nothing of the patches either: 34 pixels are no multiple of 32, and too few for the VGG of level 3."""
    use_small(monkeypatch)
    skipped = ("level5", "0", "level4", "0", "level3", "0", "level2", "0", "level1", "2")
    more = ("--data.patch", "34", "--published.steps", *skipped)
    folder = fit.train(fit.parse(options(root, tmp_path, "pynet", *more))[0])
    assert {path.name for path in folder.glob("checkpoints/*")} == {"level1.pt", "step_0000001.pt", "step_0000002.pt"}
    assert read_scores(folder).keys() == {"demosaiced", "level1", "final"}


def test_a_config_that_is_not_completed_is_refused(root, tmp_path, monkeypatch):
    use_small(monkeypatch)
    config = Config(recipe="published", model="lan", runs=str(tmp_path), data=settings.Data(root=str(root)))
    with pytest.raises(UserError, match="the config lacks published.weights train.huber: begin the run with fit.py"):
        fit.train(config)


def test_heavy_networks_have_stand_ins():
    assert set(HEAVY) <= RECIPES.keys()
