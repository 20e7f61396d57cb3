"""Mosaics that are written are read again as they were, by LibRaw too, with everything that is noted."""

import io

import numpy as np
import pytest
import rawpy
import tifffile
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from data.camera_files import look_at
from data.files import Reader
from data.mosaic_files import NEUTRAL_MATRIX, NEUTRAL_NAME, Notes, encode_mosaic
from data.photographs import notes_of
from data.sensor import CFA_ORDERS, Sensor
from errors import UserError

from ..dng import dng
from .by_hand import BY_HAND

BLACK, WHITE = (60.0, 62.0, 64.0, 66.0), 1023.0
MATRIX = ((0.8, -0.2, -0.1), (-0.4, 1.3, 0.1), (-0.1, 0.2, 0.6))


@pytest.fixture
def mosaic() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1024, (32, 48)).astype(np.uint16)


def written(folder, mosaic, sensor, kind="dng", **notes):
    path = folder / f"a.{kind}"
    path.write_bytes(encode_mosaic(mosaic, sensor, kind, Notes(**notes)))
    return path


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_libraw_reads_pixels_levels_and_colours_of_every_cfa_order(tmp_path, mosaic, cfa):
    path = written(tmp_path, mosaic, Sensor(cfa, BLACK, WHITE))
    with rawpy.imread(str(path)) as raw:
        assert np.array_equal(raw.raw_image_visible, mosaic) and raw.white_level == WHITE
        colours = {"R": 0, "Gr": 1, "Gb": 3, "B": 2}  # LibRaw's numbers; its black levels are in their order
        for (channel, (row, column)), black in zip(BY_HAND[cfa].items(), BLACK, strict=True):
            assert raw.raw_color(row, column) % 2 == colours[channel] % 2
            assert raw.black_level_per_channel[colours[channel]] == black
    assert look_at(path).sensor == Sensor(cfa, BLACK, WHITE)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_black_levels_lie_where_their_colours_lie(tmp_path, mosaic, cfa):
    with tifffile.TiffFile(written(tmp_path, mosaic, Sensor(cfa, BLACK, WHITE))) as file:
        tags = file.pages[0].tags
        levels = np.divide(*np.array(tags["BlackLevel"].value).reshape(4, 2).T)
        pattern = "".join("rgb"[colour] for colour in tags["CFAPattern"].value)
    assert pattern == cfa and tags["BlackLevelRepeatDim"].value == (2, 2)
    for (row, column), black in zip(BY_HAND[cfa].values(), BLACK, strict=True):
        assert levels[2 * row + column] == black


@pytest.mark.parametrize("kind", ("dng", "png", "npy"))
@pytest.mark.parametrize("white", (1023.0, 65535.0))
def test_what_is_written_is_read_again(tmp_path, mosaic, kind, white):
    sensor = Sensor("gbrg", BLACK, white)
    again = Reader(sensor).recorded(written(tmp_path, mosaic, sensor, kind))
    assert again.dtype == np.uint16 and np.array_equal(again, mosaic)


def test_a_fraction_of_a_black_level_is_noted(tmp_path, mosaic):
    with tifffile.TiffFile(written(tmp_path, mosaic, Sensor("rggb", (60.25,) * 4, WHITE))) as file:
        assert np.divide(*file.pages[0].tags["BlackLevel"].value[:2]) == 60.25


def test_the_camera_and_its_colours_are_noted(tmp_path, mosaic):
    sensor, camera = Sensor("rggb", BLACK, WHITE), {"make": "Maker", "model": "Phone 2", "color_matrix": MATRIX}
    notes = look_at(written(tmp_path, mosaic, sensor, gains=(2.0, 1.25), orientation=6, **camera))
    assert (notes.make, notes.model, notes.orientation) == ("Maker", "Phone 2", 6)
    assert notes.gains == pytest.approx((2.0, 1.25), rel=1e-5)
    np.testing.assert_allclose(notes.color_matrix, MATRIX, atol=1e-4)


def test_a_matrix_that_is_not_known_is_said_to_be_neutral_and_gains_stay_unknown(tmp_path, mosaic):
    path = written(tmp_path, mosaic, Sensor("rggb", BLACK, WHITE))
    notes = look_at(path)
    assert notes.gains is None and notes.name == ""
    np.testing.assert_allclose(notes.color_matrix, NEUTRAL_MATRIX, atol=1e-4)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].tags["ProfileName"].value == NEUTRAL_NAME
        assert file.pages[0].tags["UniqueCameraModel"].value == "unknown camera"
    named = written(tmp_path, mosaic, Sensor("rggb", BLACK, WHITE), color_matrix=MATRIX)
    with tifffile.TiffFile(named) as file:
        assert "ProfileName" not in file.pages[0].tags


def test_the_moment_is_that_of_the_source_and_the_camera_is_not(tmp_path, mosaic):
    """Make and model of the source are those of another camera."""
    source = tmp_path / "source.dng"
    source.write_bytes(dng(mosaic, black=64, iso=400, camera=("Other", "Camera"), orientation=3))
    notes = notes_of(source)
    path = written(tmp_path, mosaic, Sensor("rggb", BLACK, WHITE), make="Maker", model="Two", source=source)
    found = look_at(path)
    assert found.iso == 400 and (found.make, found.model) == ("Maker", "Two") and found.orientation == 1
    assert notes_of(path).get_ifd(34665)[34855] == notes.get_ifd(34665)[34855] == 400
    with tifffile.TiffFile(path) as file:
        assert "ColorSpace" not in file.pages[0].tags["ExifTag"].value


def test_time_place_and_exposure_are_kept(tmp_path, mosaic):
    source, directory = tmp_path / "source.dng", ImageFileDirectory_v2()
    directory[306], directory[271] = "2024:05:06 07:08:09", "Other"
    for tag, below in ((34665, {33434: IFDRational(1, 100), 36867: "2024:05:06 07:08:09"}), (34853, {1: "N"})):
        directory.tagtype[tag] = 4
        directory[tag] = below
    directory.save(buffer := io.BytesIO())
    source.write_bytes(buffer.getvalue())
    found = notes_of(written(tmp_path, mosaic, Sensor("rggb", BLACK, WHITE), make="Maker", source=source))
    assert found[306] == "2024:05:06 07:08:09" and found[271] == "Maker"
    assert found.get_ifd(34665)[33434] == pytest.approx(0.01) and found.get_ifd(34665)[36867] == found[306]
    assert found.get_ifd(34853)[1] == "N"


def test_notes_that_cannot_be_written_are_left_out(tmp_path, mosaic, monkeypatch):
    monkeypatch.setattr("data.mosaic_files.notes_of", lambda source: {306: object()})
    sensor = Sensor("rggb", BLACK, WHITE)
    assert np.array_equal(Reader(sensor).recorded(written(tmp_path, mosaic, sensor, source=tmp_path)), mosaic)


def test_a_file_of_a_known_make_keeps_its_own_colours(tmp_path, mosaic):
    """LibRaw knows many cameras by name; what the file notes counts all the same."""
    path = written(tmp_path, mosaic, Sensor("bggr", BLACK, WHITE), make="Canon", model="Canon EOS 5D Mark II")
    assert look_at(path).sensor == Sensor("bggr", BLACK, WHITE)
    assert np.array_equal(Reader(Sensor("bggr", BLACK, WHITE)).recorded(path), mosaic)


def test_a_raw_converter_develops_it(tmp_path):
    """The grey that the gains mean is grey, and darker than white."""
    sensor, grey = Sensor("grbg", (64.0,) * 4, 1023.0), {"R": 200, "Gr": 400, "Gb": 400, "B": 320}
    mosaic = np.zeros((64, 64), np.uint16)
    for channel, (row, column) in BY_HAND["grbg"].items():
        mosaic[row::2, column::2] = 64 + grey[channel]
    with rawpy.imread(io.BytesIO(encode_mosaic(mosaic, sensor, "dng", Notes(gains=(2.0, 1.25))))) as raw:
        image = raw.postprocess(use_camera_wb=True, no_auto_bright=True)[8:-8, 8:-8]
    assert np.ptp(image, axis=2).max() <= 2 and 50 < image.mean() < 230


def test_what_does_not_fit_is_refused(mosaic):
    with pytest.raises(UserError, match="white level is 70000, but files are written with 16 bits"):
        encode_mosaic(mosaic, Sensor("rggb", BLACK, 70000.0), "png")
    with pytest.raises(TypeError):
        encode_mosaic(mosaic.astype(np.int32), Sensor("rggb", BLACK, WHITE), "dng")
