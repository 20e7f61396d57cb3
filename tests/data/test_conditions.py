"""Light and exposure, noted or estimated, are undone."""

import numpy as np
import pytest

from data import camera_files, conditions
from data.conditions import GREY, MOST, check_noted, exposure_gain, gains_of, gray_world, normalise, tables_of
from data.files import Reader
from data.folders import mosaics
from data.sensor import CFA_ORDERS, Sensor, offsets
from errors import UserError

LEVELS = (58.0, 60.0, 61.0, 62.0)
HEADER = "file,red_gain,blue_gain,exposure_value\n"


@pytest.fixture(autouse=True)
def tables_are_new():
    """Tables are read once; each test has its own."""
    conditions._read_table.cache_clear()


def mosaic_of(red: float, green: float, blue: float, cfa: str = "rggb") -> tuple[np.ndarray, Sensor]:
    """A mosaic (8, 12) of one colour, in fractions of white."""
    sensor, mosaic = Sensor(cfa, LEVELS, 1023.0), np.empty((8, 12), np.float32)
    sites, colour = offsets(cfa), {"R": red, "G": green, "B": blue}
    for channel, black in zip(("R", "Gr", "Gb", "B"), LEVELS, strict=True):
        row, column = sites[channel]
        mosaic[row::2, column::2] = black + colour[channel[0]] * (1023 - black)
    return mosaic, sensor


@pytest.fixture
def write(tmp_path):
    """write(lines): a folder with the mosaic 7.png and a table of notes above it; returns the mosaic's path."""

    def make(lines: str, name: str = "7.png"):
        folder = tmp_path / "raws"
        folder.mkdir(exist_ok=True)
        (tmp_path / "metadata.csv").write_text(lines)
        return folder / name

    return make


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_only_what_is_above_black_is_multiplied(cfa):
    mosaic, sensor = mosaic_of(0.1, 0.2, 0.25, cfa)
    normalised = normalise(mosaic, (4.0, 2.0, 1.0), sensor)
    np.testing.assert_allclose(normalised, mosaic_of(0.4, 0.4, 0.25, cfa)[0], rtol=1e-6)
    assert normalised.dtype == np.float32 and (mosaic == mosaic_of(0.1, 0.2, 0.25, cfa)[0]).all()


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_estimated_gains_make_the_mean_grey_and_its_median_that_of_mid_grey(cfa):
    mosaic, sensor = mosaic_of(0.1, 0.2, 0.05, cfa)
    assert gray_world(mosaic, sensor) == pytest.approx((2.0, 4.0), rel=1e-5)
    assert exposure_gain(mosaic, sensor) == pytest.approx(GREY / 0.2, rel=1e-5)


def test_saturated_blocks_say_nothing_about_the_light():
    mosaic, sensor = mosaic_of(0.1, 0.2, 0.05)
    mosaic[:2] = 1023
    assert gray_world(mosaic, sensor) == pytest.approx((2.0, 4.0), rel=1e-5)


@pytest.mark.parametrize("value", (0, 58, 1023))
def test_gains_of_an_empty_image_are_bounded(value):
    mosaic, sensor = np.full((8, 8), value, np.uint16), Sensor("rggb", LEVELS, 1023.0)
    gains = (*gray_world(mosaic, sensor), exposure_gain(mosaic, sensor))
    assert all(1 / MOST <= gain <= MOST for gain in gains)


# --- noted -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    (("as_shot", (2.0 / 2, 1 / 2, 1.5 / 2)), ("exposure", (0.5, 0.5, 0.5)), ("gray_world", None)),
)
def test_what_is_noted_is_used(write, normalisation, expected):
    path, (mosaic, sensor) = write(HEADER + "7.png,2.0,1.5,1\n"), mosaic_of(0.1, 0.2, 0.05)
    estimated = (2.0 * GREY / 0.2, GREY / 0.2, 4.0 * GREY / 0.2)
    assert gains_of(path, mosaic, sensor, normalisation) == pytest.approx(expected or estimated, rel=1e-5)


def test_what_is_not_noted_is_estimated(write):
    path, (mosaic, sensor) = write("file,red_gain,blue_gain\n7,3,1\n"), mosaic_of(0.1, 0.2, 0.05)
    exposure = GREY / 0.2
    assert gains_of(path, mosaic, sensor, "as_shot") == pytest.approx((3 * exposure, exposure, exposure), rel=1e-5)


def test_without_notes_all_is_estimated_and_said(tmp_path, capsys):
    mosaic, sensor = mosaic_of(0.1, 0.2, 0.05)
    gains = gains_of(tmp_path / "a" / "b" / "7.png", mosaic, sensor, "as_shot")
    assert gains == gains_of(tmp_path / "7.png", mosaic, sensor, "gray_world")
    assert "has neither a metadata.csv nor camera files with gains" in capsys.readouterr().err


def test_gains_of_a_camera_s_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(conditions, "read_white_balance", lambda path: (1.75, 1.25))
    mosaic, sensor = mosaic_of(0.1, 0.2, 0.05)
    red, green, blue = gains_of(tmp_path / "a" / "7.DNG", mosaic, sensor, "as_shot")
    assert (red / green, blue / green) == pytest.approx((1.75, 1.25))


def test_the_white_balance_of_a_real_file(real):
    red, blue = camera_files.read_white_balance(real("raw_samples", "colorchart.dng"))
    assert 1 < red < 4 and 1 < blue < 4


@pytest.mark.parametrize(
    ("lines", "message"),
    (
        (HEADER + "8.png,1,1,0\n", "metadata.csv has no line for 7.png: add it"),
        (HEADER + "7.png,1,0,0\n", "metadata.csv, line 2: expected the columns file, red_gain, blue_gain"),
        (HEADER + "8.png,1,1,0\n7.png,1,nan,0\n", "line 3: expected"),
        (HEADER + "7.png,1,x,0\n", "line 2: expected"),
        (HEADER + "7.png,1,1,-9999\n", "line 2: expected"),
        ("file,red_gain\n7.png,1\n", "line 2: expected"),
        (HEADER + "7.png,1,1,0\n7.png,1,1.5,0\n", "line 3: there is an earlier line for 7.png"),
        (HEADER + "7.png,1,1,0\n8.png,1,1,\n", "an exposure_value for some files only"),
        (HEADER, "has no lines"),
        ("", "has no lines"),
    ),
)
def test_a_table_that_does_not_fit_is_refused(write, lines, message):
    path, (mosaic, sensor) = write(lines), mosaic_of(0.1, 0.2, 0.05)
    with pytest.raises(UserError, match=message):
        gains_of(path, mosaic, sensor, "as_shot")


def test_a_missing_line_matters_only_where_notes_are_used(write):
    path = write(HEADER + "8.png,1,1,0\n")
    for normalisation in ("off", "gray_world"):
        check_noted([path], normalisation)
    for normalisation in ("as_shot", "exposure"):
        with pytest.raises(UserError, match="has no line for 7.png"):
            check_noted([path], normalisation)


def test_a_table_that_is_no_text_is_refused(write, tmp_path):
    path, (mosaic, sensor) = write(""), mosaic_of(0.1, 0.2, 0.05)
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot read .*metadata.csv"):
        gains_of(path, mosaic, sensor, "as_shot")


# --- the reader ------------------------------------------------------------------------------------------------------


def test_a_reader_normalises_what_it_reads(write, write_mosaic):
    path = write(HEADER + "7.png,2.0,1.5,1\n")
    write_mosaic(path)
    plain, reader = (Reader(Sensor("rggb", LEVELS, 1023.0), (0, 0), kind) for kind in ("off", "as_shot"))
    recorded = plain.mosaic(path)
    assert recorded.dtype == np.uint16 and (reader.recorded(path) == recorded).all()
    expected = (recorded[0::2, 0::2].astype(float) - 58) * 1.0 + 58
    np.testing.assert_allclose(reader.mosaic(path)[0::2, 0::2], expected, rtol=1e-5)
    np.testing.assert_allclose(reader.mosaic(path)[1::2, 1::2], (recorded[1::2, 1::2] - 62.0) * 0.75 + 62, rtol=1e-5)


def test_the_facts_of_a_reader_change_with_its_table(write):
    path, sensor = write(HEADER + "7.png,2.0,1.5,1\n"), Sensor("rggb", LEVELS, 1023.0)
    plain, reader = Reader(sensor), Reader(sensor, (0, 0), "as_shot")
    before = reader.facts([path])
    (table,) = tables_of([path])
    table.write_text(HEADER + "7.png,2.0,1.6,1\n")
    assert reader.facts([path]) != before and plain.facts([path]) == (("rggb", LEVELS, 1023.0), (0, 0))


def test_a_table_of_notes_among_the_mosaics_is_not_told_as_unread(tmp_path, make_pairs, capsys):
    make_pairs(tmp_path / "raws", tmp_path / "photos", 2, 0)
    (tmp_path / "raws" / "metadata.csv").write_text("file,red_gain,blue_gain\n")
    assert len(mosaics(tmp_path / "raws")) == 2 and "not read" not in capsys.readouterr().err
