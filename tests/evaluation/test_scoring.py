"""The scorer: many checkpoints at once get the scores that each gets alone, and nothing is scored or read twice."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tasks.scoring
from config import open_run
from data.inputs import prepare
from data.photographs import read_photo
from errors import UserError
from evaluation.metrics import psnr
from evaluation.scoring import Scorer
from evaluation.tables import checkpoints
from tasks.data import open_data
from tasks.model import open_model
from tasks.scoring import open_scorer, open_tables

CPU = torch.device("cpu")


def scorer(run: Path, at_once: int = 0) -> Scorer:
    """A scorer of the run's checkpoints by PSNR."""
    _, config = open_run(str(run.parent), run.name)
    return open_scorer(config, open_tables(run, config, "paired", "paper", ["psnr"]), CPU, at_once)


def psnr_by_hand(run: Path, path: Path, axes: tuple[int, ...] = ()) -> float:
    """The mean PSNR of a checkpoint, file by file; mosaics are mirrored along `axes`, to the order of its camera."""
    _, config = open_run(str(run.parent), run.name)
    splits, reader, _ = open_data(config)
    model, values = open_model(str(path), CPU), []
    for raw, photo in zip(splits["val"].raws, splits["val"].photos, strict=True):
        mosaic = reader.mosaic_tensor(reader.mosaic(raw))[None]
        target = torch.from_numpy(read_photo(photo).copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            sensor = replace(model.levels_for(reader.sensor), cfa=model.sensor.cfa)
            image = model.generator(prepare(mosaic.flip(axes), sensor, model.spec.input_format)).flip(axes)
        values.append(float(psnr(image, target)))
    return sum(values) / len(values)


@pytest.mark.parametrize("model", ("efficient", "robust", "rmfa-tiny"))
@pytest.mark.parametrize("at_once", (0, 3))
def test_scores_equal_those_computed_file_by_file(make_run, model, at_once):
    run = make_run(model=model, count=4)
    subject = scorer(run, at_once=at_once)
    assert subject.score(checkpoints(run)) == {}
    for path in checkpoints(run):
        table = subject.tables.read(path)
        assert set(table.rows) == {"0.png", "1.png", "2.png"}
        assert table.mean["psnr"] == pytest.approx(psnr_by_hand(run, path), abs=1e-4)


@pytest.mark.parametrize("cfa, axes", (("rggb", ()), ("grbg", (-1,)), ("bggr", (-2, -1))))
def test_models_of_an_rggb_camera_are_scored_on_mirrored_mosaics_of_another(make_run, cfa, axes):
    run = make_run(count=2, cfa=cfa)
    scorer(run).score(checkpoints(run))
    for path in checkpoints(run):
        assert scorer(run).tables.read(path).mean["psnr"] == pytest.approx(psnr_by_hand(run, path, axes), abs=1e-4)


def test_files_that_are_too_small_for_a_network_are_refused(make_run):
    run = make_run(model="microisp", count=1)
    with pytest.raises(UserError, match="model 'microisp' needs images of 158 pixels a side; one here has 64"):
        scorer(run).score(checkpoints(run))
    assert not scorer(run).tables.is_complete(checkpoints(run)[0])


def test_unchanged_checkpoints_are_not_scored_again(make_run, monkeypatch):
    run, evaluated = make_run(), []
    evaluate = Scorer.evaluate

    def watched(self, models):
        evaluated.extend(Path(model.source).stem for model in models)
        return evaluate(self, models)

    monkeypatch.setattr(Scorer, "evaluate", watched)
    scorer(run).score(checkpoints(run)[:2])
    scorer(run).score(checkpoints(run))
    assert evaluated == [f"step_00000{step}" for step in (10, 20, 30, 40, 50)]
    checkpoints(run)[3].write_bytes(checkpoints(run)[0].read_bytes())
    scorer(run).score(checkpoints(run))
    assert evaluated[5:] == ["step_0000040"]


def test_the_scores_of_a_checkpoint_that_changes_meanwhile_are_not_stored(make_run, monkeypatch):
    run = make_run(count=2)
    path, other = checkpoints(run)
    evaluate, subject = Scorer.evaluate, scorer(run)

    def changed(self, models):
        results = evaluate(self, models)
        path.write_bytes(other.read_bytes())
        return results

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "evaluate", changed)
        assert "changed while it was being scored: score it again" in subject.score([path])[path]
    assert not subject.tables.is_complete(path)
    assert subject.score([path]) == {}
    assert subject.tables.read(path).mean["psnr"] == pytest.approx(psnr_by_hand(run, other), abs=1e-4)


def test_the_files_are_read_once(make_run, monkeypatch):
    run, reads = make_run(count=40), []
    whole_files = tasks.scoring.whole_files
    monkeypatch.setattr(tasks.scoring, "whole_files", lambda *a: reads.append(a) or whole_files(*a))
    scorer(run).score(checkpoints(run))
    assert len(reads) == 1
