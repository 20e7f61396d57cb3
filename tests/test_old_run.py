"""A run folder written before the code was divided into tasks/, training/ and evaluation/: all but resuming works.

golden/old_run/ was written by the commit 6c9aaf0, on the pairs that the fixture `pairs` makes, with

    fit.py demo --run old --device cpu --data.no-demo --data.root datasets/pairs --data.patch 32 --data.batch 2
    --backbones.weights random --pretrain.steps 2 --pretrain.content 0 --pretrain.tv 0.01 --train.mode paired
    --train.steps 2 --train.schedule constant --train.content 0 --train.color 0 --train.lpips 0 --train.dists 0
    --train.mse 1 --train.tv 0.1 --train.ema 0.9 --log.every 1 --log.val-every 2 --log.save-every 2
    --log.state-every 2 --log.samples 1

and its scores/ with inference.py --all, the second time with --rank unpaired.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import fit
import inference
import storage
import test_model
from config import open_run
from data.files import Reader
from data.sensor import SENSORS
from errors import UserError
from evaluation.tables import checkpoints, read_table
from tasks.model import open_model
from tasks.scoring import open_tables

GOLDEN = Path(__file__).parent / "golden" / "old_run"


@pytest.fixture
def run(tmp_path) -> Path:
    """A copy of the old run's folder."""
    return shutil.copytree(GOLDEN, tmp_path / "runs" / "old")


@pytest.fixture
def pairs(tmp_path, make_pairs) -> Path:
    """The dataset that the run was trained on."""
    for part, count in (("train", 4), ("val", 2)):
        folder = tmp_path / "pairs" / part
        make_pairs(folder / "mediatek_raw", folder / "fujifilm", count, seed=count)
    return tmp_path / "pairs"


def test_its_checkpoints_develop_mosaics(run, pairs):
    for path in (*checkpoints(run), run / "checkpoints" / "pretrained.pt"):
        model = open_model(str(path), torch.device("cpu"))
        assert (model.name, model.sensor) == ("efficient", SENSORS["fujifilm"])
        assert model.config.run == "old" and model.config.train.mode == "paired"
        reader = Reader(model.sensor)
        mosaic = reader.mosaic_tensor(reader.mosaic(pairs / "val" / "mediatek_raw" / "0.png"))[None]
        image = model.develop(mosaic, model.sensor)
        assert image.shape == (1, 3, 64, 64) and image.dtype == torch.uint8 and image.float().std() > 1


def test_its_checkpoint_gets_the_same_score_as_before(run, pairs, call):
    before = read_table(run / "scores" / "step_0000002.csv")
    shutil.rmtree(run / "scores")
    options = (f"--runs={run.parent}", "--run=old", f"--data-root={pairs}", "--device=cpu")
    status, output = call(inference, "--all", *options)
    assert status == 0 and "1 of 1 checkpoints have scores in" in output, output
    table = read_table(run / "scores" / "step_0000002.csv")
    assert table.rows.keys() == before.rows.keys()
    in_training = json.loads((run / "summary.json").read_text())["val_psnr"]["final"]
    assert table.mean["psnr"] == pytest.approx(before.mean["psnr"], abs=1e-3)
    assert table.mean["psnr"] == pytest.approx(in_training, abs=1e-3)


def test_its_score_tables_stay_valid(run, pairs):
    """All but the data's digest, in which the files' sizes may differ with the PNG writer.

    Those without pairs are stale, and scored again: the text that describes their scores has changed.
    """
    _, config = open_run(str(run.parent), "old", str(pairs))
    tables, path = open_tables(run, config, "paired", "paper", ["psnr"]), checkpoints(run)[0]
    stored = read_table(tables.path(path))
    expected = tables.header(path)
    assert expected.pop("data").startswith("2 files, ")
    assert expected.items() <= stored.header.items() and stored.columns == tables.columns


def test_it_can_be_tested(run, pairs, call):
    options = (f"--runs={run.parent}", "--run=old", "--step=2", "--split=val", f"--data-root={pairs}", "--device=cpu")
    status, output = call(test_model, *options, "--measures", "psnr")
    assert status == 0, output
    scores = read_table(run / "scores" / "step_0000002.csv").mean["psnr"]
    assert read_table(run / "test" / "step_0000002" / "metrics.csv").mean["psnr"] == pytest.approx(scores, abs=0.05)
    assert (run / "report.html").exists()


@pytest.mark.usefixtures("restored")
def test_it_is_not_continued_but_its_checkpoints_start_another_run(run, pairs):
    """Its critics were others (docs/fidelity.md): the rest of the run would be of another method."""
    options = ["--runs", str(run.parent), "--data.root", str(pairs)]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"{run} was begun by an earlier version .*--run NAME.*--init"):
        fit.train(*fit.parse([*options, "--run", "old", "--resume", "--train.steps", "4"]))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before
    config = json.loads((run / "config.json").read_text())
    weights = {name: value for name, value in config["train"].items() if name in ("content", "lpips", "dists", "mse")}
    settings = [f"--train.{name}={value}" for name, value in weights.items()]
    start = ["--run", "new", "--init", str(run / "checkpoints" / "step_0000002.pt"), "--train.mode", "paired"]
    more = ["--device=cpu", "--data.no-demo", "--data.patch=32", "--data.batch=2", "--backbones.weights=random"]
    folder = fit.train(*fit.parse([*options, *start, *settings, *more, "--train.steps", "1"]))
    assert [path.stem for path in checkpoints(folder)] == ["step_0000001"]


def test_it_names_no_folder_of_the_machine_that_wrote_it():
    for path in (GOLDEN / "config.json", *GOLDEN.rglob("*.pt")):
        config = storage.load(path)["config"] if path.suffix == ".pt" else json.loads(path.read_text())
        assert (config["runs"], config["data"]["root"]) == ("runs", "datasets/pairs")
        assert b"/tmp" not in path.read_bytes() and b"/home" not in path.read_bytes()
