"""Maps between two cameras, as files: in closed form, or trained."""

import dataclasses
from pathlib import Path

import torch

from config import Config, to_dict
from data.camera import Profile
from data.camera import to_dict as profile_dict
from data.raw_maps import IDENTITY, LinearMap, Matrix
from data.sensor import Sensor
from models import build_mapper
from tasks import closed_form
from tasks.closed_form import ClosedForm
from training.checkpoint import save_generator


def profile_of(sensor: Sensor, model: str = "", size: tuple[int, int] = (48, 64)) -> Profile:
    """The profile of a camera of the maker "Maker"; without a name if it has no model."""
    light = ((1.8, 2.0, 2.2), (1.4, 1.5, 1.6))
    return Profile("Maker" if model else "", model, sensor, size, 20, *light, True, (0.0, 0.0), {}, None, None)


def write_map(
    path: Path,
    sensors: dict[str, Sensor],
    to: str,
    matrix: Matrix = IDENTITY,
    models: tuple[str, str] = ("", ""),
) -> Path:
    """A file of map_raw.py --save: colours of camera `to` are `matrix` @ those of the other one."""
    cameras = {each: profile_of(sensors[each], model) for each, model in zip("ab", models, strict=True)}
    closed_form.save(path, ClosedForm("test", "statistics", to, LinearMap(matrix), cameras))
    return path


def write_mapper(path: Path, sensors: dict[str, Sensor], models: tuple[str, str] | None = None) -> Path:
    """A checkpoint of a raw-to-raw run: its mappers are the identity in both directions."""
    torch.manual_seed(0)
    cameras = {
        each: profile_dict(profile_of(sensors[each], model)) for each, model in zip("ab", models or (), strict=False)
    }
    description = {
        "model": "mapper-plain",
        "sensors": {each: dataclasses.asdict(sensor) for each, sensor in sensors.items()},
        "cameras": cameras,
        "config": to_dict(Config(task="raw2raw")),
    }
    save_generator(path, build_mapper("mapper-plain"), 1, description)
    return path
