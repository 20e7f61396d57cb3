"""runs.py: the table of runs, one run, and several compared; the folders stay as they are."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import config as settings
import runs as script
import storage
from config import PRESETS, to_dict

OLD = Path(__file__).parent / "golden" / "old_run"
BEST = {"checkpoint": "checkpoints/step_0000020.pt", "step": 20, "sha256": "0", "ranked_by": "psnr", "psnr": 21.5}
FACTS = {"of": 2, "protocol": "paper: of a test", "data": "3 files, abc"}
RANKING = """# protocol: paper: of a test
# data: 3 files, abc
rank,checkpoint,step,psnr,ssim
1,step_0000020,20,21.5,0.75
2,step_0000010,10,20.25,0.5
"""


def write_log(run: Path, *lines: dict) -> None:
    """A log.jsonl of these lines after the first one."""
    start = {"stage": "start", "weights": {"vgg": "random (seeded)"}, "warning": "random networks"}
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (start, *lines)))


def state_of(folder: Path) -> dict[Path, tuple]:
    """Content and modification time of all files and folders below a folder."""
    paths = sorted(folder.rglob("*"))
    return {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else sorted(os.listdir(p))) for p in paths}


@pytest.fixture
def two_runs(make_run) -> Path:
    """The folder of the runs "tiny", stopped at step 20, ranked and with an alarm, and "other", with a smaller lr."""
    tiny, other = make_run(count=2), make_run("other", count=1)
    pretrain = {"stage": "pretrain", "step": 20_000, "loss/mse": 0.1, "norm/mse": 1.0}
    meshes = [{"stage": "train", "step": step, "loss/tv": 0.1, "health/mesh": 4.0} for step in (5, 10, 15)]
    write_log(tiny, pretrain, *meshes, {"stage": "train", "step": 20, "val_psnr": 20.75})
    write_log(other, pretrain, {"stage": "train", "step": 10, "loss/tv": 0.2, "val_psnr": 19.5})
    (tiny / "best.json").write_text(json.dumps(BEST | FACTS))
    (tiny / "scores").mkdir()
    (tiny / "scores" / "ranking.csv").write_text(RANKING)
    config = settings.load(other / "config.json")
    storage.write_json(other / "config.json", to_dict(replace(config, train=replace(config.train, lr=1e-4))))
    os.utime(tiny / "log.jsonl", (2e9, 2e9))  # the newest file of all
    return tiny.parent


def listed(call, folder: Path) -> dict[str, dict]:
    """The rows of `runs.py --json` by name."""
    status, output = call(script, "--json", "--runs", folder)
    assert status == 0, output
    return {run["name"]: run for run in json.loads(output)["runs"]}


# --- list ------------------------------------------------------------------------------------------------------------


def test_the_list_has_a_row_for_each_run_the_newest_last(two_runs, call):
    status, output = call(script, "--runs", two_runs)
    heading, other, tiny = output.splitlines()
    assert status == 0 and other.startswith("other ") and tiny.startswith("tiny ")
    headings = "run, preset, model, mode, stage, steps, of, PSNR (dB), best, MB, last write, status"
    assert re.split(r"  +", heading) == headings.split(", ")
    assert "20020  50000      20.75  PSNR 21.50 at 20  " in tiny and "  2033-05-1" in tiny
    assert tiny.endswith("  stopped")
    assert call(script, "list", f"--runs={two_runs}") == (status, output)


def test_a_run_of_an_earlier_version_is_listed_as_finished(tmp_path, call):
    shutil.copytree(OLD, tmp_path / "old")
    row = listed(call, tmp_path)["old"]
    assert (row["status"], row["done"], row["planned"], row["stage"]) == ("finished", 4, 4, "train")
    assert (row["model"], row["mode"], row["best"]) == ("efficient", "paired", None)
    assert row["psnr"] == pytest.approx(10.854168)
    assert row["size"] == sum(path.stat().st_size for path in (tmp_path / "old").rglob("*") if path.is_file())


def test_a_run_whose_lock_is_held_is_running(two_runs, call):
    with storage.lock(two_runs / "other" / ".lock"):
        assert [run["status"] for run in listed(call, two_runs).values()] == ["running", "stopped"]
    assert listed(call, two_runs)["other"]["status"] == "stopped"


def test_the_folders_stay_as_they_are(two_runs, call, tmp_path):
    before, page = state_of(two_runs), tmp_path / "page.html"
    for command in ("list",), ("show", "tiny"), ("compare", "tiny", "other", "--page", page):
        assert call(script, *command, f"--runs={two_runs}")[0] == 0
    assert state_of(two_runs) == before and page.exists()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    (
        ("config.json", '{"no setting": 1}', "is not a valid config"),
        ("log.jsonl", '{"stage": "train", "step": "ten"}\n', "log.jsonl, line 1 is damaged"),
        ("best.json", "[]", "best.json is damaged: rank the run again"),
        ("summary.json", '{"val_psnr": 7}', "summary.json is damaged"),
        ("config.json", None, "config.json is not a file"),
    ),
)
def test_a_damaged_run_is_named_and_the_others_are_listed(two_runs, call, file, content, reason):
    path = two_runs / "other" / file
    path.unlink() if content is None else path.write_text(content)
    status, output = call(script, "--runs", two_runs)
    assert status == 0 and "\ntiny " in output and f"other is left out: {two_runs / 'other'}" in output
    assert reason in output and "\nother " not in output
    status, output = call(script, "--runs", two_runs, "--json")
    assert reason in json.loads(output)["damaged"]["other"]


def test_other_folders_and_files_are_no_runs(two_runs, call):
    (two_runs / "bench").mkdir()
    (two_runs / ".cache").mkdir()
    (two_runs / "bench" / "times.json").write_text("{}")
    (two_runs / "compare.html").write_text("")
    assert listed(call, two_runs).keys() == {"tiny", "other"}


def test_no_checkpoint_is_opened_and_thousands_of_them_are_no_matter(two_runs, call, monkeypatch):
    folder = two_runs / "tiny" / "checkpoints"
    for step in range(3000):
        (folder / f"step_{step:07d}.pt").write_bytes(b"no weights")
    monkeypatch.setattr(storage, "load", None)
    assert listed(call, two_runs)["tiny"]["size"] > 30_000
    status, output = call(script, "show", "tiny", f"--runs={two_runs}")
    assert status == 0 and [line.split()[1] for line in output.splitlines() if "checkpoints/" in line] == ["3000"]


def test_a_folder_without_runs_says_how_to_begin_one(tmp_path, call):
    status, output = call(script, "--runs", tmp_path)
    assert status == 0 and output == f"no runs in {tmp_path}: python fit.py begins one\n"


def test_names_are_printed_as_text(make_run, call):
    run = make_run(count=1)
    run.rename(run.with_name("\x1b[2Jtiny\n"))
    status, output = call(script, "--runs", run.parent)
    assert status == 0 and "\x1b" not in output and "\\x1b[2Jtiny\\n" in output


# --- show ------------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_with_its_settings_figures_and_alarms(two_runs, call):
    status, output = call(script, "show", "tiny", f"--runs={two_runs}")
    assert status == 0
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "stopped, 20020 of 50000 steps, in stage train" in lines
    assert "data.val_count 0 1024" in lines and not any(line.startswith("run ") for line in lines)
    assert (
        "1 step_0000020 20 21.50 0.7500" in lines and "Best checkpoints, by psnr on 3 files; paper: of a test" in lines
    )
    assert "vgg random (seeded)" in lines and "warning: random networks" in lines
    assert any(line.startswith("alarm: step 15 of train: the images have a mesh") for line in lines)
    assert any(line.startswith("checkpoints/ 2 ") for line in lines)


def test_what_is_shown_is_also_there_for_scripts(two_runs, call):
    status, output = call(script, "show", "other", "--json", f"--runs={two_runs}")
    shown = json.loads(output)
    assert status == 0 and shown["name"] == "other" and shown["psnr"] == 19.5
    assert shown["settings"]["train.lr"]["value"] == 1e-4 and shown["best"] is None and shown["ranking"] == []
    assert shown["alarms"] == [] and {kind["kind"] for kind in shown["files"]} >= {"config.json", "log.jsonl"}


def test_settings_are_those_that_differ_from_the_preset(tmp_path, call):
    quick = PRESETS["quick"]
    changed = replace(quick, run="mine", model="efficient", train=replace(quick.train, lr=0.5))
    storage.write_json(tmp_path / "mine" / "config.json", to_dict(changed))
    status, output = call(script, "show", "mine", f"--runs={tmp_path}")
    assert status == 0 and "preset quick +1; " in output and "not begun, 0 of 4000 steps" in output
    assert ["train.lr", "0.5", "0.004"] in [line.split() for line in output.splitlines()]
    (tmp_path / "mine" / "last.pt").write_bytes(b"")  # stopped before its first logged step
    assert "stopped, 0 of 4000 steps" in call(script, "show", "mine", f"--runs={tmp_path}")[1]


# --- compare ---------------------------------------------------------------------------------------------------------


def test_two_runs_are_compared(two_runs, call):
    status, output = call(script, "compare", "tiny", "other", f"--runs={two_runs}")
    assert status == 0
    rows = [line.split() for line in output.splitlines()]
    assert ["tiny", "20020", "–", "–", "20.75", "step_0000020", "21.50", "0.7500"] in rows
    assert ["other", "20010", "–", "–", "19.50", "–", "–", "–"] in rows
    assert [row for row in rows if row and row[0].startswith(("train.", "data."))] == [["train.lr", "0.0005", "0.0001"]]
    assert f"page: {two_runs / 'compare.html'}" in output


def test_a_page_of_runs_is_replaced_and_nothing_else(two_runs, call, tmp_path):
    page, compare = tmp_path / "page.html", ("compare", "tiny", "other", f"--runs={two_runs}", "--page")
    assert call(script, *compare, page)[0] == call(script, *compare, page)[0] == 0
    page.write_text("<!doctype html> mine")
    status, output = call(script, *compare, page)
    assert status == 2 and "is no page of runs.py" in output and page.read_text() == "<!doctype html> mine"
    assert call(script, *compare, tmp_path)[0] == 2


def test_figures_that_do_not_compare_are_warned_about(two_runs, call):
    compare = ("compare", "tiny", "other", f"--runs={two_runs}", "--json")
    before = json.loads(call(script, *compare)[1])["warnings"]
    assert before == ["tiny: random networks", "other: random networks"]
    for name, digest in (("tiny", "abc"), ("other", "def")):
        best = BEST | FACTS | {"data": f"3 files, {digest}"}
        (two_runs / name / "best.json").write_text(json.dumps(best))
        (two_runs / name / "data.json").write_text(json.dumps({"val": [["1.png", digest]]}))
    first, second, *rest = json.loads(call(script, *compare)[1])["warnings"]
    assert "ranked on different data" in first and "validated on different files" in second and rest == before


def test_the_comparison_is_also_there_for_scripts(two_runs, call):
    status, output = call(script, "compare", "other", "tiny", f"--runs={two_runs}", "--json")
    found = json.loads(output)
    assert status == 0 and found["settings"] == {"train.lr": {"other": 1e-4, "tiny": 5e-4}}
    assert [row["newest"] for row in found["figures"]] == [19.5, 20.75] and Path(found["page"]).is_file()


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ("tell", "invalid choice"),
        ("list tiny", "list takes no names: python runs.py show tiny"),
        ("show", "show takes the name of one run"),
        ("show a b", "show takes the name of one run"),
        ("compare a", "compare takes the names of 2 to 9 different runs"),
        ("compare a a", "compare takes the names of 2 to 9 different runs"),
        ("compare a b c d e f g h i j", "compare takes the names of 2 to 9 different runs"),
        ("--page x.html", "--page is for compare"),
        ("compare a b --page=", "--page is empty"),
        ("--runs=", "--runs is empty"),
        ("--runs absent", "no folder absent: name the folder of your runs with --runs"),
        ("show --runs absent tiny", "no run absent/tiny; existing runs: none"),
        ("compare a b --runs absent", "no run absent/a; existing runs: none"),
    ),
)
def test_mistakes_end_with_a_sentence(call, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output = call(script, *arguments.split())
    assert status == 2 and message in output and "Traceback" not in output and not list(tmp_path.iterdir())
