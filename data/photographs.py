"""Photographs: read as sRGB, and written as cameras do, upright and with what the camera noted of the moment."""

import io
import struct
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

import storage
from data.camera_files import CAMERA_FILES, libraw
from data.files import PHOTO_FILES, open_image, reading
from errors import UserError

PHOTO_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")  # those that Pillow converts to RGB rightly
FORMATS = {"jpg": ".jpg", "png": ".png", "tif16": ".tif"}  # 8, 8 and 16 bits
SOFTWARE = "unpaired ISP, develop.py"

# Tags of EXIF that are copied; the others speak of the mosaic (its size, strips, thumbnails) or are the maker's own.
KEPT = ("ImageDescription", "Make", "Model", "DateTime", "Artist", "Copyright")
KEPT_EXIF = (
    *("ExposureTime", "FNumber", "ExposureProgram", "ISOSpeedRatings", "SensitivityType", "ExposureBiasValue"),
    *("ShutterSpeedValue", "ApertureValue", "BrightnessValue", "MaxApertureValue", "SubjectDistance", "MeteringMode"),
    *("Flash", "FocalLength", "FocalLengthIn35mmFilm", "LensSpecification", "LensMake", "LensModel"),
    *("DateTimeOriginal", "DateTimeDigitized", "OffsetTime", "OffsetTimeOriginal", "OffsetTimeDigitized"),
    *("SubsecTime", "SubsecTimeOriginal", "SubsecTimeDigitized", "CameraOwnerName", "BodySerialNumber"),
)


# --- reading ---------------------------------------------------------------------------------------------------------


@cache
def check_upright(path: Path) -> None:
    """Raise `UserError` for a photograph that its EXIF flag turns: it would not match the mosaic of its pair.

    PNG files are not checked: Pillow would have to decode them whole.
    """
    with reading(path), open_image(path) as image:
        if image.format != "PNG" and image.getexif().get(0x0112, 1) != 1:  # the tag Orientation
            raise UserError(
                f"{path} is flagged as turned (EXIF orientation), and its mosaic is not: save it upright without the "
                "flag, or train without pairs (--data.pairs no)"
            )


def read_photo(path: Path) -> np.ndarray:
    """Read one photograph, (H, W, 3) uint8 sRGB, upright; 16 bits are reduced to 8, transparency is ignored.

    Colours with an ICC profile of another RGB space, such as a phone's Display P3, are converted to sRGB. Raises
    `UserError` if the file is missing or damaged, or its colours are not RGB or grey.
    """
    from PIL import Image, ImageOps

    with reading(path), open_image(path) as image:
        if min(image.size) < 2:
            raise UserError(f"{path} has {image.width}x{image.height} pixels: it is no photograph, leave it out")
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            grey = (np.asarray(image).astype(np.uint32) + 128) // 257  # Pillow would clip 16 bits at 255
            return np.array(Image.fromarray(grey.astype(np.uint8)).convert("RGB"))
        if image.mode not in PHOTO_MODES:
            raise UserError(f"{path} has the pixel format {image.mode}, not RGB or grey: convert it to 8-bit sRGB")
        return np.array(_to_srgb(image.convert("RGB")))


def _to_srgb(image):
    """An RGB image of PIL in sRGB, by its ICC profile if it has one of another RGB space; damaged ones are ignored."""
    from PIL import ImageCms

    if not (content := image.info.get("icc_profile")):
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        name = (profile.profile.profile_description or "").lower()
        known = "srgb" in name and not any(word in name for word in ("linear", "g10", "scrgb"))
        if known or profile.profile.xcolor_space != "RGB ":  # profiles called sRGB differ by rounding only
            return image
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    except (OSError, ImageCms.PyCMSError):
        return image


# --- writing ---------------------------------------------------------------------------------------------------------


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image (H, W, ...) by the EXIF orientation, 1 to 8, that its camera noted."""
    if orientation in (2, 3):  # mirrored; upside down
        image = image[:, ::-1]
    if orientation in (3, 4):
        image = image[::-1]
    if orientation in (5, 6, 7, 8):  # on its side
        image = image.swapaxes(0, 1)
        image = image[:, ::-1] if orientation in (6, 7) else image
        image = image[::-1] if orientation in (7, 8) else image
    return image


def encode(image: np.ndarray, kind: str, quality: int, source: Path) -> bytes:
    """A file of `kind`, in `FORMATS`, of an sRGB image (H, W, 3), with the notes of its camera file `source`.

    The image has 8 bits for jpg, of `quality` 1 to 100, and for png, 16 for tif16. Raises `UserError` for an image that
    the format cannot hold.
    """
    notes = notes_of(source)
    try:
        return _encode_tiff(image, notes) if kind == "tif16" else _encode(image, kind, quality, notes)
    except (OSError, ValueError) as error:  # such as a JPEG of more than 65,535 pixels a side
        size = "{}x{}".format(*image.shape[:2])
        raise UserError(f"{source.name} of {size} cannot be written as {kind}: {storage.first_line(error)}") from None


def _encode(image: np.ndarray, kind: str, quality: int, notes) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    options = {"format": "jpeg", "quality": quality} if kind == "jpg" else {"format": "png", "compress_level": 3}
    Image.fromarray(image).save(buffer, **options, exif=_to_bytes(notes), icc_profile=_srgb())
    return buffer.getvalue()


def _to_bytes(notes) -> bytes:
    """EXIF as bytes; empty if a camera noted something that EXIF cannot hold."""
    try:
        return notes.tobytes()
    except Exception:  # Pillow raises many types for it
        return b""


def _encode_tiff(image: np.ndarray, notes) -> bytes:
    import tifffile
    from PIL.ExifTags import IFD

    buffer = io.BytesIO()
    tags = [(tag, "s", 0, value, True) for tag, value in notes.items() if isinstance(value, str) and value.isascii()]
    parts = {part: notes.get_ifd(part) for part in (IFD.Exif, IFD.GPSInfo) if _directory(part, notes.get_ifd(part))}
    tags += [(part - 1, "I", 1, 0, True) for part in parts]  # tifffile does not write these tags: the codes follow
    options = {"photometric": "rgb", "compression": "zlib", "predictor": True, "iccprofile": _srgb()}
    tifffile.imwrite(buffer, image, **options, byteorder="<", metadata=None, software=False, extratags=tags)
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        entries = {part: file.pages[0].tags[part - 1] for part in parts}
        for part, entry in entries.items():
            end = buffer.seek(0, io.SEEK_END)
            start = end + end % 2  # directories begin at words (TIFF 6.0)
            buffer.write(bytes(end % 2) + _directory(part, parts[part], start))
            entry.overwrite(start)
    for part, entry in entries.items():
        buffer.seek(entry.offset)
        buffer.write(struct.pack("<H", part))
    return buffer.getvalue()


def _directory(part: int, values: dict, start: int = 0) -> bytes:
    """The directory of TIFF `part`, to be written at byte `start`; empty if it is, or cannot hold the `values`."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    directory = ImageFileDirectory_v2(b"II*\0\0\0\0\0", group=part)
    try:
        directory.update(values)
        return directory.tobytes(start) if values else b""
    except Exception:  # as in `_to_bytes`
        return b""


@cache
def _srgb() -> bytes:
    """The ICC profile of sRGB, dated so that the same mosaic always gives the same file."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]  # bytes 24 to 35 are the date (ICC.1)


# --- what the camera noted -------------------------------------------------------------------------------------------


def notes_of(source: Path):
    """The EXIF (PIL's `Exif`) of a photograph of `source`: what its camera noted, as far as it is kept."""
    from PIL import ExifTags, Image

    base, ifd = ExifTags.Base, ExifTags.IFD
    found, inner = _read_exif(source) if source.suffix.lower() in CAMERA_FILES else ({}, {})
    notes = Image.Exif()
    notes.update({base[name]: found[base[name]] for name in KEPT if str(found.get(base[name], "")).strip("\0 ")})
    shot, kept = inner.get(ifd.Exif, {}), {base[name] for name in KEPT_EXIF}
    notes.get_ifd(ifd.Exif).update({tag: value for tag, value in shot.items() if tag in kept})
    notes.get_ifd(ifd.GPSInfo).update(inner.get(ifd.GPSInfo, {}))
    notes.get_ifd(ifd.Exif)[base.ColorSpace] = 1  # sRGB
    notes[base.Orientation], notes[base.Software] = 1, SOFTWARE
    return notes


def exif_of(source: Path) -> dict[str, object]:
    """{name of a tag: value} of what a camera noted of the moment, in a camera file or an image; may be empty."""
    from PIL import ExifTags

    if source.suffix.lower() in CAMERA_FILES:
        found = _read_exif(source)[1].get(ExifTags.IFD.Exif, {})
    elif source.suffix.lower() in PHOTO_FILES:
        with open_image(source) as image:
            found = image.getexif().get_ifd(ExifTags.IFD.Exif)
    else:
        found = {}
    return {ExifTags.TAGS.get(tag, str(tag)): value for tag, value in found.items()}


def _read_exif(source: Path) -> tuple[dict, dict]:
    """(the first directory, {directory: its content}) of a camera file; LibRaw's few notes of RAF and CR3."""
    from PIL import ExifTags, Image

    warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged notes are left out without a word
    exif, inner = Image.Exif(), {}
    with suppress(Exception), open(source, "rb") as file:  # Pillow raises many types for what it does not know
        exif.load_from_fp(file)
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            inner[part] = dict(exif.get_ifd(part))
    found = dict(exif)
    return (found, inner) if found else ({}, {ExifTags.IFD.Exif: _libraw_notes(source)})


def _libraw_notes(source: Path) -> dict[int, object]:
    """The few notes that LibRaw gives of any camera file."""
    from PIL.ExifTags import Base

    with libraw(source) as raw:
        other = raw.other
    known = {
        Base.ISOSpeedRatings: round(other.iso_speed),
        Base.ExposureTime: other.shutter_speed,
        Base.FNumber: other.aperture,
        Base.FocalLength: other.focal_length,
    }
    return {tag: value for tag, value in known.items() if value}
