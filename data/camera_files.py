"""A camera's own files (DNG, NEF, CR2, ...), read by LibRaw: the mosaic, and the white balance that it notes."""

from pathlib import Path

import numpy as np

from data.sensor import CFA_ORDERS, Sensor
from errors import UserError

CAMERA_FILES = {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".raf", ".rw2", ".orf", ".pef"}


def read_camera_file(path: Path, sensor: Sensor) -> np.ndarray:
    """The visible area of a file, (H, W) digital numbers. Raises `UserError` if it is not of such a `sensor`."""
    import rawpy

    with open(path, "rb") as file, rawpy.imread(file) as raw:  # a file, because rawpy takes UTF-8 names only
        pattern = raw.raw_pattern  # None or not 2x2 if the file is demosaiced, monochrome or from X-Trans
        if pattern is None or pattern.shape != (2, 2) or raw.num_colors != 3:
            raise UserError(f"{path} is not from a Bayer sensor, or already demosaiced (linear DNG): leave it out")
        mosaic = raw.raw_image_visible.copy()
        cfa = "".join("rgbg"[index] for index in raw.raw_colors_visible[:2, :2].flat)
        black, white = raw.black_level_per_channel, raw.white_level
    if mosaic.ndim != 2 or cfa not in CFA_ORDERS:
        raise UserError(f"{path} is not from a Bayer sensor with red, green and blue: leave it out")
    if cfa != sensor.cfa:
        advice = f"set --data.cfa {cfa} (test_model.py: --cfa {cfa})"
        raise UserError(f"{path} has the CFA order {cfa}, not {sensor.cfa}: {advice}")
    if white and not 0.8 * sensor.white_level <= white <= 1.25 * sensor.white_level:
        advice = f"set --data.white-level {white} (test_model.py: --white-level {white})"
        raise UserError(f"{path} has the white level {white}, not {sensor.white_level:g}: {advice}")
    black = [black[i] for i in (0, 1, 3, 2)]  # R, Gr, Gb, B; LibRaw has R, G, B, G2
    for own, expected in zip(black, sensor.black_level, strict=True):
        if abs(own - expected) > 0.01 * sensor.white_level:
            levels = " ".join(f"{level:g}" for level in black)
            advice = f"set --data.black-level {levels} (test_model.py: --black-level {levels})"
            raise UserError(f"{path} has the black level {own:g}, not {expected:g}: {advice}")
    return mosaic


def read_white_balance(path: Path) -> tuple[float, float] | None:
    """The gains of red and blue that the camera chose; None if the file notes none."""
    import rawpy

    with open(path, "rb") as file, rawpy.imread(file) as raw:
        red, green, blue, _ = raw.camera_whitebalance
    return (red / green, blue / green) if min(red, green, blue) > 0 else None
