"""Camera files that cannot be used: none of a Bayer sensor, or damaged."""

import io

import numpy as np
import pytest
import tifffile

from data.camera import camera_notes
from data.camera_files import look_at
from data.files import read_mosaic
from data.sensor import CFA_ORDERS, Sensor
from errors import UserError

from ..dng import dng

pytestmark = pytest.mark.usefixtures("quick")
TEN_BITS = Sensor("rggb", (58.0,) * 4, 1023.0)
MOSAIC = np.random.default_rng(0).integers(58, 1024, (48, 64)).astype(np.uint16)
X_TRANS = ("gbggrg", "rgrbgb", "gbggrg", "grggbg", "bgbrgr", "grggbg")


def changed(content: bytes, tag: str | int, value) -> bytes:
    """The DNG file with another value of a tag."""
    buffer = io.BytesIO(content)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        file.pages[0].tags[tag].overwrite(value)
    return buffer.getvalue()


def x_trans(cfa: str) -> str:
    """An X-Trans pattern whose first 2x2 pixels look like a Bayer pattern, if `cfa` is one."""
    pattern = np.array([list(row) for row in X_TRANS])
    rolled = (np.roll(pattern, shift, (0, 1)) for shift in np.ndindex(6, 6))
    return next("".join(p.ravel()) for p in rolled if "".join(p[:2, :2].ravel()).startswith(cfa))


@pytest.mark.parametrize(
    "options",
    (
        {"cfa": "".join(X_TRANS)},
        *({"cfa": x_trans(cfa)} for cfa in CFA_ORDERS),
        {"cfa": "rrggrrggggbbggbb"},
        {"linear": True},
    ),
    ids=("X-Trans", *(f"X-Trans like {cfa}" for cfa in CFA_ORDERS), "quad Bayer", "monochrome"),
)
def test_what_is_no_bayer_mosaic_is_refused(tmp_path, options):
    path = tmp_path / "a.dng"
    path.write_bytes(dng(MOSAIC, **options))
    for read in (camera_notes, lambda path: read_mosaic(path, TEN_BITS)):
        with pytest.raises(UserError, match="a.dng is not from a Bayer sensor .*: leave it out$"):
            read(path)


def test_colours_that_are_demosaiced_already_are_refused(tmp_path):
    (tmp_path / "a.dng").write_bytes(dng(np.dstack([MOSAIC] * 3)))
    with pytest.raises(UserError, match="a.dng is not from a Bayer sensor .*linear DNG"):
        camera_notes(tmp_path / "a.dng")


@pytest.mark.parametrize(
    ("damage", "message"),
    (
        (lambda content: content[:-99], "a.dng: it is damaged, truncated"),
        (lambda content: content[:300], "a.dng: it is damaged, truncated"),
        (lambda content: b"", "a.dng: it is damaged, truncated"),
        (lambda content: changed(content, "Compression", 52546), "a.dng: it is damaged.*(Unsupported file format)"),
    ),
    ids=("truncated", "header only", "empty", "JPEG XL"),
)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage, message):
    (tmp_path / "a.dng").write_bytes(damage(dng(MOSAIC)))
    for read in (camera_notes, lambda path: read_mosaic(path, TEN_BITS)):
        with pytest.raises(UserError, match=f"^cannot read .*{message}"):
            read(tmp_path / "a.dng")


def test_files_with_random_damage_end_in_a_sentence_or_in_a_mosaic(tmp_path):
    rng, path, content = np.random.default_rng(0), tmp_path / "a.dng", dng(MOSAIC, below=True, black=(10, 20, 30, 40))
    for _ in range(200):
        damaged = bytearray(content)
        for position in rng.integers(0, 1500, 6):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        look_at.cache_clear()
        try:
            notes = camera_notes(path)
            assert read_mosaic(path, notes.sensor).ndim == 2
        except UserError as error:
            assert "a.dng" in str(error)
