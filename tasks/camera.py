"""The camera of a run: what its files or its profile say takes the place of settings that the user has not given."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import Config, Data
from data import camera
from data.camera import Profile
from data.files import Reader
from data.folders import find_layout, mosaics
from data.notes import note
from data.sensor import Sensor
from errors import UserError
from tasks.adaptation import CPU, MappedReader, find_source, open_map
from tasks.closed_form import OTHER
from tasks.modes import compares_with

# What data.map knows of the mosaics.
KNOWN_BY_MAP = {"cfa", "black_level", "white_level", "levels", "raw_height", "raw_width"}


def find_profile(data: Data) -> Profile | None:
    """The profile of a run's camera: that of data.camera, or of its camera files; None if there is neither.

    Raises `UserError` for a profile of another camera than the files, and as `data.camera.profile_of` does.
    """
    named = camera.load(Path(data.camera)) if data.camera else None
    raws = _raws(data)
    if named is None:
        return camera.profile_of(raws)
    refuse_another(named, Path(data.camera), raws)
    return named


def refuse_another(named: Profile, source: Path, raws: tuple[Path, ...]) -> None:
    """Raise `UserError` if camera files are not of the camera whose profile was read from `source`."""
    for notes in camera.notes_of(raws)[:1]:
        found, known = (notes.name, notes.sensor.cfa), (named.name, named.sensor.cfa)
        if found != known:
            raise UserError(
                f"{source} is the profile of {' '.join(known)}, but {raws[0]} is of {' '.join(found)}: write the "
                "profile of these files with python -m data.camera, or leave the profile out"
            )


def with_camera(config: Config, given: Sequence[str]) -> Config:
    """The config with the camera's CFA order, levels and white balance, but for what is `given`, such as "data.cfa".

    Where no stage trains towards the published rendering, as in the preset quick, it is replaced by the one for any
    camera: there it is only shown, and compared with by scores, alarms and tables. Prints a note of the camera. Raises
    `UserError` as `find_profile` does, and for settings of camera files where there are none.
    """
    data, changes = config.data, {}
    profile, raws = find_profile(data), _raws(data)
    files = bool(camera.notes_of(raws))
    if data.map:
        changes, profile = _from_map(data, profile, given)
    if profile:
        if not data.map:  # which says them itself
            levels = dataclasses.asdict(profile.sensor)
            changes = {name: value for name, value in levels.items() if f"data.{name}" not in given}
        trained_towards = data.reference == "published" and compares_with(config, "reference")
        if "data.rendering" not in given and not trained_towards:
            changes["rendering"] = "camera"
        note(f"the camera is {profile.name or 'not named'}; {profile.sensor}")
    elif "data.white_level" in given and "data.black_level" not in given:
        note(f"the black levels stay {data.black_level}: --data.black-level sets others")
    if files and {"data.black_level", "data.white_level"}.intersection(given):
        changes["levels"] = "given"
    if not files and (data.lens_shading or data.levels == "given"):
        raise UserError("a setting has no effect: --data.lens-shading and --data.levels are for camera files")
    data = dataclasses.replace(data, **changes)
    if data.rendering == "camera" and "data.gains" not in given and (profile or raws):
        if data.map and not profile:
            raise UserError(f"{data.map} does not know camera {data.map_to}'s white balance: give --data.gains")
        profile = profile or _estimated(data, raws)
        data = dataclasses.replace(data, gains=profile.gains)
    return dataclasses.replace(config, data=data)


def profile_for(data: Data, reader: Reader) -> Profile | None:
    """The profile of the camera that a generator is trained for: of the files, or the one that they are mapped to."""
    return reader.profile if isinstance(reader, MappedReader) else find_profile(data)


def _from_map(data: Data, own: Profile | None, given: Sequence[str]) -> tuple[dict[str, Any], Profile | None]:
    """(settings that data.map decides, profile of the camera to map to), for mosaics of the camera `own`."""
    if known := [name for name in given if name.removeprefix("data.") in KNOWN_BY_MAP]:
        raise UserError(f"a setting has no effect: --data.map knows the mosaics' levels and size: leave out {known[0]}")
    mapper = open_map(data.map, CPU)
    to = find_source(mapper, data, own and own.sensor, own.name if own else "")
    levels = own.sensor if own else mapper.sensors[OTHER[to]]
    return dataclasses.asdict(levels) | {"map_to": to}, mapper.cameras.get(to)


def _raws(data: Data) -> tuple[Path, ...]:
    """The training mosaics; empty if their folder is missing, which is refused where the dataset is opened."""
    folder = Path(data.raw) if data.raw else Path(data.root) / "train" / find_layout(data.layout).raw
    return mosaics(folder).raws if folder.is_dir() and (data.raw or data.root) else ()


def _estimated(data: Data, raws: Sequence[Path]) -> Profile:
    """The profile of plain mosaics, whose gains are estimated from their pixels."""
    sensor = Sensor(data.cfa, data.black_level, data.white_level)
    return camera.profile_of_mosaics(raws, sensor, (data.raw_height, data.raw_width))
