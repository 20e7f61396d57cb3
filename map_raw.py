"""Map raw to raw: one camera's mosaics in, mosaics as another camera would have taken them out.

python map_raw.py --input FILES_OR_FOLDERS --output OUT --to b --method statistics --a FOLDER --b FOLDER [--save FILE]
python map_raw.py --input FILES_OR_FOLDERS --output OUT --to b (--run NAME | --checkpoint FILE | --map FILE)
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import storage
from config import config as default
from data.files import advising
from data.mosaic_files import FORMATS
from data.notes import note
from data.raw_maps import METHODS, PROFILES
from errors import UserError, run_cli
from tasks import choice, closed_form
from tasks.batch import Batch, Job, depth_for, jobs_of, mark
from tasks.conversion import Converted, Converter, Mapper, Shot, kind_of
from tasks.device import choose_device

MARKER = ".map_raw.json"  # in the output folder: by what its mosaics were made
SIDES = ("a", "b")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit together."""
    options = argparse.ArgumentParser("map_raw.py", description="Turn one camera's mosaics into another camera's.")
    add = options.add_argument
    add("--input", nargs="+", default=[], metavar="FILE_OR_FOLDER", help="mosaics to map, or folders of them")
    add("--output", metavar="DIR", help="folder of the mapped mosaics: new, or of this command")
    add("--to", choices=SIDES, required=True, help="the camera whose mosaics are wanted")
    choice.add_options(options, unless="--checkpoint, --method or --map")
    add(
        "--method",
        choices=(*METHODS, PROFILES),
        help="fit a map to --a and --b first, in seconds: profiles if both cameras' files note colour matrices (DNG), "
        "otherwise statistics; transport is the usual baseline",
    )
    for side in SIDES:
        add(f"--{side}", metavar="DIR", help=f"with --method: files of camera {side}, of any scenes")
    for side in SIDES:
        text = f"profile (python -m data.camera) of camera {side}, if --{side} holds no camera files"
        add(f"--camera-{side}", metavar="FILE", default="", help=text)
    add("--save", metavar="FILE", help="with --method: write the map, too")
    add("--map", metavar="FILE", help="a map that --save wrote")
    add("--format", choices=FORMATS, help="of the output (default: that of png and npy files, dng for camera files)")
    add("--downsample", type=int, metavar="M", help="of a checkpoint: its encoder sees the mosaic M times smaller (1)")
    add("--overwrite", action="store_true", help="map again what is there already; otherwise it is kept")
    add("--n", type=int, metavar="N", help="map the files whose index modulo N is the --remainder")
    add("--remainder", type=int, metavar="R", help="of the index modulo N (0)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: cuda if available")
    given = options.parse_args(arguments)
    for wrong, sentence in _mistakes(given):
        if wrong:
            options.error(sentence)
    given.run = given.run or (None if given.checkpoint or given.method or given.map else default.run)
    return given


def _mistakes(given: argparse.Namespace) -> list[tuple[object, str]]:
    """(whether it is so, the sentence)."""
    texts = (given.output, given.run, given.runs, given.checkpoint, given.map, given.save, given.a, given.b)
    ways = [name for name in ("run", "checkpoint", "method", "map") if getattr(given, name)]
    closed, fits = given.method or given.map, (given.a, given.b, given.camera_a, given.camera_b, given.save)
    return [
        ("" in (*texts, *given.input), "an option is empty"),
        (len(ways) > 1, f"--{' and --'.join(ways[:2])} exclude each other"),
        (given.step is not None and (given.checkpoint or closed), "--step needs a run"),
        (given.method and not (given.a and given.b), "--method needs both folders, --a and --b"),
        (any(fits) and not given.method, "--a, --b, --camera-a, --camera-b and --save need --method"),
        (given.downsample is not None and closed, "--downsample has no effect on --method and --map"),
        (given.downsample is not None and given.downsample < 1, "--downsample must be at least 1"),
        (bool(given.input) != bool(given.output), "--input and --output belong together"),
        (not given.input and not given.save, "--input and --output are missing (only --save does without)"),
        (not given.input and (given.n or given.format), "--n and --format need --input and --output"),
        (given.remainder is not None and given.n is None, "--remainder needs --n"),
        (given.n is not None and given.n < 1, "--n must be at least 1"),
        (given.n and not 0 <= (given.remainder or 0) < given.n, "--remainder must lie between 0 and --n - 1"),
        (given.save and not given.save.endswith(".json"), "--save needs a name that ends in .json"),
    ]


# --- which files, and which map --------------------------------------------------------------------------------------


def mosaics_of(given: argparse.Namespace) -> list[Job]:
    """The files of the command line, this share of them. Raises `UserError` if they and the output could mix."""
    output = Path(given.output)
    jobs = jobs_of(given.input, lambda source: output / (source.stem + FORMATS[given.format or kind_of(source)]), "map")
    here, folders = output.resolve(), {Path(path).resolve() for path in given.input if Path(path).is_dir()}
    if here in {job.source.parent.resolve() for job in jobs} or folders.intersection(here.parents):
        raise UserError(f"{output} is, or lies in, a folder of the input: choose another --output")
    foreign = files_in(output, given)
    if foreign and not (output / MARKER).is_file():
        raise UserError(
            f"{output} holds files that map_raw.py did not write, such as {foreign[0].name}: choose another"
        )
    return jobs if given.n is None else jobs[given.remainder or 0 :: given.n]


def files_in(output: Path, given: argparse.Namespace) -> list[Path]:
    """What the output folder holds, but for a map of the command line."""
    own = {Path(file).resolve() for file in (given.map, given.save) if file}
    return sorted(path for path in output.glob("[!.]*") if path.resolve() not in own)


def open_map(given: argparse.Namespace, device: torch.device) -> tuple[Mapper, Any]:
    """(what maps, facts to know it by). Raises `UserError` for a map to the other camera."""
    if not (given.method or given.map):
        from tasks.mapping import open_mapper

        path = choice.chosen(given)[2]
        return open_mapper(str(path), device), {"checkpoint": storage.sha256_of(path)}
    if given.map:
        closed = closed_form.load(Path(given.map))
        if closed.to != given.to:
            raise UserError(f"{given.map} is a map to camera {closed.to}, not {given.to}: fit another with --method")
        return closed, closed_form.describe(closed)
    folders, profiles = ({"a": Path(given.a), "b": Path(given.b)}, {"a": given.camera_a, "b": given.camera_b})
    if given.save:
        closed_form.check_target(Path(given.save), given.overwrite)
    closed = closed_form.fit(given.method, given.to, folders, profiles)
    if given.save:
        closed_form.save(Path(given.save), closed)
        print(f"map: {given.save}")
    return closed, closed_form.describe(closed)


# --- the work --------------------------------------------------------------------------------------------------------


class Mosaics:
    """Reads, maps and writes files, and counts those that look like another camera's."""

    def __init__(self, converter: Converter, given: argparse.Namespace):
        self.converter, self.given = converter, given
        self.others: Counter[str] = Counter()

    def read(self, path: Path) -> Shot:
        """Read it. Raises `UserError` for a file of another camera."""
        with advising("it is of another camera, leave it out"):
            return self.converter.read(path)

    def convert(self, shot: Shot) -> Converted:
        """The mosaic of the other camera."""
        expected, found = self.converter.expected_name, shot.notes.name if shot.notes else ""
        if expected and found and found != expected:
            self.others[f"of {found}, and the map is of {expected}: colours may be wrong"] += 1
        if self.converter.is_dark(shot):
            to, source = self.given.to, closed_form.OTHER[self.given.to]
            self.others[f"darker than black, or than half of white, of camera {source}: are they of camera {to}?"] += 1
        return self.converter.convert(shot)

    def write(self, job: Job, converted: Converted) -> None:
        """Write it."""
        kind = self.given.format or kind_of(job.source)
        storage.write_bytes(job.target, self.converter.encode(converted, kind))


def main() -> None:
    given = parse(sys.argv[1:])
    device = choose_device(given.device)
    jobs = mosaics_of(given) if given.input else []
    mapper, facts = open_map(given, device)
    if not given.input:
        return
    downsample = given.downsample or 1
    converter = Converter(mapper, given.to, downsample, device)
    made_by = {"command": "map_raw.py", "to": given.to, "downsample": downsample, "map": facts}
    otherwise = f"{given.output} holds mosaics of another map or other settings: choose another --output"
    if not files_in(Path(given.output), given):
        (Path(given.output) / MARKER).unlink(missing_ok=True)  # of an attempt that made nothing
    mark(Path(given.output) / MARKER, made_by, otherwise)
    missing = [job for job in jobs if given.overwrite or not job.target.exists()]
    if kept := len(jobs) - len(missing):
        note(f"{kept} of {len(jobs)} mosaics are there already and are kept: --overwrite maps them again")
    work = Mosaics(converter, given)
    batch = Batch("mapped", work.read, work.convert, work.write, depth_for(missing))
    try:
        batch.run(missing)
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: use --device cpu") from None
    for remark, files in work.others.items():
        note(f"{files} of {len(missing)} files are {remark}")
    done = len(missing) - len(batch.failed)
    print(f"mapped {done} of {len(jobs)} files to camera {given.to} with {mapper.name}: {given.output}")
    batch.end(len(missing))


if __name__ == "__main__":
    run_cli(main)
