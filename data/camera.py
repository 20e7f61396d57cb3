"""The profile of a camera: what its files say in common, and how they differ.

python -m data.camera RAWS [-o camera.json]                       a folder of camera files (DNG, NEF, CR2, ...)
python -m data.camera RAWS --cfa rggb --black-level 64 64 64 64 --white-level 1023        mosaics without notes
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import storage
from data.camera_files import CAMERA_FILES, CameraFile, look_at, name_of
from data.conditions import gray_world
from data.files import read_mosaic, reading
from data.folders import mosaics
from data.noise import estimate_noise
from data.patches import centre
from data.sensor import CFA_ORDERS, Sensor
from data.threads import in_threads
from errors import UserError, run_cli

SAMPLED = 32  # mosaics, evenly spaced, whose pixels are looked at
SIDE = 1024  # pixels of the central square that is looked at
SPREAD = (5, 50, 95)  # percentiles of gains: low, median, high


@dataclass(frozen=True)
class Profile:
    """A camera, as a folder of its files describes it."""

    make: str  # "" if the files do not say
    model: str
    sensor: Sensor  # CFA order, the median of the black levels, white level
    size: tuple[int, int]  # height and width of a mosaic
    count: int  # files
    red_gain: tuple[float, float, float]  # as shot, green has 1: 5th, 50th and 95th percentile of the files
    blue_gain: tuple[float, float, float]
    gains_noted: bool  # by the camera; otherwise they are estimated: with them the mean of a mosaic is grey
    iso: tuple[float, float]  # the lowest and the highest; 0, 0 if the files do not say
    black_by_iso: dict[str, tuple[float, ...]]  # where black levels differ: ISO -> their median
    color_matrix: tuple[tuple[float, ...], ...] | None  # (3, 3), XYZ (D65) to camera
    noise: tuple[float, float] | None  # shot and read of white (data/noise.py); None if it cannot be estimated

    @property
    def name(self) -> str:
        """Make and model; "" if the files do not say."""
        return name_of(self.make, self.model)

    @property
    def gains(self) -> tuple[float, float, float]:
        """The median gains of red, green and blue."""
        return self.red_gain[1], 1.0, self.blue_gain[1]


# --- from files ------------------------------------------------------------------------------------------------------


@cache
def profile_of(paths: tuple[Path, ...]) -> Profile | None:
    """The profile of these camera files; None if they are plain mosaics, which say nothing of their camera.

    Raises `UserError` as `notes_of` does.
    """
    notes = notes_of(paths)
    if not notes:
        return None
    black = np.array([found.sensor.black_level for found in notes])
    white, cfa = notes[0].sensor.white_level, notes[0].sensor.cfa
    sensor = Sensor(cfa, tuple(np.median(black, axis=0).tolist()), white)
    noted = [found.gains for found in notes if found.gains]
    isos = [found.iso for found in notes if found.iso > 0]
    differing = np.ptp(black, axis=0).max() > 0
    own = {
        f"{iso:g}": np.median([b for b, n in zip(black, notes, strict=True) if n.iso == iso], axis=0) for iso in isos
    }
    return Profile(
        make=notes[0].make,
        model=notes[0].model,
        count=len(paths),
        size=notes[0].size,
        iso=(min(isos, default=0.0), max(isos, default=0.0)),
        black_by_iso={iso: tuple(own[iso].tolist()) for iso in sorted(own, key=float)} if differing else {},
        color_matrix=notes[0].color_matrix,
        **_looked_at(paths, sensor, noted),
    )


def notes_of(paths: tuple[Path, ...]) -> list[CameraFile]:
    """What each of these camera files notes; empty if they are plain mosaics.

    Raises `UserError`, which names the first file that differs, for files of two cameras, CFA orders, white levels or
    sizes, and for camera files among plain mosaics.
    """
    kinds = [path.suffix.lower() in CAMERA_FILES for path in paths]
    if not any(kinds):
        return []
    if not all(kinds):
        other = paths[kinds.index(not kinds[0])]
        raise UserError(f"{paths[0]} and {other} lie together, but only one of them is a camera's own file: part them")
    notes = []
    with closing(in_threads(camera_notes, paths, "reading what the camera noted")) as found:
        for path, each in zip(paths, found, strict=True):
            notes.append(each)
            _refuse_another(paths[0], notes[0], path, each)
    return notes


def profile_of_mosaics(paths: Sequence[Path], sensor: Sensor, headless_size: tuple[int, int] = (0, 0)) -> Profile:
    """The profile of plain mosaics, whose levels the user gives. Raises `UserError` as `read_mosaic` does."""
    size = read_mosaic(paths[0], sensor, headless_size).shape
    nothing = {"make": "", "model": "", "iso": (0.0, 0.0), "black_by_iso": {}, "color_matrix": None}
    return Profile(**nothing, count=len(paths), size=size, **_looked_at(paths, sensor, [], headless_size))


def camera_notes(path: Path) -> CameraFile:
    """What a camera file notes, without its pixels. Raises `UserError` if it is missing, damaged, or not Bayer."""
    with reading(path):
        return look_at(path)


def _refuse_another(first: Path, notes: CameraFile, path: Path, found: CameraFile) -> None:
    """Raise `UserError` if the file at `path` is of another camera than the first one."""
    for kind, one, other in (
        ("camera", notes.name, found.name),
        ("CFA order", notes.sensor.cfa, found.sensor.cfa),
        ("white level", f"{notes.sensor.white_level:g}", f"{found.sensor.white_level:g}"),
        ("size", "{}x{}".format(*sorted(notes.size)), "{}x{}".format(*sorted(found.size))),
    ):
        if one != other:
            raise UserError(f"{path} has the {kind} {other}, but {first} has {one}: a folder holds files of one camera")


def _looked_at(
    paths: Sequence[Path],
    sensor: Sensor,
    noted: Sequence[tuple[float, float]],
    headless_size: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """The fields of a `Profile` that some of the pixels tell, and the gains, as noted or estimated."""
    sample = paths[:: -(-len(paths) // SAMPLED)]
    images = [centre(read_mosaic(path, sensor, headless_size), SIDE) for path in sample]
    gains = np.array(noted or [gray_world(image, sensor) for image in images])
    red, blue = (tuple(np.percentile(column, SPREAD).tolist()) for column in gains.T)
    try:
        noise = estimate_noise(images, sensor)
    except UserError:  # too dark, too bright, too small
        noise = None
    return {"sensor": sensor, "red_gain": red, "blue_gain": blue, "gains_noted": bool(noted), "noise": noise}


# --- camera.json -----------------------------------------------------------------------------------------------------


def to_dict(profile: Profile) -> dict[str, Any]:
    """The profile as plain dicts, lists, strings and numbers."""
    return json.loads(json.dumps(dataclasses.asdict(profile)))


def from_dict(values: dict[str, Any], source: str) -> Profile:
    """The profile of `to_dict`. Raises `UserError`, which names the `source`, if it is none."""
    try:
        profile = Profile(**{name: _tuples(value) for name, value in values.items()})
        profile = dataclasses.replace(profile, sensor=Sensor(**profile.sensor))
        positive = (*profile.red_gain, *profile.blue_gain, *profile.size, profile.count)
        names = isinstance(profile.make, str) and isinstance(profile.model, str)
        if not (names and len(positive) == 9 and all(0 < value < math.inf for value in positive)):
            raise ValueError
        describe(profile)  # raises if another field is of another type
    except (AttributeError, IndexError, TypeError, ValueError, UserError):
        raise UserError(f"{source} is not a camera profile: write it with python -m data.camera") from None
    return profile


def load(path: Path) -> Profile:
    """Read a camera.json. Raises `UserError` if it is not one."""
    with reading(path):
        try:
            content = json.loads(path.read_text("utf-8-sig"))
        except (ValueError, RecursionError):
            content = None
    return from_dict(content, str(path))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def describe(profile: Profile) -> str:
    """The profile in a few lines for a reader."""
    height, width = profile.size
    black = " ".join(f"{level:g}" for level in profile.sensor.black_level)
    red, blue = ("{1:.2f} ({0:.2f} to {2:.2f})".format(*gain) for gain in (profile.red_gain, profile.blue_gain))
    source = "as shot" if profile.gains_noted else "estimated, the camera notes none"
    shot_read = "unknown" if profile.noise is None else "shot {:.2e}, read {:.2e} of white".format(*profile.noise)
    iso = "unknown" if not profile.iso[1] else "{:g} to {:g}".format(*profile.iso)
    return "\n".join(
        (
            f"camera   {profile.name or 'unknown'}, {profile.count} files, {width}x{height}",
            f"CFA      {profile.sensor.cfa}",
            f"levels   black {black} (R, Gr, Gb, B), white {profile.sensor.white_level:g}",
            f"gains    red {red}, blue {blue}; {source}",
            f"ISO      {iso}",
            f"noise    {shot_read}",
        )
    )


# --- the command line ------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser("python -m data.camera", description="Write the profile of a camera.")
    add = options.add_argument
    add("raws", help="a folder of mosaics of one camera")
    add("-o", "--output", default="camera.json", metavar="FILE", help="the profile to write (%(default)s)")
    add("--cfa", choices=CFA_ORDERS, help="of plain mosaics: colour order of the top left 2x2 pixels")
    add("--black-level", type=float, nargs=4, metavar=("R", "Gr", "Gb", "B"), help="of plain mosaics")
    add("--white-level", type=float, help="of plain mosaics, in digital numbers")
    add("--raw-height", type=int, default=0, help="of .raw files without a header, in pixels")
    add("--raw-width", type=int, default=0, help="of .raw files without a header, in pixels")
    given = options.parse_args(arguments)
    output, paths = Path(given.output), mosaics(Path(given.raws)).raws
    before = _before(output)
    levels = (given.cfa, given.black_level, given.white_level)
    profile = profile_of(paths)
    if profile and any(levels):
        raise UserError(f"the files in {given.raws} note their CFA order and levels: leave the options out")
    if not profile:
        if not all(levels):
            raise UserError(f"{given.raws} holds plain mosaics: give --cfa, --black-level and --white-level")
        sensor = Sensor(given.cfa, tuple(given.black_level), given.white_level)
        profile = profile_of_mosaics(paths, sensor, (given.raw_height, given.raw_width))
    if before and (before.name, before.sensor.cfa) != (profile.name, profile.sensor.cfa):
        raise UserError(f"{output} is the profile of {before.name or 'another camera'}: choose another --output")
    storage.write_json(output, to_dict(profile))
    print(describe(profile))
    print(f"profile: {output}")


def _before(output: Path) -> Profile | None:
    """The profile that is at `output` already. Raises `UserError` if something else is."""
    try:
        return load(output) if output.exists() else None
    except UserError:
        raise UserError(f"{output} exists and is not a camera profile: choose another --output") from None


if __name__ == "__main__":
    run_cli(main)
