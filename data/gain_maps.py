"""Lens shading as camera files note it: gain maps (DNG specification 1.4, chapter 7, opcode GainMap)."""

import struct
from dataclasses import dataclass

import numpy as np

GAIN_MAP = 9  # the opcode's number
HEADER, MAP = struct.Struct(">4I"), struct.Struct(">10I4dI")  # of an opcode; of a gain map before its gains


@dataclass(frozen=True)
class GainMap:
    """Gains of some of the pixels of a mosaic, such as all red ones, on a coarse grid over the image."""

    first: tuple[int, int]  # row and column of the first pixel
    last: tuple[int, int]  # row and column after the last pixel
    pitch: tuple[int, int]  # from one row, and one column, to the next
    spacing: tuple[float, float]  # from one row, and one column, of the grid to the next, as shares of the image's side
    origin: tuple[float, float]  # of the grid, likewise
    gains: np.ndarray  # (rows, columns) of the grid, float32

    def multiply(self, signal: np.ndarray) -> None:
        """Multiply these pixels of an image (H, W), float32, above black, by the gains between the grid's; in place."""
        places, weights = [], []
        for axis, side in enumerate(signal.shape):
            pixels = np.arange(self.first[axis], min(self.last[axis], side), self.pitch[axis])
            position = ((pixels + 0.5) / side - self.origin[axis]) / (self.spacing[axis] or 1.0)
            points = np.arange(self.gains.shape[axis])
            inside = position.clip(0, points[-1])[:, None]  # beyond the grid, its border counts
            places.append(slice(self.first[axis], min(self.last[axis], side), self.pitch[axis]))
            weights.append((1 - np.abs(inside - points)).clip(0).astype(np.float32))
        signal[tuple(places)] *= weights[0] @ self.gains @ weights[1].T


def read_gain_maps(opcodes: bytes) -> list[GainMap]:
    """The gain maps of an opcode list, big-endian as DNG has it; its other opcodes are left out.

    Raises `ValueError` or `struct.error` for a damaged list.
    """
    (count,), position, found = struct.unpack_from(">I", opcodes), 4, []
    for _ in range(count):
        kind, _, _, size = HEADER.unpack_from(opcodes, position)
        position += HEADER.size
        if kind == GAIN_MAP:
            found.append(_read_map(opcodes[position : position + size]))
        position += size
    return found


def _read_map(content: bytes) -> GainMap:
    top, left, bottom, right, _, _, *rest = MAP.unpack_from(content)
    row_pitch, column_pitch, rows, columns, *grid, planes = rest
    if planes != 1:
        raise ValueError(f"a gain map for {planes} colours at once, but a mosaic has one at each pixel")
    if min(row_pitch, column_pitch, rows, columns) < 1:
        raise ValueError("a gain map without pixels")
    gains = np.frombuffer(content, ">f4", rows * columns, MAP.size).astype(np.float32).reshape(rows, columns)
    return GainMap((top, left), (bottom, right), (row_pitch, column_pitch), tuple(grid[:2]), tuple(grid[2:]), gains)
