"""Runs on mosaics whose light and exposure are undone, with a model that takes the context of its image."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import fit
import inference
import test_model
from data.conditions import _read_table
from data.files import Reader
from data.inputs import context_of
from errors import UserError
from tasks import isp, run_data
from tasks.data import note_darkness, open_data
from tasks.model import open_model
from training.checkpoint import save_generator
from training.distributed import ALONE

from ..fit_runs import vary

CPU = torch.device("cpu")
QUICK = {"mode": "synthetic", "content": 0, "tv": 0, "color": 0, "lpips": 0, "dists": 0, "mse": 1}


@pytest.fixture
def config(larger_config):
    return larger_config


@pytest.fixture
def noted(config):
    """The same scenes with a table of gains and exposures."""
    root = Path(config.data.root)
    for split in ("train", "val"):
        names = sorted(path.name for path in (root / split / "mediatek_raw").iterdir())
        lines = [f"{name},{1.5 + 0.1 * i},{1.2 + 0.05 * i},{0.1 * i - 0.5}" for i, name in enumerate(names)]
        (root / split / "metadata.csv").write_text("\n".join(["file,red_gain,blue_gain,exposure_value", *lines]))
    return vary(config, model="efficient-context", data={"normalise": "as_shot"})


@pytest.mark.usefixtures("restored", "cached_networks")
@pytest.mark.parametrize("mode", ("unpaired", "synthetic", "paired"))
def test_a_run_on_normalised_mosaics_is_trained_resumed_scored_and_tested(noted, mode, call, tmp_path):
    config = vary(noted, train={"mode": mode} if mode != "synthetic" else QUICK, pretrain={"steps": 2})
    folder = fit.train(config)
    last = sorted((folder / "checkpoints").glob("step_*.pt"))[-1]
    model = open_model(str(last), CPU)
    assert (model.normalisation, model.name) == ("as_shot", "efficient-context")
    assert fit.train(vary(config, train={"steps": config.train.steps + 1}), resume=True) == folder
    own = ["--run", folder.name, "--runs", str(folder.parent)]
    assert call(inference, "--all", "--measures", "psnr", *own)[0] == 0
    assert call(test_model, "--step", "1", "--split", "val", "--measures", "psnr", *own)[0] == 0
    raws = Path(config.data.root) / "val" / "mediatek_raw"
    given = ["--checkpoint", str(last), "--input", str(raws), "--output", str(tmp_path / "out")]
    assert call(test_model, *given)[0] == 0
    images = [iio.imread(tmp_path / "out" / path.name) for path in sorted(raws.iterdir())]
    reader = Reader(model.sensor, (0, 0), "as_shot")
    for path, image in zip(sorted(raws.iterdir()), images, strict=True):
        mosaic = reader.mosaic_tensor(reader.mosaic(path))[None]
        assert np.abs(model.develop(mosaic, model.sensor)[0].permute(1, 2, 0).numpy().astype(int) - image).max() <= 1


def test_patches_have_the_context_of_their_files(noted):
    for mode, train in (("paired", {"mode": "paired"}), ("synthetic", QUICK)):
        config = vary(noted, train=train)
        stage = isp.build_task(config, CPU, ALONE, resume=False).stages[1]
        loaded = next(stage.batches(0))
        assert loaded["context"].shape == (config.data.batch, 15), mode
        assert torch.equal(stage.prepare(loaded).inputs[:, 4:, 0, 0], loaded["context"])


def test_a_table_belongs_to_the_data_of_a_run(noted):
    before = isp.build_task(noted, CPU, ALONE, resume=False).identity
    (Path(noted.data.root) / "val" / "metadata.csv").open("a").write("\n9999.png,1,1,0")
    assert len(before["tables"]) == 2 and isp.build_task(noted, CPU, ALONE, resume=False).identity != before


def test_a_dataset_with_a_table_can_be_moved(noted):
    before = isp.build_task(noted, CPU, ALONE, resume=False).identity
    root = Path(noted.data.root)
    moved = root.rename(root.with_name("moved"))
    assert isp.build_task(vary(noted, data={"root": str(moved)}), CPU, ALONE, resume=False).identity == before


def test_a_mosaic_without_notes_is_noticed_before_training(noted):
    table = Path(noted.data.root) / "train" / "metadata.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("7.")))
    _read_table.cache_clear()
    with pytest.raises(UserError, match="metadata.csv has no line for 7.png"):
        open_data(noted)


@pytest.mark.usefixtures("restored", "cached_networks")
def test_a_mosaic_without_notes_is_noticed_before_anything_is_rendered(noted, call, tmp_path):
    checkpoint = sorted((fit.train(noted) / "checkpoints").glob("step_*.pt"))[-1]
    raws = Path(noted.data.root) / "val" / "mediatek_raw"
    table = raws.parent / "metadata.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("1.")))
    _read_table.cache_clear()
    status, output = call(
        test_model, "--checkpoint", checkpoint, "--input", raws, "--output", tmp_path / "out", "--device", "cpu"
    )
    assert status == 2 and "metadata.csv has no line for 1.png" in output and not (tmp_path / "out").exists()


def test_dark_mosaics_are_noticed_whatever_they_are_multiplied_by(noted, capsys):
    splits, reader, _ = open_data(vary(noted, data={"white_level": 16383.0, "black_level": (0.0,) * 4}))
    note_darkness(splits["train"], reader)
    assert "check --data.white-level" in capsys.readouterr().err


def test_samples_and_signs_are_of_whole_files(noted):
    """The context of a crop would be another one."""
    stage_data = isp.build_task(noted, CPU, ALONE, resume=False).validation
    generator, seen = isp.build_generator("efficient-context", "")[1], []
    generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0, 4:, 0, 0].clone()))
    splits, reader, _ = open_data(noted)
    paths = splits["train"].raws
    wanted = [context_of(reader.mosaic_tensor(reader.mosaic(path))[None], reader.sensor)[0] for path in paths]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_data, "WATCHED_SIDE", 32)
        stage_data.health(generator)
    assert len(seen) == len(wanted)
    for found, expected in zip(seen, wanted, strict=True):
        torch.testing.assert_close(found, expected)


def test_starting_from_another_normalisation_is_noted(noted, config, capsys):
    source = isp.build_task(noted, CPU, ALONE, resume=False)
    path = Path(noted.data.root) / "noted.pt"
    save_generator(path, source.generator, 1, source.description)
    isp.build_generator("", str(path), "rggb", "off")
    assert "was trained with --data.normalise as_shot, this run has off" in capsys.readouterr().err


@pytest.mark.parametrize("train", ({"adv_lin0": 0, "adv_lin3": 0}, {"critic_every": 10}))
def test_a_warm_up_without_a_critic_to_train_is_refused(config, train):
    train = QUICK | {"mode": "synthetic_gan", "steps": 20, "critic_warmup": 5} | train
    with pytest.raises(UserError, match="no critic is trained in the first 5 steps"):
        isp.build_task(vary(config, pretrain={"steps": 0}, train=train), CPU, ALONE, resume=False)


@pytest.mark.usefixtures("restored", "cached_networks")
def test_a_model_of_another_normalisation_is_refused(noted, config, call):
    first = fit.train(vary(noted, run="noted"))
    second = fit.train(vary(config, run="plain"))
    checkpoint = str(sorted((second / "checkpoints").glob("step_*.pt"))[-1])
    own = ["--run", first.name, "--runs", str(first.parent)]
    for script, arguments in (
        (inference, ["--checkpoint", checkpoint]),
        (test_model, ["--step", "1", "--split", "val", "--compare", checkpoint]),
    ):
        status, output = call(script, *arguments, "--measures", "psnr", *own)
        assert status == 2
        assert "was trained with --data.normalise off, and these mosaics are read with as_shot" in output
