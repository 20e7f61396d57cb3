"""Scoring checkpoints: the figures, that nothing is scored twice, and what goes wrong."""

from pathlib import Path

import pytest
import torch

import inference
from build import open_model, open_run
from data.folders import read_photo
from data.sensor import prepare
from metrics import psnr
from models import build_model
from scores import checkpoints, read_table

CPU = torch.device("cpu")


def scorer(run: Path, rank: str = "paired", at_once: int = 0) -> inference.Scorer:
    _, config = open_run(str(run.parent), run.name)
    return inference.Scorer(config, inference.open_board(run, config, rank, "paper", ["psnr"]), CPU, at_once)


def options(run: Path) -> tuple[str, ...]:
    return f"--run={run.name}", f"--runs={run.parent}", "--device=cpu"


def by_hand(run: Path, path: Path) -> float:
    """The mean PSNR of a checkpoint, file by file."""
    _, config = open_run(str(run.parent), run.name)
    splits, reader, _ = inference.open_data(config)
    model, values = open_model(str(path), CPU), []
    for raw, photo in zip(splits["val"].raws, splits["val"].photos, strict=True):
        mosaic = reader.mosaic_tensor(reader.mosaic(raw))[None]
        target = torch.from_numpy(read_photo(photo).copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            image = model.generator(prepare(mosaic, reader.sensor, model.generator.input_format))
        values.append(float(psnr(image, target)))
    return sum(values) / len(values)


@pytest.mark.parametrize("model", ("efficient", "robust", "rmfa-tiny"))
@pytest.mark.parametrize("at_once", (0, 3))
def test_many_at_a_time_score_what_one_scores_alone(make_run, model, at_once):
    run = make_run(model=model, count=4)
    subject = scorer(run, at_once=at_once)
    assert subject.score(checkpoints(run)) == {}
    for path in checkpoints(run):
        table = subject.board.read(path)
        assert set(table.rows) == {"0.png", "1.png", "2.png"}
        assert table.mean["psnr"] == pytest.approx(by_hand(run, path), abs=1e-4)


def test_what_is_scored_is_scored_again_only_if_it_changed(make_run, monkeypatch):
    run, evaluated = make_run(), []
    evaluate = inference.Scorer.evaluate

    def watched(self, models):
        evaluated.extend(Path(model.source).stem for model in models)
        return evaluate(self, models)

    monkeypatch.setattr(inference.Scorer, "evaluate", watched)
    scorer(run).score(checkpoints(run)[:2])
    scorer(run).score(checkpoints(run))
    assert evaluated == [f"step_00000{step}" for step in (10, 20, 30, 40, 50)]
    checkpoints(run)[3].write_bytes(checkpoints(run)[0].read_bytes())
    scorer(run).score(checkpoints(run))
    assert evaluated[5:] == ["step_0000040"]


def test_a_checkpoint_that_changes_meanwhile_is_not_taken_for_scored(make_run, monkeypatch):
    run = make_run(count=2)
    path, other = checkpoints(run)
    evaluate, subject = inference.Scorer.evaluate, scorer(run)

    def changed(self, models):
        results = evaluate(self, models)
        path.write_bytes(other.read_bytes())
        return results

    with monkeypatch.context() as patch:
        patch.setattr(inference.Scorer, "evaluate", changed)
        assert "changed while it was scored" in subject.score([path])[path]
    assert not subject.board.done(path)
    assert subject.score([path]) == {}
    assert subject.board.read(path).mean["psnr"] == pytest.approx(by_hand(run, other), abs=1e-4)


def test_the_files_are_read_once(make_run, monkeypatch):
    run, reads = make_run(count=40), []
    whole_files = inference.whole_files
    monkeypatch.setattr(inference, "whole_files", lambda *a: reads.append(a) or whole_files(*a))
    scorer(run).score(checkpoints(run))
    assert len(reads) == 1


def test_the_table_says_what_it_is_of(make_run, call):
    run = make_run()
    assert call(inference, 20, *options(run), "--measures", "psnr", "ssim")[0] == 0
    table = read_table(run / "scores" / "step_0000020.csv")
    assert table.columns == ("psnr", "ssim") and table.head["checkpoint"] == "step_0000020.pt"
    assert table.head["protocol"].startswith("paper: ") and table.head["data"].startswith("3 files")
    assert table.mean["ssim"] == pytest.approx(sum(row["ssim"] for row in table.rows.values()) / 3, abs=1e-6)


def test_protocols_do_not_overwrite_each_other(make_run, call):
    run = make_run()
    for protocol in ("paper", "ntire26"):
        assert call(inference, 20, *options(run), "--protocol", protocol)[0] == 0
    tables = [read_table(run / "scores" / part / "step_0000020.csv") for part in ("", "ntire26")]
    assert [table.head["protocol"].split(":")[0] for table in tables] == ["paper", "ntire26"]


def test_checkpoints_by_step_by_index_and_all(make_run, call):
    run = make_run()
    there = lambda: sorted(path.stem[-2:] for path in (run / "scores").glob("*.csv"))  # noqa: E731
    assert call(inference, 20, 50, *options(run))[0] == 0 and there() == ["20", "50"]
    assert call(inference, "--n", 4, "--remainder", 0, *options(run))[0] == 0 and there() == ["10", "20", "50"]
    status, said = call(inference, "--all", *options(run))
    assert status == 0 and len(there()) == 5 and "5 of 5 checkpoints are scored" in said and "3 were already" in said


def test_a_foreign_file_of_weights_is_scored_by_what_it_holds(make_run, call, tmp_path):
    run = make_run(count=1)
    torch.manual_seed(0)
    torch.save(build_model("efficient").state_dict(), tmp_path / "released.pth")
    assert call(inference, "--checkpoint", tmp_path / "released.pth", *options(run))[0] == 0
    assert call(inference, "--all", *options(run))[0] == 0
    released, ours = (read_table(run / "scores" / name).mean for name in ("released.csv", "step_0000010.csv"))
    assert released == ours


def test_another_run_s_checkpoint_leaves_the_table_of_our_own(make_run, call):
    run, other = make_run(), make_run("other")
    assert call(inference, "--all", *options(run))[0] == 0
    table = (run / "scores" / "step_0000010.csv").read_bytes()
    (other / "checkpoints" / "step_0000010.pt").write_bytes((other / "checkpoints" / "step_0000020.pt").read_bytes())
    assert call(inference, "--checkpoint", other / "checkpoints" / "step_0000010.pt", *options(run))[0] == 0
    assert (run / "scores" / "step_0000010.csv").read_bytes() == table
    theirs, ours = (read_table(run / "scores" / f"{name}.csv") for name in ("other_step_0000010", "step_0000020"))
    assert theirs.mean == ours.mean
    same = run / ".." / run.name / "checkpoints" / "step_0000010.pt"
    assert "1 were already" in call(inference, "--checkpoint", same, *options(run))[1]


def test_a_broken_checkpoint_is_named_and_the_others_go_on(make_run, call):
    run = make_run()
    paths = checkpoints(run)
    paths[1].write_bytes(b"no checkpoint")
    content = torch.load(paths[2], weights_only=True)
    content["generator"]["conv1.bias"][0] = float("nan")
    torch.save(content, paths[2])
    status, said = call(inference, "--all", *options(run))
    assert status == 2 and "Traceback" not in said
    assert "step_0000020.pt is no readable" in said and "step_0000030.pt has weights that are not finite" in said
    assert {path.stem for path in (run / "scores").glob("*.csv")} == {"step_0000010", "step_0000040", "step_0000050"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (("30", "35"), "no checkpoint of step 35; nearest are: 30, 40"),
        (("--n", "100", "--remainder", "7"), "none of index modulo 100 in 7"),
        (("--n", "0"), "--remainder must lie between"),
        (("--n", "4", "--remainder", "4"), "--remainder must lie between"),
        (("--all", "--at-once", "-1"), "--at-once must not be negative"),
        (("--checkpoint", "not there"), "no file not there"),
        (("--all", "--measures", "delta_e", "--protocol", "pyiqa"), "protocol 'pyiqa' has no measure 'delta_e'"),
        (("--all", "--data-root", "nowhere"), "no folder nowhere"),
    ),
)
def test_a_mistake_ends_in_a_sentence(make_run, call, arguments, sentence):
    status, said = call(inference, *arguments, *options(make_run()))
    assert status == 2 and sentence in said and "Traceback" not in said


def test_an_unknown_run_is_told_which_there_are(make_run, call):
    run = make_run()
    status, said = call(inference, "--all", "--run=other", f"--runs={run.parent}")
    assert status == 2 and "no run" in said and "tiny" in said


def test_without_pairs_there_is_the_other_ranking(make_run, call):
    run = make_run(layout="folders", pairs="no")
    config = (run / "config.json").read_text()
    root = run.parents[1] / "data" / "train"
    config = config.replace('"raw": ""', f'"raw": "{root / "mediatek_raw"}"')
    (run / "config.json").write_text(config.replace('"photos": ""', f'"photos": "{root / "fujifilm"}"'))
    status, said = call(inference, "--all", *options(run))
    assert status == 2 and "no validation pairs" in said and "--rank unpaired" in said
    assert call(inference, 10, 20, *options(run), "--rank", "unpaired")[0] == 0
    table = read_table(run / "scores" / "unpaired" / "step_0000010.csv")
    assert table.columns == ("unpaired", "texture", "semantics", "color", "content")
    assert len(table.rows) == 4 and table.head["photographs"] == "4" and table.head["vit"].startswith("random")
