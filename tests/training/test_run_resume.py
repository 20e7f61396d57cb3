"""The training loop with a made-up task: resuming, and requests to stop."""

import os
import signal
import time

import pytest
import torch

import storage
from errors import UserError
from training.stop import StopRequest

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
    with pytest.raises(UserError, match="networks and fits were .*random.* and are now .*pretrained"):
        make_run(tmp_path, make_task(provenance={"vgg": "pretrained"}), resume=True)


def test_other_data_are_refused(tmp_path):
    make_run(tmp_path, make_task(identity=["a.png", "b.png"])).train()
    with pytest.raises(UserError, match="the dataset is not the one that .* was trained on so far"):
        make_run(tmp_path, make_task(identity=["a.png", "c.png"]), resume=True)


def test_a_state_that_does_not_fit_the_task_is_refused(tmp_path):
    make_run(tmp_path).train()
    task = make_task()
    task.stages[1].algorithm.load_state = lambda state: state["absent"]
    with pytest.raises(UserError, match="last.pt does not fit this config: 'absent'"):
        make_run(tmp_path, task, resume=True)


def test_a_run_cannot_continue_at_a_step_that_it_does_not_have(tmp_path):
    make_run(tmp_path).train()
    with pytest.raises(UserError, match="last.pt is at step 5 of stage 2, but this run has the steps .* 4 of train"):
        make_run(tmp_path, make_task(second=4), resume=True)
    make_run(tmp_path, make_task(second=6), resume=True).train()  # more steps


# --- stop requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("which", "status"), ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)))
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
    with StopRequest(messages.append) as stop:
        assert not stop.signal
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM and len(messages) == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_terminal_that_is_closed_may_send_its_signal_twice():
    with StopRequest(lambda text: None) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal == signal.SIGHUP


def test_a_signal_that_is_ignored_stays_ignored():
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest(lambda text: None) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.signal
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_are_restored_after_training(tmp_path):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    make_run(tmp_path).train()
    assert [signal.getsignal(number) for number in numbers] == before


def test_signals_within_the_grace_time_count_as_one(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with StopRequest(lambda text: None, grace=5.0) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            now[0] += 4
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
