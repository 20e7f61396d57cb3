"""The tasks by name: what fit.py, runs.py, inference.py and process_set.py need of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from config import Config
from evaluation.scoring import CheckpointScorer
from evaluation.tables import ScoreTables
from tasks import isp, raw_scoring, raw_to_raw, scoring, settings
from tasks.camera import with_camera
from tasks.cameras import with_cameras
from tasks.modes import planned_steps
from tasks.recipes import with_recipe
from training.distributed import Group
from training.task import Task


@dataclass(frozen=True)
class TaskSpec:
    """A task as a command sees it. All of its functions raise `UserError` for what a user can mend."""

    build: Callable[[Config, torch.device, Group, bool], Task]
    check_names: Callable[[Config], None]
    refuse_ineffective: Callable[[Config, Sequence[str]], None]  # of a new run; the fields that the user has set
    with_cameras: Callable[[Config, Sequence[str]], Config]  # the config, completed by recipe and camera files
    planned_steps: Callable[[Config], dict[str, int]]  # of each stage
    mode: Callable[[Config], str]  # in a word, how a run of this config is trained
    references: tuple[str, ...]  # names in summary.json: what the validation score is compared with
    # The score tables of a run: its folder and config, --rank, a protocol ("" for the task's own), measures.
    open_tables: Callable[[Path, Config, str, str, Sequence[str]], ScoreTables]
    # What scores a run's checkpoints for these tables, so many at once; its `open` returns the number of files.
    open_scorer: Callable[[Config, ScoreTables, torch.device, int], CheckpointScorer]


# A new task is a row here, and a name in config.Config.task.
TASKS = {
    "isp": TaskSpec(
        build=isp.build_task,
        check_names=isp.check_names,
        refuse_ineffective=settings.refuse_ineffective,
        with_cameras=lambda config, given: with_camera(with_recipe(config, given), given),
        planned_steps=planned_steps,
        mode=lambda config: config.train.mode if config.recipe == "paper" else "published",
        references=("demosaiced", "pretrained"),
        open_tables=scoring.open_tables,
        open_scorer=scoring.open_scorer,
    ),
    "raw2raw": TaskSpec(
        build=raw_to_raw.build_task,
        check_names=raw_to_raw.check_names,
        refuse_ineffective=raw_to_raw.refuse_ineffective,
        with_cameras=with_cameras,
        planned_steps=raw_to_raw.planned_steps,
        mode=lambda config: "raw2raw",
        references=("identity", "transport"),
        open_tables=raw_scoring.open_run_tables,
        open_scorer=raw_scoring.open_scorer,
    ),
}
