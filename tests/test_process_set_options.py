"""The options of process_set.py: mistakes, and the sessions that are planned."""

from pathlib import Path

import pytest
import torch

import process_set
from config import open_run
from evaluation.launchers import Session
from tasks.scoring import open_tables


def options(run: Path) -> tuple[str, ...]:
    return f"--run={run.name}", f"--runs={run.parent}"


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("--n", 4, "--step", 5), "--step must lie between 1 and --n"),
        (("--n", 100, "--step", 0), "--step must lie between 1 and --n"),
        (("--launcher", "slurm", "--sbatch", "'--gpus=1"), "invalid split value"),
        (("--n", 1, "--launcher", "local", "--sbatch=--gpus=1"), "--sbatch needs --launcher slurm, not local"),
        (("--rank", "--launcher", "local"), "--launcher has no effect without --n and --step: nothing is scored"),
        (("--rank", "--sbatch=--gpus=1"), "--sbatch has no effect without --n and --step"),
        (("--rank", "unpaired", "--detach"), "--detach has no effect without --n and --step"),
        (("--rank", "--device", "cpu"), "--device has no effect without --n and --step"),
        (("--rank", "--at-once", "2"), "--at-once has no effect without --n and --step"),
        (("--rank", "unpaired", "--protocol", "ntire26"), "--protocol has no effect with --rank unpaired"),
        (("--n", 1, "--rank", "unpaired", "--measures", "ssim"), "--measures has no effect with --rank unpaired"),
        (("--run", "none"), "no run"),
    ),
)
def test_a_mistake_ends_with_a_message(make_run, call, arguments, message):
    status, output = call(process_set, *options(make_run()), *arguments)
    assert status == 2 and message in output and "Traceback" not in output


def test_a_run_without_checkpoints_is_refused(make_run, call):
    status, output = call(process_set, *options(make_run(count=0)), "--n", 100, "--step", 25)
    assert status == 2 and "no checkpoint to score" in output


# --- planned sessions ------------------------------------------------------------------------------------------------


def plan(run: Path, *arguments: str) -> list[Session]:
    """The sessions that a command line would start."""
    given = process_set.parse([*options(run), *arguments])
    _, config = open_run(given.runs, given.run)
    tables = open_tables(run, config, given.rank, given.protocol, given.measures)
    return process_set.plan(given, run, tables)


@pytest.mark.parametrize(("visible", "taken"), (("", ["0", "1", "0", "1"]), ("5,7", ["5", "7", "5", "7"])))
def test_sessions_take_the_gpus_in_turn(make_run, monkeypatch, visible, taken):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sessions = plan(make_run(count=4), "--n=4", "--step=1")
    assert [session.environment["CUDA_VISIBLE_DEVICES"] for session in sessions] == taken
    assert [session.remainder for session in sessions] == ["0", "1", "2", "3"]


def test_slurm_assigns_the_gpus_itself(make_run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    sessions = plan(make_run(count=2), "--n=2", "--launcher=slurm")
    assert sessions and all("CUDA_VISIBLE_DEVICES" not in session.environment for session in sessions)


def test_session_names_differ_and_have_no_character_with_a_meaning_in_tmux(make_run):
    names = [session.name for name in ("v1.2:final b", "ü") for session in plan(make_run(name), "--n=2", "--step=1")]
    assert len(set(names)) == 4 and all(name.isascii() and not set(name) & set(".: $%@=") for name in names)


def test_secrets_are_not_passed_on_to_sessions(make_run, monkeypatch):
    monkeypatch.setenv("AWS_SECRET", "x")
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setenv("TORCH_HOME", "weights")
    environment = plan(make_run())[0].environment
    assert "AWS_SECRET" not in environment and "HF_TOKEN" not in environment and environment["TORCH_HOME"] == "weights"
