"""What scoring is built of: the unpaired evaluator's precision, and the facts of the score tables."""

import functools
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch

from config import Compute, Released, open_run
from data.folders import Split
from data.reference import Reference
from data.sensor import SENSORS
from errors import UserError
from evaluation.tables import ScoreTables, checkpoints
from pretrained import backbones
from tasks.scoring import (
    build_measures,
    build_test_evaluator,
    build_unpaired_evaluator,
    open_scorer,
    open_tables,
    validation_split,
)

CPU = torch.device("cpu")


@pytest.fixture
def photographs(tmp_path) -> Split:
    """Two photographs of 64x64 pixels."""
    paths = tuple(tmp_path / f"{i}.png" for i in range(2))
    for i, path in enumerate(paths):
        noise = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(i))
        iio.imwrite(path, noise.byte().numpy())
    return Split(paths, paths, paired=False)


def test_the_unpaired_evaluator_normalises_its_inputs_whatever_the_run_did(make_config, photographs):
    config, image = replace(make_config(), as_released=True), torch.rand(1, 3, 8, 8)
    evaluator, _ = build_unpaired_evaluator(config, photographs, Reference(SENSORS["fujifilm"]), CPU)
    torch.testing.assert_close(evaluator.vit.normalise(image), (image - 0.5) / 0.5)
    assert not torch.equal(evaluator.alexnet.normalise(image), image)


@pytest.mark.parametrize(
    ("options", "columns"),
    (
        ({}, ("psnr",)),
        ({"released": Released(float_psnr=True)}, ("psnr_float",)),
        ({"as_released": True}, ("psnr_float",)),
    ),
)
def test_checkpoints_are_ranked_by_the_psnr_that_the_run_was_validated_by(make_run, options, columns):
    _, config = open_run(str(make_run().parent), "tiny")
    config = replace(config, **options)
    assert open_tables(Path("run"), config, "paired", "paper").columns == columns
    assert open_tables(Path("run"), config, "paired", "pyiqa").columns == ("psnr",)  # its own functions
    assert open_tables(Path("run"), config, "paired", "paper", ["ssim"]).columns == ("ssim",)


@pytest.mark.parametrize("compute", (Compute(), Compute("bf16"), Compute(compile=True), Compute("bf16", True)))
def test_the_unpaired_evaluator_computes_in_float32_without_compilation(make_config, photographs, monkeypatch, compute):
    """So that scores of runs of different precision compare."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    build = functools.partial(
        build_unpaired_evaluator, train=photographs, reference=Reference(SENSORS["fujifilm"]), device=CPU
    )
    evaluator, notes = build(make_config(compute))
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = {"alexnet": evaluator.alexnet(image)["relu4"], "vit": evaluator.vit(image)}
    for name, network in (("alexnet", evaluator.alexnet), ("vit", evaluator.vit)):
        assert all(module._compiled_call_impl is None for module in network.modules())
        assert {p.dtype for p in network.parameters()} == {outputs[name].dtype} == {torch.float32}
    assert notes["photographs"] == "2" and notes["vit"].startswith("random")
    expected = build(make_config())[0].evaluate(image, torch.ones(2, 1))
    values = evaluator.evaluate(image, torch.ones(2, 1))
    assert all(torch.equal(values[name], value) for name, value in expected.items())


def tables(run, rank: str = "paired", protocol: str = "paper", measures=("psnr",), **changes) -> ScoreTables:
    """The run's tables, after `changes` of the section "data" of its config."""
    _, config = open_run(str(run.parent), run.name)
    return open_tables(run, replace(config, data=replace(config.data, **changes)), rank, protocol, measures)


def test_tables_depend_on_the_data_and_on_how_it_is_read(make_run):
    run = make_run()
    facts = tables(run).facts
    assert facts["data"].startswith("3 files, ") and facts == tables(run).facts
    assert tables(run, white_level=2047.0).facts["data"] != facts["data"]
    photo = next((run.parents[1] / "data" / "val" / "fujifilm").iterdir())
    photo.write_bytes(photo.read_bytes() + b"x")
    assert tables(run).facts["data"] != facts["data"]


def test_tables_name_the_protocol_and_the_weights_of_networks(make_run):
    run = make_run()
    assert tables(run).facts["protocol"].startswith("paper: ") and "weights" not in tables(run).facts
    assert tables(run, measures=("psnr", "lpips")).facts["weights"] == "random"
    assert tables(run).columns == ("psnr",) and tables(run).folder == run / "scores"
    unpaired = tables(run, "unpaired")
    assert unpaired.facts["weights"] == "random" and unpaired.columns[0] == "unpaired"
    assert unpaired.protocol == "unpaired" and unpaired.folder == run / "scores" / "unpaired"
    assert tables(run, protocol="ntire26").folder == run / "scores" / "ntire26"


def test_unpaired_scores_use_evenly_spaced_mosaics_of_the_validation_split_or_else_of_the_training_split(tmp_path):
    paths = tuple(tmp_path / f"{i}.png" for i in range(600))
    split, empty = Split(paths, paths, paired=True), Split((), (), paired=True)
    for splits in ({"train": split.take(range(2)), "val": split}, {"train": split, "val": empty}):
        assert validation_split(splits, "unpaired") == Split(paths[::3], (), paired=False)


def test_paired_scores_need_validation_pairs():
    empty = Split((), (), paired=True)
    with pytest.raises(UserError, match="no validation pairs.*--rank unpaired"):
        validation_split({"train": empty, "val": empty}, "paired")


def test_measures_name_the_weights_of_their_networks():
    functions, notes = build_measures("paper", ("psnr", "lpips"), "random", CPU)
    assert list(functions) == ["psnr", "lpips"]
    assert list(notes) == ["lpips"] and notes["lpips"].startswith("random")


@pytest.mark.parametrize("options", ({}, {"as_released": True}))
def test_a_protocol_for_mosaics_is_refused_for_photographs(make_run, options):
    _, config = open_run(str(make_run().parent), "tiny")
    with pytest.raises(UserError, match="'raw2raw' scores mosaics of another camera.*choose one of paper, ntire26"):
        open_tables(Path("run"), replace(config, **options), "paired", "raw2raw")
    with pytest.raises(UserError, match="'raw2raw' scores mosaics of another camera"):
        build_test_evaluator((), "raw2raw", (), "random", CPU)


# --- without ground truth ---------------------------------------------------------------------------------------------


def score_unpaired(run: Path, at_once: int = 0, progress=lambda done: None) -> dict[str, dict[str, float]]:
    """{checkpoint: its means} of all of a run's checkpoints, scored by a scorer of its own."""
    _, config = open_run(str(run.parent), run.name)
    subject = open_scorer(config, open_tables(run, config, "unpaired", "paper"), CPU, at_once)
    for table in (run / "scores" / "unpaired").glob("*.csv"):
        table.unlink()
    assert subject.score(checkpoints(run), progress) == {}
    return {path.stem: subject.tables.read(path).mean for path in checkpoints(run)}


def images_seen(monkeypatch) -> list[int]:
    """The number of images of each call of a ViT from now on."""
    seen, forward = [], backbones.ViT.forward
    monkeypatch.setattr(backbones.ViT, "forward", lambda self, image: seen.append(len(image)) or forward(self, image))
    return seen


def test_kept_features_give_the_scores_of_computed_ones(make_run, monkeypatch):
    run = make_run(count=2)
    seen = images_seen(monkeypatch)
    plain = score_unpaired(run)
    assert sum(seen) == 4 + 3 + 2 * 3  # photographs, demosaiced mosaics, outputs of two checkpoints
    assert {path.name for path in (run / "scores" / "unpaired").glob(".*.pt")} == {".photographs.pt", ".references.pt"}
    seen.clear()
    assert score_unpaired(run) == plain and sum(seen) == 2 * 3
    photo = next((run.parents[1] / "data" / "train" / "fujifilm").iterdir())
    iio.imwrite(photo, 255 - iio.imread(photo))
    seen.clear()
    changed = score_unpaired(run)
    assert sum(seen) == 4 + 3 + 2 * 3 and changed["step_0000010"]["unpaired"] != plain["step_0000010"]["unpaired"]


def test_kept_references_are_those_of_their_rendering(make_run, monkeypatch):
    run = make_run(count=1)
    score_unpaired(run)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"rendering": "published"', '"rendering": "camera"'))
    seen = images_seen(monkeypatch)
    score_unpaired(run)
    assert sum(seen) == 4 + 3 + 3


def test_progress_counts_the_images_of_each_checkpoint(make_run):
    run, told = make_run(count=3), []
    score_unpaired(run, at_once=2, progress=lambda done: told.append(round(3 * done, 6)))  # of 3 files each
    assert told[-1] == 9 and told == sorted(told) and 0 < told[0] < 9


def test_a_single_checkpoint_is_scored_with_all_threads(make_run, monkeypatch, restored):
    torch.set_num_threads(2)
    threads, forward = [], backbones.ViT.forward
    run = make_run(count=1)
    score_unpaired(run)
    monkeypatch.setattr(backbones.ViT, "forward", lambda *a: threads.append(torch.get_num_threads()) or forward(*a))
    score_unpaired(run)
    assert threads and set(threads) == {2} and torch.get_num_threads() == 2
