"""fit.py trains mappers between two cameras: their start, what a run writes, resuming, several processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fit
import storage
from config import Config
from data import simulate_cameras
from data.simulate_cameras import Settings
from discriminators import PatchDiscriminator
from errors import UserError
from tasks import raw_to_raw
from tasks.cameras import open_two_cameras
from tasks.mapping import open_mapper
from training.cycle import CycleTrainer

from . import mapper_runs
from .fit_runs import read_log, read_scores, same, vary
from .mapper_runs import SmallCritic, make_config, options, write_dataset
from .test_resume import Kill, assert_same, train
from .training.test_distributed import launch

pytestmark = pytest.mark.usefixtures("restored_module")

CPU = torch.device("cpu")
LOSSES = {"loss/cycle", "loss/identity", "loss/adversarial_a", "loss/adversarial_b", "loss/critics"}
RATES = {"lr/mapper", "lr/critics"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cameras") / "data")


@pytest.fixture(scope="module", autouse=True)
def small_critics():
    """Runs are much shorter with small critics; one test has those of the paper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_to_raw, "PatchDiscriminator", SmallCritic)
        yield


@pytest.fixture
def config(root, tmp_path) -> Config:
    return make_config(root, tmp_path / "runs")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory, restored_module, small_critics) -> Path:
    """The folder of a finished run of two steps. Tests do not change it."""
    return fit.train(make_config(root, tmp_path_factory.mktemp("runs")))


# --- what a run writes -----------------------------------------------------------------------------------------------


def test_a_run_writes_its_losses_scores_checkpoints_and_samples(finished):
    lines = [line for line in read_log(finished, "train") if "loss/cycle" in line]
    assert [line["step"] for line in lines] == [1, 2] and all(line.keys() >= LOSSES | RATES for line in lines)
    assert all(line[name] >= 0 for line in lines for name in LOSSES)
    assert list(read_scores(finished)) == ["identity", "transport", "final"]
    assert [path.name for path in sorted((finished / "checkpoints").iterdir())] == [
        "step_0000001.pt",
        "step_0000002.pt",
    ]
    assert (finished / "samples" / "train_0000002.png").exists()
    known = json.loads((finished / "data.json").read_text())
    assert {name: {part: len(files) for part, files in known[name].items()} for name in "ab"} == {
        "a": {"train": 8, "pairs": 8},
        "b": {"train": 8, "pairs": 8},
    }
    assert json.loads((finished / "config.json").read_text())["model"] == "mapper-plain"


def test_a_checkpoint_opens_and_scores_what_the_run_validated(finished, root):
    """The mean over all pairs of both directions, from the files of both cameras."""
    found = open_mapper(str(finished / "checkpoints" / "step_0000002.pt"), CPU)
    assert found.name == "mapper-plain" and found.sensors["b"].white_level == 1023
    cameras, scores = open_two_cameras(make_config(root, root)), []
    for pair in cameras.pairs:
        source, truth = cameras.pair(pair)
        mapped = found.map(source, "b" if pair.camera == "a" else "a").clamp(0, 1)
        scores.append(-10 * (mapped - truth).double().square().mean().log10())
    assert torch.stack(scores).mean().item() == pytest.approx(read_scores(finished)["final"], abs=1e-4)


def test_the_demo_dataset_is_made_where_there_is_none(tmp_path, monkeypatch):
    few = {name: (side, 2) for name, (side, _) in simulate_cameras.DEMO_SIDES.items()}
    monkeypatch.setattr(simulate_cameras, "DEMO_SIDES", few)
    monkeypatch.setattr(simulate_cameras, "DEMO_SETTINGS", Settings(seed=0, patch=64))
    config = make_config(tmp_path / "demo", tmp_path / "runs", data={"demo": True}, mapping={"steps": 1})
    assert (fit.train(config) / "summary.json").exists() and (tmp_path / "demo" / "truth" / "a" / "0.png").exists()


def test_the_whole_mapper_trains_in_bfloat16_and_stays_finite(config, monkeypatch):
    monkeypatch.setattr(raw_to_raw, "PatchDiscriminator", PatchDiscriminator)
    folder = fit.train(vary(config, model="mapper", compute={"precision": "bf16"}, mapping={"steps": 1}))
    full = fit.train(vary(config, model="mapper", run="full", mapping={"steps": 1}))
    states = [storage.load(path / "last.pt")["trainer"] for path in (folder, full)]
    weights = [state["mapper"] for state in states]
    assert all(value.isfinite().all() and value.dtype != torch.bfloat16 for value in weights[0].values())
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    losses = [read_log(path, "train")[0] for path in (folder, full)]
    assert all(losses[0][name] == pytest.approx(losses[1][name], rel=0.05, abs=0.01) for name in LOSSES)


# --- where training starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ("mapper-plain", "mapper", "mapper-pooled"))
def test_fresh_mappers_score_what_the_identity_does_to_the_last_bit(config, model):
    scores = read_scores(fit.train(vary(config, model=model, mapping={"steps": 0})))
    assert scores["final"] == scores["identity"] != scores["transport"]


@pytest.mark.parametrize("start", ("gains", "transport", "statistics", "profiles"))
def test_mappers_start_at_the_fitted_map(config, start):
    scores = read_scores(fit.train(vary(config, mapping={"steps": 0, "start": start})))
    assert scores["final"] == pytest.approx(scores[start], abs=1e-4)
    assert abs(scores["final"] - scores["identity"]) > 1


def test_the_generators_of_cyclegan_train_from_nothing(config, monkeypatch):
    monkeypatch.setattr("models.cyclegan.WIDTH", 4)
    folder = fit.train(vary(config, model="cyclegan"))
    assert set(read_scores(folder)) >= {"identity", "transport", "final"}
    assert open_mapper(str(folder / "checkpoints" / "step_0000002.pt"), CPU).name == "cyclegan"
    with pytest.raises(UserError, match="cannot start from a map"):
        fit.train(vary(config, model="cyclegan", run="started", mapping={"start": "transport"}))


def test_training_starts_from_a_checkpoint_and_keeps_its_fitted_map(config, finished):
    first = fit.train(vary(config, run="first", mapping={"start": "transport"}))
    path = first / "checkpoints" / "step_0000002.pt"
    second = fit.train(vary(config, init=str(path), mapping={"steps": 0}))
    assert read_scores(second)["final"] == pytest.approx(read_scores(first)["final"], abs=1e-9)


def test_init_replaces_the_start_that_a_preset_names_but_not_one_that_is_given(root, tmp_path, finished):
    checkpoint = finished / "checkpoints" / "step_0000002.pt"
    given = [
        each for each in options(root, tmp_path, "--init", checkpoint) if each not in ("--mapping.start", "identity")
    ]
    assert fit.parse(given)[0].mapping.start == "transport"
    with pytest.raises(UserError, match="--init replaces --mapping.start"):
        fit.parse([*given, "--mapping.start", "gains"])


# --- resuming --------------------------------------------------------------------------------------------------------


def kill_at_step(monkeypatch, count: int) -> None:
    """From now on, the `count`-th step of training raises `Kill`."""
    calls, step = [], CycleTrainer.step

    def killed(self, *arguments):
        calls.append(1)
        if len(calls) == count:
            raise Kill
        return step(self, *arguments)

    monkeypatch.setattr(CycleTrainer, "step", killed)


@pytest.mark.parametrize(
    "mapping",
    (
        {"start": "transport"},
        {"ema": 0.9, "lr": 1e-3},
        {"replay": 3, "critic_lr": 1e-3},
        {"clip_norm": 1e-3, "critic_norm": "none"},
    ),
)
def test_a_killed_run_ends_bit_for_bit_like_one_that_was_not(root, tmp_path, monkeypatch, mapping):
    changes = {"mapping": {"steps": 4} | mapping, "log": {"state_every": 2, "val_every": 3}}
    whole = train(make_config(root, tmp_path / "whole", **changes))
    config = make_config(root, tmp_path / "killed", **changes)
    for step in (3, 2, 1):  # of each start: after a state, in the step after one, at once
        with monkeypatch.context() as patch:
            kill_at_step(patch, step)
            assert not (train(config, resume=True) / "summary.json").exists()
    assert_same(train(config, resume=True), whole)


def test_the_command_resumes_and_trains_longer(root, tmp_path, call):
    assert call(fit, *options(root, tmp_path / "longer", "--mapping.steps", 1))[0] == 0
    assert call(fit, *options(root, tmp_path / "longer", "--mapping.steps", 3, "--resume"))[0] == 0
    assert call(fit, *options(root, tmp_path / "whole", "--mapping.steps", 3))[0] == 0
    trainers = [storage.load(tmp_path / name / "tiny" / "last.pt")["trainer"] for name in ("longer", "whole")]
    assert same(*trainers)


@pytest.mark.parametrize("changes", ("--mapping.lr 1e-3", "--data-b.white-level 4095", "--mapping.start gains"))
def test_a_resumed_run_keeps_its_settings(root, tmp_path, finished, changes):
    with pytest.raises(UserError, match="a resumed run cannot change"):
        fit.parse([*options(root, finished.parent), *changes.split(), "--resume"])


def test_a_resumed_run_refuses_other_files(tmp_path):
    config = make_config(write_dataset(tmp_path / "data"), tmp_path / "runs")
    fit.train(config)
    next((tmp_path / "data" / "unpaired" / "b").iterdir()).unlink()
    with pytest.raises(UserError, match="the dataset is not the one"):
        fit.train(vary(config, mapping={"steps": 3}), resume=True)


# --- several processes -----------------------------------------------------------------------------------------------


def test_two_processes_train_like_one(root, tmp_path):
    """In float64: in float32, Adam's first steps turn rounding of small gradients into whole steps."""
    script = Path(mapper_runs.__file__).with_name("double_mapper.py")
    more = ["--mapping.lr", "1e-3", "--mapping.critic-lr", "1e-3", "--mapping.ema", "0.9"]
    more += ["--mapping.steps", "3", "--data.batch", "4"]
    done = launch(script, *options(root, tmp_path / "two", *more))
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, script, *options(root, tmp_path / "one", *more)], cwd=script.parents[1])
    assert done.returncode == 0
    folders = [tmp_path / name / "tiny" for name in ("one", "two")]
    one, two = (storage.load(folder / "last.pt")["trainer"] for folder in folders)
    assert one["mapper"]["heads.a.0.weight"].dtype == torch.float64
    for part in ("mapper", "ema", "critic/a", "critic/b"):
        for name, value in one[part].items():
            assert (value - two[part][name]).abs().max() < 1e-7, f"{part}: {name}"
    for one, two in zip(*(read_log(folder, "train") for folder in folders), strict=True):
        assert one == pytest.approx(two, abs=1e-6)
