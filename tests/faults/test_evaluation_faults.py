"""Damaged runs and impossible options of inference.py, process_set.py and test_model.py end in one sentence.

A case is a row of a table: its name, how the input is bad, and what the sentence says.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import inference
import process_set
import test_model as script
from errors import UserError
from evaluation.evaluators import kernel_distance
from evaluation.history import read_history
from evaluation.tables import checkpoints, read_best, read_ranking, read_table, step_of
from tasks.scoring import open_tables

from .bad_files import rows
from .commands import options, refused

DEEP = "[" * 100_000
BEST = {"checkpoint": "checkpoints/step_0000010.pt", "sha256": "0", "protocol": "paper: p", "ranked_by": "psnr"}
RANKING = "# protocol: paper: p\n# data: 3 files, abc\nrank,checkpoint,step,psnr\n1,step_0000010,10,20.5\n"


# --- damaged files of a run ------------------------------------------------------------------------------------------

LOGS = (
    ("not JSON", b'{"stage": "start"}\nnonsense}\n', "line 2 is damaged"),
    ("zeros after a crash", b'{"stage": "start"}\n' + b"\x00" * 50 + b'\n{"stage": "t", "step": 1}\n', "line 2"),
    ("not text", b'\xff\xfe{"stage": "start"}\n{}\n', "line 1 is damaged"),
    ("a list", b'[{"a": 1}]\n{"stage": "start"}\n', "line 1 is damaged"),
    ("a number", b'7\n{"stage": "start"}\n', "line 1 is damaged"),
    ("deeply nested", b"[" * 100_000 + b'\n{"stage": "start"}\n', "line 1 is damaged"),
    ("no stage", b'{"step": 1, "loss/mse": 1.0}\n', "line 1 is damaged"),
    ("a stage that is a number", b'{"stage": 1, "step": 1}\n', "line 1 is damaged"),
    ("a step that is text", b'{"stage": "train", "step": "1"}\n', "line 1 is damaged"),
    ("a step that is a fraction", b'{"stage": "train", "step": 1.5}\n', "line 1 is damaged"),
    ("a step of 400 digits", b'{"stage": "train", "step": 1' + b"0" * 400 + b"}\n", "line 1 is damaged"),
    ("a loss that is text", b'{"stage": "train", "step": 1, "loss/mse": "low"}\n', "line 1 is damaged"),
    ("a loss that is null", b'{"stage": "train", "step": 1, "loss/mse": null}\n', "line 1 is damaged"),
    ("weights that are a list", b'{"stage": "start", "weights": ["vgg"]}\n', "line 1 is damaged"),
    ("a warning that is a list", b'{"stage": "start", "warning": [1]}\n', "line 1 is damaged"),
)

BESTS = (
    ("a list", "[]"),
    ("a number", "7"),
    ("null", "null"),
    ("empty", ""),
    ("numbers where texts are", json.dumps(dict.fromkeys(BEST, 1))),
    ("null where texts are", json.dumps(dict.fromkeys(BEST))),
    ("lists where texts are", json.dumps(dict.fromkeys(BEST, []))),
    ("no checkpoint", json.dumps({key: BEST[key] for key in ("sha256", "protocol", "ranked_by")})),
    ("deeply nested", DEEP),
    ("not text", "\udcff"),
)

RANKINGS = (
    ("a score that is text", RANKING.replace("20.5", "high")),
    ("a row with fewer cells", RANKING.replace(",20.5", "")),
    ("a row with more cells", RANKING.replace("20.5", "20.5,1")),
    ("no checkpoints", RANKING.replace("checkpoint", "name")),
    ("a heading alone that is no heading", "# a\n"),
    ("a comment without a colon", RANKING.replace("# data: 3 files, abc", "# data")),
    ("not text", RANKING + "\udcff\n"),
    ("zeros", "\x00" * 5000 + "\n" + "\x00" * 200_000),
)


@pytest.mark.parametrize(("content", "sentence"), rows(LOGS))
def test_a_damaged_log_is_named_with_its_line(tmp_path, content, sentence):
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_history(tmp_path)
    assert "log.jsonl" in str(caught.value) and "remove this line" in str(caught.value)


def test_a_log_that_is_shorter_than_expected_is_shown_as_far_as_it_goes(tmp_path):
    lines = ['{"stage": "start"}', '{"stage": "train", "step": 1, "loss/mse": NaN}', '{"stage": "train", "st']
    for count, complete in enumerate((0, 1, 2, 2)):
        (tmp_path / "log.jsonl").write_text("\n".join(lines[:count]))
        assert len(read_history(tmp_path)[0]) == complete


def test_a_damaged_log_is_refused_before_anything_is_rendered(make_run, call):
    run = make_run(count=1)
    (run / "log.jsonl").write_text("nonsense}\n")
    assert "log.jsonl, line 1 is damaged" in refused(call, script, *options(run), "--step=10", "--split=val")
    assert not (run / "test").exists() and not (run / "report.html").exists()


@pytest.mark.parametrize("content", rows(BESTS))
def test_a_damaged_best_json_says_how_to_mend_it(make_run, call, content):
    run = make_run(count=1)
    (run / "best.json").write_text(content, errors="surrogateescape")
    for arguments in (), ("--step=10", "--split=val"):
        output = refused(call, script, *options(run), *arguments)
        assert "best.json is damaged: rank the run again (process_set.py --run tiny)" in output
    assert not (run / "test").exists()


def test_ranking_again_mends_a_damaged_best_json_and_ranking(make_run, call):
    run = make_run(count=1)
    assert call(inference, "--all", *options(run))[0] == 0
    (run / "best.json").write_text(DEEP)
    (run / "scores" / "ranking.csv").write_text("\x00")
    assert call(process_set, "--rank", *options(run)[:2])[0] == 0
    assert read_best(run)["step"] == 10 and read_history(run)[1][0]["checkpoint"] == "step_0000010"


@pytest.mark.parametrize("content", rows(RANKINGS))
def test_a_damaged_ranking_says_how_to_mend_it(tmp_path, content):
    (tmp_path / "scores").mkdir()
    (tmp_path / "best.json").write_text(json.dumps(BEST))
    (tmp_path / "scores" / "ranking.csv").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"ranking.csv is damaged: rank the run again \(process_set.py --rank\)"):
        read_history(tmp_path)


def test_an_empty_ranking_is_one_that_is_not_there(tmp_path):
    (tmp_path / "ranking.csv").write_text("")
    assert read_ranking(tmp_path / "ranking.csv") == read_ranking(tmp_path / "none.csv") == ({}, [])


def test_a_missing_or_nested_config_is_named(make_run, call):
    run = make_run(count=1)
    (run / "last.pt").write_bytes(b"a training state")
    (run / "config.json").write_text(DEEP)
    for command, arguments in ((inference, ["--all"]), (process_set, []), (script, ["--step=10"])):
        assert "config.json is not a valid config" in refused(call, command, *options(run), *arguments)
    (run / "config.json").unlink()
    for command, arguments in ((inference, ["--all"]), (process_set, []), (script, ["--step=10"])):
        assert "no run" in refused(call, command, *options(run), *arguments)
    assert (run / "last.pt").read_bytes() == b"a training state"


# --- odd files in checkpoints/ ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("step_²³.pt", "step_٣.pt", "step_1_0.pt", "step_+5.pt", "step_.pt", b"step_1\xff.pt"))
def test_other_names_in_checkpoints_are_ignored(make_run, call, name):
    run = make_run(count=2)
    shutil.copy(checkpoints(run)[0], os.fsencode(run / "checkpoints") + b"/" + os.fsencode(name))
    assert [step_of(path) for path in checkpoints(run)] == [10, 20]
    status, output = call(inference, "--all", *options(run))
    assert status == 0 and "2 of 2 checkpoints have scores" in output


def test_a_folder_and_a_link_to_nothing_are_named_and_the_others_scored(make_run, call):
    run = make_run(count=2)
    (run / "checkpoints" / "step_0000030.pt").mkdir()
    (run / "checkpoints" / "step_0000040.pt").symlink_to("nowhere")
    output = refused(call, inference, "--all", *options(run))
    assert "step_0000030.pt" in output and "step_0000040.pt" in output and "2 of 4 checkpoints have scores" in output
    assert call(inference, "--checkpoint", checkpoints(run)[1], *options(run))[0] == 0


def test_names_that_are_not_utf_8_are_printed_and_scored(make_run, call):
    run = make_run(os.fsdecode(b"na\xffme"), count=1)
    other = os.fsdecode(os.fsencode(run) + b"/w\xfc.pth")
    shutil.copy(checkpoints(run)[0], other)
    for command, arguments in (
        (inference, ["--all"]),
        (inference, ["--checkpoint", other]),
        (process_set, ["--rank"]),
        (script, ["--split=val"]),
    ):
        status, output = call(command, *options(run)[: 2 if command is process_set else 3], *arguments)
        assert status == 0 and "na\\udcffme" in output, output


# --- options ---------------------------------------------------------------------------------------------------------

HUGE = 10**30
OPTIONS = (
    ("n of 0", process_set, ("--n", 0), "--n must be at least 1, but is 0"),
    ("n below 0", process_set, ("--n", -4), "--n must be at least 1, but is -4"),
    ("huge step", process_set, ("--n", 10, "--step", HUGE), "--step must lie between 1 and --n"),
    ("n of inference.py below 0", inference, ("--n", -4), "--n must be at least 1, but is -4"),
    ("huge remainder", inference, ("--n", HUGE, "--remainder", HUGE - 1), "none of index modulo"),
    ("huge at-once", inference, ("--all", "--at-once", HUGE), "--at-once must lie between 0 and 1024"),
    ("huge at-once in sessions", process_set, ("--at-once", 10**6), "--at-once must lie between 0 and 1024"),
    ("device without values", inference, ("--all", "--device", "meta"), "device 'meta' cannot be used"),
    ("the same in sessions", process_set, ("--device", "meta"), "device 'meta' cannot be used"),
    ("the same to test", script, ("--step=10", "--device", "meta"), "device 'meta' cannot be used"),
    ("no device", process_set, ("--device", "banana"), "device 'banana' cannot be used"),
    ("huge quality", script, ("--format=jpg", "--quality", HUGE), "--quality: invalid choice"),
    ("quality below 0", script, ("--format=jpg", "--quality", -5), "--quality: invalid choice"),
    ("empty output", script, ("--step=10", "--output", ""), "--output is empty: give it a value, or leave it out"),
    ("empty checkpoint", script, ("--checkpoint", ""), "--checkpoint is empty: give it a value, or leave it out"),
)


@pytest.mark.parametrize(("command", "arguments", "sentence"), rows(OPTIONS))
@pytest.mark.usefixtures("quick")
def test_values_of_options_that_are_refused(make_run, call, command, arguments, sentence):
    run = make_run(count=2)
    assert sentence in refused(call, command, *options(run), *arguments)
    assert not (run / "scores").exists() and not (run / "test").exists()


@pytest.mark.parametrize("n", (10**9, HUGE))
@pytest.mark.usefixtures("quick")
def test_sessions_are_planned_only_for_remainders_with_checkpoints(make_run, monkeypatch, n):
    run = make_run(count=3)
    given = process_set.parse([*options(run), f"--n={n}", "--step=2", "--launcher=local"])
    tables = open_tables(run, process_set.open_run(given.runs, given.run)[1], "paired", "paper")
    assert [session.remainder for session in process_set.plan(given, run, tables)] == ["0", "2"]
    monkeypatch.setattr(process_set, "MAX_SESSIONS", 1)
    with pytest.raises(
        UserError, match="would start 2 sessions at once, more than 1: choose a smaller --n, or a larger"
    ):
        process_set.plan(given, run, tables)


def test_a_measure_named_twice_is_one_column(make_run, call):
    run = make_run(count=1)
    assert call(inference, "--all", *options(run), "--measures", "psnr", "ssim", "psnr")[0] == 0
    assert read_table(run / "scores" / "step_0000010.csv").columns == ("psnr", "ssim")


@pytest.mark.parametrize("sizes", ((1, 5), (5, 1), (1, 1), (0, 5)))
def test_the_distance_without_pairs_needs_two_images_on_each_side(sizes):
    with pytest.raises(UserError, match="needs at least two mosaics and two photographs, but compares"):
        kernel_distance(*(torch.rand(size, 4) for size in sizes))


@pytest.mark.parametrize("command", (inference, process_set))
def test_one_mosaic_is_too_few_to_rank_without_pairs(make_run, call, command):
    run = make_run(count=1)
    for folder in ("mediatek_raw", "fujifilm"):
        for name in ("0.png", "1.png"):
            (run.parents[1] / "data" / "val" / folder / name).unlink()
    which = ["--all"] if command is inference else ["--n", 1]
    output = refused(call, command, *options(run), *which, "--rank", "unpaired")
    assert "needs at least two mosaics and two photographs, but this run has 1 and 4" in output
    assert not (run / "scores").exists()


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    (
        ("--workers", "-1", "--workers must not be negative"),
        ("--repeats", "0", "argument --repeats: 0 is less than 1"),
        ("--batch", "-3", "argument --batch: -3 is less than 1"),
    ),
)
def test_a_benchmark_refuses_numbers_with_which_nothing_is_measured(monkeypatch, capsys, option, value, sentence):
    file = Path(script.__file__).parent / "benchmarks" / "data.py"
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.setattr("sys.argv", ["data.py", option, value])
    spec = importlib.util.spec_from_file_location("benchmark_data", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 2 and sentence in capsys.readouterr().err


# --- sessions --------------------------------------------------------------------------------------------------------


def test_slurm_without_sbatch_says_that_nothing_was_started(make_run, call, monkeypatch, tmp_path):
    run = make_run(count=2)
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    status, output = call(process_set, *options(run), "--launcher=slurm")
    assert status == 0 and "1 sessions, 0 of them started now; sbatch is not installed here" in output


def test_tmux_that_is_not_installed_is_named(make_run, call, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    output = refused(call, process_set, *options(make_run(count=2)), "--launcher=tmux")
    assert "tmux is not installed here: use --launcher local" in output


def test_slurm_without_squeue_leaves_the_job_running(make_run, call, monkeypatch, tmp_path):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 7\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    output = refused(call, process_set, *options(make_run(count=1)), "--launcher=slurm")
    assert "job array 7 cannot be watched" in output and "process_set.py --rank" in output
