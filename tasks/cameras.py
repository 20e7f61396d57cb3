"""The two cameras of a raw-to-raw run: their levels, as the config, the camera files or their profiles say."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import Config
from data import camera
from data.camera import Profile
from data.files import Reader
from data.folders import Split
from data.notes import note
from data.sensor import Sensor
from data.two_cameras import CAMERAS, TwoCameras, find_cameras_layout, open_cameras, training_files
from errors import UserError
from tasks.camera import refuse_another
from tasks.data import identify

SECTIONS = {"a": "data", "b": "data_b"}  # of the config
LEVELS = ("cfa", "black_level", "white_level")


def open_two_cameras(config: Config) -> TwoCameras:
    """The files of both cameras. Makes the demo dataset first, if the config says so.

    Raises `UserError` if files are missing, or of another CFA order or other levels than the config has.
    """
    data = config.data
    if data.demo:
        from data.simulate_cameras import DEMO_SETTINGS, make_demo_cameras

        make_demo_cameras(Path(data.root), DEMO_SETTINGS)
    profiles = find_profiles(config)
    for name, profile in profiles.items():
        levels, known = getattr(config, SECTIONS[name]), profile and profile.sensor
        if known and (known.cfa, known.white_level) != (levels.cfa, levels.white_level):
            raise UserError(
                f"the mosaics of camera {name} have the {known}, but the run has CFA {levels.cfa}, white "
                f"{levels.white_level:g}: leave its levels out, or start another run with --run NAME"
            )
    sizes = {name: profile.size if profile else (0, 0) for name, profile in profiles.items()}  # of headless files
    readers = {name: Reader(sensor_of(config, name), sizes[name], levels=data.levels) for name in CAMERAS}
    return open_cameras(data.layout, data.root, (data.raw, config.data_b.raw), readers, config.mapping.channels)


def sensor_of(config: Config, name: str) -> Sensor:
    """The CFA order and levels of camera "a" or "b"."""
    levels = getattr(config, SECTIONS[name])
    return Sensor(levels.cfa, levels.black_level, levels.white_level)


def find_profiles(config: Config) -> dict[str, Profile | None]:
    """{"a": its profile, "b": ...}: the one that is named, or that lies in the dataset, or that of its camera files.

    None for plain mosaics without a profile. Raises `UserError` for missing folders, as `data.camera.profile_of` does,
    and if both folders are of one camera.
    """
    data, found = config.data, {}
    row = find_cameras_layout(data.layout)
    for name, paths in _training_files(config).items():
        named, own = getattr(config, SECTIONS[name]).camera, row.profiles[CAMERAS.index(name)]
        file = Path(named) if named else Path(data.root) / own if own else None
        if file and (named or file.is_file()):
            found[name] = camera.load(file)
            refuse_another(found[name], file, paths)
        else:
            found[name] = camera.profile_of(paths)
    names = [profile.name for profile in found.values() if profile]
    if len(names) == 2 and names[0] and names[0] == names[1]:
        raise UserError(f"both folders are of the camera {names[0]}: give those of two cameras")
    return found


def with_cameras(config: Config, given: Sequence[str]) -> Config:
    """The config with both cameras' CFA orders and levels, but for what is `given`, such as "data_b.cfa".

    Raises `UserError` as `find_profiles` does, and for plain mosaics whose levels nobody says.
    """
    if config.data.demo or not (config.data.root or config.data.raw):
        return config  # the demo's levels are the preset's; a missing folder is refused where the dataset is opened
    profiles, noting = find_profiles(config), _noting(config)
    if config.data.levels == "given" and not noting:
        raise UserError("a setting has no effect: --data.levels is for camera files")
    for name, profile in profiles.items():
        section = SECTIONS[name]
        own = [f"--{section}.{level}".replace("_", "-") for level in LEVELS[1:] if f"{section}.{level}" in given]
        if own and name in noting and config.data.levels == "file":
            raise UserError(
                f"the files of camera {name} note their levels: leave out {', '.join(own)}, or add --data.levels given"
            )
        missing = [level for level in LEVELS if f"{section}.{level}" not in given]
        if profile is None and missing:
            option = section.replace("_", "-")
            raise UserError(
                f"the mosaics of camera {name} do not note their levels: write a profile with python -m data.camera "
                f"and name it with --{option}.camera, or give --{option}.cfa, --{option}.black-level and "
                f"--{option}.white-level"
            )
        if profile:
            note(f"camera {name} is {profile.name or 'not named'}; {profile.sensor}")
            levels = {level: getattr(profile.sensor, level) for level in missing}
            config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **levels)})
    return config


def _noting(config: Config) -> list[str]:
    """The cameras whose mosaics are camera files, which note their levels."""
    return [name for name, paths in _training_files(config).items() if camera.profile_of(paths)]


def _training_files(config: Config) -> dict[str, tuple[Path, ...]]:
    return training_files(config.data.layout, config.data.root, (config.data.raw, config.data_b.raw))


def identify_cameras(cameras: TwoCameras) -> dict[str, Any]:
    """The names and fingerprints of all files, and a digest of their charts, by which a run knows its data again.

    Raises `UserError` for files of both cameras.
    """
    known = {}
    for name in CAMERAS:
        paired = tuple(pair.source for pair in cameras.pairs if pair.camera == name)
        splits = {"train": Split(cameras.unpaired[name], (), False), "pairs": Split(paired, (), False)}
        known[name] = identify(splits, cameras.readers[name])
    if cameras.charts:
        charts = [(path.name, sorted(each.corners.items()), each.orientation) for path, each in cameras.charts.items()]
        known["charts"] = hashlib.sha256(repr(charts).encode()).hexdigest()
    if both := {mark for _, mark in known["a"]["train"]} & {mark for _, mark in known["b"]["train"]}:
        raise UserError(f"{len(both)} files are mosaics of both cameras: give different files of each")
    return known
