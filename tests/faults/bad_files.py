"""How tests make bad files, and what they expect of a sentence about them."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from errors import UserError

RAW = np.random.default_rng(0).integers(64, 1024, (16, 16)).astype(np.uint16)
LARGE_RAW = np.random.default_rng(0).integers(64, 1024, (64, 64)).astype(np.uint16)  # LibRaw refuses smaller ones
RGB = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
GREY = RGB[..., 0]


def refuse(message: str, act, *arguments, **options) -> str:
    """Call `act`, which must raise a `UserError` of one line that matches `message`; returns that line."""
    with pytest.raises(UserError, match=message) as caught:
        act(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and "pickle" not in sentence
    return sentence


def rows(table):
    """Test parameters of a table, with what is wrong as their names."""
    return [pytest.param(*row[1:], id=row[0]) for row in table]


def npy(shape: tuple, descr: str = "<u2", content: bytes = b"ab" * 100) -> bytes:
    """The bytes of an NPY file with any header."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, mosaic=RAW)
    return buffer.getvalue()


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def pillow(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A tiny file whose header promises a large image."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def dng(array: np.ndarray, photometric: int) -> bytes:
    """A DNG file: photometric 32803 is a Bayer mosaic RGGB, 34892 linear (demosaiced or monochrome) values."""
    buffer, linear = io.BytesIO(), array.ndim == 3
    tags = [(50706, "B", 4, (1, 4, 0, 0), True), (50708, "s", 0, "Camera", True), (50714, "I", 1, 58, True)]
    tags += [(50717, "I", 1, 1023, True), (50721, "2i", 9, (1, 1, 0, 1, 0, 1) * 3, True)]
    if photometric == 32803:
        tags += [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)]
    tifffile.imwrite(buffer, array, photometric=34892 if linear else 1, metadata=None, extratags=tags, software=False)
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(photometric)
    return buffer.getvalue()
