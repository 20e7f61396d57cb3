"""A page to look at many photographs at once: small pictures, each a link to its file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.files import reading
from data.notes import note
from errors import UserError
from evaluation.report import write_page

SIDE = 480  # pixels of a small picture's longer side
PAGE, SHEET = "index.html", "Developed photographs"  # its name, and its kind


@dataclass(frozen=True)
class Tile:
    """A photograph on the page."""

    file: Path
    size: tuple[int, int]  # height and width of the photograph
    small: bytes  # a JPEG file

    @classmethod
    def of(cls, file: Path, image: np.ndarray) -> "Tile":
        """The tile of an image (H, W, 3), uint8 or uint16, that lies in `file`."""
        from PIL import Image

        step = max(1, max(image.shape[:2]) // (2 * SIDE))  # reduce roughly first: fast, and no aliases are seen
        reduced = image[::step, ::step]
        picture = Image.fromarray(reduced if image.dtype == np.uint8 else (reduced >> 8).astype(np.uint8))
        picture.thumbnail((SIDE, SIDE))
        picture = picture.convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, "jpeg", quality=85)
        return cls(file, image.shape[:2], buffer.getvalue())


def tiles_of(files: Sequence[Path]) -> list[Tile]:
    """The tiles of photographs on the disk. A file that cannot be read is left out, with a note."""
    import imageio.v3 as iio

    tiles = []
    for file in files:
        try:
            with reading(file):
                tiles.append(Tile.of(file, iio.imread(file)))
        except UserError as error:
            note(f"{PAGE} goes without a photograph: {error}")
    return tiles


def write_contact_sheet(folder: Path, tiles: Sequence[Tile]) -> Path:
    """Write a page of the tiles, whose files lie in `folder`, into it; return its path."""
    shown = [
        {
            "name": tile.file.name,
            "size": "{1} x {0}".format(*tile.size),
            "picture": "data:image/jpeg;base64," + base64.b64encode(tile.small).decode(),
        }
        for tile in sorted(tiles, key=lambda tile: tile.file.name)
    ]
    page = folder / PAGE
    title = folder.absolute().name
    write_page(page, "contact_sheet.html", title=title, kind=SHEET, warnings=[], tiles=shown)
    return page
