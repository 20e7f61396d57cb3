"""A small dataset in the form of LSMI: two cameras' pictures of places with colour charts, seen in perspective."""

import json
from pathlib import Path

import cv2
import numpy as np

from .dng import dng, sampled
from .two_cameras import CAMERAS, NAMES, SEEN

FOLDERS = {"a": ("sony", "arw"), "b": ("galaxy", "dng")}  # LibRaw knows files by their content
SIZES = {"a": (120, 176), "b": (112, 160)}  # of mosaics
CHARTS = {  # corners (x, y) in the mosaic, clockwise from the top left patch
    "a": {
        "mcc1": ((6, 8), (75, 4), (80, 52), (10, 60)),
        "mcc2": ((100, 60), (167, 70), (160, 114), (96, 108)),
    },
    "b": {
        "mcc1": ((14, 50), (80, 58), (74, 106), (8, 102)),
        "mcc2": ((90, 6), (153, 3), (156, 46), (94, 50)),
    },
}
LIGHTS = {"1": (1.0, 1.0, 1.0), "12": (1.0, 0.8, 0.6)}  # by the name's end
SPLITS = {
    "a": {"single_train": ["Place1", "Place2"], "mixed_train": ["Place3"], "x_val": ["Place4"], "x_test": ["Place5"]},
    "b": {"x_train": ["Place1", "Place2", "Place6"], "x_val": [], "x_test": ["Place5", "Place7"]},
}
BRIGHTEST_WALL = 0.4  # no wall is as bright as a patch, in any light and camera


def patches(seed: int) -> np.ndarray:
    """The colours (24, 3) of a chart."""
    return np.random.default_rng(seed).uniform(0.55, 0.95, (24, 3))


def draw(scene: np.ndarray, corners: tuple, colours: np.ndarray) -> None:
    """Draw a chart into a scene (H, W, 3): 2x2 pixels have one colour, gaps are black."""
    height, width = scene.shape[:2]
    chart = np.float32([[0, 0], [6.09, 0], [6.09, 4.09], [0, 4.09]])  # in patches with their gap, 2.75 units of LSMI
    to_chart = cv2.getPerspectiveTransform(np.float32(corners), chart)
    y, x = np.mgrid[: height // 2, : width // 2]
    places = np.stack((2 * x + 0.5, 2 * y + 0.5), -1).reshape(1, -1, 2)
    across, down = cv2.perspectiveTransform(places, to_chart)[0].T.reshape(2, height // 2, width // 2)
    on_chart = (across > 0) & (across < 6.09) & (down > 0) & (down < 4.09)
    column, row = ((place - 1 / 11) for place in (across, down))
    patch = (column % 1 < 10 / 11) & (row % 1 < 10 / 11) & (column > 0) & (row > 0) & (column < 6) & (row < 4)
    number = np.where(patch & on_chart, np.floor(row) * 6 + np.floor(column), 0).astype(int)
    drawn = np.where((patch & on_chart)[..., None], colours[number], 0)
    blocks = scene.reshape(height // 2, 2, width // 2, 2, 3).swapaxes(1, 2)
    blocks[on_chart] = drawn[on_chart][:, None, None]


def picture(camera: str, place: int, light: str, charts: tuple[str, ...] = ("mcc1", "mcc2")) -> np.ndarray:
    """What a camera sees of a place, linear colours (H, W, 3): smooth walls, and the place's charts."""
    height, width = SIZES[camera]
    rng = np.random.default_rng([place, "ab".index(camera)])
    walls = cv2.resize(rng.random((5, 6, 3)), (width, height)).astype(float) * BRIGHTEST_WALL
    for number, name in enumerate(charts):
        draw(walls, CHARTS[camera][name], patches(10 * place + number))
    return (walls * LIGHTS[light]) @ SEEN[camera].T


def write_picture(path: Path, camera: str, place: int, light: str, **options) -> None:
    sensor = CAMERAS[camera]
    levels = {"cfa": sensor.cfa, "black": sensor.black_level, "white": int(sensor.white_level)}
    mosaic = sampled(picture(camera, place, light), **levels)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dng(mosaic, **levels, camera=NAMES[camera], **options))


def write_lsmi(root: Path) -> Path:
    """Pictures of three training places of each camera; both tested Place5, and camera b Place7, too."""
    for camera, (folder, suffix) in FOLDERS.items():
        meta = {}
        for place in sorted(place for places in SPLITS[camera].values() for place in places):
            for light in LIGHTS:
                path = root / folder / place / f"{place}_{light}.{suffix}"
                write_picture(path, camera, int(place[-1]), light)
            coordinates = {name: np.array(corners).tolist() for name, corners in CHARTS[camera].items()}
            meta[place] = {"NumOfLights": 2, "MCCCoord": coordinates | {"mcc3": [[float("nan")] * 2] * 4}}
        (root / folder / "meta.json").write_text(json.dumps(meta))
        (root / folder / "split.json").write_text(json.dumps(SPLITS[camera]))
        (root / folder / "Place1" / "Place1_1.tiff").write_bytes(b"what LSMI's code writes")
        np.save(root / folder / "Place1" / "Place1_12.npy", np.zeros((2, 2)))
    return root


def edit(file: Path, change) -> None:
    """Change a .json file's content in place by a function."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
