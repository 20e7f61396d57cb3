"""The dataset that a config names: its splits, how its files are read, and how its mosaics are rendered."""

import json
from pathlib import Path

import storage
from config import Config, Data
from data.conditions import BALANCED, CLIPPED, MOST, check_noted, tables_of
from data.files import Reader
from data.folders import Split, open_dataset
from data.notes import note
from data.reference import Reference, find_demosaicer
from data.sensor import Sensor
from errors import UserError
from tasks.adaptation import MappedReader, mapped_reader

SAMPLED = 8  # mosaics whose largest value is looked at
SHOWN = 24  # mosaics of a dataset without pairs that are rendered
DARK = 0.26  # of white: 10 bits that are taken as 12 reach a quarter


def open_data(config: Config) -> tuple[dict[str, Split], Reader, Reference]:
    """(splits "train", "val" and "test", reader of their files, rendering of the content reference).

    Makes the demo dataset first, if the config says so. Raises `UserError` if the dataset is missing or incomplete.
    """
    data = config.data
    if data.demo:
        from data.demo import make_demo

        make_demo(Path(data.root))
    splits = open_dataset(
        data.layout, data.root, data.raw, data.photos, data.pairs, data.val_count, data.test_count, data.exclude
    )
    sensor = Sensor(data.cfa, data.black_level, data.white_level)
    # data.simulate writes camera.json into the root, two folders above the mosaics.
    for folder in [Path(data.root)] * bool(data.root) + [Path(data.raw).absolute().parent.parent] * bool(data.raw):
        _check_simulated(folder / "camera.json", sensor)
    if data.map:
        reader = mapped_reader(data)
    else:
        reader = Reader(sensor, (data.raw_height, data.raw_width), data.normalise, data.levels, data.lens_shading)
    check_noted((path for split in splits.values() for path in split.raws), data.normalise)
    return splits, reader, open_reference(reader, data)


def open_reference(reader: Reader, data: Data) -> Reference:
    """The demosaiced rendering of what a reader reads; its white balance is for mosaics that have none yet."""
    balanced, own = reader.normalisation in BALANCED, data.rendering == "camera"
    gains = (1.0, 1.0, 1.0) if balanced else data.gains
    if own:  # such that what is saturated becomes white
        gains = tuple(gain / min(gains) for gain in gains)
    headroom = 1.0 if reader.normalisation in CLIPPED else MOST**2
    return Reference(reader.sensor, find_demosaicer(data.demosaic), gains, headroom=headroom, camera=own)


def identify(splits: dict[str, Split], reader: Reader) -> dict[str, list[tuple[str, str]]]:
    """{split: (name, fingerprint) of each of its files}, by which a run knows its data again.

    "tables" are those from which mosaics are normalised, "masks" those of the pairs, "map" is that by which mosaics are
    mapped, if they are.
    Prints a note if files of one split are in another one too.
    """
    files, known = {}, {}
    for name, split in splits.items():
        marks = [storage.fingerprint(path) for path in (*split.raws, *split.photos)]
        for kind, own in (("mosaics", marks[: len(split.raws)]), ("photographs", marks[len(split.raws) :])):
            for other in sorted({known[mark] for mark in own if mark in known}):
                both = sum(known.get(mark) == other for mark in own)
                note(f"{both} of the {len(own)} {kind} of {name} are also in {other}: scores on them are too good")
        known |= {mark: name for mark in marks if mark not in known}
        files[name] = list(zip((path.name for path in (*split.raws, *split.photos)), marks, strict=True))
    if reader.normalisation != "off":
        tables = tables_of(path for split in splits.values() for path in split.raws)
        files["tables"] = sorted((table.name, storage.fingerprint(table)) for table in tables)
    if masks := [path for split in splits.values() for path in split.masks]:
        files["masks"] = [(path.name, storage.fingerprint(path)) for path in masks]
    if isinstance(reader, MappedReader):
        files["map"] = [(f"to camera {reader.converter.to}", reader.sha256)]
    return files


def note_trained_on(run: Path, split: Split) -> None:
    """Print a note if the run was trained on mosaics of `split`, by its data.json: the dataset has changed since."""
    file = run / "data.json"
    try:
        trained = {mark for _, mark in json.loads(file.read_text())["train"]} if file.is_file() else set()
    except (ValueError, KeyError, TypeError, RecursionError):
        note(f"{file} is damaged: it cannot be told whether the run was trained on files that are scored")
        return
    if both := sum(storage.fingerprint(path) in trained for path in split.raws if trained):
        note(
            f"{run} was trained on {both} of the {len(split)} mosaics that are scored, because its dataset has changed "
            "since: the scores are too good"
        )


def some_mosaics(train: Split) -> Split:
    """Mosaics of a dataset without pairs to look at: at most `SHOWN`, evenly spaced, without photographs."""
    chosen = train.raws[:: -(-len(train) // SHOWN)]
    note(f"the dataset has no pairs: {len(chosen)} of its {len(train)} mosaics are rendered, and nothing is scored")
    return Split(chosen, (), paired=False)


def note_darkness(split: Split, reader: Reader) -> None:
    """Print a note if some of the mosaics are so dark that the white level must be that of another bit depth."""
    sample = split.raws[:: -(-len(split) // SAMPLED)]
    brightest = max(float(reader.recorded(path).max()) for path in sample)
    if brightest <= DARK * reader.sensor.white_level:
        note(
            f"the largest value in {len(sample)} mosaics is {brightest:g}, and the white level is "
            f"{reader.sensor.white_level:g}: check --data.white-level, pictures may turn out dark"
        )


def _check_simulated(file: Path, sensor: Sensor) -> None:
    """Raise `UserError` if data.simulate has written that the dataset is of another camera.

    Black levels may differ by 2 % of white: the released RMFA-Net takes others than the camera has.
    """
    if not file.is_file():  # reading a pipe could wait for ever
        return
    try:
        content = json.loads(file.read_text("utf-8-sig"))
        if "camera" not in content and "sensor" in content:
            return  # a profile, perhaps of another camera: --data.camera names that of the mosaics
        known = content["camera"]
        simulated = Sensor(known["cfa"], tuple(known["black"]), known["white"])
    except (ValueError, KeyError, TypeError, RecursionError, UserError):
        note(f"{file} is not read: it is damaged, or not of data.simulate or data.camera")
        return
    apart = max(abs(a - b) for a, b in zip(simulated.black_level, sensor.black_level, strict=True))
    if (simulated.cfa, simulated.white_level) != (sensor.cfa, sensor.white_level) or apart > 0.02 * sensor.white_level:
        black = " ".join(f"{level:g}" for level in simulated.black_level)
        raise UserError(
            f"{file} says that the mosaics have another CFA order or other levels: set --data.cfa {simulated.cfa} "
            f"--data.black-level {black} --data.white-level {simulated.white_level:g}"
        )
