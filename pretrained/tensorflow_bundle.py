"""Checkpoints of TensorFlow, read without it: NAME.index says where NAME.data-00000-of-00001 holds which variable.

The index is a table of LevelDB (github.com/google/leveldb, doc/table_format.md) whose values are messages of
tensorflow/core/protobuf/tensor_bundle.proto; that of the empty key is about the whole. Both are only data, never code.
"""

import math
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import storage
from errors import UserError

INDEX, DATA = ".index", ".data-00000-of-00001"
MAGIC = 0xDB4775248B80FB57  # ends each table
FLOAT32 = 1  # DT_FLOAT of tensorflow/core/framework/types.proto
LARGEST_INDEX = 1 << 20  # bytes; a variable needs about 50
# Limits of what a damaged or hostile file can make a reader do; the networks here are far below.
LONGEST_NAME = 256  # bytes
MOST_DIMENSIONS = 8
LARGEST_VARIABLE = 1 << 20  # bytes


@dataclass(frozen=True)
class Variable:
    """What an index says of a variable."""

    shape: tuple[int, ...]
    dtype: int  # a number in tensorflow/core/framework/types.proto
    offset: int  # of its first byte in the data file
    size: int  # bytes
    checksum: int  # masked CRC-32C of its bytes


def is_bundle(path: Path) -> bool:
    """Whether a path is named as one of the two files of a TensorFlow checkpoint."""
    return path.name.endswith((INDEX, DATA))


def files_of(path: Path) -> tuple[Path, Path]:
    """(index file, data file) of a checkpoint that either of them names."""
    name = path.name.removesuffix(INDEX).removesuffix(DATA)
    return path.with_name(name + INDEX), path.with_name(name + DATA)


def read_index(path: Path) -> dict[str, Variable]:
    """The variables of a checkpoint, by name. Raises `UserError` if the index is missing, damaged or foreign."""
    if not path.is_file():
        raise UserError(f"no file {path}: a TensorFlow checkpoint is a {INDEX} and a {DATA} file, side by side")
    if path.stat().st_size > LARGEST_INDEX:
        raise UserError(f"{path} is too large for the index of a TensorFlow checkpoint")
    try:
        entries = dict(_table(path.read_bytes()))
        header = dict(_fields(entries.pop(b"", b"")))
        if header.get(1) != 1 or header.get(2, 0) != 0:
            raise ValueError("it is not about one data file of little-endian numbers")
        return {name.decode(): _variable(value) for name, value in entries.items()}
    except (IndexError, TypeError, ValueError, struct.error) as error:
        raise UserError(f"{path} is not the index of a TensorFlow checkpoint, or it is damaged ({error})") from None


def read_variables(path: Path, variables: dict[str, Variable], names: Iterable[str]) -> dict[str, np.ndarray]:
    """The float32 arrays of `names` in a data file, by the `variables` of its index.

    Raises `UserError`, naming the file, if it is missing, too short or damaged, or the variables are of another type
    or too large.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: a TensorFlow checkpoint is a {INDEX} and a {DATA} file, side by side")
    arrays = {}
    with storage.naming(path), open(path, "rb") as file:
        for name in names:
            variable = variables[name]
            if variable.dtype != FLOAT32 or 4 * math.prod(variable.shape) != variable.size:
                raise UserError(f"{path} cannot be used: its variable {name} is not an array of 32-bit floats")
            if 4 * math.prod(max(side, 1) for side in variable.shape) > LARGEST_VARIABLE:
                raise UserError(f"{path} cannot be used: its variable {name} is too large, {variable.shape}")
            inside = variable.offset + variable.size <= path.stat().st_size
            content = os.pread(file.fileno(), variable.size, variable.offset) if inside else b""
            if not inside or masked_crc32c(content) != variable.checksum:
                raise UserError(f"{path} is damaged, or not of this index: the checksum of {name} is wrong")
            arrays[name] = np.frombuffer(content, "<f4").reshape(variable.shape)
    return arrays


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a table. The last 48 bytes say where the index of its blocks is."""
    if len(content) < 48 or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise ValueError("its last bytes are not those of a table")
    _, at = _handle(content, len(content) - 48)  # the first is of a block about the table, which is not needed
    place, _ = _handle(content, at)
    end = 0
    for _, handle in _block(content, place):
        place, _ = _handle(handle, 0)
        if place[0] < end:
            raise ValueError("its blocks overlap")
        end = sum(place)
        yield from _block(content, place)


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """((offset, size) of a block, the place behind them)."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return (offset, size), at


def _block(content: bytes, place: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a block. A key is given as what it has in common with the one before, and the rest."""
    offset, size = place
    if content[offset + size] != 0:
        raise ValueError("it is compressed, which TensorFlow does not do by itself")
    if masked_crc32c(content[offset : offset + size + 1]) != struct.unpack_from("<I", content, offset + size + 1)[0]:
        raise ValueError("a checksum is wrong")
    block, at, key = content[offset : offset + size], 0, b""
    (restarts,) = struct.unpack("<I", block[-4:])  # places to start a search, which are not needed
    while at < size - 4 - 4 * restarts:
        common, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        if common + rest > LONGEST_NAME:
            raise ValueError(f"a name has more than {LONGEST_NAME} bytes")
        key = key[:common] + block[at : at + rest]
        yield key, block[at + rest : at + rest + length]
        at += rest + length


# --- messages --------------------------------------------------------------------------------------------------------


def _variable(message: bytes) -> Variable:
    fields = dict(_fields(message))
    sizes = [dict(_fields(value)).get(1, 0) for number, value in _fields(fields.get(2, b"")) if number == 2]
    dtype, shard, *place = (fields.get(number, 0) for number in (1, 3, 4, 5, 6))
    if shard or 7 in fields:
        raise ValueError("a variable is in another file, or in slices")
    if len(sizes) > MOST_DIMENSIONS:
        raise ValueError(f"a variable has {len(sizes)} dimensions")
    if not all(isinstance(value, int) for value in (*sizes, dtype, *place)):
        raise ValueError("a number is missing")
    return Variable(tuple(sizes), dtype, *place)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (number, value) pairs of a protocol buffer message; fields that are 0 are not written."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
        elif tag & 7 == 5:
            (value,), at = struct.unpack_from("<I", message, at), at + 4
        elif tag & 7 == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError(f"a field of type {tag & 7} is none of TensorFlow's")
        yield tag >> 3, value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """(a number of 7 bits a byte, the lowest first; the place behind it)."""
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def masked_crc32c(content: bytes) -> int:
    """The CRC-32C (Castagnoli) of bytes, turned and shifted as LevelDB and TensorFlow store it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = tuple(map(_crc_of, range(256)))
