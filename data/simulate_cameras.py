"""Mosaics of two simulated cameras: unpaired ones to train a map between them, pairs with exact truth to test it.

The image formation is `data.spectra`: measured sensitivities, under one light or two. Each 2x2 block of the CFA sees
one colour, the mean of the photograph's four pixels: so the colour planes of both cameras show the same places,
although their CFA orders differ, and truth is exact. The folder holds

    unpaired/a/*.png, unpaired/b/*.png    mosaics with noise, of other photographs on each side
    paired/a/*.png, paired/b/*.png        of further photographs, with noise
    truth/a/*.png, truth/b/*.png          the same without noise, but in whole digital numbers
    photographs/{a,b,paired}/*.png        what each mosaic shows, in sRGB: to train an ISP of a camera, and to test it
    paired/transforms/*.npz               the exact map of each pair, for `data.spectra.load_transform`
    cameras.json, a.json, b.json          CFA orders and levels; the profiles of both cameras (`data.camera`)
    simulation.json, sources.txt          settings, and light and origin of each mosaic; photographs with their licences
"""

import dataclasses
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

import storage
from data import camera as profiles
from data.cuts import (
    Cut,
    check_patch,
    grid,
    is_complete,
    locked,
    pick,
    progress,
    refuse_existing,
    shrink,
    temporary_folder,
    write_png,
    write_sources,
)
from data.demo import DEMO, demo_boxes, demo_photographs
from data.sensor import SENSORS, Cfa, Sensor
from data.spectra import CAMERAS, Lighting, color_matrix, to_linear, to_srgb
from data.unprocess import expose, mosaic, quantise
from errors import UserError

Lights = Literal["mixed", "single"]  # two lights in a scene, or one
Exposure = Literal["fixed", "auto"]  # in a fixed relation between the cameras, or chosen by each camera for each mosaic

SIDES = ("unpaired/a", "unpaired/b", "paired")
PHOTOGRAPHS = dict(zip(SIDES, ("photographs/a", "photographs/b", "photographs/paired"), strict=True))
FOLDERS = (*SIDES[:2], "paired/a", "paired/b", "truth/a", "truth/b", "paired/transforms", *PHOTOGRAPHS.values())
FEWEST = 6  # photographs, two a side
RECORD = "simulation.json"
BRIGHT, PERCENTILE = 0.9, 99  # automatic exposure brings this percentile of all values to 0.9,
MOST = 16.0  # but exposes at most so many times as long

# Photograph -> side, the most patches to take. As in `DEMO`, the motorcycles are one scene.
DEMO_SIDES = {
    "astronaut.png": ("unpaired/a", 48),
    "rocket.jpg": ("unpaired/a", 24),
    "retina.jpg": ("unpaired/a", 24),
    "motorcycle_left.png": ("unpaired/b", 36),
    "motorcycle_right.png": ("unpaired/b", 36),
    "ihc.png": ("unpaired/b", 24),
    "chelsea.png": ("paired", 24),
    "coffee.png": ("paired", 24),
}


@dataclass(frozen=True)
class Body:
    """A camera but for its colours, as `data.unprocess.Recording` has it."""

    cfa: Cfa
    black: tuple[int, int, int, int]  # of R, Gr, Gb, B, in digital numbers
    white: int
    shot: float  # variance of the noise is shot * signal + read, with the signal in [0, 1]
    read: float

    @property
    def sensor(self) -> Sensor:
        """CFA order and levels."""
        return Sensor(self.cfa, tuple(map(float, self.black)), float(self.white))


# 12 and 10 bits. Rounding truth to the levels of b costs 70 dB, which is far below the noise of a.
_A, _B = SENSORS["simulated-a"], SENSORS["simulated-b"]
BODIES = {
    "a": Body(_A.cfa, tuple(map(int, _A.black_level)), int(_A.white_level), shot=1e-5, read=1e-8),
    "b": Body(_B.cfa, tuple(map(int, _B.black_level)), int(_B.white_level), shot=4e-5, read=4e-7),
}


@dataclass(frozen=True)
class Settings:
    """What decides the content of a dataset, beside its photographs. Raises `UserError` for an impossible patch."""

    seed: int  # of the sides, lights and noise
    patch: int  # side of a mosaic in pixels
    lights: Lights = "mixed"
    exposure: Exposure = "fixed"

    def __post_init__(self) -> None:
        check_patch(self.patch)

    def lighting(self, cut: Cut) -> Lighting:
        """The lights of a scene, which every patch is: by the seed, the photograph's name and the place in it."""
        return Lighting.draw(np.random.default_rng([self.seed, _number(cut[1:])]), self.lights == "mixed")

    def noise(self, cut: tuple) -> np.random.Generator:
        """Random numbers for the noise of a mosaic."""
        return np.random.default_rng([self.seed, _number(cut)])


DEMO_SETTINGS = Settings(seed=0, patch=128)  # of the demo dataset


# --- planning --------------------------------------------------------------------------------------------------------


def split(shapes: dict[str, tuple[int, int]], patch: int, stride: int, scales: Sequence[float], seed: int) -> list[Cut]:
    """Assign whole photographs to the sides: a fifth to the pairs, half of the others to each unpaired side.

    `shapes` are (height, width) by name. Raises `UserError` for fewer than six photographs.
    """
    if len(shapes) < FEWEST:
        raise UserError(
            f"two cameras need at least {FEWEST} usable photographs, for no photograph may be on two of the sides "
            f"{', '.join(SIDES)}: there are only {len(shapes)}"
        )
    names = [str(name) for name in np.random.default_rng(seed).permutation(sorted(shapes))]
    pairs = max(2, round(len(names) / 5))
    middle = pairs + (len(names) - pairs + 1) // 2
    parts = zip(SIDES, (names[pairs:middle], names[middle:], names[:pairs]), strict=True)
    return [
        (side, name, *box) for side, part in parts for name in part for box in grid(shapes[name], patch, stride, scales)
    ]


def numbered(cuts: Sequence[Cut]) -> list[tuple[str, Cut]]:
    """Each cut with the stem of its files, which counts from 0 on each side, in the order of writing."""
    counts, found = dict.fromkeys(SIDES, 0), []
    for cut in sorted(cuts, key=lambda cut: (cut[1:], cut[0])):
        found.append((str(counts[cut[0]]), cut))
        counts[cut[0]] += 1
    return found


def describe(cuts: Sequence[Cut], settings: Settings) -> str:
    """The text of simulation.json. Equal texts mean equal datasets, if the photographs are the same."""
    scenes = {side: {} for side in SIDES}
    for stem, cut in numbered(cuts):
        side, name, scale, top, left = cut
        place = {"photograph": name, "scale": scale, "top": top, "left": left}
        scenes[side][f"{stem}.png"] = place | {"lights": settings.lighting(cut).lights}
    cameras = {name: {"sensitivities": CAMERAS[name]} | asdict(body) for name, body in BODIES.items()}
    return json.dumps(asdict(settings) | {"cameras": cameras, "scenes": scenes}, indent=1) + "\n"


def _number(value: tuple) -> int:
    return zlib.crc32(repr(value).encode())


# --- writing ---------------------------------------------------------------------------------------------------------


def write_cameras(
    root: Path, cuts: list[Cut], load: Callable[[str], np.ndarray], settings: Settings, licences: dict[str, str]
) -> None:
    """Write the dataset whole or not at all. The caller holds the lock of `root` (`data.cuts.locked`).

    Args:
        root: the folder to create; it must be absent or empty.
        cuts: the patches to write, with a side of `SIDES`.
        load: reads a photograph by the name that `cuts` use, (H, W, 3) uint8.
        settings: as for `describe`.
        licences: of the photographs, by name.

    Raises `UserError` if `root` is not empty or cannot be created.
    """
    root = refuse_existing(root)
    with temporary_folder(root, RECORD, describe(cuts, settings)) as temporary:
        write_sources(temporary, cuts, licences)
        for folder in FOLDERS:
            (temporary / folder).mkdir(parents=True)
        with progress(numbered(cuts), "writing") as bar:
            for (name, scale), group in groupby(bar, key=lambda item: item[1][1:3]):
                photo = shrink(load(name), scale)
                for stem, cut in group:
                    _write_scene(temporary, stem, cut, photo, settings)
        levels = {name: {"cfa": body.cfa, "black": body.black, "white": body.white} for name, body in BODIES.items()}
        storage.write_json(temporary / "cameras.json", levels)
        for name in BODIES:
            storage.write_json(temporary / f"{name}.json", profiles.to_dict(_profile(temporary, name)))


def _write_scene(root: Path, stem: str, cut: Cut, photo: np.ndarray, settings: Settings) -> None:
    side, name, _, top, left = cut
    patch = photo[top : top + settings.patch, left : left + settings.patch]
    if patch.shape[:2] != (settings.patch, settings.patch):
        raise UserError(f"{name} has become smaller since it was surveyed: start again")
    linear, lighting = blocks(to_linear(patch)), settings.lighting(cut)
    if settings.exposure == "auto":
        lighting = dataclasses.replace(lighting, exposures=tuple(map(meter, lighting.record(linear))))
    raws = dict(zip(BODIES, map(_whole, lighting.record(linear)), strict=True))
    write_png(root / PHOTOGRAPHS[side] / f"{stem}.png", np.rint(255 * to_srgb(_whole(linear))).astype(np.uint8))
    if side != "paired":
        camera = side.removeprefix("unpaired/")
        write_png(root / side / f"{stem}.png", expose(raws[camera], BODIES[camera], settings.noise(cut)))
        return
    for camera, body in BODIES.items():
        write_png(root / "paired" / camera / f"{stem}.png", expose(raws[camera], body, settings.noise((camera, *cut))))
        write_png(root / "truth" / camera / f"{stem}.png", quantise(mosaic(raws[camera], body.cfa), body))
    lighting.save(root / "paired" / "transforms" / f"{stem}.npz", linear.shape[:2])


def blocks(image: np.ndarray) -> np.ndarray:
    """The mean of each 2x2 block: (H, W, 3) -> (H/2, W/2, 3)."""
    height, width, colours = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, colours).mean(axis=(1, 3))


def meter(raw: np.ndarray) -> float:
    """The automatic exposure of raw (H, W, 3): the factor that makes its bright parts nearly white, at most `MOST`."""
    return float(BRIGHT / max(np.percentile(raw, PERCENTILE), BRIGHT / MOST))


def _whole(raw: np.ndarray) -> np.ndarray:
    """Raw of blocks (H, W, 3) -> of pixels (2H, 2W, 3), clipped to [0, 1] as a sensor saturates."""
    return np.clip(raw, 0, 1).repeat(2, axis=0).repeat(2, axis=1)


def _profile(root: Path, name: str) -> profiles.Profile:
    """The profile of camera "a" or "b", from its unpaired mosaics; noise and colours are those simulated."""
    body = BODIES[name]
    found = profiles.profile_of_mosaics(sorted((root / "unpaired" / name).iterdir()), body.sensor)
    colours = tuple(map(tuple, color_matrix(name).tolist()))
    known = {"make": "Simulated", "model": name, "noise": (body.shot, body.read), "color_matrix": colours}
    return dataclasses.replace(found, **known)


# --- the demo --------------------------------------------------------------------------------------------------------


def make_demo_cameras(root: Path, settings: Settings) -> None:
    """Write a small dataset of the photographs inside scikit-image, unless it is there already, with the same settings.

    Raises `UserError` if `root` holds anything else, or the patch is too large for the photographs.
    """
    root = Path(root).resolve()
    if not (root / RECORD).is_file():
        refuse_existing(root)
    photos, rng, cuts = demo_photographs(), np.random.default_rng(settings.seed), []
    for name, (side, most) in DEMO_SIDES.items():
        cuts += pick([(side, name, *box) for box in demo_boxes(photos[name], settings.patch)], most, rng)
    if missing := set(SIDES) - {cut[0] for cut in cuts}:
        sides = ", ".join(sorted(missing))
        raise UserError(f"patch {settings.patch} is too large for the demo photographs: no patch for {sides}")
    images = 2 * len(cuts) + 3 * sum(cut[0] == "paired" for cut in cuts)  # a pair is four mosaics
    written = (RECORD, describe(cuts, settings), images)
    if is_complete(root, *written):  # perhaps where no lock can be written
        return
    with locked(root, wait=True):
        if not is_complete(root, *written):
            write_cameras(root, cuts, photos.__getitem__, settings, {name: row[2] for name, row in DEMO.items()})
