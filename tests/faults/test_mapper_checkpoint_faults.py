"""Checkpoints of mappers that are damaged, or of another task: one sentence, and nothing is written."""

from pathlib import Path

import pytest
import torch

import fit
import map_raw
import storage
from errors import UserError
from tasks.mapping import open_mapper

from ..fit_runs import make_config as make_isp_config
from ..fit_runs import make_dataset, vary
from ..mapper_runs import make_config, options, write_dataset
from .commands import refused

pytestmark = pytest.mark.usefixtures("restored_module")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cameras") / "data")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory, restored_module) -> Path:
    """The folder of a finished run. Tests do not change it."""
    return fit.train(make_config(root, tmp_path_factory.mktemp("runs"), mapping={"steps": 1}))


@pytest.fixture(scope="module")
def isp(tmp_path_factory, restored_module) -> Path:
    """A checkpoint of an ISP."""
    folder = tmp_path_factory.mktemp("isp")
    config = make_isp_config(make_dataset(folder / "data"), folder / "runs")
    light = {"mode": "paired", "mse": 1, "lpips": 0, "dists": 0, "content": 0, "steps": 1}
    run = fit.train(vary(config, train=light, pretrain={"steps": 0}))
    return run / "checkpoints" / "step_0000001.pt"


def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "step_0000001.pt"


def test_an_isp_is_no_start_of_a_mapper(call, root, tmp_path, isp):
    given = [
        each for each in options(root, tmp_path / "runs", "--init", isp) if each not in ("--mapping.start", "identity")
    ]
    given = [each for each in given if each not in ("--model", "mapper-plain")]
    assert "is an ISP, not a raw-to-raw mapper: train one with fit.py raw2raw" in refused(call, fit, *given)


def test_a_mapper_is_no_start_of_an_isp(call, finished, tmp_path):
    data = make_dataset(tmp_path / "data")
    where = ["--data.root", data, "--runs", tmp_path / "runs", "--data.no-demo", "--backbones.vit", "test_vit"]
    given = ["demo", *where, "--init", checkpoint(finished), "--device", "cpu", "--data.patch", "32"]
    output = refused(call, fit, *given, "--data.val-count", "0", "--data.test-count", "0")
    assert "is a raw-to-raw mapper, not an ISP: see map_raw.py" in output


def test_a_mapper_of_another_network_is_refused(call, root, finished, tmp_path):
    given = [each for each in options(root, tmp_path / "runs") if each not in ("--mapping.start", "identity")]
    given += ["--init", str(checkpoint(finished)), "--model", "mapper"]
    assert "holds the mapper 'mapper-plain', not 'mapper': set --model mapper-plain" in refused(call, fit, *given)


def lacks(name: str):
    return lambda content: content.pop(name)


@pytest.mark.parametrize(
    "change, sentence",
    (
        (lacks("sensors"), "it does not say of which cameras it is"),
        (lacks("cameras"), "it does not say of which cameras it is"),
        (lacks("config"), "it does not say of which cameras it is"),
        (lambda content: content["sensors"].pop("b"), "it does not say of which cameras it is"),
        (lambda content: content["sensors"]["b"].update(cfa="rgbw"), "it does not say of which cameras it is"),
        (lambda content: content["sensors"]["b"].update(white_level="x"), "it does not say of which cameras it is"),
        (lambda content: content.update(cameras=3), "it does not say of which cameras it is"),
        (lambda content: content["cameras"].update(a=3), "a.pt"),
        (lambda content: content.update(config={"task": 3}), "task"),
        (lambda content: content["generator"].pop("start_a"), "weights that do not fit its model 'mapper-plain'"),
        (lambda content: content["generator"]["start_a"].fill_(torch.nan), "not finite: its training diverged"),
        (lambda content: content.update(model="other"), "unknown model 'other'"),
        (lacks("generator"), "is not a checkpoint of fit.py"),
    ),
)
def test_a_damaged_checkpoint_is_refused(call, root, finished, tmp_path, change, sentence):
    content = storage.load(checkpoint(finished))
    change(content)
    storage.save(tmp_path / "a.pt", content)
    with pytest.raises(UserError, match=sentence):
        open_mapper(str(tmp_path / "a.pt"), CPU)
    folder = ["--input", root / "paired" / "a", "--output", tmp_path / "out", "--to", "b", "--device", "cpu"]
    assert sentence in refused(call, map_raw, *folder, "--checkpoint", tmp_path / "a.pt")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_names_no_cameras_can_still_be_a_start(root, finished, tmp_path):
    """Its weights are all that is used."""
    content = storage.load(checkpoint(finished))
    del content["sensors"]
    storage.save(tmp_path / "a.pt", content)
    folder = fit.train(make_config(root, tmp_path / "runs", init=str(tmp_path / "a.pt"), mapping={"steps": 0}))
    assert (folder / "summary.json").exists()
