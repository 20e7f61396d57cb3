"""A camera's own files: right pixels, right notes, or one sentence; the files are written by tests/dng.py."""

import numpy as np
import pytest
import tifffile

from data.camera import camera_notes
from data.camera_files import check_not_turned, read_white_balance
from data.files import Reader, read_mosaic
from data.patches import check_pair
from data.sensor import CFA_ORDERS, Sensor
from errors import UserError

from ..dng import XYZ_TO_SRGB, dng, gain_maps, sampled
from .by_hand import BY_HAND, LEVELS

SIZE = (48, 64)
TEN_BITS = Sensor("rggb", (58.0,) * 4, 1023.0)
NO_LEVELS = (0.0,) * 4


@pytest.fixture
def write(tmp_path):
    """write(pixels, name, **options): the path of a DNG file."""

    def write_file(pixels: np.ndarray, name: str = "a.dng", **options):
        (tmp_path / name).write_bytes(dng(pixels, **options))
        return tmp_path / name

    return write_file


@pytest.fixture
def mosaic() -> np.ndarray:
    return np.random.default_rng(0).integers(58, 1024, SIZE).astype(np.uint16)


# --- right pixels ----------------------------------------------------------------------------------------------------


def test_digital_numbers_are_those_of_the_file(write, mosaic):
    read = read_mosaic(write(mosaic), TEN_BITS)
    assert read.dtype == np.uint16 and np.array_equal(read, mosaic)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_each_colour_has_its_own_black_level_in_every_cfa_order(write, cfa):
    """Each channel is read as the share of white above its own black."""
    shares = dict(zip(("R", "Gr", "Gb", "B"), (0.1, 0.3, 0.5, 0.9), strict=True))
    pixels = np.empty(SIZE, np.uint16)
    for (channel, share), black in zip(shares.items(), LEVELS, strict=True):
        row, column = BY_HAND[cfa][channel]
        pixels[row::2, column::2] = round(black + share * (1000 - black))
    path = write(pixels, cfa=cfa, black=LEVELS, white=1000)
    assert camera_notes(path).sensor == Sensor(cfa, LEVELS, 1000.0)
    read = read_mosaic(path, Sensor(cfa, NO_LEVELS, 4095.0))
    for channel, (row, column) in BY_HAND[cfa].items():
        np.testing.assert_allclose(read[row::2, column::2] / 4095, shares[channel], atol=1e-3)


@pytest.mark.parametrize("top", range(4))
@pytest.mark.parametrize("left", range(4))
def test_any_margin_of_the_visible_area_keeps_colours_and_levels(write, top, left):
    """Its CFA pattern and its black levels begin in its corner; an odd last row or column is left out."""
    height, width = SIZE[0] - 3, SIZE[1] - 5
    scene = np.broadcast_to((0.2, 0.4, 0.8), (height, width, 3))
    pixels = np.full(SIZE, 7, np.uint16)  # masked pixels, which are not visible
    pixels[top : top + height, left : left + width] = sampled(scene, "rggb", LEVELS, 1000)
    path = write(pixels, black=LEVELS, white=1000, active=(top, left, top + height, left + width))
    notes = camera_notes(path)
    assert notes.size == (height // 2 * 2, width // 2 * 2)
    read = read_mosaic(path, Sensor(notes.sensor.cfa, NO_LEVELS, 1000.0))
    assert read.shape == notes.size
    for channel, (row, column) in BY_HAND[notes.sensor.cfa].items():
        expected = 1000 * (0.2, 0.4, 0.8)["RGB".index(channel[0])]
        np.testing.assert_allclose(read[row::2, column::2], expected, atol=1.1)


def test_a_linearization_table_is_applied_before_the_levels(write):
    curve = np.linspace(0, 1023, 256).round().astype(int) ** 2 // 1023
    stored = np.random.default_rng(0).integers(80, 256, SIZE).astype(np.uint16)
    assert np.array_equal(read_mosaic(write(stored, curve=curve.tolist()), TEN_BITS), curve[stored])


def test_a_mosaic_below_a_thumbnail_is_read_with_all_its_notes(write, mosaic):
    path = write(mosaic, black=LEVELS, below=True, iso=400, opcodes=gain_maps("rggb", SIZE, {"R": np.full((2, 2), 2)}))
    notes = camera_notes(path)
    assert (notes.make, notes.model, notes.iso, notes.sensor.black_level) == ("Maker", "Phone 1", 400, LEVELS)
    assert Reader(notes.sensor, lens_shading=True).mosaic(path).dtype == np.float32


def test_a_default_crop_is_not_applied(write, mosaic):
    assert np.array_equal(read_mosaic(write(mosaic, crop=(16, 16)), TEN_BITS), mosaic)


def test_real_numbers_are_read(write):
    shares = np.random.default_rng(0).random(SIZE).astype(np.float32)
    path = write(shares, black=0, white=1)
    assert camera_notes(path).sensor == Sensor("rggb", NO_LEVELS, 16383.0)
    np.testing.assert_allclose(read_mosaic(path, Sensor("rggb", NO_LEVELS, 4095.0)) / 4095, shares, atol=2e-4)


def test_values_above_white_are_clipped(write, mosaic):
    mosaic[0, 0] = 1100
    read = read_mosaic(write(mosaic), TEN_BITS)
    assert read[0, 0] == 1023 and np.array_equal(read.ravel()[1:], mosaic.ravel()[1:])


# --- levels ----------------------------------------------------------------------------------------------------------


def test_files_of_two_isos_have_their_own_black(write):
    """The same scene, once with black 58 and once with 90, is the same mosaic within rounding."""
    scene = np.random.default_rng(0).random((*SIZE, 3))
    paths = [write(sampled(scene, black=black), f"{black}.dng", black=black) for black in (58, 90)]
    low, high = (Reader(TEN_BITS).mosaic(path) for path in paths)
    assert np.abs(low - high).max() <= 1.1 and high.dtype == np.float32


def test_ten_bits_are_brought_to_twelve(write):
    scene, twelve = np.random.default_rng(0).random((*SIZE, 3)), Sensor("rggb", (256.0,) * 4, 4095.0)
    own = read_mosaic(write(sampled(scene, black=256, white=4095), black=256, white=4095), twelve)
    assert np.abs(own - read_mosaic(write(sampled(scene)), twelve)).max() <= 3  # half a digital number of 10 bits


@pytest.mark.parametrize(
    ("given", "message"),
    (
        (Sensor("bggr", (58.0,) * 4, 1023.0), "a.dng has the CFA order rggb, not bggr: set --data.cfa rggb"),
        (Sensor("rggb", (58.0,) * 4, 4095.0), "a.dng has the white level 1023, not 4095: leave out --data.white-level"),
        (Sensor("rggb", (0.0,) * 4, 1023.0), "a.dng has the black level 58, not 0: leave out --data.black-level"),
        (Sensor("rggb", (58.0, 58.0, 58.0, 80.0), 1023.0), "a.dng has the black level 58, not 80"),
    ),
)
def test_levels_that_are_given_are_checked(write, mosaic, given, message):
    with pytest.raises(UserError, match=message):
        read_mosaic(write(mosaic), given, levels="given")


def test_levels_that_are_given_are_kept(write, mosaic):
    near = Sensor("rggb", (60.0, 58.0, 58.0, 56.0), 1000.0)
    read = read_mosaic(write(mosaic), near, levels="given")
    assert read.dtype == np.uint16 and np.array_equal(read, mosaic.clip(0, 1000))


@pytest.mark.parametrize(("black", "white"), ((2000, 1023), (1023, 1023)))
def test_impossible_levels_are_refused_by_name(write, mosaic, black, white):
    with pytest.raises(UserError, match="a.dng notes levels that no camera has: black_level .*leave it out"):
        read_mosaic(write(mosaic, black=black, white=white), TEN_BITS)


def test_a_file_that_notes_no_white_level_has_that_of_its_bits(write, mosaic):
    assert camera_notes(write(mosaic, white=0)).sensor.white_level == 65535


# --- lens shading ----------------------------------------------------------------------------------------------------


def test_lens_shading_is_undone_where_it_is_asked_for(write):
    pixels = np.full(SIZE, 158, np.uint16)  # 100 above black
    path = write(pixels, opcodes=gain_maps("rggb", SIZE, {"R": np.full((3, 3), 1.5), "B": np.full((1, 1), 3.0)}))
    assert np.array_equal(Reader(TEN_BITS).mosaic(path), pixels)
    undone = Reader(TEN_BITS, lens_shading=True).mosaic(path)
    for channel, expected in (("R", 208), ("Gr", 158), ("Gb", 158), ("B", 358)):
        row, column = BY_HAND["rggb"][channel]
        np.testing.assert_allclose(undone[row::2, column::2], expected, rtol=1e-5)


def test_undone_shading_is_clipped_at_white(write):
    path = write(np.full(SIZE, 1000, np.uint16), opcodes=gain_maps("rggb", SIZE, {"R": np.full((2, 2), 4.0)}))
    assert Reader(TEN_BITS, lens_shading=True).mosaic(path).max() == 1023


def test_lens_shading_at_an_odd_margin_is_refused(write, mosaic):
    """LibRaw moves the corner by a pixel; the gains of red would go to green."""
    path = write(mosaic, opcodes=gain_maps("rggb", SIZE, {"R": np.full((1, 1), 2.0)}), active=(1, 0, *SIZE))
    assert Reader(Sensor("gbrg", (58.0,) * 4, 1023.0)).mosaic(path).shape == (SIZE[0] - 2, SIZE[1])
    with pytest.raises(UserError, match="a.dng has an odd margin, with which its lens shading cannot be undone"):
        Reader(Sensor("gbrg", (58.0,) * 4, 1023.0), lens_shading=True).mosaic(path)


@pytest.mark.parametrize("opcodes", (b"\0", b"\0\0\0\2" + bytes(16), b"\0\0\0\1\0\0\0\x09" + bytes(12)))
def test_damaged_lens_shading_is_refused_by_name(write, mosaic, opcodes):
    path = write(mosaic, opcodes=opcodes)
    assert np.array_equal(Reader(TEN_BITS).mosaic(path), mosaic)
    with pytest.raises(UserError, match="a.dng has a damaged list of opcodes, which has its lens shading"):
        Reader(TEN_BITS, lens_shading=True).mosaic(path)


# --- notes -----------------------------------------------------------------------------------------------------------


def test_all_that_a_file_notes(write, mosaic):
    notes = camera_notes(write(mosaic, iso=800, orientation=6, camera=("Maker", "Maker X")))
    assert (notes.sensor, notes.size, notes.iso, notes.orientation) == (TEN_BITS, SIZE, 800, 6)
    assert (notes.make, notes.model, notes.name) == ("Maker", "Maker X", "Maker X")
    assert notes.gains == pytest.approx((2.0, 1.5), rel=1e-5)
    np.testing.assert_allclose(notes.color_matrix, XYZ_TO_SRGB, atol=1e-4)


def test_what_a_file_does_not_note(write, mosaic):
    notes = camera_notes(write(mosaic, gains=None, camera=("", ""), matrix=np.zeros((3, 3))))
    assert (notes.gains, notes.iso, notes.name, notes.color_matrix) == (None, 0, "", None)


@pytest.mark.parametrize("gains", ((1e9, 1.5), (2.0, 1e9)))  # written as a neutral of 0
def test_an_infinite_gain_is_none(write, mosaic, gains):
    path = write(mosaic, gains=gains)
    assert camera_notes(path).gains is None and read_white_balance(path) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_exif_and_pixels_are_not_turned(write, mosaic, orientation):
    path = write(mosaic, orientation=orientation)
    assert camera_notes(path).orientation == orientation
    assert np.array_equal(read_mosaic(path, TEN_BITS), mosaic)


def test_a_turned_file_does_not_make_a_pair(write, mosaic, tmp_path):
    photo = tmp_path / "a.tif"
    tifffile.imwrite(photo, np.zeros((*SIZE, 3), np.uint8), photometric="rgb")
    check_pair(write(mosaic), photo, SIZE, SIZE)
    with pytest.raises(UserError, match="b.dng was taken with the camera turned.*leave the pair out"):
        check_pair(write(mosaic, "b.dng", orientation=8), photo, SIZE, SIZE)
    with pytest.raises(UserError, match="b.dng was taken with the camera turned"):
        check_not_turned(tmp_path / "b.dng")
