"""Reading any generator's file: a checkpoint of fit.py, or an ISP that its authors released.

python -m pretrained.zoo                 lists the released ISPs
python -m pretrained.zoo NAME [FOLDER]   downloads one, checks its SHA-256, and prints its path
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import storage
from errors import UserError, run_cli
from models import MAPPERS, MODELS, build_mapper, build_model
from pretrained.released import RELEASED, download, full_name
from pretrained.tensorflow_bundle import INDEX, is_bundle
from pretrained.tensorflow_weights import load_tensorflow

FORMAT = 1  # of the checkpoints that fit.py writes (training.checkpoint)
PARALLEL = "module."  # before each key of a file that nn.DataParallel wrote, such as the released ones of PyNET


def locate(source: str) -> Path:
    """The file of a `source`, which is a path or a released name as `full_name` takes it.

    A TensorFlow checkpoint may be named without the endings of its two files; the result is its .index file.
    A released model is downloaded if it is not in the cache. Raises `UserError` if there is neither file nor name.
    """
    if Path(source).is_dir():
        raise UserError(f"{source} is a folder: name one of its files, such as a run's checkpoints/step_....pt")
    if Path(source).exists():
        return Path(source)
    if Path(source + INDEX).exists():
        return Path(source + INDEX)
    if not full_name(source):
        advice = "list the released models with `python -m pretrained.zoo`"
        raise UserError(f"no file {source}, and no released model of that name; {advice}")
    return download(source)


def open_checkpoint(source: str) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Read a generator: (its name in `models.MODELS`, its state dict, its description).

    `source` is as for `locate`. A checkpoint written by fit.py names its model; its description is all else that it
    holds. A released file holds only a state dict, whose keys and shapes identify the model; its description is empty.
    So does a TensorFlow checkpoint, whose variables are renamed.

    Raises `UserError`, naming the file, if it holds no generator, an unknown model, or weights that do not fit.
    """
    path = locate(source)
    content = _load(path)
    if "generator" not in content:
        content = {str(key).removeprefix(PARALLEL): value for key, value in content.items()}
        name = recognise(content, str(path))
        _require_usable(content, name, path)
        return name, content, {}
    return _open_written(content, path, MODELS, "a raw-to-raw mapper, not an ISP: see map_raw.py")


def open_mapper_checkpoint(source: str) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Read the mappers of a raw-to-raw run: (their name in `models.MAPPERS`, their state dict, their description).

    Raises `UserError` as `open_checkpoint` does.
    """
    path = locate(source)
    content = _load(path)
    if "generator" not in content:
        raise UserError(f"{path} is not a checkpoint of fit.py")
    return _open_written(content, path, MAPPERS, "an ISP, not a raw-to-raw mapper: train one with fit.py raw2raw")


def is_mapper(source: str) -> bool:
    """Whether a file or released name is a raw-to-raw mapper. Raises `UserError` if it is missing or damaged."""
    name = _load(locate(source)).get("model")
    return isinstance(name, str) and name in MAPPERS


def _load(path: Path) -> dict[str, Any]:
    if is_bundle(path):
        return load_tensorflow(path)
    content = storage.load(path)
    if {"trainer", "stage"} <= content.keys():
        raise UserError(f"{path} is the training state of a run, not a generator: name a file in its checkpoints/")
    return content


def _open_written(
    content: dict[str, Any], path: Path, table: Mapping[str, Any], otherwise: str
) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """The parts of a file that fit.py wrote, if its model is in this `table`; `otherwise` says what it is if not."""
    if type(content.get("format", FORMAT)) is not int or content.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"{path} has the format {content['format']!r}, and this version of the framework reads {FORMAT}: use the "
            "version that wrote it"
        )
    state, name = content["generator"], content.get("model")
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint of fit.py: its 'generator' is a {type(state).__name__}")
    if not isinstance(name, str):
        raise UserError(f"{path} is not a checkpoint of fit.py: it does not name its model")
    if name not in table:
        if name in MODELS or name in MAPPERS:
            raise UserError(f"{path} is {otherwise}")
        raise UserError(f"{path} holds an unknown model '{name}'; known are: {', '.join(table)}")
    channels = content.get("channels", 4)  # of a mapper; once, all had four
    if type(channels) is not int or channels not in (3, 4):
        raise UserError(f"{path} is not a checkpoint of fit.py: its mapper has {channels!r} channels, not 4 or 3")
    if difference := _difference(state, name, channels):
        raise UserError(f"{path} holds weights that do not fit its model '{name}': {difference}")
    _require_usable(state, name, path, channels)
    return name, state, {key: value for key, value in content.items() if key != "generator"}


def open_generator(source: str) -> tuple[str, dict[str, Tensor]]:
    """Read a generator, as `open_checkpoint` does: (its name in `models.MODELS`, its state dict)."""
    return open_checkpoint(source)[:2]


def recognise(state: dict[str, Any], source: str) -> str:
    """The name of the model in `models.MODELS` that has the keys and shapes of a released file's state dict.

    Raises `UserError`, naming `source`, if there is none.
    """
    for name in MODELS:
        if not _difference(state, name):
            return name
    raise UserError(f"{source} does not hold a generator: it fits none of the known models {', '.join(MODELS)}")


def _difference(state: dict[str, Any], name: str, channels: int = 4) -> str:
    """The first difference in keys and shapes between a state dict and the model `name`; "" if there is none."""
    expected = _empty_state(name, channels)
    for key, value in expected.items():
        if key not in state:
            return f"{key} is missing"
        if not isinstance(state[key], Tensor) or state[key].is_nested:
            return f"{key} is not a tensor"
        if state[key].shape != value.shape:
            return f"{key} has the shape {tuple(state[key].shape)}, not {tuple(value.shape)}"
    return next((f"{key} is not part of the model" for key in state if key not in expected), "")


def _empty_state(name: str, channels: int = 4) -> dict[str, Tensor]:
    """The state dict of the model `name`: shapes and types, without values; `channels` are a mapper's."""
    with torch.device("meta"):
        return (build_mapper(name, channels) if name in MAPPERS else build_model(name)).state_dict()


def _require_usable(state: dict[str, Tensor], name: str, path: Path, channels: int = 4) -> None:
    """Raise `UserError` for a weight that is no dense tensor of finite numbers. Any float precision will do."""
    for key, expected in _empty_state(name, channels).items():
        weight = state[key]
        small = weight.is_floating_point() and weight.itemsize < 2  # 8 bits and less: torch computes little with them
        same_kind = weight.is_floating_point() == expected.is_floating_point() and not (weight.is_complex() or small)
        if weight.is_meta or weight.layout != torch.strided or weight.is_quantized or not same_kind:
            kind = f"{weight.dtype}, {weight.layout}, on {weight.device}".replace("torch.", "")
            raise UserError(f"{path} has weights that cannot be used: {key} is no tensor of real numbers ({kind})")
        if not weight.to(expected.dtype).isfinite().all():
            raise UserError(f"{path} has weights that are not finite: its training diverged")


def main() -> None:
    options = argparse.ArgumentParser("python -m pretrained.zoo", description="List or download the released ISPs.")
    options.add_argument("name", nargs="?", help="the ISP to download; without it, all are listed")
    options.add_argument("folder", nargs="?", type=Path, help="where to put it (default: torch's cache)")
    given = options.parse_args()
    if given.name:
        print(download(given.name, given.folder))
        return
    for name, released in RELEASED.items():
        print(f"{name:<56}{released.setting}")


if __name__ == "__main__":
    run_cli(main)
