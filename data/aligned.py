"""Writes aligned pairs as a dataset: mosaics, photographs in their pixels, masks, and a record of each pair.

OUT/raw, OUT/photos and OUT/masks hold a file of one name for each patch. OUT/pairs holds a record of each pair, written
last: a pair without one is done again. align.csv and excluded.txt are made of all records.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import storage
from data.agreement import SMOOTH, TEXTURE
from data.alignment import Alignment, Options
from data.registration import luma, with_tones_of
from errors import UserError

RAW, PHOTOS, MASKS, PAIRS = "raw", "photos", "masks", "pairs"
TABLE, EXCLUDED, LOCK, MARKER = "align.csv", "excluded.txt", ".align.lock", ".align.json"
LARGEST = 65535  # of 16 bits
FEW = 64  # pixels to compare; with fewer, a patch has no figures


@dataclass(frozen=True)
class Rules:
    """Which patches are written. Raises `UserError` for an impossible size or share."""

    patch: int = 256  # pixels of a side; 0: the whole frame
    valid: float = 0.95  # of the mask, the least share of a patch; of a whole frame, any
    everything: bool = False  # also what fails, which excluded.txt then names

    def __post_init__(self) -> None:
        if self.patch < 0 or self.patch % 2 or 0 < self.patch < 32:
            raise UserError(
                f"the patch is {self.patch}, but must be even (the CFA repeats every two pixels) and at least 32, or 0 "
                "for whole frames"
            )
        if not 0 <= self.valid <= 1:
            raise UserError(f"the valid share is {self.valid}, but must lie between 0 and 1")


@dataclass(frozen=True)
class Patch:
    """A patch of a pair, and how well its two sides agree."""

    name: str  # of its files, without suffix
    top: int
    left: int
    height: int
    width: int
    valid: float  # share of the mask
    ncc: float  # correlation of brightness in the mask
    flow: float  # pixels: mean residual displacement in the mask, where there is detail
    texture: float  # standard deviation of the photograph's brightness, levels of 255
    rejected: str  # why it fails; "" if it does not

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def patches_of(
    name: str, rendered: np.ndarray, warped: np.ndarray, alignment: Alignment, rules: Rules, options: Options
) -> list[Patch]:
    """The patches of a pair, side by side from the top left corner, all at even rows and columns.

    Args:
        name: of the pair.
        rendered: (H, W, 3) uint8, of `data.alignment.render`.
        warped: (H, W, 3) uint8, of `Alignment.warp`.
        alignment: of the pair.
        rules: the size of the patches, and the share of the mask that they need.
        options: the correlation and the residual flow that they need.

    Raises `UserError` if the mosaic is smaller than a patch.
    """
    height, width = rendered.shape[:2]
    if rules.patch > min(height, width):
        raise UserError(f"the mosaic is {height}x{width}, smaller than a patch of {rules.patch}: lower --patch")
    toned = with_tones_of(rendered, warped, alignment.mask)
    first, second = (cv2.GaussianBlur(luma(image), (0, 0), SMOOTH) for image in (toned, warped))
    found = []
    for top in range(0, height - (rules.patch or height) + 1, rules.patch or height):
        for left in range(0, width - (rules.patch or width) + 1, rules.patch or width):
            size = (rules.patch or height, rules.patch or width)
            part = slice(top, top + size[0]), slice(left, left + size[1])
            figures = _figures(first[part], second[part], alignment.mask[part], alignment.residual[part])
            why = _rejected(figures, rules, options)
            own = f"{name}_{top}_{left}" if rules.patch else name
            found.append(Patch(own, top, left, *size, **figures, rejected=why))
    return found


def _figures(first: np.ndarray, second: np.ndarray, mask: np.ndarray, residual: np.ndarray) -> dict[str, float]:
    """The figures of a patch: two images (H, W) uint8, mask (H, W) bool, residual displacement (H, W) in pixels."""
    a, b = first[mask].astype(np.float64), second[mask].astype(np.float64)
    known = len(a) >= FEW and a.std() > 0 and b.std() > 0
    moved = residual[mask & (residual > 0)]
    return {
        "valid": float(mask.mean()),
        "ncc": float(np.corrcoef(a, b)[0, 1]) if known else 0.0,
        "flow": float(moved.mean()) if len(moved) else 0.0,
        "texture": float(b.std()) if len(b) else 0.0,
    }


def _rejected(figures: dict[str, float], rules: Rules, options: Options) -> str:
    for wrong, why in (
        (figures["valid"] < (rules.valid if rules.patch else 0), "too little of it is valid"),
        (figures["texture"] < TEXTURE, "too little texture"),
        (figures["ncc"] < options.ncc, "low correlation"),
        (figures["flow"] > options.flow, "residual flow"),
    ):
        if wrong:
            return why
    return ""


# --- writing ---------------------------------------------------------------------------------------------------------


def write_patches(out: Path, mosaic: np.ndarray, warped: np.ndarray, mask: np.ndarray, patches: list[Patch]) -> None:
    """Write these patches of a pair into the folder of a dataset.

    Args:
        out: the folder.
        mosaic: (H, W) digital numbers, up to 65535; they are written as they are, rounded if they are not whole.
        warped: (H, W, 3) uint8.
        mask: (H, W) bool; written as 0 and 255.
        patches: where to cut.
    """
    if mosaic.dtype != np.uint16:
        if mosaic.max() > LARGEST:
            raise UserError(f"the mosaic has digital numbers up to {mosaic.max():g}, and a PNG file holds {LARGEST}")
        mosaic = np.rint(mosaic).astype(np.uint16)
    for patch in patches:
        parts = {RAW: mosaic, PHOTOS: warped[..., ::-1], MASKS: np.where(mask, np.uint8(255), np.uint8(0))}
        for folder, image in parts.items():
            storage.write_bytes(out / folder / f"{patch.name}.png", encode_png(image[patch.window]))


def encode_png(image: np.ndarray) -> bytes:
    """A PNG file of an image of OpenCV: (H, W) uint8 or uint16, or (H, W, 3) uint8, blue first."""
    _, content = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return content.tobytes()


def record_of(pair: str, raw: Path, photo: Path, figures: dict[str, float], patches: list[Patch]) -> dict[str, Any]:
    """What is known of a pair, for `write_tables`: written when its patches are."""
    rows = [asdict(patch) for patch in patches]
    return {"name": pair, "raw": raw.name, "photo": photo.name, "figures": figures, "refused": "", "patches": rows}


def records(out: Path) -> Iterator[dict[str, Any]]:
    """The records of a folder, by name. One that cannot be read is left out: its pair is done again."""
    for path in sorted((out / PAIRS).glob("[!.]*.json")):
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
        if isinstance(content, dict) and content.get("name") == path.stem:
            yield content


def write_tables(out: Path) -> tuple[int, int]:
    """Write align.csv and excluded.txt of all records; return how many (pairs are aligned, patches are kept)."""
    with storage.lock(out / LOCK):
        found = list(records(out))
        lines = [line for record in found for line in _lines(record)]
        columns = list(dict.fromkeys(name for line in lines for name in line))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
        storage.write_bytes(out / TABLE, text.getvalue().encode("utf-8", "surrogateescape"))
        names = [name for record in found for name in record.get("excluded", [])]
        storage.write_bytes(out / EXCLUDED, "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"))
    kept = sum(not patch["rejected"] for record in found for patch in record["patches"])
    return sum(not record["refused"] for record in found), kept


def _lines(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of align.csv: of the pair, then of its patches."""
    figures = {name: round(value, 4) for name, value in record["figures"].items()}
    reason = record["refused"]
    yield {"pair": record["name"], "patch": "", "kept": "no" if reason else "yes", "reason": reason, **figures}
    for patch in record["patches"]:
        reason = patch["rejected"]
        first = {"pair": record["name"], "patch": patch["name"], "kept": "no" if reason else "yes", "reason": reason}
        yield first | {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in patch.items()
            if name not in ("name", "rejected")
        }
