"""Raw-to-raw runs with inference.py, process_set.py and runs.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import inference
import process_set
import runs
import storage
from evaluation.tables import checkpoints, read_best, read_ranking, read_table


def options(run: Path) -> tuple[str, ...]:
    return f"--run={run.name}", f"--runs={run.parent}"


# --- inference.py ----------------------------------------------------------------------------------------------------


def test_checkpoints_get_tables_of_both_directions(raw2raw_run, call):
    status, output = call(inference, "--all", *options(raw2raw_run), "--device=cpu")
    assert status == 0 and "2 of 2 checkpoints have scores in" in output and "psnr_ab" in output
    assert "scored: 100% 8/8" in output and "image" in output  # two checkpoints, two pairs in both directions
    table = read_table(raw2raw_run / "scores" / "raw2raw" / "step_0000002.csv")
    assert table.columns == ("psnr", "psnr_ab", "psnr_ba") and set(table.rows) == {"0.png", "1.png"}
    assert table.header["protocol"].startswith("raw2raw: ") and table.header["data"].startswith("4 pairs, ")
    assert table.mean["psnr"] == pytest.approx((table.mean["psnr_ab"] + table.mean["psnr_ba"]) / 2, abs=1e-6)
    assert "2 of them had before" in call(inference, "--all", *options(raw2raw_run), "--device=cpu")[1]


def test_the_score_of_a_checkpoint_is_that_of_validation(raw2raw_run, call):
    """Both are the mean PSNR of the same pairs; validation has each mosaic's, scoring the mean of both directions."""
    assert call(inference, 2, *options(raw2raw_run), "--device=cpu")[0] == 0
    validated = json.loads((raw2raw_run / "summary.json").read_text())["val_psnr"]
    scored = read_table(raw2raw_run / "scores" / "raw2raw" / "step_0000002.csv").mean["psnr"]
    assert scored == pytest.approx(validated["final"], abs=1e-5) and validated["final"] != validated["transport"]


def test_measures_of_mosaics_can_be_named(raw2raw_run, call):
    done = call(inference, 2, *options(raw2raw_run), "--measures", "kl_ab", "angle", "--device=cpu")
    assert done[0] == 0, done[1]
    table = read_table(raw2raw_run / "scores" / "raw2raw" / "step_0000002.csv")
    assert table.columns == ("kl_ab", "angle", "angle_ab", "angle_ba")


def test_a_dataset_that_has_moved_is_named(raw2raw_run, raw2raw_cameras, call, tmp_path):
    moved = shutil.copytree(raw2raw_cameras, tmp_path / "moved")
    config = json.loads((raw2raw_run / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "absent")
    storage.write_json(raw2raw_run / "config.json", config)
    assert "no folder" in call(inference, "--all", *options(raw2raw_run))[1]
    assert call(inference, "--all", *options(raw2raw_run), "--device=cpu", f"--data-root={moved}")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("--all", "--rank", "unpaired"), "--rank unpaired judges photographs, but this run makes mosaics of another"),
        (("--all", "--protocol", "paper"), "protocol 'paper' scores photographs, but this model makes mosaics"),
        (("--all", "--measures", "lpips"), "protocol 'raw2raw' has no measure 'lpips'; known are: psnr, psnr_ab"),
        (("--checkpoint", "isp.pth"), "is not a checkpoint of fit.py"),
    ),
)
def test_what_does_not_fit_a_mapper_is_refused(raw2raw_run, make_files, call, arguments, message):
    weights, *_ = make_files()
    arguments = [str(weights) if argument == "isp.pth" else argument for argument in arguments]
    status, output = call(inference, *arguments, *options(raw2raw_run), "--device=cpu")
    assert status == 2 and message in output and "Traceback" not in output
    assert not list(raw2raw_run.rglob("*.csv"))


def test_isps_and_mappers_are_not_scored_as_each_other(raw2raw_run, make_run, call):
    isp = make_run(count=1)
    mapper, generator = (next((run / "checkpoints").glob("*.pt")) for run in (raw2raw_run, isp))
    status, output = call(inference, "--checkpoint", generator, *options(raw2raw_run), "--device=cpu")
    assert status == 2 and "an ISP, not a raw-to-raw mapper: train one with fit.py raw2raw" in output
    status, output = call(inference, "--checkpoint", mapper, *options(isp), "--device=cpu")
    assert status == 2 and "a raw-to-raw mapper, not an ISP: see map_raw.py" in output
    status, output = call(inference, "--all", *options(isp), "--measures", "mae")
    assert status == 2 and "protocol 'paper' has no measure 'mae'" in output


def test_a_run_without_pairs_is_told_what_to_do(raw2raw_run, raw2raw_cameras, call, tmp_path):
    alone = shutil.copytree(raw2raw_cameras, tmp_path / "alone", ignore=shutil.ignore_patterns("paired", "truth"))
    for script, arguments in ((inference, ("--all",)), (process_set, ("--launcher=local",))):
        status, output = call(script, *arguments, *options(raw2raw_run), f"--data-root={alone}")
        assert status == 2 and "no pairs, of the same scenes: nothing can be scored. Look at the pictures" in output


# --- process_set.py --------------------------------------------------------------------------------------------------


def test_sessions_score_and_rank_mappers(raw2raw_run, call):
    status, output = call(process_set, *options(raw2raw_run), "--launcher=local", "--device=cpu")
    assert status == 0, output
    facts, ranking = read_ranking(raw2raw_run / "scores" / "raw2raw" / "ranking.csv")
    assert facts["protocol"].startswith("raw2raw: ") and [row["rank"] for row in ranking] == [1, 2]
    assert ranking[0]["psnr"] >= ranking[1]["psnr"] and {"psnr_ab", "psnr_ba"} <= ranking[0].keys()
    best = read_best(raw2raw_run)
    assert best["ranked_by"] == "psnr" and best["psnr"] == pytest.approx(ranking[0]["psnr"], abs=1e-6)


@pytest.mark.parametrize(("measure", "sign"), (("ssim", -1), ("mae", 1), ("kl_ba", 1)))
def test_the_best_has_the_highest_or_the_lowest_score(raw2raw_run, call, measure, sign):
    assert call(inference, "--all", *options(raw2raw_run), "--measures", measure, "--device=cpu")[0] == 0
    assert call(process_set, "--rank", *options(raw2raw_run), "--measures", measure)[0] == 0
    folder = raw2raw_run / "scores" / "raw2raw"
    scores = [read_table(folder / f"{path.stem}.csv").mean[measure] for path in checkpoints(raw2raw_run)]
    ranking = read_ranking(folder / "ranking.csv")[1]
    assert scores[0] != scores[1] and ranking[0]["step"] == 1 + int(np.argmin(sign * np.array(scores)))


def test_a_ranking_without_pairs_is_refused(raw2raw_run, call):
    status, output = call(process_set, "--rank", "unpaired", *options(raw2raw_run))
    assert status == 2 and "--rank unpaired judges photographs" in output and not (raw2raw_run / "scores").exists()


# --- runs.py ---------------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_task_and_best_score(raw2raw_run, make_run, call):
    make_run(count=1)
    assert call(inference, "--all", *options(raw2raw_run), "--device=cpu", "--measures", "mae_ab", "psnr")[0] == 0
    assert call(process_set, "--rank", *options(raw2raw_run), "--measures", "mae_ab")[0] == 0
    status, output = call(runs, "--runs", raw2raw_run.parent)
    line = next(line for line in output.splitlines() if line.startswith("raw "))
    best = read_best(raw2raw_run)
    assert status == 0 and line.split()[1] == "raw2raw" and line.split()[3:5] == ["mapper-plain", "raw2raw"]
    assert f"MAE a->b {best['mae_ab']:.4f} at {best['step']}" in line and "finished" in line
    listed = json.loads(call(runs, "--json", "--runs", raw2raw_run.parent)[1])["runs"]
    assert {run["name"]: run["mode"] for run in listed} == {"raw": "raw2raw", "tiny": "unpaired"}


def test_a_run_is_shown_with_its_baselines_and_ranking(raw2raw_run, call):
    assert call(inference, "--all", *options(raw2raw_run), "--device=cpu")[0] == 0
    assert call(process_set, "--rank", *options(raw2raw_run))[0] == 0
    status, output = call(runs, "show", "raw", "--runs", raw2raw_run.parent)
    assert status == 0 and "mapper-plain, mode raw2raw, preset raw2raw +" in output
    lines = [line.split() for line in output.splitlines()]
    assert ["identity", "transport", "newest"] in lines and "Best checkpoints, by psnr on 4 pairs; raw2raw: " in output
    assert "PSNR a->b (dB)" in output and not any(line[:1] == ["data_b.raw"] for line in lines)


def test_runs_are_compared_with_what_each_task_starts_from(raw2raw_run, make_run, call):
    other = shutil.copytree(raw2raw_run, raw2raw_run.with_name("other"))
    compare = ("compare", "raw", "other", "--json", "--runs", raw2raw_run.parent)
    found = json.loads(call(runs, *compare)[1])
    summary = json.loads((raw2raw_run / "summary.json").read_text())["val_psnr"]
    for row in found["figures"]:
        assert row["identity"] == summary["identity"] and row["transport"] == summary["transport"]
        assert "demosaiced" not in row and row["newest"] == pytest.approx(summary["final"])
    assert found["warnings"] == []
    known = json.loads((other / "data.json").read_text())
    known["a"]["pairs"] = known["a"]["pairs"][:1]
    storage.write_json(other / "data.json", known)
    assert "validated on different files" in json.loads(call(runs, *compare)[1])["warnings"][0]
    make_run(count=1)
    found = json.loads(call(runs, "compare", "raw", "tiny", "--json", "--runs", raw2raw_run.parent)[1])
    assert list(found["figures"][0])[:7] == [
        *("run", "steps", "identity", "transport", "demosaiced", "pretrained", "newest")
    ]
