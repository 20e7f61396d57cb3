"""The dataset that a config names."""

from dataclasses import replace

import pytest

from config import Config, Data
from data.sensor import Sensor
from errors import UserError
from tasks.data import open_data


@pytest.fixture
def config(tmp_path, make_pairs) -> Config:
    """Three pairs, in Fujifilm's layout."""
    make_pairs(tmp_path / "train" / "mediatek_raw", tmp_path / "train" / "fujifilm", 3, seed=0)
    return Config(data=Data(root=str(tmp_path), val_count=1, test_count=0))


def with_data(config: Config, **data) -> Config:
    return replace(config, data=replace(config.data, **data))


def test_splits_reader_and_reference_follow_the_config(config):
    sensor = Sensor("bggr", (1.0, 2.0, 3.0, 4.0), 4095.0)
    camera = {"cfa": sensor.cfa, "black_level": sensor.black_level, "white_level": sensor.white_level}
    splits, reader, reference = open_data(with_data(config, **camera, raw_height=4, raw_width=6, demosaic="bilinear"))
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "val": 1, "test": 0}
    assert reader.sensor == reference.sensor == sensor and reader.headless_size == (4, 6)
    assert reference.demosaic.__name__ == "bilinear_opencv"


@pytest.mark.parametrize(
    ("data", "message"),
    (
        ({"demosaic": "malvar"}, "unknown demosaicing 'malvar'; known are: menon2007, bilinear"),
        ({"layout": "sony"}, "unknown dataset layout 'sony'; known are: zrr, fujifilm, ntire26, folders"),
        ({"root": "absent"}, "no folder absent"),
    ),
)
def test_what_cannot_be_opened_is_refused(config, data, message):
    with pytest.raises(UserError, match=message):
        open_data(with_data(config, **data))
