"""Bad and unusual files: each is read rightly, or refused quickly in one sentence that names it.

A new case is a row of one of the tables: (what is wrong, the content, the expected sentence or pixels).
"""

import struct
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from data.files import Reader, read_mosaic
from data.photographs import read_photo
from data.sensor import SENSORS, Sensor
from data.unprocess import Camera

from ..dng import dng
from .bad_files import GREY, LARGE_RAW, RAW, RGB, huge_png, npy, pillow, png, refuse, rows, saved, zipped

pytestmark = pytest.mark.usefixtures("quick")
TEN_BITS = SENSORS["fujifilm"]

# --- mosaics ---------------------------------------------------------------------------------------------------------

DAMAGED = r"cannot read .*m\.{}: it is damaged, truncated, or of another format"
# What is wrong, the file's suffix, its content, the expected sentence.
BAD_MOSAICS = (
    ("1-bit PNG", "png", lambda: pillow(Image.fromarray(RAW > 500), "PNG"), "at most 8 bits a pixel"),
    ("palette PNG", "png", lambda: pillow(Image.fromarray(RGB).quantize(16), "PNG"), "at most 8 bits a pixel"),
    ("8-bit PNG", "png", lambda: png(RGB[..., 0]), "at most 8 bits a pixel"),
    ("colour PNG", "png", lambda: png(RGB), r"not a mosaic: its shape is \(16, 16, 3\)"),
    ("16-bit colour PNG", "png", lambda: png(RGB.astype(np.uint16)), "not a mosaic: its shape"),
    ("truncated PNG", "png", lambda: png(RAW)[:-200], DAMAGED.format("png")),
    ("empty PNG", "png", lambda: b"", "not an image .*, or damaged"),
    (
        "EPS named PNG",
        "png",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "not an image .*, or damaged",
    ),
    ("PNG of 196 million pixels", "png", lambda: huge_png(14000, 14000), "too large, .* 179 million pixels: shrink it"),
    (
        "TIFF of two mosaics",
        "tif",
        lambda: pillow(Image.fromarray(RAW), "TIFF", save_all=True, append_images=[Image.fromarray(RAW)]),
        "holds 2 images",
    ),
    ("odd height", "png", lambda: png(RAW[:15]), "15x16 .*even sides: crop it"),
    ("odd width", "npy", lambda: saved(RAW[:, :15]), "16x15 .*even sides: crop it"),
    (
        "values above white",
        "npy",
        lambda: saved(RAW * 2),
        "outside 0 to the white level 1023: check --data.white-level",
    ),
    ("NaN in NPY", "npy", lambda: saved(np.full((4, 4), np.nan)), "values from nan"),
    ("npz named npy", "npy", zipped, DAMAGED.format("npy")),
    ("object array", "npy", lambda: saved(np.array([["a", None]], dtype=object)), DAMAGED.format("npy")),
    ("strings", "npy", lambda: saved(np.array([["a", "b"]])), "holds <U1 values, not integers or real numbers"),
    ("bools", "npy", lambda: saved(RAW > 500), "holds bool values, not integers or real numbers"),
    ("complex numbers", "npy", lambda: saved(RAW.astype(complex)), "holds complex128 values"),
    ("dates", "npy", lambda: saved(RAW.astype("M8[s]")), r"holds datetime64\[s\] values"),
    ("records", "npy", lambda: npy((4, 4), [("a", "<u2")]), "not integers or real numbers"),
    ("a number", "npy", lambda: npy(()), r"not a mosaic: its shape is \(\)"),
    ("four dimensions", "npy", lambda: npy((2, 2, 2, 2)), "not a mosaic: its shape"),
    ("NPY of 10^12 values", "npy", lambda: npy((10**6, 10**6)), DAMAGED.format("npy")),
    ("NPY of 10^9 values", "npy", lambda: npy((40000, 40000)), DAMAGED.format("npy")),
    ("NPY of 10^40 values", "npy", lambda: npy((10**40, 4)), DAMAGED.format("npy")),
    ("NPY of negative size", "npy", lambda: npy((-4, -4)), DAMAGED.format("npy")),
    ("truncated NPY", "npy", lambda: saved(RAW)[:-9], DAMAGED.format("npy")),
    ("empty NPY", "npy", lambda: b"", DAMAGED.format("npy")),
    ("NPY with a broken header", "npy", lambda: b"\x93NUMPY\x01\x00\x04\x00(((\n", DAMAGED.format("npy")),
    ("PGM of 10^12 pixels", "pgm", lambda: b"P5 1000000 1000000 1023\nab", "truncated, 1 of 1000000x1000000 pixels"),
    ("PGM of 10^9 pixels", "pgm", lambda: b"P5 30000 30000 1023\nab", "truncated, 1 of 30000x30000 pixels"),
    ("PGM of 10^18 pixels", "pgm", lambda: b"P5 9999999999 9999999999 1023\nab", "not a PGM file"),
    ("truncated PGM", "pgm", lambda: b"P5 4 4 1023\n" + bytes(31), "truncated, 15 of 4x4 pixels"),
    ("truncated PGM of text", "pgm", lambda: b"P2 4 4 1023\n1 2 3", "truncated, 3 of 4x4 pixels"),
    ("text in PGM of text", "pgm", lambda: b"P2 2 1 1023\n1 x", DAMAGED.format("pgm")),
    ("PGM of 17 bits", "pgm", lambda: b"P5 4 4 99999\n" + bytes(32), "values up to 99999"),
    ("8-bit PGM", "pgm", lambda: b"P5 4 4 255\n" + bytes(16), "at most 8 bits a pixel"),
    ("PGM without pixels", "pgm", lambda: b"P5 0 4 1023\n", "4x0"),
    ("colour PPM named PGM", "pgm", lambda: b"P6 4 4 1023\n" + bytes(96), "not a PGM file"),
    ("empty PGM", "pgm", lambda: b"", "not a PGM file"),
    ("truncated headless file", "raw", lambda: bytes(31), "31 bytes, but 4x4 16-bit pixels are 32 bytes"),
    ("empty headless file", "raw", lambda: b"", "0 bytes, but 4x4 16-bit pixels are 32 bytes"),
    ("linear DNG", "dng", lambda: dng(np.repeat(LARGE_RAW[..., None], 3, 2)), "not from a Bayer sensor"),
    ("monochrome DNG", "dng", lambda: dng(LARGE_RAW, linear=True), "not from a Bayer sensor"),
    ("truncated DNG", "dng", lambda: dng(LARGE_RAW)[:-99], DAMAGED.format("dng")),
    ("empty DNG", "dng", lambda: b"", DAMAGED.format("dng")),
)


@pytest.mark.parametrize("suffix, content, message", rows(BAD_MOSAICS))
def test_a_bad_mosaic_is_refused_by_name(tmp_path, capfd, suffix, content, message):
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(content())
    tracemalloc.start()
    sentence = refuse(message, Reader(TEN_BITS, (4, 4)).mosaic, path)
    reserved = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in sentence and "(b'" not in sentence
    assert reserved < 64 << 20  # bytes; numpy's arrays are counted
    assert suffix == "dng" or not capfd.readouterr().err  # LibRaw prints a line of its own


def test_a_bayer_dng_is_read(tmp_path):
    (tmp_path / "m.dng").write_bytes(dng(LARGE_RAW))
    assert np.array_equal(read_mosaic(tmp_path / "m.dng", Sensor("rggb", (58.0,) * 4, 1023.0)), LARGE_RAW)


@pytest.mark.parametrize(
    "content",
    (b"P5\n# phone\n2 2\n# 10 bits\n1023\n" + struct.pack(">4H", 0, 7, 8, 1000), b"P2 2 2 1023\n0 7\n8 1000\n"),
)
def test_pgm_files_are_read_with_comments_and_as_text(tmp_path, content):
    (tmp_path / "m.pgm").write_bytes(content)
    mosaic = read_mosaic(tmp_path / "m.pgm", TEN_BITS)
    assert mosaic.tolist() == [[0, 7], [8, 1000]] and mosaic.dtype == np.uint16


def test_real_numbers_up_to_1_are_fractions_of_white_in_tiff_as_in_npy(tmp_path):
    Image.fromarray(np.array([[0, 0.25], [0.5, 1]], np.float32)).save(tmp_path / "m.tif")
    np.testing.assert_allclose(read_mosaic(tmp_path / "m.tif", TEN_BITS), [[0, 255.75], [511.5, 1023]])


# --- photographs -----------------------------------------------------------------------------------------------------

ON_BOTH = np.dstack([GREY] * 3)
# What is unusual, the content, the pixels that it shows, how much they may differ.
GOOD_PHOTOS = (
    ("16-bit grey PNG", lambda: png(GREY.astype(np.uint16) * 257), ON_BOTH, 0),
    ("16-bit grey TIFF", lambda: pillow(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), ON_BOTH, 0),
    ("16-bit colour PNG", lambda: png(RGB[..., ::-1].astype(np.uint16) * 257), RGB, 0),
    ("16-bit colour TIFF", lambda: cv2.imencode(".tif", RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), RGB, 0),
    ("1-bit PNG", lambda: pillow(Image.fromarray(GREY > 99), "PNG"), 255 * (ON_BOTH > 99), 0),
    ("palette PNG", lambda: pillow(Image.fromarray(ON_BOTH // 64 * 64).quantize(8), "PNG"), ON_BOTH // 64 * 64, 0),
    (
        "palette PNG with transparency",
        lambda: pillow(Image.fromarray(ON_BOTH // 64 * 64).quantize(8), "PNG", transparency=bytes(range(8))),
        ON_BOTH // 64 * 64,
        0,
    ),
    ("RGBA PNG", lambda: png(np.dstack([RGB[..., ::-1], GREY])), RGB, 0),
    ("grey JPEG", lambda: pillow(Image.fromarray(GREY), "JPEG", quality=100), ON_BOTH, 2),
    ("lossless WebP", lambda: pillow(Image.fromarray(RGB), "WEBP", lossless=True), RGB, 0),
    ("BMP", lambda: pillow(Image.fromarray(RGB), "BMP"), RGB, 0),
)
BAD_PHOTOS = (
    ("CMYK JPEG", lambda: pillow(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "pixel format CMYK.*convert it"),
    ("real numbers", lambda: pillow(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "pixel format F.*convert it"),
    ("32-bit integers", lambda: pillow(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "pixel format I.*convert it"),
    ("196 million pixels", lambda: huge_png(14000, 14000), "too large, .* 179 million pixels: shrink it"),
    ("169 million pixels, truncated", lambda: huge_png(13000, 13000), "cannot read .*truncated"),
    ("truncated JPEG", lambda: pillow(Image.fromarray(RGB), "JPEG")[:-99], "cannot read .*truncated"),
    ("empty", lambda: b"", "not an image"),
    ("HEIC named JPEG", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image"),
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content, pixels, tolerance", rows(GOOD_PHOTOS))
def test_an_unusual_photograph_has_the_right_pixels(tmp_path, content, pixels, tolerance):
    (tmp_path / "p.png").write_bytes(content())  # its content decides, not its name
    photo = read_photo(tmp_path / "p.png")
    assert photo.dtype == np.uint8 and photo.flags.writeable
    assert np.abs(photo.astype(int) - pixels).max() <= tolerance


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content, message", rows(BAD_PHOTOS))
def test_a_bad_photograph_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "p.jpg").write_bytes(content())
    assert str(tmp_path / "p.jpg") in refuse(message, read_photo, tmp_path / "p.jpg")


def test_a_16_bit_photograph_stays_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.fromarray(GREY[:8].astype(np.uint16) * 257).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(read_photo(tmp_path / "p.png"), np.rot90(ON_BOTH[:8], -1))


# --- levels, sizes and options ---------------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
BLACK = (0.0,) * 4
BAD_VALUES = (
    ("white inf", lambda: Sensor("rggb", BLACK, INF), "white_level is inf"),
    ("white nan", lambda: Sensor("rggb", BLACK, NAN), "white_level = nan"),
    ("white -1", lambda: Sensor("rggb", BLACK, -1.0), "white_level = -1"),
    ("white 0", lambda: Sensor("rggb", BLACK, 0.0), "white_level = 0"),
    ("white 1e30", lambda: Sensor("rggb", BLACK, 1e30), "white_level is 1e.30, but must not exceed 16777216"),
    ("white 1", lambda: Reader(Sensor("rggb", BLACK, 1.0)), "white level is 1: give the largest digital number"),
    ("black inf", lambda: Sensor("rggb", (0.0, INF, 0.0, 0.0), 1023.0), "black_level .*must lie in"),
    ("black nan", lambda: Sensor("rggb", (0.0, 0.0, 0.0, NAN), 1023.0), "black_level .*must lie in"),
    ("black -1", lambda: Sensor("rggb", (-1.0, 0.0, 0.0, 0.0), 1023.0), "black_level .*must lie in"),
    ("black white", lambda: Sensor("rggb", (1023.0,) * 4, 1023.0), "black_level .*must lie in"),
    ("unknown CFA", lambda: Sensor("rgbw", BLACK, 1023.0), "unknown CFA order 'rgbw'; known are: rggb"),
    ("negative size", lambda: Reader(TEN_BITS, (-4, -4)), "size of .raw files is -4x-4: give both --data.raw-height"),
    ("negative width", lambda: Reader(TEN_BITS, (4, -4)), "size of .raw files is 4x-4"),
    ("height alone", lambda: Reader(TEN_BITS, (4, 0)), "size of .raw files is 4x0: give both"),
    ("shot nan", lambda: Camera.random(0, shot=NAN), "shot noise is nan"),
    ("shot inf", lambda: Camera.random(0, shot=INF), "shot noise is inf"),
    ("shot -inf", lambda: Camera.random(0, shot=-INF), "shot noise is -inf"),
    ("shot 1e300", lambda: Camera.random(0, shot=1e300), "shot noise is 1e.300.*must not exceed 1"),
    ("read -1", lambda: Camera(((1.0, 0.0, 0.0),) * 3, 2.0, 1.5, 1.2, 0.0, -1.0), "read noise -1.0.*negative"),
    ("read nan", lambda: Camera(((1.0, 0.0, 0.0),) * 3, 2.0, 1.5, 1.2, 0.0, NAN), "read noise nan"),
    ("simulated white 1", lambda: Camera.random(0, black=(0, 0, 0, 0), white=1), "white is 1, but must be at least"),
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make, message", rows(BAD_VALUES))
def test_an_impossible_value_is_refused(make, message):
    refuse(message, make)
