"""Several processes train as one would: same batches, gradients and weights; and they stop together."""

import os
import shlex
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

import fit
import storage
from data.loader import Positions
from errors import UserError
from training.distributed import ALONE, Group, join

from . import double_precision

ROOT = Path(fit.__file__).parent
OPTIONS = shlex.split("""
demo --data.no-demo --device cpu --data.patch 32 --data.batch 4 --data.workers 0 --backbones.weights random
--pretrain.steps 0 --train.steps 5 --train.schedule constant --train.lr 5e-4 --train.critic-lr 1e-4
--train.critic-every 2 --log.val-every 100 --log.save-every 100 --log.state-every 2 --log.every 1
--log.samples 1
""")
# Without frozen networks, whose libraries take seconds to import.
NO_NETWORKS = shlex.split("--train.mode paired --train.mse 1 --train.content 0 --train.lpips 0 --train.dists 0")


@pytest.fixture(scope="module")
def root(tmp_path_factory, make_pairs) -> Path:
    """Eight pairs to train on and three to validate on."""
    folder = tmp_path_factory.mktemp("data")
    for part, count in (("train", 8), ("val", 3)):
        make_pairs(folder / part / "mediatek_raw", folder / part / "fujifilm", count, seed=count)
    return folder


def launch(script: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script in two processes with torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    environment = {key: value for key, value in os.environ.items() if key != "TORCH_HOME"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += [str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


def train(*arguments: object) -> Path:
    """Run fit.py in this process alone; returns the run's folder."""
    return fit.train(*fit.parse([str(argument) for argument in arguments]))


def read_log(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines()


# --- two processes compute what one does -----------------------------------------------------------------------------


def test_two_processes_with_half_of_each_batch_give_the_weights_of_one(root, tmp_path):
    """In float64: in float32, a ReLU that switches by rounding is magnified by Adam (docs/performance.md)."""
    options = [*OPTIONS, "--data.root", str(root)]
    done = launch(Path(double_precision.__file__), tmp_path / "two.pt", *options)
    assert done.returncode == 0, done.stderr
    one, two = double_precision.train(options, ALONE), torch.load(tmp_path / "two.pt", weights_only=True)
    for name in ("generator", "critic/color", "critic/lin0", "critic/lin3"):
        for key, value in one[name].items():
            assert (value - two[name][key]).abs().max() < 1e-5, f"{name}: {key}"
    for name, norm in one["norms"].items():
        factor = 2 if name == "norm/content" else 1  # a sum over the batch, of which each process has half
        assert abs(factor * two["norms"][name] / norm - 1) < 1e-6, name


def test_two_processes_pretrain_like_one(root, tmp_path, capsys):
    """The whole command, in float32, with VGG-19."""
    options = [*OPTIONS, *NO_NETWORKS, "--data.root", root, "--train.steps", "0"]
    options += ["--pretrain.steps", "5", "--pretrain.lr", "5e-4", "--pretrain.content", "1"]
    done = launch(ROOT / "fit.py", *options, "--runs", tmp_path, "--run", "two")
    assert done.returncode == 0, done.stderr
    one, two = train(*options, "--runs", tmp_path, "--run", "one"), tmp_path / "two"
    for printed in (done.stdout, capsys.readouterr().out):
        assert printed.count("PSNR on the 3 validation pairs") == 1
    states = [storage.load(folder / "checkpoints" / "pretrained.pt")["generator"] for folder in (one, two)]
    assert all((value - states[1][key]).abs().max() < 1e-5 for key, value in states[0].items())
    assert len(read_log(one)) == len(read_log(two)) == 1 + 5 + 2
    assert {p.name for p in one.rglob("*.p*")} == {p.name for p in two.rglob("*.p*")}


# --- how they stop ---------------------------------------------------------------------------------------------------

AT_STEP_4_OF_RANK_1 = """
import os, signal, fit
from errors import UserError
from training.steps import Trainer

step, calls = Trainer.step, []

def patched(*arguments):
    calls.append(1)
    if len(calls) == 4 and os.environ["RANK"] == "1":
        {action}
    return step(*arguments)

Trainer.step = patched
fit.cli()
"""

OTHER_WEIGHTS_IN_RANK_1 = """
import os, fit
from tasks import isp

build = isp.build_generator

def patched(*arguments):
    name, generator = build(*arguments)
    if os.environ["RANK"] == "1":
        generator.conv1.bias.data += 1
    return name, generator

isp.build_generator = patched
fit.cli()
"""


@pytest.fixture
def options(root, tmp_path) -> list:
    return [*OPTIONS, *NO_NETWORKS, "--data.root", root, "--runs", tmp_path]


def test_if_one_process_is_killed_all_end_and_the_run_can_be_resumed(options, tmp_path):
    """Even by a single process: the run continues from the state that two processes saved."""
    script = tmp_path / "killed.py"
    script.write_text(AT_STEP_4_OF_RANK_1.format(action="os.kill(os.getpid(), signal.SIGKILL)"))
    done = launch(script, *options)
    assert done.returncode != 0
    assert "error: another process of this run has ended" in done.stderr
    assert 'fit.py", line' not in done.stderr and "terminate called" not in done.stderr  # torchrun's traceback alone
    assert not list(tmp_path.rglob("*.partial*"))
    assert storage.load(tmp_path / "demo" / "last.pt")["step"] == 2
    folders = train(*options, "--resume"), train(*options, "--run", "whole")
    resumed, whole = (storage.load(folder / "last.pt") for folder in folders)
    assert resumed["step"] == whole["step"] == 5
    for key, value in resumed["trainer"]["generator"].items():
        assert (value - whole["trainer"]["generator"][key]).abs().max() < 1e-3  # five steps of Adam at 5e-4
    assert len(read_log(folders[0])) == len(read_log(folders[1]))


def test_an_error_in_one_process_is_printed(options, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(AT_STEP_4_OF_RANK_1.format(action='raise UserError("the second process found something")'))
    done = launch(script, *options)
    assert done.returncode != 0
    assert "error: the second process found something" in done.stderr and "terminate called" not in done.stderr


def test_processes_with_different_weights_are_refused(options, tmp_path):
    script = tmp_path / "different.py"
    script.write_text(OTHER_WEIGHTS_IN_RANK_1)
    done = launch(script, *options)
    assert done.returncode != 0
    assert "process 1 has different data, weights or checkpoint than process 0" in done.stderr
    assert not (tmp_path / "demo" / "last.pt").exists()


def test_a_stop_request_to_one_process_saves_the_state_and_stops_all(options, tmp_path):
    script = tmp_path / "stopped.py"
    script.write_text(AT_STEP_4_OF_RANK_1.format(action="os.kill(os.getpid(), signal.SIGTERM)"))
    done = launch(script, *options)
    assert done.returncode != 0 and "Stopped at step 4 of train" in done.stderr
    assert storage.load(tmp_path / "demo" / "last.pt")["step"] == 4


# --- in this process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", (1, 2, 4))
def test_the_shares_of_all_processes_make_up_each_batch(size):
    shares = [list(islice(Positions(3, 8, rank, size), 5 * 8 // size)) for rank in range(size)]
    for batch in range(5):
        share = 8 // size
        together = [k for positions in shares for k in positions[batch * share : (batch + 1) * share]]
        assert together == list(range((3 + batch) * 8, (4 + batch) * 8))


def test_a_batch_that_cannot_be_divided_evenly_is_refused():
    with pytest.raises(UserError, match="8 cannot be divided evenly among 3 processes: change --data.batch"):
        Group(size=3).share(8)
    assert Group(size=4).share(8) == 2 and ALONE.share(7) == 7


def test_a_single_process_exchanges_nothing():
    held = torch.ones(3)
    assert join("cpu") is ALONE and ALONE.main
    assert ALONE.mean_(held) is held and ALONE.sum_(held) is held and ALONE.largest(signal.SIGTERM) == signal.SIGTERM


@pytest.mark.parametrize(("device", "message"), (("cuda:1", "cannot all use"), ("cuda", "GPUs on this machine")))
def test_devices_that_processes_cannot_share_are_refused(device, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    given = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in (given | {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        join(device)
