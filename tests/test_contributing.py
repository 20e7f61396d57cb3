"""CONTRIBUTING.md is true: its examples add networks, layouts, a mode, a map, measures, and the commands use them."""

import json
import re
import shlex
from pathlib import Path

import pytest

import fit
import inference
import map_raw
import process_set
import test_model as testing
from data.folders import LAYOUTS
from data.raw_maps import METHODS
from data.two_cameras import CAMERA_LAYOUTS
from evaluation.metrics import MEASURES
from evaluation.protocols import PROTOCOLS
from evaluation.tables import read_table
from models import MAPPERS, MODELS
from tasks.modes import MODES

from . import mapper_runs, two_cameras

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(re.findall(r"### ([^\n]+)\n\n```python\n(.*?)```", TEXT, re.DOTALL))
TABLES = (MODELS, LAYOUTS, CAMERA_LAYOUTS, METHODS, MAPPERS, MODES, MEASURES, PROTOCOLS)
OPTIONS = shlex.split("""
demo --data.no-demo --device cpu --data.patch 32 --data.batch 2 --data.val-count 0 --data.test-count 0
--backbones.weights random --pretrain.steps 1 --train.steps 2 --log.every 1 --log.val-every 2 --log.save-every 1
--model tiny --data.layout mycamera --train.mode colour_only --train.mse 1
""")


@pytest.fixture
def extended():
    """All examples are run; afterwards the tables are as before."""
    before = [dict(table) for table in TABLES]
    for example in EXAMPLES.values():
        exec(compile(example, "CONTRIBUTING.md", "exec"), {})
    yield
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)


def test_each_example_fits_in_ten_lines():
    mapping = ["A layout of two cameras", "A map between two cameras", "A mapper between two cameras"]
    rest = ["A training mode", "A measure", "A protocol"]
    assert list(EXAMPLES) == ["A network", "A dataset layout", *mapping, *rest]
    assert all(len([line for line in example.splitlines() if line]) <= 10 for example in EXAMPLES.values())


def test_the_examples_train_score_and_report(extended, make_pairs, call, tmp_path):
    root, runs = tmp_path / "data", tmp_path / "runs"
    for split, count in (("train", 4), ("val", 2)):
        make_pairs(root / split / "dng", root / split / "jpg", count, seed=count)
    assert call(fit, *OPTIONS, "--data.root", root, "--runs", runs, "--run", "mine")[0] == 0
    log = [json.loads(line) for line in (runs / "mine" / "log.jsonl").read_text().splitlines()]
    step = next(line for line in log if line["stage"] == "train")
    assert {"loss/mse", "loss/tv", "loss/color", "norm/color"} <= step.keys() and "loss/content" not in step

    run = (f"--runs={runs}", "--run=mine")
    assert call(inference, "--all", *run, "--measures", "mae")[0] == 0
    assert call(inference, "--all", *run, "--protocol", "mine", "--measures", "mae", "psnr")[0] == 0
    status, output = call(process_set, "--rank", *run, "--measures", "mae")
    assert status == 0 and "2 of 2 checkpoints" in output
    ranking = (runs / "mine" / "scores" / "ranking.csv").read_text().splitlines()
    scores = [float(line.split(",")[3]) for line in ranking if line[0].isdigit()]
    assert scores == sorted(scores)  # the smallest error first

    status, output = call(testing, *run, "--split", "val", "--measures", "mae", "ssim")
    assert status == 0 and "MAE" in output
    best = json.loads((runs / "mine" / "best.json").read_text())
    table = read_table(runs / "mine" / "test" / Path(best["checkpoint"]).stem / "metrics.csv")
    assert table.mean["mae"] == pytest.approx(best["mae"], abs=1e-6)
    page = (runs / "mine" / "report.html").read_text()
    assert "MAE (levels)" in page and "tiny, 444 parameters" in page


def test_the_examples_map_one_camera_to_another(extended, call, tmp_path):
    found = two_cameras.write_folders(tmp_path)
    output = tmp_path / "mapped"
    options = two_cameras.fit(found, "brightness")
    assert call(map_raw, "--input", found["a"], "--output", output, "--device", "cpu", *options)[0] == 0
    assert len(two_cameras.names(output)) >= 10

    for name, folder in zip(("first", "second"), found.values(), strict=True):
        folder.rename(tmp_path / name)
    given = mapper_runs.options(tmp_path, tmp_path / "runs", "--data.layout", "bodies", "--mapping.steps", "1")
    given[given.index("mapper-plain")] = "mapper-plain-pooled"
    status, output = call(fit, *given)
    assert (
        status == 0 and "mapper-plain-pooled on cpu, mosaics of two cameras to train on, 10 of a and 10 of b" in output
    )


def test_every_place_that_the_document_names_exists():
    for path, names in re.findall(r"`([\w/]+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", TEXT):
        text = (ROOT / path).read_text()
        for name in re.findall(r"\w+", names):
            assert re.search(rf"\b{name}\b", text), f"{path} has no {name}"
    for folder in re.findall(r"`([\w/]+/)`", TEXT):
        assert (ROOT / folder).is_dir(), folder
