"""Writing photographs: upright, with their colour space and the camera's notes."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps

from data import photographs
from data.photographs import FORMATS, encode, notes_of, upright
from errors import UserError

from ..dng import dng

BASE = ExifTags.Base
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
PLACE = {1: "N", 2: (52.0, 30.0, 12.5), 3: "E", 4: (13.0, 24.0, 0.0)}  # of GPS
MOSAIC = RNG.integers(60, 1000, (64, 96)).astype(np.uint16)


@pytest.fixture
def shot(tmp_path) -> Path:
    """A portrait that a phone took."""
    path = tmp_path / "shot.dng"
    path.write_bytes(dng(MOSAIC, iso=800, orientation=6, camera=("Maker", "Phone 1")))
    return path


@pytest.fixture
def taken(tmp_path) -> Path:
    """A camera file that is only EXIF, as Pillow writes it: a TIFF file with the notes of a moment and a place."""
    noted = Image.Exif()
    noted[BASE.Make] = "Maker"
    moment = {BASE.ISOSpeedRatings: 800, BASE.ExposureTime: 0.008, BASE.DateTimeOriginal: "2024:05:06 07:08:09"}
    moment |= {BASE.LensSpecification: (4.2, 4.2, 1.8, 1.8), BASE.ExifImageWidth: 96}
    noted.get_ifd(ExifTags.IFD.Exif).update(moment)
    noted.get_ifd(ExifTags.IFD.GPSInfo).update(PLACE)
    path = tmp_path / "taken.dng"
    path.write_bytes(noted.tobytes().removeprefix(b"Exif\0\0"))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_pillow_turns_it(orientation):
    exif = Image.Exif()
    exif[BASE.Orientation] = orientation
    image = Image.fromarray(IMAGE)
    image.getexif().update(exif)
    assert np.array_equal(upright(IMAGE, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("kind", ("jpg", "png"))
def test_a_photograph_has_its_colour_space_and_the_cameras_notes(shot, kind):
    with Image.open(io.BytesIO(encode(IMAGE, kind, 95, shot))) as image:
        exif, pixels = image.getexif(), np.asarray(image)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert (exif[BASE.Make], exif[BASE.Model], exif[BASE.Orientation]) == ("Maker", "Phone 1", 1)
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    assert inner[BASE.ISOSpeedRatings] == 800 and inner[BASE.ColorSpace] == 1
    assert BASE.StripOffsets not in exif and BASE.ImageWidth not in exif  # they speak of the mosaic
    assert kind == "jpg" or np.array_equal(pixels, IMAGE)


def test_sixteen_bits_are_kept_in_tiff(shot):
    image = RNG.integers(0, 65536, (6, 10, 3)).astype(np.uint16)
    with tifffile.TiffFile(io.BytesIO(encode(image, "tif16", 95, shot))) as file:
        tags = file.pages[0].tags
        assert np.array_equal(file.asarray(), image)
        assert tags["Model"].value == "Phone 1" and "InterColorProfile" in tags


@pytest.mark.parametrize("size", ((6, 10), (64, 96)))
def test_tiff_has_the_notes_of_the_moment_and_the_place(taken, size):
    image = RNG.integers(0, 65536, (*size, 3)).astype(np.uint16)
    content = encode(image, "tif16", 95, taken)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        assert np.array_equal(file.asarray(), image) and len(file.pages) == 1
        assert [tag.code for tag in tags] == sorted(tag.code for tag in tags)  # TIFF 6.0 asks for it
        assert tags["ExifTag"].value["ISOSpeedRatings"] == 800
    exif = Image.Exif()
    exif.load_from_fp(io.BytesIO(content))
    inner, place = (dict(exif.get_ifd(part)) for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))
    assert inner == {
        BASE.ISOSpeedRatings: 800, BASE.ExposureTime: 0.008, BASE.DateTimeOriginal: "2024:05:06 07:08:09",
        BASE.LensSpecification: (4.2, 4.2, 1.8, 1.8), BASE.ColorSpace: 1,
    }  # fmt: skip
    assert place == PLACE and exif[BASE.Make] == "Maker"
    assert content == encode(image, "tif16", 95, taken)


def test_tiff_of_a_mosaic_without_notes(tmp_path):
    image = RNG.integers(0, 65536, (6, 10, 3)).astype(np.uint16)
    with tifffile.TiffFile(io.BytesIO(encode(image, "tif16", 95, tmp_path / "x.png"))) as file:
        assert file.pages[0].tags["ExifTag"].value == {"ColorSpace": 1} and "GPSTag" not in file.pages[0].tags


def test_a_mosaic_without_notes_gives_a_photograph_without(tmp_path):
    assert dict(notes_of(tmp_path / "x.png")) == {
        BASE.Orientation: 1,
        BASE.Software: notes_of(Path("x"))[BASE.Software],
    }


def test_empty_and_damaged_notes_are_left_out(tmp_path):
    (tmp_path / "empty.dng").write_bytes(dng(MOSAIC, camera=("", "")))
    (tmp_path / "damaged.dng").write_bytes(dng(MOSAIC)[:-200])
    assert BASE.Make not in notes_of(tmp_path / "empty.dng")
    assert notes_of(tmp_path / "damaged.dng")[BASE.Orientation] == 1


def test_where_a_photograph_was_taken_is_kept(taken):
    with Image.open(io.BytesIO(encode(IMAGE, "jpg", 95, taken))) as image:
        assert dict(image.getexif().get_ifd(ExifTags.IFD.GPSInfo)) == PLACE
        assert image.getexif()[BASE.Make] == "Maker"


@pytest.fixture
def too_large(shot, monkeypatch) -> Path:
    """A camera file that notes a number of more than 32 bits."""
    notes = notes_of(shot)
    notes.get_ifd(ExifTags.IFD.Exif)[BASE.Flash] = 2**40
    monkeypatch.setattr(photographs, "notes_of", lambda source: notes)
    return shot


def test_notes_that_exif_cannot_hold_give_a_tiff_without(too_large):
    with tifffile.TiffFile(io.BytesIO(encode(IMAGE.astype(np.uint16), "tif16", 95, too_large))) as file:
        assert "ExifTag" not in file.pages[0].tags and np.array_equal(file.asarray(), IMAGE)


@pytest.mark.parametrize("kind", ("jpg", "png"))
def test_notes_that_exif_cannot_hold_give_a_photograph_without(too_large, kind):
    with Image.open(io.BytesIO(encode(IMAGE, kind, 95, too_large))) as image:
        assert not image.getexif() and image.size == (10, 6) and "icc_profile" in image.info


def test_an_image_that_jpeg_cannot_hold_is_refused_with_its_name(shot):
    with pytest.raises(UserError, match=r"shot.dng of 2x70000 cannot be written as jpg"):
        encode(np.zeros((2, 70000, 3), np.uint8), "jpg", 95, shot)


def test_every_format_has_a_suffix_of_its_own():
    assert len(set(FORMATS.values())) == len(FORMATS)
