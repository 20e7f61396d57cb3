"""List the runs, show one, or compare several. It reads the files of their folders, and changes none of them.

python runs.py [list] [--runs DIR] [--json]
python runs.py show NAME
python runs.py compare NAME NAME ... [--page FILE]     also writes a page with the learning curves of all
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from config import config as default
from config import open_run
from data.notes import note
from errors import printable, run_cli
from evaluation.comparison import FOREIGN, KIND, MOST_RUNS, incomparable, write_comparison
from evaluation.health import alarms
from evaluation.history import read_history, read_summary, read_usage
from evaluation.protocols import all_measures
from evaluation.report import refuse_foreign, table
from evaluation.text_table import text_table
from tasks.runs import (
    Overview,
    changed_settings,
    compare_settings,
    read_overview,
    read_overviews,
    run_folders,
    settings_table,
)
from tasks.table import TASKS
from training.log import Progress

MEGABYTE = 1e6
SPARE = ("stage", "mode", "MB", "model", "last write", "best", "preset")  # columns that a narrow terminal goes without
RANKS = 5  # best checkpoints that `show` names
MANY = 100  # runs to read, from which on a progress bar is shown
MEASURES = all_measures()
LABELS = {name: measure.heading for name, measure in MEASURES.items()}
DIGITS = {name: measure.digits for name, measure in MEASURES.items()}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit together."""
    options = argparse.ArgumentParser("runs.py", description="List the runs, show one, or compare several.")
    add = options.add_argument
    add("command", nargs="?", choices=("list", "show", "compare"), default="list", help="(default: list)")
    add("names", nargs="*", metavar="NAME", help="one run to show, or several to compare")
    add("--runs", default=default.runs, metavar="DIR", help="the folder of all runs (%(default)s)")
    add("--json", action="store_true", help="print JSON, for scripts")
    add("--page", metavar="FILE", help="page of compare (default: compare.html in the folder of all runs)")
    given = options.parse_intermixed_args(arguments)
    for name in ("runs", "page"):
        if getattr(given, name) == "":
            options.error(f"--{name} is empty: give it a value, or leave it out")
    if given.page and given.command != "compare":
        options.error("--page is for compare")
    if given.command == "list" and given.names:
        options.error(f"list takes no names: python runs.py show {given.names[0]}")
    if given.command == "show" and len(given.names) != 1:
        options.error("show takes the name of one run")
    if given.command == "compare" and not 2 <= len(set(given.names)) == len(given.names) <= MOST_RUNS:
        options.error(f"compare takes the names of 2 to {MOST_RUNS} different runs")
    return given


def print_json(content: Any) -> None:
    """Print JSON, with null for NaN and infinity."""
    finite = json.loads(json.dumps(content), parse_constant=lambda name: None)
    print(json.dumps(finite, indent=2))


def print_table(content: dict, spare: Sequence[str] = ()) -> None:
    """Print a table, in a terminal not wider than that."""
    print(*text_table(content, shutil.get_terminal_size().columns if sys.stdout.isatty() else 0, spare), sep="\n")


# --- list ------------------------------------------------------------------------------------------------------------


def list_runs(given: argparse.Namespace) -> None:
    """Print a row for each run. Folders that cannot be read are named, and left out."""
    runs = Path(given.runs)
    count = len(run_folders(runs))
    with Progress("read", 0, count, unit="run", quiet=count < MANY) as progress:
        found, damaged = read_overviews(runs, progress.update)
    if given.json:
        print_json({"runs": [dataclasses.asdict(run) for run in found], "damaged": damaged})
        return
    if found:
        print_table(table([_row(run) for run in found], {}, {"PSNR (dB)": 2, "MB": 1}), SPARE)
    elif not damaged:
        print(f"no runs in {runs}: python fit.py begins one")
    for name, reason in damaged.items():
        note(f"{name} is left out: {reason}")


def _row(run: Overview) -> dict[str, Any]:
    measure, best = MEASURES.get(run.ranked_by), ""
    if run.best is not None:
        score = f"{run.best:.{measure.digits}f}" if measure else f"{run.best:.4g}"
        best = f"{measure.label if measure else run.ranked_by} {score} at {run.best_step}"
    return {
        "run": run.name,
        "preset": _preset(run),
        "model": run.model,
        "mode": run.mode,
        "stage": run.stage,
        "steps": run.done,
        "of": run.planned or None,
        "PSNR (dB)": run.psnr,
        "best": best,
        "MB": run.size / MEGABYTE,
        "last write": _time(run),
        "status": run.status,
    }


def _preset(run: Overview) -> str:
    return run.preset + (f" +{run.changed}" if run.preset and run.changed else "")


def _time(run: Overview) -> str:
    return datetime.fromtimestamp(run.modified).strftime("%Y-%m-%d %H:%M") if run.modified else ""


# --- show ------------------------------------------------------------------------------------------------------------


def show_run(given: argparse.Namespace) -> None:
    """Print what the files of a run's folder say of it."""
    folder, config = open_run(given.runs, given.names[0])
    usage, (log, ranking, ranked_by) = read_usage(folder), read_history(folder)
    run, start = read_overview(folder, config, usage), log[0] if log else {}
    settings, summary, heard = changed_settings(config, run.preset), read_summary(folder), alarms(log)
    weights, ranking = start.get("weights", {}), ranking[:RANKS]
    files = [{"kind": k, "files": usage.counts[k], "MB": size / MEGABYTE} for k, size in sorted(usage.sizes.items())]
    if given.json:
        figures = {"validation": summary, "ranked_on": ranked_by, "ranking": ranking}
        facts = {"weights": weights, "warning": start.get("warning", ""), "alarms": heard, "files": files}
        print_json(dataclasses.asdict(run) | {"settings": settings} | figures | facts)
        return
    print(printable(str(folder)))
    print(f"  {run.model}, mode {run.mode}, preset {_preset(run) or 'unknown'}; last written {_time(run) or 'never'}")
    of = f" of {run.planned}" if run.planned else ""
    print(f"  {run.status}, {run.done}{of} steps" + (f", in stage {run.stage}" if run.stage else ""))
    _section(f"Settings that differ from {run.preset or 'the defaults'}", settings_table(settings))
    scores = {name: score for name, score in summary.items() if name != "final"} | {"newest": run.psnr}
    _section("Validation PSNR, dB", table([scores] if run.psnr is not None else [], {}, dict.fromkeys(scores, 2)))
    _section(f"Best checkpoints, by {ranked_by}", table(ranking, LABELS, DIGITS))
    sources = [{"name": name, "from": str(source)} for name, source in weights.items()]
    _section("Frozen networks and fits", table(sources, {}, {}))
    _section("Files", table(files, {}, {"MB": 1}))
    if start.get("warning"):
        print(f"\nwarning: {printable(start['warning'])}")
    print("\n" + ("\n".join(f"alarm: {printable(sentence)}" for sentence in heard) or "no alarms"))


def _section(heading: str, content: dict) -> None:
    """Print a table with its heading; nothing without rows."""
    if content["rows"]:
        print(f"\n{printable(heading)}")
        print_table(content)


# --- compare ---------------------------------------------------------------------------------------------------------


def compare_runs(given: argparse.Namespace) -> None:
    """Print how runs differ in settings and figures, and write a page with their learning curves."""
    page = Path(given.page or Path(given.runs) / "compare.html")
    refuse_foreign(page, KIND, FOREIGN)
    folders, configs = {}, {}
    for name in given.names:
        folders[name], configs[name] = open_run(given.runs, name)
    logs, rows = {}, []
    references = dict.fromkeys(name for config in configs.values() for name in TASKS[config.task].references)
    for name in given.names:
        logs[name], ranking, _ = read_history(folders[name])
        run = read_overview(folders[name], configs[name], read_usage(folders[name]))
        summary, best = read_summary(folders[name]), ranking[0] if ranking else {}
        scores = {reference: summary.get(reference) for reference in references} | {"newest": run.psnr}
        measures = {column: score for column, score in best.items() if column not in ("rank", "checkpoint", "step")}
        rows.append({"run": name, "steps": run.done, **scores, "best": best.get("checkpoint", ""), **measures})
    warnings = incomparable(folders)
    warnings += [f"{name}: {log[0]['warning']}" for name, log in logs.items() if log and log[0].get("warning")]
    settings = compare_settings(configs)
    figures = table(rows, LABELS, DIGITS | dict.fromkeys((*references, "newest"), 2))
    write_comparison(page, figures, settings_table(settings), logs, warnings)
    if given.json:
        print_json({"settings": settings, "figures": rows, "warnings": warnings, "page": str(page)})
        return
    print("Figures: validation PSNR in dB; then the best checkpoint by its ranking")
    print_table(figures)
    _section("Settings that differ", settings_table(settings))
    print(*(f"\nwarning: {printable(sentence)}" for sentence in warnings), sep="", end="\n" if warnings else "")
    print(f"\npage: {page}")


def main() -> None:
    given = parse(sys.argv[1:])
    {"list": list_runs, "show": show_run, "compare": compare_runs}[given.command](given)


if __name__ == "__main__":
    run_cli(main)
