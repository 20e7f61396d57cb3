"""A run that is killed, wherever that may be, and resumed, ends bit for bit as one that was not."""

import functools
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import config as settings
import fit
from config import Config
from errors import UserError
from pretrained import backbones, zoo
from training import checkpoint
from training.steps import Trainer

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = shlex.split("""
--run tiny --device cpu --data.no-demo --data.patch 32 --data.batch 2 --data.workers 0 --data.val-count 0
--backbones.weights random --backbones.vit vit_tiny_patch16_224 --pretrain.steps 4 --pretrain.content 0
--train.steps 6 --train.content 0 --train.ema 0.9 --train.schedule cosine --train.critic-every 2
--train.lr 1e-3 --train.critic-lr 1e-3
--log.every 1 --log.val-every 4 --log.save-every 3 --log.state-every 2 --log.samples 1
""")


class Kill(BaseException):
    """A kill, as far as one process can play it: nothing is tidied up after it."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Six pairs to train on and one to validate on."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    for part, count in (("train", 6), ("val", 1)):
        for side, shape, white, kind in (
            ("mediatek_raw", (48, 48), 1023, np.uint16),
            ("fujifilm", (48, 48, 3), 255, np.uint8),
        ):
            (folder / part / side).mkdir(parents=True)
            for i in range(count):
                cv2.imwrite(str(folder / part / side / f"{i}.png"), (white * rng.random(shape)).astype(kind))
    return folder


@pytest.fixture(scope="module", autouse=True)
def frozen_networks_are_built_once():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("vgg19", "alexnet", "vit"):
            patch.setattr(backbones, name, functools.cache(getattr(backbones, name)))
        yield


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """One thread, as in the commands, and the signals as they were."""
    threads, handlers = torch.get_num_threads(), {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def options(root: Path, runs: Path, *more: str) -> list[str]:
    return [*OPTIONS, "--data.root", str(root), "--runs", str(runs), *more]


def parse(root: Path, runs: Path, *more: str) -> Config:
    return settings.parse(options(root, runs, *more))[0]


def run(config: Config, resume: bool = False) -> Path:
    """Train to the end, or to a `Kill`, and return the run's folder."""
    job = fit.Fit(config, resume)
    try:
        job.run()
    except Kill:
        job.log.close()
    job.lock.close()
    return job.folder


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory) -> Path:
    return run(parse(root, tmp_path_factory.mktemp("uninterrupted")))


def kill_at_step(monkeypatch, count: int) -> None:
    """From now on, the `count`-th step of training kills."""
    calls, step = [], Trainer.step

    def killed(self, *arguments):
        calls.append(1)
        if len(calls) == count:
            raise Kill
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", killed)


def kill_at_write(monkeypatch, count: int) -> list[str]:
    """From now on, the `count`-th file that is written kills half-way. Returns the names of the files written."""
    written, replace = [], checkpoint.replace

    def killed(path, write):
        written.append(path.name)
        if len(written) == count:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.stem}.partial{path.suffix}").write_bytes(b"half a file")
            raise Kill
        replace(path, write)

    monkeypatch.setattr(checkpoint, "replace", killed)
    return written


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def files(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("tensorboard")}


def assert_same(folder: Path, expected: Path) -> None:
    """All files of two runs, but for times (TensorBoard) and the folder of the runs (config)."""
    assert files(folder) == files(expected)
    for name in files(expected) - {"config.json"}:
        if name.endswith(".pt"):
            contents = [checkpoint.load(f / name) for f in (folder, expected)]
            for content in contents:
                content["config"].pop("runs")
            for key in contents[1].keys() | contents[0].keys():
                assert same(contents[0][key], contents[1][key]), f"{name}: {key}"
        else:
            assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def test_the_uninterrupted_run_has_all_that_could_differ(uninterrupted):
    assert {"log.jsonl", "summary.json", "last.pt", "checkpoints/pretrained.pt"} <= files(uninterrupted)
    trainer = checkpoint.load(uninterrupted / "last.pt")["trainer"]
    parts = {"generator", "optimizer", "critic_optimizer", "ema", "schedule", "critic_schedule"}
    assert trainer.keys() == parts | {"critic/color", "critic/lin0", "critic/lin3"}
    assert len((uninterrupted / "log.jsonl").read_text().splitlines()) == 1 + 4 + 1 + 6 + 2


@pytest.mark.parametrize("step", range(1, 11))
def test_a_kill_at_any_step(step, root, tmp_path, uninterrupted, monkeypatch):
    config = parse(root, tmp_path)
    with monkeypatch.context() as patch:
        kill_at_step(patch, step)
        assert not (run(config) / "summary.json").exists()
    assert_same(run(config, resume=True), uninterrupted)


def test_kills_at_one_step_after_the_other(root, tmp_path, uninterrupted, monkeypatch):
    config = parse(root, tmp_path)
    for step in (3, 4, 1, 3):  # of each start: in pretraining, in training, at once, near the end
        with monkeypatch.context() as patch:
            kill_at_step(patch, step)
            assert not (run(config, resume=True) / "summary.json").exists()
    assert_same(run(config, resume=True), uninterrupted)


def test_a_kill_in_mid_write_of_any_file(root, tmp_path, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        written = kill_at_write(patch, 0)
        run(parse(root, tmp_path / "all"))
    assert written.count("last.pt") == 5 and written[-1] == "summary.json"
    for count, name in enumerate(written, start=1):
        config = parse(root, tmp_path / f"{count}-{name}")
        with monkeypatch.context() as patch:
            kill_at_write(patch, count)
            try:
                assert not (run(config) / "summary.json").exists()
            except Kill:  # in the making, before the first step; the run's folder is free again
                assert name == "config.json"
        assert_same(run(config, resume=True), uninterrupted)


def test_a_kill_between_the_log_s_line_and_the_state(root, tmp_path, uninterrupted, monkeypatch):
    def kill(*_):
        raise Kill

    config = parse(root, tmp_path)
    with monkeypatch.context() as patch:
        kill_at_step(patch, 8)
        folder = run(config)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"stage": "train", "step": 3')
    with monkeypatch.context() as patch:
        patch.setattr(fit.Fit, "_save_state", kill)
        run(config, resume=True)
    assert_same(run(config, resume=True), uninterrupted)


def test_real_kills_of_the_command(root, tmp_path, uninterrupted):
    """The first in pretraining; the second in training, in mid-write of last.pt."""
    prelude = "import os, signal, fit\nfrom training import checkpoint\nfrom training.steps import Trainer\n"
    at_step = """
step, calls = Trainer.step, []
def killed(*arguments):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)
Trainer.step = killed
"""
    at_write = """
write, calls = checkpoint._write, []
def killed(path, content):
    if path.name == ".last.partial.pt":
        calls.append(1)
        if len(calls) == 3:
            path.write_bytes(bytes(content)[:5000])
            os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
checkpoint._write = killed
"""
    environment = {key: value for key, value in os.environ.items() if key != "TORCH_HOME"} | {"OMP_NUM_THREADS": "1"}
    for kill, stands in ((at_step, (0, 2)), (at_write, (1, 2))):
        command = [sys.executable, "-c", f"{prelude}{kill}fit.main()", *options(root, tmp_path, "--resume")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        state = checkpoint.load(tmp_path / "tiny" / "last.pt")
        assert (state["stage"], state["step"]) == stands
    assert (tmp_path / "tiny" / ".last.partial.pt").exists()
    assert_same(run(parse(root, tmp_path), resume=True), uninterrupted)


def test_the_number_of_reading_processes_may_change(root, tmp_path, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at_step(patch, 8)
        run(parse(root, tmp_path))
    folder = run(parse(root, tmp_path, "--resume", "--data.workers", "1"), resume=True)
    trainers = [checkpoint.load(f / "last.pt")["trainer"] for f in (folder, uninterrupted)]
    assert same(*trainers)
    assert (folder / "log.jsonl").read_bytes() == (uninterrupted / "log.jsonl").read_bytes()


def test_a_run_with_a_content_loss_and_flips(root, tmp_path, monkeypatch):
    """VGG in both stages, random mirroring, and no pretraining's state at the kill."""
    more = ["--train.content", "1", "--pretrain.content", "1", "--data.flips", "--pretrain.steps", "2"]
    whole = run(parse(root, tmp_path / "whole", *more))
    config = parse(root, tmp_path / "killed", *more)
    with monkeypatch.context() as patch:
        kill_at_step(patch, 6)
        run(config)
    assert_same(run(config, resume=True), whole)


def test_a_finished_run_stays_as_it_is(root, tmp_path, uninterrupted):
    config = parse(root, tmp_path)
    run(config)
    assert_same(run(config, resume=True), uninterrupted)


def test_a_run_that_never_began_begins(root, tmp_path, uninterrupted):
    assert_same(run(parse(root, tmp_path), resume=True), uninterrupted)


def test_a_finished_run_can_be_trained_longer(root, tmp_path):
    more = ["--train.schedule", "constant"]
    whole = run(parse(root, tmp_path / "whole", *more, "--train.steps", "9"))
    run(parse(root, tmp_path / "longer", *more))
    longer = run(parse(root, tmp_path / "longer", *more, "--resume", "--train.steps", "9"), resume=True)
    assert same(*(checkpoint.load(folder / "last.pt")["trainer"] for folder in (whole, longer)))


def test_a_longer_cosine_run_does_not_raise_its_learning_rate_again(root, tmp_path):
    folder = run(parse(root, tmp_path))
    try:
        run(parse(root, tmp_path, "--resume", "--train.steps", "9"), resume=True)
    except UserError:
        return  # to refuse is as good
    rate = checkpoint.load(folder / "last.pt")["trainer"]["optimizer"]["param_groups"][0]["lr"]
    assert rate <= 0.01 * 1e-3 + 1e-12


def test_other_frozen_networks_are_refused(root, tmp_path):
    folder = run(parse(root, tmp_path))
    state = checkpoint.load(folder / "last.pt")
    checkpoint.save(folder / "last.pt", state | {"weights": state["weights"] | {"vit": "pretrained (other)"}})
    with pytest.raises(UserError, match="pretrained \\(other\\)"):
        fit.Fit(parse(root, tmp_path), resume=True)


def test_what_a_kill_left_is_not_taken_for_a_checkpoint(uninterrupted, tmp_path):
    source = uninterrupted / "checkpoints" / "pretrained.pt"
    (tmp_path / "pretrained.pt").write_bytes(source.read_bytes())
    (tmp_path / ".step_0000003.partial.pt").write_bytes(source.read_bytes()[:5000])
    assert zoo.open_folder(tmp_path).keys() == {"pretrained"}
