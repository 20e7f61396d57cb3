"""The dataset that a config names: its splits, how its files are read, and how its mosaics are rendered."""

from pathlib import Path

from config import Config
from data.files import Reader
from data.folders import Split, open_dataset
from data.reference import Reference, find_demosaicer
from data.sensor import Sensor


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
    reader = Reader(sensor, (data.raw_height, data.raw_width))
    return splits, reader, Reference(sensor, find_demosaicer(data.demosaic))
