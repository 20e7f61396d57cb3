"""The small file of checkpoints/: a generator with all that is needed to use it."""

from pathlib import Path
from typing import Any

from torch import nn

import storage

FORMAT = 1  # of the file


def save_generator(path: Path, generator: nn.Module, step: int, description: dict[str, Any]) -> None:
    """Write a generator's weights with a `description` by which it can be used.

    `step` counts the steps of the stages that save on the way: 0 after pretraining. The description is made in
    `tasks.isp.build_task`; `training.run` adds the config, and where the frozen networks' weights are from. The file
    holds {"format", "step", ..., "generator": state dict}; `storage.load` reads it.
    """
    storage.save(path, {"format": FORMAT, "step": step, **description, "generator": generator.state_dict()})
