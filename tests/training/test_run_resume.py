"""The training loop with a made-up task: resuming, and requests to stop."""

import os
import signal
import time

import pytest
import torch

import storage
from errors import UserError
from training.run import StopRequest

from .made_up_task import Kill, checkpoint_weights, kill_at, make_run, make_task, signal_at

# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", (1, 2, 4, 5))
def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path, step):
    every = {"state": 2, "checkpoint": 2, "validate": 2}
    make_run(tmp_path / "whole", **every).train()
    with pytest.raises(Kill):
        make_run(tmp_path / "killed", make_task(hook=kill_at(step)), **every).train()
    make_run(tmp_path / "killed", resume=True, **every).train()
    assert checkpoint_weights(tmp_path / "killed") == checkpoint_weights(tmp_path / "whole")
    for name in ("log.jsonl", "summary.json", "config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_random_state_is_restored(tmp_path):
    drawn = []
    torch.manual_seed(3)
    make_run(tmp_path / "whole", make_task(hook=lambda number: drawn.append(torch.rand(1)))).train()
    expected, hook = drawn[:], kill_at(4)
    drawn.clear()
    torch.manual_seed(3)
    with pytest.raises(Kill):
        make_run(tmp_path / "a", make_task(hook=lambda number: hook(number) or drawn.append(torch.rand(1)))).train()
    torch.manual_seed(5)
    task = make_task(hook=lambda number: drawn.append(torch.rand(1)))
    make_run(tmp_path / "a", task, resume=True).train()
    assert drawn == expected


def test_baselines_are_not_measured_again(tmp_path):
    with pytest.raises(Kill):
        make_run(tmp_path, make_task(hook=kill_at(3))).train()
    resumed = make_run(tmp_path, resume=True)
    assert resumed.scores["baseline"] == 100.5
    resumed.task.validation.baselines["baseline"] = None  # calling it would fail
    resumed.train()


def test_resuming_a_finished_run_changes_no_file(tmp_path):
    make_run(tmp_path).train()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make_run(tmp_path, resume=True).train()
    assert all(path.read_bytes() == content for path, content in before.items())


def test_other_frozen_networks_are_refused(tmp_path):
    make_run(tmp_path).train()
    with pytest.raises(UserError, match="networks were .*random.* and are now .*pretrained"):
        make_run(tmp_path, make_task(provenance={"vgg": "pretrained"}), resume=True)


@pytest.mark.parametrize("missing", ("stage", "trainer", "rng", "log_position"))
def test_a_state_that_does_not_fit_is_refused(tmp_path, missing):
    make_run(tmp_path).train()
    state = storage.load(tmp_path / "last.pt")
    del state[missing]
    storage.save(tmp_path / "last.pt", state)
    with pytest.raises(UserError, match="last.pt does not fit this config"):
        make_run(tmp_path, resume=True)


# --- stop requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("which", "status"), ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_a_stop_request_finishes_the_step_saves_and_exits(tmp_path, which, status, capsys):
    every = {"state": 100, "validate": 100}
    with pytest.raises(SystemExit) as end:
        make_run(tmp_path, make_task(hook=signal_at(3, which)), **every).train()
    assert end.value.code == status
    state = storage.load(tmp_path / "last.pt")
    assert (state["stage"], state["step"]) == (1, 3)
    reported = capsys.readouterr().err
    assert reported.count("Finishing this step and saving.") == 1
    assert "Stopped at step 3 of train. Continue with --resume." in reported
    assert not (tmp_path / "summary.json").exists()
    make_run(tmp_path, resume=True, **every).train()
    assert checkpoint_weights(tmp_path)["step_0000005"] == 18.0


def test_a_stop_request_in_the_last_step_lets_the_run_finish(tmp_path):
    make_run(tmp_path, make_task(hook=signal_at(5, signal.SIGINT))).train()
    assert (tmp_path / "summary.json").exists()


def test_a_second_signal_interrupts_immediately():
    messages = []
    stop = StopRequest(messages.append)
    assert not stop.signal
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == signal.SIGTERM and len(messages) == 1
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_within_the_grace_time_count_as_one(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = StopRequest(lambda text: None, grace=5.0)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += 4
    assert stop.signal == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
