"""What test_model.py does with raw-to-raw mappers: score them on a run's pairs, beside maps that need no training.

It writes compare.csv, metrics.csv of each map in a folder of its own, and pictures.png.
"""

import argparse
import dataclasses
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

import storage
from config import Config, open_run
from data.raw_maps import PROFILES
from data.two_cameras import CAMERAS, OTHER, TwoCameras
from errors import UserError
from evaluation.raw_measures import RAW_MEASURES
from evaluation.raw_pictures import sheet, shrink
from evaluation.rendering import reserve_files
from evaluation.report import table
from evaluation.tables import find_checkpoint, full_name
from evaluation.text_table import text_table
from pretrained import zoo
from tasks.camera_maps import Ways, fit_baselines
from tasks.cameras import find_profiles, open_two_cameras
from tasks.device import choose_device
from tasks.mapping import OpenMapper, open_mapper
from tasks.raw_comparison import describe
from tasks.raw_scoring import PROTOCOL, Map, by_direction, columns_of, note_other_cameras, score_maps, write_results
from training.log import Progress

METHODS = ("identity", "transport", "statistics")  # and "profiles", if both cameras' colour matrices are known
SHOWN = 4  # pairs of each direction in the pictures
SIDE = 480  # pixels of a picture's longer side, at most
# The options that have an effect on mappers; all others are refused.
OPTIONS = {"run", "runs", "step", "checkpoint", "compare", "data_root", "output", "protocol", "measures", "device"}
OPTIONS |= {"downsample"}


@dataclass(frozen=True)
class Subject:
    """The mapper under test, and the data and the folder of the test."""

    path: Path  # of its checkpoint
    name: str  # in tables, and of its folder
    mapper: OpenMapper
    config: Config  # of the run whose pairs it is scored on
    folder: Path  # of the results


# --- what is tested --------------------------------------------------------------------------------------------------


def is_of_mappers(given: argparse.Namespace) -> bool:
    """Whether a command line of test_model.py is about mappers, by its checkpoint or, without one, its run.

    `given.named` are the options that the user has set. Raises `UserError` if the checkpoint and the run are of
    different tasks, and for an option that has no effect.
    """
    mapper = zoo.is_mapper(given.checkpoint) if given.checkpoint else None
    run = None if mapper and "run" not in given.named else given.run  # the default run is for ISPs
    if run:
        mapping = open_run(given.runs, run)[1].task == "raw2raw"
        if mapper is not None and mapper != mapping:
            kinds = {True: "a raw-to-raw mapper", False: "an ISP"}
            raise UserError(
                f"{given.checkpoint} is {kinds[mapper]}, but the run {run} trains {kinds[mapping]}: name a run of its "
                "own kind with --run"
            )
        mapper = mapping
    if mapper and (unused := sorted(given.named - OPTIONS)):
        hint = "; map_raw.py maps files" if "input" in unused else ""
        raise UserError(f"--{unused[0].replace('_', '-')} has no effect on a raw-to-raw mapper{hint}")
    if not mapper and given.downsample is not None:
        raise UserError("--downsample has no effect on an ISP: it is for raw-to-raw mappers")
    if given.downsample is not None and given.downsample < 1:
        raise UserError(f"--downsample must be at least 1, but is {given.downsample}")
    return bool(mapper)


def open_subject(given: argparse.Namespace, device: torch.device) -> Subject:
    """The mapper of the command line, and the pairs of the named run or, without one, of that which trained it.

    Raises `UserError` for what does not exist, and without --output for a file that lies in no run.
    """
    path = zoo.locate(given.checkpoint) if given.checkpoint else None
    run = Path(given.runs) / given.run if not path or "run" in given.named else _home(path)
    if run:
        run, config = open_run(str(run.parent), run.name, given.data_root or "")
        path = path or find_checkpoint(run, given.step)
    mapper = open_mapper(str(path), device)
    if not run:
        config = mapper.config
        if given.data_root:
            config = dataclasses.replace(
                config, data=dataclasses.replace(config.data, root=given.data_root, demo=False)
            )
        if not given.output:
            raise UserError(f"{path} lies in the checkpoints/ of no run: say with --output where the results go")
    own = not run or _home(path) == run.absolute()
    return Subject(path, path.stem if own else full_name(path), mapper, config, Path(given.output or run / "test"))


def _home(path: Path) -> Path | None:
    """The folder of the run that a checkpoint lies in; None for other files."""
    folder = path.absolute().parent
    is_run = folder.name == "checkpoints" and (folder.parent / "config.json").is_file()
    return folder.parent if is_run else None


def fit_closed_forms(cameras: TwoCameras, config: Config) -> dict[str, Map]:
    """The maps in closed form that a mapper has to beat, by method, fitted without pairs to training mosaics."""
    profiles = find_profiles(config)
    known = all(profile and profile.color_matrix for profile in profiles.values())
    fitted = fit_baselines((*METHODS, *([PROFILES] if known else [])), cameras, profiles)
    return {method: partial(_apply, ways) for method, ways in fitted.items()}


def _apply(fitted: Ways, planes: Tensor, to: str) -> Tensor:
    return fitted[to](planes)


def open_maps(
    subject: Subject, compared: Iterable[tuple[str, str, Path]], downsample: int, device: torch.device
) -> tuple[dict[str, Map], dict[str, str]]:
    """(the mapper under test and those `compared`, by name; lines that say which files they are).

    `compared` are label, name and checkpoint of each. Raises `UserError` if two would have one name.
    """
    mappers = {subject.name: subject.mapper}
    for _, name, path in compared:
        name = re.sub(r"[^\w.-]", "_", name)
        if name in mappers:
            raise UserError(f"two of the mappers are called {name}: name each only once")
        mappers[name] = open_mapper(str(path), device)
        if mappers[name].mapper.channels > subject.mapper.mapper.channels:
            raise UserError(
                f"{path} maps planes of 4 channels, and {subject.path} of 3: test the former, and --compare the latter"
            )
    if both := sorted(mappers.keys() & {*METHODS, PROFILES}):
        raise UserError(f"a checkpoint is called {both[0]}, as a map that it is compared with: rename its file")
    facts = {}
    for name, mapper in mappers.items():
        parameters = sum(parameter.numel() for parameter in mapper.mapper.parameters())
        digest = storage.sha256_of(Path(mapper.source))[:12]
        facts[f"checkpoint {name}"] = f"{mapper.source}, sha256 {digest}, {mapper.name}, {parameters:,} parameters"
    return {name: partial(mapper.map, downsample=downsample) for name, mapper in mappers.items()}, facts


# --- the test --------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def draw(cameras: TwoCameras, mapping: Map, device: torch.device) -> np.ndarray:
    """A sheet of pictures (H, W, 3), uint8, of some pairs of each direction: source, mapped, truth; below, errors.

    Without errors if the pixels of pairs do not agree.
    """
    rows = []
    for camera in CAMERAS:
        pairs = [pair for pair in cameras.pairs if pair.camera == camera]
        for pair in pairs[:: max(1, -(-len(pairs) // SHOWN))]:
            source, truth = cameras.pair(pair)
            mapped = mapping(source.to(device), OTHER[camera]).cpu()
            rows.append([shrink(planes[0], SIDE) for planes in (source, mapped, truth)])
    return sheet(rows, SIDE, errors=cameras.aligned)


def main(given: argparse.Namespace, compared: Iterable[tuple[str, str, Path]]) -> None:
    """Score, draw and print; `compared` are label, name and checkpoint of the mappers of --compare."""
    device, downsample = choose_device(given.device), given.downsample or 1
    subject, protocol = open_subject(given, device), given.protocol or PROTOCOL
    cameras = open_two_cameras(subject.config)
    columns = columns_of(cameras, given.measures, protocol)
    learned, facts = open_maps(subject, compared, downsample, device)
    note_other_cameras(subject.mapper, cameras)
    maps = learned | fit_closed_forms(cameras, subject.config)
    pictures = subject.folder / "pictures.png"
    names = {subject.folder / name: {"metrics.csv"} for name in maps}
    reserve_files({subject.folder: {"compare.csv", pictures.name}} | names)
    try:
        with Progress("scored", 0, len(cameras.pairs), unit="mosaic") as progress:
            results = score_maps(maps, cameras, columns, device, progress.update, protocol)
        sample = draw(cameras, learned[subject.name], device)
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: use --device cpu") from None
    header = {"protocol": describe(protocol, cameras)}
    header |= {"data": f"{len(cameras.pairs)} mosaics of pairs, {subject.config.data.root}", **facts}
    if downsample > 1:
        header["downsample"] = f"{downsample}, of the planes that the mappers' encoders see"
    write_results(results, header, subject.folder)
    encoded = iio.imwrite("<bytes>", sample, plugin="pillow", extension=".png")
    storage.write_bytes(pictures, encoded)
    for name, fact in header.items():
        print(f"{name}: {fact}")
    labels = {name: measure.heading for name, measure in RAW_MEASURES.items()}
    digits = {name: measure.digits for name, measure in RAW_MEASURES.items()}
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    print(*text_table(table(by_direction(results), labels, digits), width), sep="\n")
    print(f"tables: {subject.folder}\npictures: {pictures}")
