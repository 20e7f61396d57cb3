"""Masks of pairs: the pixels at which a photograph is aligned with its mosaic."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from data.files import open_image, reading
from data.folders import Split
from errors import UserError


def with_masks(split: Split, folder: Path) -> Split:
    """The pairs of a split with their masks, FOLDER/NAME.png for the photograph of that name; others are not used.

    Raises `UserError` for files that are no pairs, and for pairs without a mask.
    """
    if not split.paired:
        raise UserError(f"{folder} holds masks of pairs, but the training files are not paired")
    if not folder.is_dir():
        raise UserError(f"no folder {folder} with the masks of the training pairs")
    masks = tuple(folder / f"{photo.stem}.png" for photo in split.photos)
    if missing := [mask.name for mask in masks if not mask.exists()]:
        raise UserError(
            f"{folder} has no mask of {len(missing)} of the {len(masks)} training pairs (the first: '{missing[0]}'): "
            "add them, or leave these pairs out (--data.exclude)"
        )
    return replace(split, masks=masks)


def read_mask(path: Path) -> np.ndarray:
    """Read one mask, (H, W) bool: True where the photograph is aligned with its mosaic.

    Raises `UserError` if the file is missing, damaged or not 8-bit grey, if it has values other than 0 and 255, and if
    no pixel is aligned.
    """
    with reading(path), open_image(path) as image:
        if image.mode != "L":
            raise UserError(f"{path} has the pixel format {image.mode}: save the mask as 8-bit grey (mode L)")
        values = np.asarray(image)
    aligned = values == 255
    if not (aligned | (values == 0)).all():
        raise UserError(f"{path} is no mask: it has values other than 255 (aligned) and 0 (not)")
    if not aligned.any():
        raise UserError(f"{path} marks no pixel as aligned: leave its pair out (--data.exclude)")
    return aligned


def check_mask(path: Path, photo_path: Path, mask: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise `UserError` if (height, width) of a mask and of its photograph differ."""
    if mask != photo:
        sizes = f"{mask[0]}x{mask[1]} and {photo[0]}x{photo[1]}"
        raise UserError(f"{path} is the mask of {photo_path}, but of another size: {sizes} (height x width)")
