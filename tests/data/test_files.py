"""Reading mosaics and photographs: files made here, damaged files, and real files of several cameras."""

import gc
import pickle
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from data.files import PHOTO_FILES, Reader, read_mosaic
from data.photographs import read_photo
from data.sensor import CFA_ORDERS, SENSORS, Sensor, mosaic_tensor, offsets
from errors import UserError

TEN_BITS = SENSORS["fujifilm"]


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ("png", "tif", "pgm"))
def test_a_16_bit_image_keeps_its_values(tmp_path, suffix):
    values = np.array([[0, 1, 1023, 512], [3, 4, 5, 6]], np.uint16)
    iio.imwrite(tmp_path / f"m.{suffix}", values)
    mosaic = read_mosaic(tmp_path / f"m.{suffix}", TEN_BITS)
    assert np.array_equal(mosaic, values) and mosaic.dtype in (np.uint16, np.float32)


def test_a_10_bit_pgm_keeps_its_values(tmp_path):
    values = np.array([[0, 1023], [512, 60]], ">u2")
    (tmp_path / "m.pgm").write_bytes(b"P5 2 2 1023\n" + values.tobytes())
    assert np.array_equal(read_mosaic(tmp_path / "m.pgm", TEN_BITS), values)


def test_npy_channels_become_a_mosaic(tmp_path):
    np.save(tmp_path / "m.npy", np.array([[[1, 2, 3, 4], [5, 6, 7, 8]]], np.uint16))
    assert read_mosaic(tmp_path / "m.npy", TEN_BITS).tolist() == [[1, 2, 5, 6], [3, 4, 7, 8]]


def test_npy_files_can_be_read_by_many_threads_at_once(tmp_path):
    """Python 3.11.7 and earlier cannot parse two headers at once if memory is collected meanwhile."""
    np.save(tmp_path / "m.npy", np.full((2, 2), 500, np.uint16))
    before, yield_to_others = gc.get_threshold(), lambda *_: time.sleep(1e-5)
    gc.callbacks.append(yield_to_others)
    gc.set_threshold(10)
    try:
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda _: read_mosaic(tmp_path / "m.npy", TEN_BITS)[0, 0], range(2000)))
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(yield_to_others)
    assert read == [500] * 2000


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
def test_npy_fractions_become_digital_numbers(tmp_path, dtype):
    np.save(tmp_path / "m.npy", np.full((1, 1, 4), [0, 0.25, 0.5, 1], dtype))
    mosaic = read_mosaic(tmp_path / "m.npy", TEN_BITS)
    assert mosaic.dtype == np.float32
    np.testing.assert_allclose(mosaic, [[0, 255.75], [511.5, 1023]])


@pytest.mark.parametrize("dtype", (np.uint16, np.int32, np.float32))
def test_npy_digital_numbers_are_kept(tmp_path, dtype):
    np.save(tmp_path / "m.npy", np.array([[0, 60], [1023, 2]], dtype))
    assert read_mosaic(tmp_path / "m.npy", TEN_BITS).tolist() == [[0, 60], [1023, 2]]


def test_headless_files_are_little_endian(tmp_path):
    (tmp_path / "m.raw").write_bytes(struct.pack("<8H", *range(1, 9)))
    assert read_mosaic(tmp_path / "m.raw", TEN_BITS, (2, 4)).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_reader_knows_the_sensor_and_the_size_of_headless_files(tmp_path):
    (tmp_path / "m.raw").write_bytes(struct.pack("<8H", *range(1, 9)))
    reader = Reader(TEN_BITS, (2, 4))
    mosaic = reader.mosaic(tmp_path / "m.raw")
    assert mosaic.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert reader.mosaic_tensor(mosaic).equal(mosaic_tensor(mosaic, TEN_BITS))


def test_a_photograph_is_always_rgb(tmp_path):
    iio.imwrite(tmp_path / "grey.png", np.full((4, 6), 7, np.uint8))
    iio.imwrite(tmp_path / "alpha.png", np.full((4, 6, 4), 7, np.uint8))
    for name in ("grey.png", "alpha.png"):
        photo = read_photo(tmp_path / name)
        assert photo.shape == (4, 6, 3) and photo.dtype == np.uint8 and (photo == 7).all()


# --- damaged and unsuitable files ------------------------------------------------------------------------------------


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array) if path.suffix == ".npy" else iio.imwrite(path, array)
    return path


@pytest.mark.parametrize(
    "name, array, message",
    (
        ("m.png", np.zeros((4, 4), np.uint8), "8 bits.*full bit depth"),
        ("m.npy", np.zeros((4, 4), np.uint8), "8 bits.*full bit depth"),
        ("m.png", np.zeros((4, 4, 3), np.uint8), r"not a mosaic.*\(4, 4, 3\)"),
        ("m.npy", np.zeros((4, 4, 3), np.uint16), r"not a mosaic.*\(4, 4, 3\)"),
        ("m.npy", np.zeros(4, np.uint16), r"not a mosaic.*\(4,\)"),
        ("m.png", np.full((4, 4), 4095, np.uint16), "4095.*1023.*--data.white-level"),
        ("m.npy", np.full((4, 4), -1, np.int16), "from -1 .*--data.white-level"),
        ("m.npy", np.array([[0, np.nan], [1, 2]], np.float32), "nan.*outside"),
        ("m.npy", np.array([[0, np.inf], [1, 2]], np.float32), "inf.*outside"),
        ("m.npy", np.array([[0, 1], [-np.inf, 2]], np.float32), "-inf.*outside"),
        ("m.npy", np.array([["a", "b"]]), "not integers or real numbers"),
        ("m.npy", np.zeros((2, 2), np.complex64), "not integers or real numbers"),
        ("m.png", np.zeros((5, 4), np.uint16), "5x4.*even sides"),
        ("m.npy", np.zeros((4, 7), np.uint16), "4x7.*even sides"),
        ("m.npy", np.zeros((0, 4), np.uint16), "0x4"),
        ("m.npy", np.zeros((0, 2, 4), np.float32), "0x4"),
    ),
)
def test_an_image_that_is_not_a_mosaic_is_refused_by_name(tmp_path, name, array, message):
    path = save(tmp_path / name, array)
    with pytest.raises(UserError, match=message) as caught:
        read_mosaic(path, TEN_BITS)
    assert str(path) in str(caught.value)


def test_pickled_code_in_an_npy_is_not_run(tmp_path, bomb):
    np.save(tmp_path / "m.npy", np.array([bomb], dtype=object), allow_pickle=True)
    (tmp_path / "n.npy").write_bytes(pickle.dumps(bomb))
    for name in ("m.npy", "n.npy"):
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            read_mosaic(tmp_path / name, TEN_BITS)


@pytest.mark.parametrize("read", (lambda path: read_mosaic(path, TEN_BITS), read_photo))
def test_a_truncated_png_is_refused(tmp_path, write_mosaic, read):
    write_mosaic(tmp_path / "m.png", size=(64, 64))
    whole = (tmp_path / "m.png").read_bytes()
    for length in (0, 20, len(whole) // 2):
        (tmp_path / "m.png").write_bytes(whole[:length])
        with pytest.raises(UserError, match="m.png"):
            read(tmp_path / "m.png")


@pytest.mark.parametrize("suffix", ("jpg", "webp", "tif"))
def test_garbage_is_refused_as_a_photograph(tmp_path, suffix):
    assert f".{suffix}" in PHOTO_FILES
    (tmp_path / f"p.{suffix}").write_bytes(b"garbage" * 100)
    with pytest.raises(UserError, match=f"cannot read .*p.{suffix}"):
        read_photo(tmp_path / f"p.{suffix}")


@pytest.mark.parametrize("suffix", ("pgm", "npy", "dng", "tif"))
def test_garbage_is_refused_as_a_mosaic(tmp_path, suffix):
    (tmp_path / f"m.{suffix}").write_bytes(b"garbage" * 100)
    with pytest.raises(UserError, match=f"cannot read .*m.{suffix}"):
        read_mosaic(tmp_path / f"m.{suffix}", TEN_BITS)


@pytest.mark.parametrize("suffix", ("png", "npy", "raw", "dng"))
def test_a_missing_mosaic_is_named(tmp_path, suffix):
    with pytest.raises(UserError, match=f"m.{suffix}"):
        read_mosaic(tmp_path / f"m.{suffix}", TEN_BITS, (2, 2))


def test_a_headless_file_needs_a_size_and_must_have_it(tmp_path):
    (tmp_path / "m.raw").write_bytes(bytes(30))
    with pytest.raises(UserError, match="no header.*--data.raw-height and --data.raw-width"):
        read_mosaic(tmp_path / "m.raw", TEN_BITS)
    with pytest.raises(UserError, match="30 bytes, but 4x4 16-bit pixels are 32"):
        read_mosaic(tmp_path / "m.raw", TEN_BITS, (4, 4))


def test_npy_of_rggb_channels_needs_an_rggb_sensor(tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((2, 2, 4), np.uint16))
    with pytest.raises(UserError, match="R, G, G, B.*order rggb, not bggr"):
        read_mosaic(tmp_path / "m.npy", Sensor("bggr", TEN_BITS.black_level, 1023.0))


# --- real files ------------------------------------------------------------------------------------------------------


def test_a_dng_equals_what_libraw_reads(real):
    rawpy, path = pytest.importorskip("rawpy"), real("raw_samples", "colorchart.dng")
    mosaic = read_mosaic(path, Sensor("rggb", (2056.0,) * 4, 15000.0))
    with rawpy.imread(str(path)) as raw:
        assert raw.color_desc == b"RGBG" and raw.raw_pattern.tolist() == [[0, 1], [3, 2]]  # R G / G B
        assert (raw.black_level_per_channel, raw.white_level) == ([2056] * 4, 15000)
        assert np.array_equal(mosaic, raw.raw_image_visible)
    assert mosaic.shape == (1156, 1734) and mosaic.dtype == np.uint16


def test_a_dng_that_contradicts_the_sensor_is_refused_with_the_option_to_set(real):
    path = real("raw_samples", "colorchart.dng")
    with pytest.raises(UserError, match="order rggb, not bggr: set --data.cfa rggb"):
        read_mosaic(path, Sensor("bggr", (2056.0,) * 4, 15000.0))
    with pytest.raises(UserError, match="white level 15000, not 2100: leave out --data.white-level"):
        read_mosaic(path, Sensor("rggb", (2056.0,) * 4, 2100.0), levels="given")
    with pytest.raises(UserError, match="black level 2056, not 0: leave out --data.black-level"):
        read_mosaic(path, Sensor("rggb", (0.0,) * 4, 15000.0), levels="given")


def test_a_phone_s_pgm_keeps_its_values(real):
    path = real("raw_samples", "n900_grbg_2592x304.pgm")
    mosaic = read_mosaic(path, Sensor("grbg", (0.0,) * 4, 1023.0))
    expected = np.frombuffer(path.read_bytes()[-2 * 304 * 2592 :], ">u2").reshape(304, 2592)
    assert np.array_equal(mosaic, expected)


def test_the_same_scene_is_read_in_four_cfa_orders(real):
    scenes = {}
    for cfa in CFA_ORDERS:
        sensor = Sensor(cfa, (600.0,) * 4, 16383.0)
        mosaic = read_mosaic(real("raw_samples", f"DSC_1339_768x512_{cfa}.raw"), sensor, (512, 768))
        channels = {name: mosaic[row::2, column::2] for name, (row, column) in offsets(cfa).items()}
        scenes[cfa] = (channels["R"], channels["B"], channels["Gr"].astype(int) + channels["Gb"])
    for cfa in CFA_ORDERS:
        assert all(np.array_equal(a, b) for a, b in zip(scenes[cfa], scenes["rggb"], strict=True))
