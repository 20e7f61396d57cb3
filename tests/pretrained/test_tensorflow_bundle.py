"""TensorFlow's checkpoints are read as they were written, and damage to any byte of them is noticed."""

import numpy as np
import pytest

from errors import UserError
from pretrained.tensorflow_bundle import (
    LARGEST_INDEX,
    files_of,
    is_bundle,
    masked_crc32c,
    read_index,
    read_variables,
)
from tests.pretrained.bundles import block, crc32c, field, masked, varint, with_trailer, write_bundle

RNG = np.random.default_rng(0)
ARRAYS = {
    f"scope/Variable{suffix}": RNG.standard_normal(shape).astype(np.float32)
    for suffix, shape in {"": (2, 3), "_1": (200,), "_10": (), "_2": (1, 1, 4), "_3": (5, 0)}.items()
} | {"step": np.array(7, np.int32), "other/kernel": np.ones((2, 2), np.float64)}
FLOATS = [name for name in ARRAYS if name.startswith("scope")]


@pytest.fixture
def index(tmp_path):
    return write_bundle(tmp_path / "a.ckpt.index", ARRAYS)


def read(index) -> dict[str, np.ndarray]:
    return read_variables(files_of(index)[1], read_index(index), FLOATS)


@pytest.mark.parametrize(("restart", "block_size"), ((1, 100), (3, 5), (16, 2)))
def test_arrays_are_read_as_they_were_written(tmp_path, restart, block_size):
    index = write_bundle(tmp_path / "a.index", ARRAYS, restart, block_size)
    assert read_index(index).keys() == ARRAYS.keys()
    for name, array in read(index).items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


def test_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C (RFC 3720 uses the same code)
    assert masked_crc32c(b"123456789") == masked(0xE3069283)


def test_a_checkpoint_is_known_by_the_endings_of_its_files(index):
    data = index.with_name("a.ckpt.data-00000-of-00001")
    assert files_of(index) == files_of(data) == (index, data) and is_bundle(index) and is_bundle(data)
    assert not is_bundle(index.with_name("a.ckpt")) and not is_bundle(index.with_name("a.pth"))


def test_damage_to_any_byte_of_the_index_is_noticed(index):
    """Or harmless: the padding of the last 48 bytes, and what they say of an empty block, are not used."""
    content = index.read_bytes()
    harmless = 0
    for place in range(len(content)):
        index.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            assert read_index(index).keys() == ARRAYS.keys()
            harmless += 1
        except UserError as error:
            assert str(error).startswith(f"{index} is not the index of a TensorFlow checkpoint, or it is damaged (")
    assert harmless < 60


@pytest.mark.parametrize("length", (0, 7, 47, 48, 100, -1))
def test_a_shortened_index_is_refused(index, length):
    index.write_bytes(index.read_bytes()[:length])
    with pytest.raises(UserError, match="a.ckpt.index is not the index of a TensorFlow checkpoint"):
        read_index(index)


@pytest.mark.parametrize("change", (lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]))
def test_damaged_data_are_refused_by_name(index, change):
    data = files_of(index)[1]
    at = read_index(index)["scope/Variable"].offset
    data.write_bytes(data.read_bytes()[:at] + change(data.read_bytes()[at : at + 24]))
    with pytest.raises(UserError, match="00001 is damaged, or not of this index: the checksum of scope/Variable"):
        read(index)


def test_what_is_not_supported_is_refused(index, tmp_path):
    with pytest.raises(UserError, match="its variable other/kernel is not an array of 32-bit floats"):
        read_variables(files_of(index)[1], read_index(index), ["other/kernel"])
    with pytest.raises(UserError, match="it is compressed"):
        read_index(write_bundle(tmp_path / "b.index", ARRAYS, compression=1))
    (tmp_path / "c.index").write_bytes(bytes(LARGEST_INDEX + 1))
    with pytest.raises(UserError, match="c.index is too large"):
        read_index(tmp_path / "c.index")


def write_index(path, entries, repeat: int = 1):
    """An index of one block with the `entries`, which the index of the blocks names `repeat` times."""
    table = with_trailer(content := block(entries, restart=1 << 20), 0)
    handle, places = varint(0) + varint(len(content)), []
    for part in ([], [(b"%04d" % number, handle) for number in range(repeat)]):
        places.append(varint(len(table)) + varint(len(block(part, 1))))
        table += with_trailer(block(part, 1), 0)
    path.write_bytes(table + b"".join(places).ljust(40, b"\x00") + bytes.fromhex("57fb808b247547db"))
    return path


HEADER = (b"", field(1, 1) + field(3, field(1, 1)))


def test_an_index_that_would_grow_in_memory_is_refused(tmp_path):
    """A few bytes of each entry repeat a long name; each naming of a block repeats the whole of it."""
    long = [(b"n" * 1000 + b"%03d" % number, b"") for number in range(1000)]
    with pytest.raises(UserError, match="or it is damaged .a name has more than 256 bytes"):
        read_index(write_index(tmp_path / "a.index", [HEADER, *long]))
    assert read_index(write_index(tmp_path / "a.index", [HEADER, (b"n" * 256, b"")]))
    with pytest.raises(UserError, match="or it is damaged .its blocks overlap"):
        read_index(write_index(tmp_path / "a.index", [HEADER], repeat=2))


@pytest.mark.parametrize(
    ("shape", "sentence"),
    (
        ((1,) * 65 + (4,), "or it is damaged .a variable has 66 dimensions"),
        ((0, 1 << 63), "its variable a is too large"),
        ((1 << 63, 1 << 62), "its variable a is not an array of 32-bit floats"),  # a size below 0 in 64 bits
    ),
)
def test_shapes_that_no_array_has_are_refused(tmp_path, shape, sentence):
    sides = b"".join(field(2, field(1, side)) if side else field(2, b"") for side in shape)
    entry = (b"a", field(1, 1) + field(2, sides) + field(5, 16 if all(shape) else 0))
    path = write_index(tmp_path / "a.index", [HEADER, entry])
    files_of(path)[1].write_bytes(bytes(16))
    with pytest.raises(UserError, match=sentence):
        read_variables(files_of(path)[1], read_index(path), ["a"])


def test_missing_files_are_named(index, tmp_path):
    files_of(index)[1].unlink()
    with pytest.raises(UserError, match="no file .*a.ckpt.data-00000-of-00001: a TensorFlow checkpoint is"):
        read(index)
    with pytest.raises(UserError, match="no file .*none.index: a TensorFlow checkpoint is"):
        read_index(tmp_path / "none.index")
