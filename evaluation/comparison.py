"""A page that compares runs: figures, settings that differ, and the learning curves of all in common charts."""

import json
from collections.abc import Mapping
from pathlib import Path

from evaluation.charts import COLOURS, compared_curves
from evaluation.health import alarms
from evaluation.report import refuse_foreign, write_page
from evaluation.tables import read_best

KIND = "Learned ISP, comparison of runs"
FOREIGN = "no page of runs.py: name another file with --page"
MOST_RUNS = COLOURS  # that can be told apart in a chart


def write_comparison(path: Path, scores: dict, settings: dict, logs: Mapping[str, list[dict]], warnings: list) -> None:
    """Write the page. `scores` and `settings` are tables of `evaluation.report.table`, `logs` are log.jsonl by run.

    Raises `UserError` if another file is at `path`.
    """
    refuse_foreign(path, KIND, FOREIGN)
    write_page(
        path,
        "compare.html",
        title=", ".join(logs),
        kind=KIND,
        warnings=warnings,
        scores=scores,
        settings=settings,
        charts=compared_curves(logs),
        alarms=[f"{run}: {sentence}" for run, log in logs.items() for sentence in alarms(log)],
    )


def incomparable(runs: Mapping[str, Path]) -> list[str]:
    """Why figures of these runs, {name: folder}, do not compare: sentences; none if they do, as far as is known."""
    found = []
    best = [read_best(folder) for folder in runs.values()]
    if len({(facts["protocol"], facts.get("data")) for facts in best if facts}) > 1:
        found.append(
            "the best checkpoints were ranked on different data or by different protocols, so their scores do not "
            "compare: rank them alike (process_set.py), or test both on the same files (test_model.py --compare)"
        )
    files = [_validation_files(folder / "data.json") for folder in runs.values()]
    if len({names for names in files if names}) > 1:
        found.append("the runs were validated on different files, so their validation PSNR does not compare")
    return found


def _validation_files(path: Path) -> str:
    """The names and fingerprints of the validation files in a data.json, as text; "" if unknown."""
    try:
        if not path.is_file():
            return ""
        known = json.loads(path.read_text())
        return json.dumps(known["val"] if "val" in known else [known[camera]["pairs"] for camera in ("a", "b")])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
