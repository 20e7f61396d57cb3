"""What is fitted to the training files before training: a colour map, and a camera that records photographs."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config import Config
from data import statistics
from data.conditions import CLIPPED
from data.files import Reader
from data.folders import Split
from data.noise import estimate_noise
from data.patches import centre, photo_tensor
from data.photographs import read_photo
from data.reference import Reference
from data.synthetic import SyntheticCamera
from data.transport import (
    ColorMap,
    TransportReference,
    camera_colors,
    fit_color_map,
    invert,
    round_trip_error,
    sample_colors,
)
from errors import UserError
from training.log import Progress

IMAGES = 512  # at most this many of each side, evenly spaced, give the colours of a map
NOISY = 64  # at most this many mosaics, evenly spaced, give the noise
FEWEST = 10  # images of each side: fewer say little about a camera's colours
SIDE = 1024  # pixels of the central square of a mosaic that is looked at


@dataclass(frozen=True)
class Fitted:
    """The rendering that the content loss and pretraining compare with, and what was fitted for it."""

    reference: Reference | TransportReference
    camera: SyntheticCamera | None = None  # makes the mosaics of pretraining
    color_map: ColorMap | None = None

    @property
    def facts(self) -> dict[str, str]:
        """How well things were fitted, for the log; empty if nothing was."""
        facts = {"color map": self.color_map.describe()} if self.color_map else {}
        if self.camera:
            facts["synthetic camera"] = f"noise: shot {self.camera.shot:.2e}, read {self.camera.read:.2e} of white"
        return facts

    @property
    def description(self) -> dict[str, Any]:
        """The same in full, for the checkpoints."""
        parts = {"color_map": self.color_map, "synthetic_camera": self.camera}
        return {name: dataclasses.asdict(part) for name, part in parts.items() if part}


def fit_reference(
    config: Config, training: Split, reader: Reader, published: Reference, synthetic: bool, quiet: bool = False
) -> Fitted:
    """Fit what data.reference needs, and what `synthetic` pairs need, to the training mosaics and photographs.

    It depends on the files and the seed alone, so a resumed run has the same. Raises `UserError` for too few files, and
    as `fit_color_map` and `estimate_noise` do.
    """
    mapped = config.data.reference == "transport"
    if not (mapped or synthetic):
        return Fitted(published)
    raws, photos = (paths[:: -(-len(paths) // IMAGES)] for paths in (training.raws, training.photos))
    if min(len(raws), len(set(photos))) < FEWEST:
        raise UserError(
            f"a colour map needs at least {FEWEST} mosaics and {FEWEST} photographs, but there are {len(raws)} and "
            f"{len(set(photos))}: add files, or train without it (--data.reference published, no synthetic pairs)"
        )
    rng, thumbnails = np.random.default_rng(config.seed), ([], [])
    with Progress("colours", 0, len(raws) + len(photos), quiet=quiet, unit="image") as progress:
        demosaiced = (camera_image(path, reader, published)[0] for path in progress.over(raws))
        camera = sample_colors(_collect(demosaiced, thumbnails[0]), len(raws), rng)
        shown = (photo_tensor(read_photo(path)) for path in progress.over(photos))
        colors = sample_colors(_collect(shown, thumbnails[1]), len(photos), rng)
    carry = None
    if config.data.color_map == "statistics":
        carry = partial(statistics.carry, statistics.fit_rendering(*thumbnails))
    color_map = fit_color_map(camera, colors, config.seed, carry)
    fitted = TransportReference(reader.sensor, published.demosaic, color_map, _most(reader))
    reference = fitted if mapped else published
    if not synthetic:
        return Fitted(reference, None, color_map)
    inverse = invert(color_map, camera)
    noisy = (centre(reader.recorded(path), SIDE) for path in raws[:: -(-len(raws) // NOISY)])
    shot, read = estimate_noise(noisy, reader.sensor)
    color_map = dataclasses.replace(color_map, round_trip=round_trip_error(color_map, inverse, colors, _most(reader)))
    normalised = raws if reader.normalisation != "off" else ()
    gains = tuple(reader.gains(path, reader.recorded(path)) for path in normalised)
    clip = reader.normalisation in CLIPPED
    return Fitted(reference, SyntheticCamera(reader.sensor, inverse, shot, read, gains, clip), color_map)


def _collect(images: Iterable[Tensor], thumbnails: list[Tensor]) -> Iterator[Tensor]:
    """The images, whose thumbnails are added to the list as they pass."""
    for image in images:
        thumbnails.append(statistics.thumbnail(image))
        yield image


def camera_image(path: Path, reader: Reader, published: Reference) -> Tensor:
    """The camera colours (1, 3, H, W) of the centre of a mosaic, demosaiced as the published rendering is."""
    digital = torch.from_numpy(centre(reader.mosaic(path), SIDE).astype(np.float32))[None, None]
    return camera_colors(published.demosaic(digital, reader.sensor.cfa), reader.sensor, _most(reader))


def _most(reader: Reader) -> float:
    """The largest camera colour: white, unless gains raise it."""
    return 1.0 if reader.normalisation in CLIPPED else math.inf
