"""The sizes of files, read from their headers: without decoding mosaics and photographs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.camera_files import CAMERA_FILES, look_at
from data.files import NPY_HEADERS, PGM_HEADER, open_image, reading
from errors import UserError

LOOKED_AT = 1024  # files, at most, evenly spaced: the headers of all files of a large dataset would take minutes
PGM_START = 1 << 16  # bytes in which a PGM file's header, with its comments, ends


def size_of(path: Path, headless_size: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """(height, width) of a mosaic or photograph in pixels, a photograph's perhaps on its side.

    `headless_size` is that of .raw files without a header. Raises `UserError` if the file has no header that is known.
    """
    suffix = path.suffix.lower()
    with reading(path):
        if suffix in CAMERA_FILES:
            return look_at(path).size
        if suffix == ".raw":
            return headless_size
        if suffix == ".npy":
            with NPY_HEADERS:
                height, width, *channels = np.lib.format.open_memmap(path, mode="r").shape
            return (2 * height, 2 * width) if channels == [4] else (height, width)  # R, G, G, B at half resolution
        if suffix == ".pgm":
            with open(path, "rb") as file:
                _, width, height, _ = PGM_HEADER.match(file.read(PGM_START)).groups()
            return int(height), int(width)
        with open_image(path) as image:
            return image.height, image.width


def refuse_smaller(paths: Sequence[Path], side: int, headless_size: tuple[int, int] = (0, 0), than: str = "") -> None:
    """Raise `UserError` if a file is smaller than `side` pixels: by default, than patches, which are to be drawn of it.

    At most `LOOKED_AT` files, evenly spaced, are looked at, and files that cannot be read are left to whoever reads
    them: drawing a patch refuses the others.
    """
    for path in paths[:: -(-len(paths) // LOOKED_AT) or 1]:
        try:
            height, width = size_of(path, headless_size)
        except UserError:
            continue
        if min(height, width) < side:
            than = than or f"a patch of {side}: lower --data.patch"
            raise UserError(f"{path} is {height}x{width}, smaller than {than}")
