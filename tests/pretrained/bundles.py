"""TensorFlow checkpoints, written byte by byte as LevelDB and tensor_bundle.proto describe them."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DTYPES = {"float32": 1, "float64": 2, "int32": 3}  # of tensorflow/core/framework/types.proto


def write_bundle(
    index: Path, arrays: Mapping[str, np.ndarray], restart: int = 3, block_size: int = 5, compression: int = 0
) -> Path:
    """NAME.index and NAME.data-00000-of-00001 with `arrays`. Returns the index file.

    `restart`: each so many keys, one is written whole; `block_size`: entries of a block.
    """
    data, entries = b"", [(b"", field(1, 1) + field(3, field(1, 1)))]  # the header: one data file, version 1
    for name, array in sorted(arrays.items()):
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        message = field(1, DTYPES[array.dtype.name]) + field(2, shape) + field(4, len(data)) + field(5, len(content))
        entries.append((name.encode(), message + b"\x35" + struct.pack("<I", masked(crc32c(content)))))
        data += content
    index.with_name(index.name.removesuffix(".index") + ".data-00000-of-00001").write_bytes(data)
    table, handles = b"", []
    for start in range(0, len(entries), block_size):
        some = entries[start : start + block_size]
        handles.append((some[-1][0] + b"\x00", varint(len(table)) + varint(len(block(some, restart)))))
        table += with_trailer(block(some, restart), compression)
    places = []
    for part in ([], handles):  # a block about the table, which is empty, and the index of the blocks
        places.append(varint(len(table)) + varint(len(block(part, 1))))
        table += with_trailer(block(part, 1), compression)
    index.write_bytes(table + b"".join(places).ljust(40, b"\x00") + bytes.fromhex("57fb808b247547db"))
    return index


def block(entries: list[tuple[bytes, bytes]], restart: int) -> bytes:
    content, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(entries):
        common = 0
        if number % restart == 0:
            restarts.append(len(content))
        else:
            while common < min(len(key), len(before)) and key[common] == before[common]:
                common += 1
        content += varint(common) + varint(len(key) - common) + varint(len(value)) + key[common:] + value
        before = key
    restarts = restarts or [0]
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def with_trailer(content: bytes, compression: int) -> bytes:
    content += bytes([compression])
    return content + struct.pack("<I", masked(crc32c(content)))


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer message; a number that is 0 is not written."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    low = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(byte | 128 for byte in low[:-1]), low[-1]])


def crc32c(content: bytes) -> int:
    """Bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
