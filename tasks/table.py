"""The tasks by name: what fit.py and runs.py need of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from config import Config
from tasks import isp, raw_to_raw, settings
from tasks.camera import with_camera
from tasks.cameras import with_cameras
from tasks.modes import planned_steps
from training.distributed import Group
from training.task import Task


@dataclass(frozen=True)
class TaskSpec:
    """A task as a command sees it. All of its functions raise `UserError` for what a user can mend."""

    build: Callable[[Config, torch.device, Group, bool], Task]
    check_names: Callable[[Config], None]
    refuse_ineffective: Callable[[Config, Sequence[str]], None]  # of a new run; the fields that the user has set
    with_cameras: Callable[[Config, Sequence[str]], Config]  # the config, completed by what camera files say
    planned_steps: Callable[[Config], dict[str, int]]  # of each stage


# A new task is a row here, and a name in config.Config.task.
TASKS = {
    "isp": TaskSpec(isp.build_task, isp.check_names, settings.refuse_ineffective, with_camera, planned_steps),
    "raw2raw": TaskSpec(
        raw_to_raw.build_task,
        raw_to_raw.check_names,
        raw_to_raw.refuse_ineffective,
        with_cameras,
        raw_to_raw.planned_steps,
    ),
}
