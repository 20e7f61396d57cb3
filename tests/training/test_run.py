"""The training loop with a made-up task: what it writes when, and what it refuses."""

import dataclasses
import json
from collections.abc import Generator

import pytest
import torch

import storage
from errors import UserError
from training.distributed import Group
from training.folder import claim_folder
from training.run import Run
from training.task import Intervals

from .made_up_task import batches, checkpoint_weights, make_run, make_task, read_log

# --- a whole run -----------------------------------------------------------------------------------------------------


def test_stages_run_in_order_and_write_their_files(tmp_path, capsys):
    make_run(tmp_path, make_task(first=2, second=3)).train()
    assert read_log(tmp_path) == [
        ("warm-up", 1, "loss/weight", 1.0),
        ("warm-up", 1, "val_score", 1.5),  # the mean of weight + 0 and weight + 1
        ("warm-up", 2, "loss/weight", 3.0),
        ("warm-up", 2, "val_score", 3.5),
        ("train", 1, "loss/weight", 4.0),
        ("train", 1, "val_score", 4.5),
        ("train", 2, "loss/weight", 6.0),
        ("train", 2, "val_score", 6.5),
        ("train", 3, "loss/weight", 9.0),
        ("train", 3, "val_score", 9.5),
    ]
    steps = {"step_0000001": 4.0, "step_0000002": 6.0, "step_0000003": 9.0}
    assert checkpoint_weights(tmp_path) == steps | {"warm": 3.0}
    samples = {f"warm-up_000000{i}.png" for i in (1, 2)} | {f"train_000000{i}.png" for i in (1, 2, 3)}
    assert {path.name for path in (tmp_path / "samples").iterdir()} == samples
    summary = {"val_score": {"baseline": 100.5, "warm": 3.5, "final": 9.5}, "weights": {"vgg": "random (seed 0)"}}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    printed, reported = capsys.readouterr()
    assert "Scores, " in printed and "baseline    100.50 points" in printed and "final         9.50 points" in printed
    assert "adder on 2 pairs" in reported and "vgg: random (seed 0)" in reported and "steps a second" in reported


def test_the_log_has_the_learning_rates(tmp_path):
    task = make_task(first=0, second=1)
    task.stages[1].algorithm.rates = {"lr/generator": 0.5}
    make_run(tmp_path, task).train()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    expected = {"stage": "train", "step": 1, "loss/weight": 1.0, "lr/generator": 0.5}
    assert [line for line in lines if "loss/weight" in line] == [expected]


def test_checkpoints_of_two_stages_are_numbered_one_after_another(tmp_path):
    task = make_task(first=1, second=2)
    fine = dataclasses.replace(task.stages[1], name="fine", result="fine")
    task = dataclasses.replace(task, stages=[*task.stages, fine])
    make_run(tmp_path, task).train()
    steps = {"step_0000001": 2.0, "step_0000002": 4.0, "step_0000003": 5.0, "step_0000004": 7.0}
    assert checkpoint_weights(tmp_path) == steps | {"warm": 1.0}
    assert storage.load(tmp_path / "checkpoints" / "step_0000004.pt")["step"] == 4


def test_the_batches_of_each_stage_are_closed(tmp_path):
    closed = []

    def watched(step: int) -> Generator[int, None, None]:
        try:
            yield from batches(step)
        finally:
            closed.append(step)

    task = make_task()
    task = dataclasses.replace(task, stages=[dataclasses.replace(stage, batches=watched) for stage in task.stages])
    make_run(tmp_path, task).train()
    assert closed == [0, 0]


def test_config_description_and_networks_are_written(tmp_path):
    make_run(tmp_path, make_task(warning="do not compare")).train()
    assert json.loads((tmp_path / "config.json").read_text()) == {"name": "made-up"}
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first == {"stage": "start", "weights": {"vgg": "random (seed 0)"}, "warning": "do not compare"}
    content = storage.load(tmp_path / "checkpoints" / "step_0000005.pt")
    del content["generator"]
    facts = {"model": "adder", "config": {"name": "made-up"}, "weights": {"vgg": "random (seed 0)"}}
    assert content == {"format": 1, "step": 5} | facts


def test_a_warning_is_printed_before_training_and_below_the_scores(tmp_path, capsys):
    make_run(tmp_path, make_task(warning="do not compare")).train()
    printed, reported = capsys.readouterr()
    assert "(do not compare)" in printed and "warning: do not compare" in reported


def test_intervals_are_counted_in_each_stage_and_end_with_its_last_step(tmp_path, monkeypatch):
    states, save = [], storage.save

    def watched(path, content):
        if path.name == "last.pt":
            states.append((content["stage"], content["step"]))
        save(path, content)

    monkeypatch.setattr(storage, "save", watched)
    make_run(tmp_path, make_task(first=3, second=7), log=2, validate=3, checkpoint=4, state=5).train()
    log = read_log(tmp_path)
    assert [line[:2] for line in log if line[2] == "loss/weight"] == [
        ("warm-up", 2),
        ("warm-up", 3),
        *(("train", step) for step in (2, 4, 6, 7)),
    ]
    assert [line[:2] for line in log if line[2] == "val_score"] == [
        ("warm-up", 3),
        *(("train", step) for step in (3, 6, 7)),
    ]
    assert checkpoint_weights(tmp_path).keys() == {"warm", "step_0000004", "step_0000007"}
    assert states == [(0, 3), (1, 5), (1, 7)]


def test_a_stage_without_steps_is_validated_and_saved(tmp_path):
    make_run(tmp_path, make_task(first=0, second=1)).train()
    assert read_log(tmp_path)[0] == ("warm-up", 0, "val_score", 0.5)
    assert checkpoint_weights(tmp_path) == {"step_0000001": 1.0, "warm": 0.0}


def test_without_validation_pairs_there_are_samples_but_no_scores(tmp_path, capsys):
    make_run(tmp_path, make_task(pairs=0)).train()
    assert json.loads((tmp_path / "summary.json").read_text())["val_score"] == dict.fromkeys(
        ("baseline", "warm", "final")
    )
    assert not [line for line in read_log(tmp_path) if line[2] == "val_score"]
    assert (tmp_path / "samples" / "train_0000005.png").exists()
    assert capsys.readouterr().out.count("no pairs") == 3


def test_only_the_main_process_writes_and_prints(tmp_path, capsys):
    run = Run(tmp_path, make_task(), Intervals(1, 1, 1, 1), Group(rank=1, size=1))
    run.train()
    assert run.scores == {"baseline": 100.5, "warm": 3.5, "final": 18.5}
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_a_statistic_that_is_not_finite_ends_the_run(tmp_path, value):
    task = make_task()
    algorithm = task.stages[1].algorithm
    step, broken = algorithm.step, {"loss/weight": torch.tensor(value)}
    algorithm.step = lambda batch, number: step(batch, number) if number < 3 else broken
    with pytest.raises(UserError, match=f"loss/weight is {value} at step 3 of train: training has diverged.*untouched"):
        make_run(tmp_path, task).train()
    assert storage.load(tmp_path / "last.pt")["step"] == 2
    assert not (tmp_path / "checkpoints" / "step_0000003.pt").exists()


def test_a_weight_that_is_not_finite_is_not_saved(tmp_path):
    task = make_task()
    task.stages[1].algorithm.finite = lambda: len(list((tmp_path / "checkpoints").iterdir())) < 3
    with pytest.raises(UserError, match="a weight is not finite at step 3 of train: training has diverged"):
        make_run(tmp_path, task).train()
    assert storage.load(tmp_path / "last.pt")["step"] == 2
    assert checkpoint_weights(tmp_path).keys() == {"warm", "step_0000001", "step_0000002"}


def test_a_folder_is_claimed_by_one_process(tmp_path):
    folder = tmp_path / "new"
    with claim_folder(folder, resume=False):
        second = claim_folder(folder, resume=True)
        with pytest.raises(UserError, match="another process is training .*new"):
            second.__enter__()
    with claim_folder(folder, resume=False):
        assert folder.is_dir()


@pytest.mark.parametrize("name", ("last.pt", "checkpoints/step_0000010.pt", "summary.json", "test/metrics.csv"))
def test_an_existing_run_is_claimed_to_resume_it_only(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match="exists: continue it with --resume, or name another run with --run"):
        claim_folder(tmp_path, resume=False).__enter__()
    with claim_folder(tmp_path, resume=True):
        assert (tmp_path / ".lock").exists()
