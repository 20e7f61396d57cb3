"""Whole runs of a few steps on six tiny scenes: each mode ends with its files, each mistake with a sentence."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import build
import config as settings
import fit
from config import Backbones, Config, Data, Log, Pretrain, Train
from errors import UserError
from losses.adversarial import RelativisticLoss
from losses.total_variation import TotalVariation
from metrics import psnr
from models import build_model
from pretrained import backbones
from training import checkpoint

ROOT = Path(__file__).resolve().parents[1]
RANDOM = Backbones("random", vit="vit_tiny_patch16_224")
VGG, ALEXNET, VIT, LPIPS, DISTS = "vgg", "alexnet", "vit", "lpips", "dists"


def write_scenes(raws: Path, photos: Path, names: range, photo_names: range | None = None) -> None:
    """Smooth noise: 10-bit mosaics, and photographs of 8 bits, 64x64."""
    rng = np.random.default_rng(names.start)
    raws.mkdir(parents=True)
    photos.mkdir(parents=True)
    for name, photo_name in zip(names, photo_names or names, strict=True):
        scene = cv2.resize(rng.random((8, 8, 3)), (64, 64)).clip(0, 1)
        mosaic = 64 + 900 * scene[..., 1]
        cv2.imwrite(str(raws / f"{name}.png"), mosaic.astype(np.uint16))
        cv2.imwrite(str(photos / f"{photo_name}.png"), (255 * scene).astype(np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Six pairs to train on and two to validate on, in Fujifilm's layout; and folders of names that do not match."""
    folder = tmp_path_factory.mktemp("data")
    write_scenes(folder / "train" / "mediatek_raw", folder / "train" / "fujifilm", range(6))
    write_scenes(folder / "val" / "mediatek_raw", folder / "val" / "fujifilm", range(10, 12))
    write_scenes(folder / "apart" / "raws", folder / "apart" / "photos", range(5), range(20, 25))
    return folder


@pytest.fixture(scope="module", autouse=True)
def frozen_networks_are_built_once():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("vgg19", "alexnet", "vit", "lpips_plus", "dists"):
            patch.setattr(backbones, name, functools.cache(getattr(backbones, name)))
        yield


@pytest.fixture(autouse=True)
def quiet():
    """One thread, and the signals as they were."""
    threads, handlers = torch.get_num_threads(), {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def base(root, tmp_path) -> Config:
    """Two steps of each stage."""
    return Config(
        run="tiny",
        runs=str(tmp_path / "runs"),
        model="efficient",
        device="cpu",
        data=Data(root=str(root), patch=32, batch=2, workers=0, val_count=0, test_count=0),
        backbones=RANDOM,
        pretrain=Pretrain(steps=2),
        train=Train(steps=2, critic_every=1),
        log=Log(every=1, val_every=2, save_every=1, state_every=1, samples=2),
    )


def vary(config: Config, **parts) -> Config:
    """A config with sections changed by dicts, and fields by values."""
    for name, value in parts.items():
        new = dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        config = dataclasses.replace(config, **{name: new})
    return config


def run(config: Config, resume: bool = False) -> Path:
    """Train, and return the run's folder."""
    job = fit.Fit(config, resume)
    job.run()
    job.lock.close()
    return job.folder


def read(folder: Path, stage: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


CHEAP = {"content": 0, "adv_lin0": 0, "adv_lin3": 0}
UNPAIRED = {"tv", "content", "color", "lin0", "lin3"}
# Name -> what differs from `base`, the terms of training, its critics, and the frozen networks.
RUNS = {
    "shuffled": ({}, UNPAIRED, {"color", "lin0", "lin3"}, {VGG, ALEXNET, VIT}),
    "disjoint": (
        {"data": {"unpaired": "disjoint", "flips": True}},
        UNPAIRED,
        {"color", "lin0", "lin3"},
        {VGG, ALEXNET, VIT},
    ),
    "as-released": ({"as_released": True}, UNPAIRED, {"color", "lin0", "lin3"}, {VGG, ALEXNET, VIT}),
    "image-critics": (
        {"train": {"color_critic": "image", "texture_critics": "image"}},
        {"tv", "content", "color", "grey"},
        {"color", "grey"},
        {VGG},
    ),
    "blurred-color": (
        {"train": CHEAP | {"blur_color": True}, "pretrain": {"content": 0}},
        {"tv", "color"},
        {"color"},
        {VIT},
    ),
    "one-texture-critic": (
        {"train": {"adv_lin0": 0, "adv_color": 0}},
        {"tv", "content", "lin3"},
        {"lin3"},
        {VGG, ALEXNET},
    ),
    "paired": ({"train": {"mode": "paired", "dists": 0}}, {"tv", "color", "content", "lpips"}, set(), {VGG, LPIPS}),
    "paired-dists": (
        {"train": {"mode": "paired", "lpips": 0, "content": 0, "mse": 1}, "pretrain": {"content": 0}},
        {"tv", "color", "mse", "dists"},
        set(),
        {DISTS},
    ),
    "paired-gan": (
        {"train": {"mode": "paired_gan", "lpips": 0, "dists": 0}},
        {"tv", "color", "content", "lin0", "lin3"},
        {"lin0", "lin3"},
        {VGG, ALEXNET},
    ),
    "rmfa-tiny": (
        {"model": "rmfa-tiny", "train": CHEAP, "pretrain": {"content": 0}},
        {"tv", "color"},
        {"color"},
        {VIT},
    ),
    "robust": ({"model": "robust", "train": CHEAP, "pretrain": {"content": 0}}, {"tv", "color"}, {"color"}, {VIT}),
    "bilinear-cosine-ema": (
        {
            "data": {"demosaic": "bilinear"},
            "train": CHEAP | {"schedule": "cosine", "ema": 0.9},
            "pretrain": {"content": 0},
        },
        {"tv", "color"},
        {"color"},
        {VIT},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_with_all_its_files(name, base):
    parts, terms, critics, networks = RUNS[name]
    config = vary(base, **parts)
    folder = run(config)

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["val_psnr"].keys() == {"demosaiced", "pretrained", "final"}
    assert all(3 < value < 60 for value in summary["val_psnr"].values())
    assert summary["weights"] == dict.fromkeys(networks, "random (seed 0)")
    assert settings.load(folder / "config.json") == config

    pretrained, trained = read(folder, "pretrain"), read(folder, "train")
    assert [line["step"] for line in pretrained] == [line["step"] for line in trained] == [1, 2, 2]
    wanted = {f"loss/{t}" for t in terms} | {f"norm/{t}" for t in terms}
    wanted |= {f"critic/{c}/{key}" for c in critics for key in ("loss", "gap", "r1", "r2")}
    assert trained[0].keys() >= wanted
    assert {name.split("/")[1] for name in trained[0] if name.startswith("norm/")} == terms
    assert trained[2] == {"stage": "train", "step": 2, "val_psnr": summary["val_psnr"]["final"]}

    files = {"pretrained.pt", "step_0000001.pt", "step_0000002.pt"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == files
    saved = torch.load(folder / "checkpoints" / "step_0000002.pt", weights_only=True)
    assert (saved["model"], saved["step"], saved["weights"]) == (config.model, 2, summary["weights"])
    assert settings.from_dict(saved["config"]) == config
    build_model(config.model).load_state_dict(saved["generator"])
    assert {path.name for path in (folder / "samples").iterdir()} == {"pretrain_0000002.png", "train_0000002.png"}
    assert any((folder / "tensorboard").iterdir())


@pytest.fixture
def cheap(base) -> Config:
    """`base` with a ViT alone."""
    return vary(base, train=CHEAP, pretrain={"content": 0})


def test_the_saved_generator_scores_what_the_summary_says(cheap):
    config = vary(cheap, train={"ema": 0.5})
    job = fit.Fit(config, resume=False)
    job.run()
    generator = build_model("efficient")
    generator.load_state_dict(checkpoint.load(job.folder / "checkpoints" / "step_0000002.pt")["generator"])
    final = job.validate(lambda mosaic: generator(job.inputs(mosaic)))
    assert final == json.loads((job.folder / "summary.json").read_text())["val_psnr"]["final"]
    job.lock.close()


def test_the_sample_grid_has_three_columns_and_a_row_for_each_scene(cheap):
    grid = cv2.imread(str(run(cheap) / "samples" / "train_0000002.png"))
    assert grid.shape == (2 * 64 + 3 * 2, 3 * 64 + 4 * 2, 3)


def test_two_runs_of_one_config_are_the_same_and_the_seed_matters(cheap):
    folders = [run(vary(cheap, run=name, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    logs = [(folder / "log.jsonl").read_bytes() for folder in folders]
    assert logs[0] == logs[1] != logs[2]


def test_a_run_starts_from_a_checkpoint_of_ours(cheap):
    before = run(cheap)
    path = before / "checkpoints" / "step_0000002.pt"
    folder = run(vary(cheap, run="next", init=str(path)))
    first = checkpoint.load(folder / "checkpoints" / "pretrained.pt")["generator"]
    saved = checkpoint.load(path)["generator"]
    assert all(torch.equal(first[key], saved[key]) for key in saved)
    figures = [json.loads((f / "summary.json").read_text())["val_psnr"] for f in (before, folder)]
    assert figures[1]["pretrained"] == figures[0]["final"]
    assert [line["step"] for line in read(folder, "pretrain")] == [0]


def test_a_run_knows_its_model_from_where_it_starts(cheap):
    path = run(vary(cheap, model="robust")) / "checkpoints" / "pretrained.pt"
    folder = run(vary(cheap, run="next", model="", init=str(path)))
    assert settings.load(folder / "config.json").model == "robust"
    assert checkpoint.load(folder / "checkpoints" / "step_0000002.pt")["model"] == "robust"


def test_a_lengthened_run_keeps_its_new_length(cheap):
    folder = run(cheap)
    run(vary(cheap, train={"steps": 4}), resume=True)
    assert settings.load(folder / "config.json").train.steps == 4


def test_a_checkpoint_of_another_model_is_refused(cheap):
    path = run(cheap) / "checkpoints" / "pretrained.pt"
    with pytest.raises(UserError, match="is a 'efficient', not a 'robust'"):
        fit.Fit(vary(cheap, run="next", model="robust", init=str(path)), resume=False)


def test_pretraining_can_be_skipped(cheap):
    folder = run(vary(cheap, pretrain={"steps": 0}))
    assert json.loads((folder / "summary.json").read_text())["val_psnr"]["pretrained"] is not None
    assert [line["step"] for line in read(folder, "train")] == [1, 2, 2]


def test_folders_without_correspondence_have_nothing_to_validate_on(cheap, root):
    apart = root / "apart"
    data = {"layout": "folders", "root": "", "raw": str(apart / "raws"), "photos": str(apart / "photos")}
    folder = run(vary(cheap, data=data))
    figures = json.loads((folder / "summary.json").read_text())["val_psnr"]
    assert figures == {"demosaiced": None, "pretrained": None, "final": None}
    assert (folder / "samples" / "train_0000002.png").exists()


def test_pretraining_comes_nearer_to_the_reference(cheap):
    config = vary(cheap, pretrain={"steps": 60, "lr": 1e-2, "tv": 0}, train={"steps": 0}, log={"every": 60})
    job = fit.Fit(config, resume=False)

    def distance() -> float:
        mosaic, span, _ = job.stages[0].patches[0]
        generated = job.stages[0].trainer.generator(job.inputs(mosaic[None]))
        return psnr(generated, job.reference(mosaic[None], span[None])).item()

    before = distance()
    job.run()
    assert distance() > before + 3
    job.lock.close()


def test_grey_is_the_published_one():
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    with np.load(path) as golden:
        generated, expected = torch.from_numpy(golden["generated"]), torch.from_numpy(golden["gray"])
    torch.testing.assert_close(build.grey3(generated), expected.expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-3)


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_a_run_that_exists_is_not_overwritten(cheap):
    folder = run(cheap)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="tiny exists.*--resume.*--run"):
        fit.Fit(cheap, resume=False)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_that_is_being_trained_is_not_taken_up(cheap):
    job = fit.Fit(cheap, resume=False)
    with pytest.raises(UserError, match="another process is training"):
        fit.Fit(cheap, resume=True)
    job.lock.close()


@pytest.mark.parametrize(
    "parts, says",
    (
        ({"data": {"root": "/absent"}}, "no folder /absent/train"),
        ({"data": {"unpaired": "mixed"}}, "unknown unpaired mode 'mixed'.*shuffled, disjoint"),
        ({"data": {"layout": "folders"}}, "--data.raw and --data.photos"),
        ({"data": {"patch": 128}}, "64x64, smaller than a patch of 128"),
        ({"model": "resnet"}, "unknown model 'resnet'; known are: efficient"),
        ({"device": "quantum"}, "device 'quantum' cannot be used"),
        ({"init": "absent.pt"}, "no file absent.pt"),
        ({"train": CHEAP | {"adv_color": 0, "tv": 0}}, "no term left"),
    ),
)
def test_a_mistake_is_told_in_a_sentence(cheap, parts, says):
    with pytest.raises(UserError, match=says):
        run(vary(cheap, **parts))


@pytest.mark.parametrize("mode", ("paired", "paired_gan"))
def test_paired_modes_refuse_folders_without_correspondence(cheap, root, mode):
    apart = root / "apart"
    data = {"layout": "folders", "root": "", "raw": str(apart / "raws"), "photos": str(apart / "photos")}
    with pytest.raises(UserError, match=f"mode '{mode}' needs pairs"):
        run(vary(cheap, data=data, train={"mode": mode}))


def test_pretraining_without_a_term_is_refused(cheap):
    with pytest.raises(UserError, match="pretrain"):
        run(vary(cheap, pretrain={"content": 0, "mse": 0, "tv": 0}))


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_state(cheap, monkeypatch):
    calls, plain = [], TotalVariation.__call__

    def broken(self, image):
        calls.append(1)
        return plain(self, image) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(TotalVariation, "__call__", broken)
    job = fit.Fit(vary(cheap, train={"steps": 5}), resume=False)
    with pytest.raises(UserError, match="loss/tv is nan at step 2 of train.*untouched"):
        job.run()
    job.lock.close()
    state = checkpoint.load(job.folder / "last.pt")
    assert (state["stage"], state["step"]) == (1, 1)
    assert all(value.isfinite().all() for value in state["trainer"]["generator"].values())
    assert not (job.folder / "checkpoints" / "step_0000002.pt").exists()


def test_a_critic_that_breaks_is_not_saved(cheap, monkeypatch):
    """Its objective is finite, and the gradient is not: the update makes its parameters NaN."""
    plain = RelativisticLoss.discriminator

    def broken(self, critic, fake, real):
        loss, statistics = plain(self, critic, fake, real)
        parameter = next(critic.parameters())
        return loss + (parameter - parameter.detach()).sqrt().sum(), statistics

    monkeypatch.setattr(RelativisticLoss, "discriminator", broken)
    job = fit.Fit(cheap, resume=False)
    with pytest.raises(UserError, match="diverged"):
        job.run()
    job.lock.close()
    state = checkpoint.load(job.folder / "last.pt")["trainer"]
    critics = [value for name in state if name.startswith("critic/") for value in state[name].values()]
    assert all(value.isfinite().all() for value in critics)


def test_a_broken_state_is_not_taken_up(cheap):
    folder = run(cheap)
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match="last.pt is no readable checkpoint"):
        fit.Fit(cheap, resume=True)


def test_a_state_of_another_config_is_not_taken_up(cheap):
    run(cheap)
    with pytest.raises(UserError, match="last.pt is not of this config"):
        fit.Fit(vary(cheap, model="robust"), resume=True)


# --- as a command ----------------------------------------------------------------------------------------------------

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "TORCH_HOME"} | {"OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, str(ROOT / "fit.py")]


def test_a_command_with_a_mistake_exits_2_with_one_line(tmp_path):
    command = [*COMMAND, "fujifilm-efficient", "--data.root", "absent", "--runs", "runs"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: no folder absent") and len(done.stderr.splitlines()) == 1


def test_ctrl_c_saves_and_a_resumed_run_goes_on(cheap, tmp_path):
    """As from a terminal: the signal comes to the reading process, too."""
    options = ["--runs", cheap.runs, "--run", "tiny", "--device", "cpu", "--data.root", cheap.data.root]
    options += ["--data.no-demo", "--data.patch", "32", "--data.batch", "2", "--data.workers", "1"]
    options += ["--backbones.weights", "random", "--pretrain.steps", "2", "--pretrain.content", "0"]
    options += [
        "--train.schedule",
        "constant",
        "--train.steps",
        "100000",
        "--train.content",
        "0",
        "--train.adv-lin0",
        "0",
        "--train.adv-lin3",
        "0",
    ]
    options += ["--log.every", "1", "--log.state-every", "100000", "--log.val-every", "100000"]
    folder = Path(cheap.runs) / "tiny"
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen([*COMMAND, *options], env=ENVIRONMENT, stderr=stderr, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not ((folder / "log.jsonl").exists() and read(folder, "train")):
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "stderr").read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said and "--resume goes on from there" in said

    state = checkpoint.load(folder / "last.pt")
    assert (state["stage"], state["step"]) == (1, read(folder, "train")[-1]["step"])
    steps = state["step"] + 2
    resumed, resume = settings.parse([*options, "--resume", "--train.steps", str(steps), "--data.workers", "0"])
    run(resumed, resume)
    assert [line["step"] for line in read(folder, "train") if "loss/tv" in line] == list(range(1, steps + 1))
    assert said.count("finishing this step") == 1
