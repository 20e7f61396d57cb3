"""How tests make bad files, and what they expect of a sentence about them."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
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
