"""Runs as a whole, for runs.py: what each was told to do, how far it is, how good, and in what several differ."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config import PRESETS, Config, differences, flat, load
from errors import UserError
from evaluation.history import Usage, is_running, read_last, read_summary, read_usage
from evaluation.tables import read_best
from tasks.modes import MODES
from tasks.table import TASKS

MOST_CHANGED = 16  # settings; a run that differs in more from every preset is of none of them
# Where things are, and what does not change the result: two runs of one preset may differ in these.
PLACES = {
    *(
        "run",
        "runs",
        "device",
        "data.root",
        "data.raw",
        "data.photos",
        "data.camera",
        "data_b.raw",
        "data_b.camera",
        "data.workers",
        "data.cache",
        "data.cache_dir",
    ),
    *("backbones.vgg_file", "backbones.alexnet_file", "backbones.vit_file"),
}
LEVELS = {f"{camera}.{level}" for camera in ("data", "data_b") for level in ("cfa", "black_level", "white_level")}
TRACES = ("config.json", "log.jsonl", "last.pt", "checkpoints")  # a folder with one of these is, or was, a run


@dataclass(frozen=True)
class Overview:
    """A run in one row of a table."""

    name: str
    preset: str  # the one whose settings are nearest; "" if that cannot be told
    changed: int  # settings in which the run differs from that preset, without places
    model: str
    mode: str
    stage: str  # "" if no step is logged
    done: int  # steps, over all stages
    planned: int  # steps, over all stages; 0: the run's mode is unknown here
    status: str  # "running", "finished", "stopped" or "not begun"
    psnr: float | None  # of the newest validation, dB; None: no pairs
    ranked_by: str  # the measure of the best checkpoint; "" if the run is not ranked
    best: float | None  # its score
    best_step: int | None
    size: int  # of all files, bytes
    modified: float  # when a file was last written, in seconds since 1970


def read_overview(folder: Path, config: Config, usage: Usage) -> Overview:
    """The overview of a run from its files. Raises `UserError` or `OSError` if one of them cannot be read."""
    last, best, summary = read_last(folder), read_best(folder), read_summary(folder)
    planned = TASKS[config.task].planned_steps(config) if config.train.mode in MODES else {}
    before = list(planned)[: list(planned).index(last.stage)] if last.stage in planned else []
    done, total = sum(planned[stage] for stage in before) + last.step, sum(planned.values())
    score = best.get(best.get("ranked_by"))
    preset, changed = nearest_preset(config)
    return Overview(
        name=folder.name,
        preset=preset,
        changed=len(changed),
        model=config.model,
        mode=TASKS[config.task].mode(config),
        stage=last.stage,
        done=done,
        planned=total,
        status=_status(folder, done, bool(summary) and done >= total, usage),
        psnr=last.psnr if last.psnr is not None else summary.get("final"),
        ranked_by=best.get("ranked_by", ""),
        best=score if isinstance(score, int | float) else None,
        best_step=best.get("step"),
        size=usage.total,
        modified=usage.modified,
    )


def _status(folder: Path, done: int, finished: bool, usage: Usage) -> str:
    if is_running(folder):
        return "running"
    if finished:
        return "finished"
    begun = done or "checkpoints/" in usage.counts or (folder / "last.pt").exists()  # few steps are not logged yet
    return "stopped" if begun else "not begun"


def nearest_preset(config: Config) -> tuple[str, list[str]]:
    """(the preset that differs from a config in the fewest settings, these settings); PLACES do not count.

    ("", the settings that differ from the defaults) if two presets are equally near, or all of them far.
    """
    changes = {name: _changes(preset, config) for name, preset in PRESETS.items()}
    first, second = sorted(changes, key=lambda name: len(changes[name]))[:2]
    if len(changes[first]) == len(changes[second]) or len(changes[first]) > MOST_CHANGED:
        return "", _changes(Config(), config)
    return first, changes[first]


def _changes(before: Config, after: Config) -> list[str]:
    before = replace(before, model=before.model or "efficient")  # as fit.py takes it
    places = PLACES | (LEVELS if after.task == "raw2raw" else set())  # which mappers take from the cameras' files
    return [name for name in differences(before, after) if name not in places]


def read_overviews(
    runs: Path, progress: Callable[[int], None] = lambda done: None
) -> tuple[list[Overview], dict[str, str]]:
    """(all runs in a folder, the newest last; {folder: why it cannot be read}). `progress` gets the number done."""
    found, damaged = [], {}
    for number, folder in enumerate(run_folders(runs), 1):
        try:
            found.append(read_overview(folder, load(folder / "config.json"), read_usage(folder)))
        except UserError as error:
            damaged[folder.name] = str(error)
        except OSError as error:
            damaged[folder.name] = f"cannot read {error.filename or folder}: {error.strerror}"
        progress(number)
    return sorted(found, key=lambda run: (run.modified, run.name)), damaged


def run_folders(runs: Path) -> list[Path]:
    """The folders in `runs` that hold traces of a run. Raises `UserError` if there is no such folder."""
    if not runs.is_dir():
        raise UserError(f"no folder {runs}: name the folder of your runs with --runs")
    folders = sorted(path for path in runs.glob("[!.]*") if path.is_dir())
    return [path for path in folders if any((path / trace).exists() for trace in TRACES)]


# --- settings --------------------------------------------------------------------------------------------------------


def compare_settings(configs: dict[str, Config]) -> dict[str, dict[str, Any]]:
    """{setting: {run: its value}} of the settings that are not equal in all configs {run: config}."""
    first, *others = configs.values()
    values = {run: flat(config) for run, config in configs.items()}
    names = [name for name in differences(first, *others) if name not in ("run", "runs")]
    return {name: {run: values[run][name] for run in configs} for name in names}


def changed_settings(config: Config, preset: str) -> dict[str, dict[str, Any]]:
    """The same of a run, "value", and the preset, or, if that is "", of the run and the "default" values."""
    return compare_settings({"value": config, preset or "default": PRESETS.get(preset, Config())})


def settings_table(settings: dict[str, dict[str, Any]]) -> dict:
    """The result of `compare_settings` as a table like those of `evaluation.report.table`."""
    columns = ["setting", *next(iter(settings.values()), {})]
    rows = [[name, *map(_as_text, values.values())] for name, values in settings.items()]
    return {"columns": [(column, "text") for column in columns], "rows": rows}


def _as_text(value: Any) -> str:
    """A value as the command line takes it; a dash for nothing."""
    if isinstance(value, dict):
        return " ".join(f"{name} {_as_text(item)}" for name, item in value.items()) or "–"
    if isinstance(value, tuple):
        return " ".join(map(_as_text, value)) or "–"
    return (value if isinstance(value, str) else json.dumps(value)) or "–"
