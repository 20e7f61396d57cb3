"""A run that is killed at any moment and resumed ends bit for bit like one that was not."""

import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import fit
import storage
from config import Config
from errors import UserError
from evaluation.tables import checkpoints
from training.folder import read_state, save_state
from training.run import Run
from training.steps import Trainer

from .fit_runs import same, write_scenes

pytestmark = pytest.mark.usefixtures("restored_module", "cached_networks")

ROOT = Path(fit.__file__).parent
OPTIONS = shlex.split("""
--run tiny --device cpu --data.no-demo --data.patch 32 --data.batch 2 --data.workers 0 --data.val-count 0
--backbones.weights random --backbones.vit test_vit --pretrain.steps 4 --pretrain.content 0
--train.steps 6 --train.content 0 --train.ema 0.9 --train.schedule cosine --train.critic-every 2
--train.lr 1e-3 --train.critic-lr 1e-3
--log.every 1 --log.val-every 4 --log.save-every 3 --log.state-every 2 --log.samples 1
""")
IMAGE_CRITICS = ("--train.adv-color", "0", "--train.texture-critics", "grey")  # no frozen networks
# Without critics and frozen networks: files are small and written fast.
LIGHT = ("--train.mode", "paired", "--train.mse", "1", "--train.lpips", "0", "--train.dists", "0")


class Kill(BaseException):
    """Ends a run as a killed process would: nothing catches it."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Six pairs to train on and one to validate on."""
    folder = tmp_path_factory.mktemp("data")
    for part, names in (("train", range(6)), ("val", range(6, 7))):
        write_scenes(folder / part / "mediatek_raw", folder / part / "fujifilm", names, side=48)
    return folder


def options(root: Path, runs: Path, *more: str) -> list[str]:
    return [*OPTIONS, "--data.root", str(root), "--runs", str(runs), *more]


def parse(root: Path, runs: Path, *more: str) -> Config:
    return fit.parse(options(root, runs, *more))[0]


def train(config: Config, resume: bool = False) -> Path:
    """Train to the end, or to a `Kill`; returns the run's folder."""
    try:
        return fit.train(config, resume)
    except Kill:
        return Path(config.runs) / config.run


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory, restored_module, cached_networks) -> Path:
    return train(parse(root, tmp_path_factory.mktemp("uninterrupted")))


# --- killing a run ---------------------------------------------------------------------------------------------------


def kill_at_step(monkeypatch, count: int) -> None:
    """From now on, the `count`-th step of training raises `Kill`."""
    calls, step = [], Trainer.step

    def killed(self, *arguments):
        calls.append(1)
        if len(calls) == count:
            raise Kill
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", killed)


def kill_at_write(monkeypatch, count: int) -> list[str]:
    """From now on, writing the `count`-th file raises `Kill` half-way. Returns the names of the files written."""
    written, writing = [], storage.writing

    @contextmanager
    def killed(path):
        written.append(path.name)
        if len(written) == count:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.stem}.partial{path.suffix}").write_bytes(b"half a file")
            raise Kill
        with writing(path) as temporary:
            yield temporary

    monkeypatch.setattr(storage, "writing", killed)
    return written


def files(folder: Path) -> set[str]:
    """The files of a run by name, without TensorBoard's, which hold times."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("tensorboard")}


def assert_same(folder: Path, expected: Path) -> None:
    """All files of two runs are equal, but for the folder of all runs in the config."""
    assert files(folder) == files(expected)
    for name in files(expected) - {"config.json"}:
        if name.endswith(".pt"):
            contents = [storage.load(f / name) for f in (folder, expected)]
            for content in contents:
                content["config"].pop("runs")
                content.pop("checksum", None)  # of all that last.pt holds, so also of this folder
            for key in contents[1].keys() | contents[0].keys():
                assert same(contents[0][key], contents[1][key]), f"{name}: {key}"
        else:
            assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


# --- kills -----------------------------------------------------------------------------------------------------------


def test_the_uninterrupted_run_has_every_part_that_could_differ(uninterrupted):
    assert {"log.jsonl", "summary.json", "last.pt", "checkpoints/pretrained.pt"} <= files(uninterrupted)
    trainer = storage.load(uninterrupted / "last.pt")["trainer"]
    parts = {"generator", "optimizer", "critic_optimizer", "ema", "schedule", "critic_schedule"}
    assert trainer.keys() == parts | {"critic/color", "critic/lin0", "critic/lin3"}
    assert len((uninterrupted / "log.jsonl").read_text().splitlines()) == 1 + 4 + 1 + 6 + 2


@pytest.mark.parametrize("step", range(1, 11))
def test_a_kill_at_any_step(step, root, tmp_path, uninterrupted, monkeypatch):
    config = parse(root, tmp_path)
    with monkeypatch.context() as patch:
        kill_at_step(patch, step)
        assert not (train(config) / "summary.json").exists()
    assert_same(train(config, resume=True), uninterrupted)


def test_several_kills_in_one_run(root, tmp_path, uninterrupted, monkeypatch):
    config = parse(root, tmp_path)
    for step in (3, 4, 1, 3):  # of each start: in pretraining, in training, at once, near the end
        with monkeypatch.context() as patch:
            kill_at_step(patch, step)
            assert not (train(config, resume=True) / "summary.json").exists()
    assert_same(train(config, resume=True), uninterrupted)


def test_a_kill_while_any_file_is_written(root, tmp_path, monkeypatch):
    whole = train(parse(root, tmp_path / "whole", *LIGHT))
    with monkeypatch.context() as patch:
        written = kill_at_write(patch, 0)
        train(parse(root, tmp_path / "all", *LIGHT))
    assert written.count("last.pt") == 5 and written[0] == "config.json" and written[-1] == "summary.json"
    assert {"pretrained.pt", "step_0000003.pt", "train_0000004.png"} <= set(written)
    for count, name in enumerate(written, start=1):
        config = parse(root, tmp_path / f"{count}-{name}", *LIGHT)
        with monkeypatch.context() as patch:
            kill_at_write(patch, count)
            assert not (train(config) / "summary.json").exists()
        assert_same(train(config, resume=True), whole)


def test_a_kill_between_the_log_s_line_and_the_state(root, tmp_path, uninterrupted, monkeypatch):
    def kill(*_):
        raise Kill

    config = parse(root, tmp_path)
    with monkeypatch.context() as patch:
        kill_at_step(patch, 8)
        folder = train(config)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"stage": "train", "step": 3')
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_save_state", kill)
        train(config, resume=True)
    assert_same(train(config, resume=True), uninterrupted)


KILL_AT_STEP_4 = """
step, calls = Trainer.step, []
def killed(*arguments):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)
Trainer.step = killed
"""
KILL_AT_THIRD_STATE = """
write, calls = storage.write_bytes, []
def killed(path, content):
    if path.name == "last.pt":
        calls.append(1)
        if len(calls) == 3:
            path.with_name(".last.partial.pt").write_bytes(bytes(content)[:5000])
            os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
storage.write_bytes = killed
"""


def test_real_kills_of_the_command(root, tmp_path):
    """The first in pretraining; the second in training, while last.pt is written."""
    imports = "import os, signal, fit, storage\nfrom training.steps import Trainer\n"
    environment = {key: value for key, value in os.environ.items() if key != "TORCH_HOME"} | {"OMP_NUM_THREADS": "1"}
    for kill, reached in ((KILL_AT_STEP_4, (0, 2)), (KILL_AT_THIRD_STATE, (1, 2))):
        code = f"{imports}{kill}fit.main()"
        command = [sys.executable, "-c", code, *options(root, tmp_path, *IMAGE_CRITICS, "--resume")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        state = storage.load(tmp_path / "tiny" / "last.pt")
        assert (state["stage"], state["step"]) == reached
    assert (tmp_path / "tiny" / ".last.partial.pt").exists()
    whole = train(parse(root, tmp_path / "whole", *IMAGE_CRITICS))
    assert_same(train(parse(root, tmp_path, *IMAGE_CRITICS), resume=True), whole)


def test_a_partial_file_is_not_taken_for_a_checkpoint(uninterrupted, tmp_path):
    folder, content = tmp_path / "checkpoints", (uninterrupted / "checkpoints" / "step_0000003.pt").read_bytes()
    folder.mkdir()
    (folder / "step_0000003.pt").write_bytes(content)
    (folder / ".step_0000006.partial.pt").write_bytes(content[:5000])
    assert checkpoints(tmp_path) == [folder / "step_0000003.pt"]


# --- what may change -------------------------------------------------------------------------------------------------


def test_the_number_of_reading_processes_may_change(root, tmp_path, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at_step(patch, 8)
        train(parse(root, tmp_path))
    folder = train(parse(root, tmp_path, "--resume", "--data.workers", "1"), resume=True)
    trainers = [storage.load(f / "last.pt")["trainer"] for f in (folder, uninterrupted)]
    assert same(*trainers)
    assert (folder / "log.jsonl").read_bytes() == (uninterrupted / "log.jsonl").read_bytes()


def test_a_run_with_content_losses_and_flips(root, tmp_path, monkeypatch):
    """VGG-19 in both stages, random mirroring, and a kill after the first state of training."""
    more = ["--train.content", "1", "--pretrain.content", "1", "--data.flips", "--pretrain.steps", "2"]
    whole = train(parse(root, tmp_path / "whole", *more))
    config = parse(root, tmp_path / "killed", *more)
    with monkeypatch.context() as patch:
        kill_at_step(patch, 6)
        train(config)
    assert_same(train(config, resume=True), whole)


def test_a_finished_run_is_not_changed(root, tmp_path, uninterrupted):
    config = parse(root, tmp_path)
    train(config)
    assert_same(train(config, resume=True), uninterrupted)


def test_a_run_that_does_not_exist_is_started(root, tmp_path, uninterrupted):
    assert_same(train(parse(root, tmp_path), resume=True), uninterrupted)


def test_a_finished_run_can_be_trained_longer(root, tmp_path):
    more = ["--train.schedule", "constant"]
    whole = train(parse(root, tmp_path / "whole", *more, "--train.steps", "9"))
    train(parse(root, tmp_path / "longer", *more))
    longer = train(parse(root, tmp_path / "longer", *more, "--resume", "--train.steps", "9"), resume=True)
    assert same(*(storage.load(folder / "last.pt")["trainer"] for folder in (whole, longer)))


def test_a_run_with_a_cosine_schedule_cannot_be_trained_longer(root, tmp_path):
    train(parse(root, tmp_path, *LIGHT))
    with pytest.raises(UserError, match="a resumed run cannot change train.steps"):
        parse(root, tmp_path, *LIGHT, "--resume", "--train.steps", "9")


def test_other_frozen_networks_are_refused(root, tmp_path):
    folder = train(parse(root, tmp_path))
    state = read_state(folder)
    save_state(folder, state | {"weights": state["weights"] | {"vit": "pretrained (other)"}})
    with pytest.raises(UserError, match="pretrained \\(other\\)"):
        train(parse(root, tmp_path), resume=True)
