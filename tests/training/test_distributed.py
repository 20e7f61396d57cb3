"""Several processes train as one would: same batches, same gradients, same weights; and they end together."""

import os
import shlex
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from data.loader import Positions
from errors import UserError
from training import checkpoint
from training.distributed import ALONE, Group, join

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = shlex.split("""
demo --data.no-demo --device cpu --data.patch 48 --data.batch 4 --data.workers 0 --backbones.weights random
--pretrain.steps 0 --train.steps 10 --train.schedule constant --train.lr 5e-4 --train.critic-lr 1e-4
--train.critic-every 5 --log.val-every 100 --log.save-every 100 --log.state-every 4 --log.every 1 --log.samples 1
""")


@pytest.fixture(scope="module")
def root(tmp_path_factory, make_pairs) -> Path:
    """Eight pairs to train on and three to validate on."""
    folder = tmp_path_factory.mktemp("data")
    for part, count in (("train", 8), ("val", 3)):
        make_pairs(folder / part / "mediatek_raw", folder / part / "fujifilm", count, seed=count)
    return folder


def launch(processes: int, script: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--"]
    environment = {key: value for key, value in os.environ.items() if key != "TORCH_HOME"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += [str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


IN_DOUBLE_PRECISION = """
import sys
import torch
import config as settings
from build import *
from data.loader import training_batches
from data.sensor import prepare
from training.distributed import join, leave
from training.steps import Batch

class Double(Networks):
    def cast(self, name):
        return self(name).double()

out, *arguments = sys.argv[1:]
config, _ = settings.parse(arguments)
group, cpu = join(config.device), torch.device("cpu")
torch.manual_seed(0)
splits, reader, reference = open_data(config)
generator = build_generator("efficient", "")[1].double()
torch.set_default_dtype(torch.float64)
trainer = build_trainer(config, generator, Double(config, cpu))
torch.set_default_dtype(torch.float32)
if group.size > 1:
    trainer.average_ = group.mean_
patches = Patches(splits["train"], Files(reader, reference), config.data.patch, seed=0, flips=True)
batches = training_batches(patches, config.data.batch, 0, 0, cpu, group.rank, group.size)
for number in range(1, 11):
    mosaic, span, target = next(batches)
    inputs = prepare(mosaic.double(), reader.sensor, "packed")
    statistics = trainer.step(Batch(inputs, reference(mosaic, span).double(), target.double()), number)
if group.main:
    torch.save({**trainer.state(), "norms": {k: v for k, v in statistics.items() if k.startswith("norm/")}}, out)
leave()
"""


def test_two_processes_with_half_of_each_batch_equal_one(root, tmp_path):
    """In double precision: in single, a ReLU that switches by rounding is magnified by Adam (docs/performance.md)."""
    script, states = tmp_path / "script.py", []
    script.write_text(IN_DOUBLE_PRECISION)
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        done = launch(processes, script, out, *OPTIONS, "--data.root", root)
        assert done.returncode == 0, done.stderr
        states.append(torch.load(out, weights_only=True))
    one, two = states
    for name in ("generator", "critic/color", "critic/lin0", "critic/lin3"):
        for key, value in one[name].items():
            assert (value - two[name][key]).abs().max() < 1e-5, f"{name}: {key}"
    for name, norm in one["norms"].items():
        factor = 2 if name == "norm/content" else 1  # a sum over the batch, of which each process has half
        assert abs(factor * two["norms"][name] / norm - 1) < 1e-6, name


def test_two_processes_pretrain_as_one(root, tmp_path):
    """The whole command, in single precision; and one process goes on from where two stood."""
    more = ["--pretrain.steps", "10", "--pretrain.lr", "5e-4", "--train.steps", "0", "--data.root", root]
    fit = ROOT / "fit.py"
    for processes, name in ((1, "one"), (2, "two")):
        done = launch(processes, fit, *OPTIONS, *more, "--runs", tmp_path, "--run", name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("PSNR on the 3 validation pairs") == 1
    states = [
        checkpoint.load(tmp_path / name / "checkpoints" / "pretrained.pt")["generator"] for name in ("one", "two")
    ]
    assert all((value - states[1][key]).abs().max() < 1e-5 for key, value in states[0].items())
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == 1 + 10 + 2
    assert {p.name for p in (tmp_path / "one").rglob("*.p*")} == {p.name for p in (tmp_path / "two").rglob("*.p*")}


PRELUDE = """
import os, signal, fit
from errors import UserError
from training.steps import Trainer

step, calls = Trainer.step, []

def stopped(*arguments):
    calls.append(1)
    if len(calls) == 7 and os.environ.get("RANK") == "1":
        {stop}
    return step(*arguments)

Trainer.step = stopped
fit.cli()
"""


DIFFERENT = """
build = fit.build_generator

def another(*arguments):
    name, generator = build(*arguments)
    if os.environ["RANK"] == "1":
        generator.conv1.bias.data += 1
    return name, generator

fit.build_generator = another
"""


def test_the_kill_of_one_ends_all_and_the_run_goes_on_from_its_state(root, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(PRELUDE.format(stop="os.kill(os.getpid(), signal.SIGKILL)"))
    arguments = [*OPTIONS, "--data.root", root, "--runs", tmp_path]
    done = launch(2, script, *arguments)
    assert done.returncode != 0
    assert "error: another process of this run has ended" in done.stderr
    assert 'fit.py", line' not in done.stderr and "terminate called" not in done.stderr  # torchrun's traceback alone
    assert not list(tmp_path.rglob("*.partial*"))
    assert checkpoint.load(tmp_path / "demo" / "last.pt")["step"] == 4
    assert launch(1, ROOT / "fit.py", *arguments, "--resume").returncode == 0
    assert launch(1, ROOT / "fit.py", *arguments, "--run", "whole").returncode == 0
    killed, whole = (checkpoint.load(tmp_path / name / "last.pt") for name in ("demo", "whole"))
    assert killed["step"] == whole["step"] == 10
    for key, value in killed["trainer"]["generator"].items():
        assert (value - whole["trainer"]["generator"][key]).abs().max() < 2e-3  # ten steps of Adam at 5e-4
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("demo", "whole")]
    assert len(logs[0]) == len(logs[1])


def test_what_stops_one_process_is_told(root, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(PRELUDE.format(stop='raise UserError("the second process found something")'))
    done = launch(2, script, *OPTIONS, "--data.root", root, "--runs", tmp_path)
    assert done.returncode != 0
    assert "error: the second process found something" in done.stderr and "terminate called" not in done.stderr


def test_processes_that_start_from_different_things_are_refused(root, tmp_path):
    script = tmp_path / "different.py"
    script.write_text("import os, fit\n" + DIFFERENT + "\nfit.cli()\n")
    done = launch(2, script, *OPTIONS, "--data.root", root, "--runs", tmp_path)
    assert done.returncode != 0 and "process 1 does not start from what process 0 does" in done.stderr
    assert not (tmp_path / "demo" / "last.pt").exists()


def test_a_stop_of_one_process_saves_the_state_of_all(root, tmp_path):
    script = tmp_path / "stopped.py"
    script.write_text(PRELUDE.format(stop="os.kill(os.getpid(), signal.SIGTERM)"))
    done = launch(2, script, *OPTIONS, "--data.root", root, "--runs", tmp_path)
    assert done.returncode != 0 and "stopped at step 7 of train" in done.stderr
    assert checkpoint.load(tmp_path / "demo" / "last.pt")["step"] == 7


@pytest.mark.parametrize("size", (1, 2, 4))
def test_the_shares_of_all_processes_are_the_batches(size):
    shares = [list(islice(Positions(3, 8, rank, size), 5 * 8 // size)) for rank in range(size)]
    for batch in range(5):
        share = 8 // size
        together = [k for positions in shares for k in positions[batch * share : (batch + 1) * share]]
        assert together == list(range((3 + batch) * 8, (4 + batch) * 8))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="8 cannot be shared evenly by 3 processes"):
        Group(size=3).share(8)
    assert Group(size=4).share(8) == 2 and ALONE.share(7) == 7


def test_one_process_alone_asks_nobody():
    held = torch.ones(3)
    assert join("cpu") is ALONE and ALONE.main
    assert ALONE.mean_(held) is held and ALONE.sum_(held) is held and ALONE.largest(signal.SIGTERM) == signal.SIGTERM


@pytest.mark.parametrize(("device", "message"), (("cuda:1", "cannot all use"), ("cuda", "GPUs on this machine")))
def test_devices_that_cannot_be_shared_are_refused(device, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        join(device)
