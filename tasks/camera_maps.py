"""Maps in closed form between the two cameras of a run, fitted without pairs to their training mosaics."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data.camera import Profile
from data.notes import note
from data.raw_maps import RawMap, fit_raw_map, thumbnail
from data.threads import in_threads
from data.two_cameras import CAMERAS, OTHER, TwoCameras
from errors import UserError

FITTED = 256  # mosaics of each camera that maps are fitted to, at most

Ways = dict[str, RawMap]  # {"b": the map from a to b, "a": that from b to a}


def thumbnails(cameras: TwoCameras) -> dict[str, Tensor]:
    """{"a": thumbnails (N, 4, s, s) of training mosaics, evenly spaced, "b": ...}."""
    small = {}
    for each in CAMERAS:
        paths = cameras.unpaired[each][:: -(-len(cameras.unpaired[each]) // FITTED)]
        with closing(in_threads(partial(_look, cameras, each), paths, f"reading camera {each}'s files")) as found:
            small[each] = torch.cat(list(found))
    return small


def _look(cameras: TwoCameras, camera: str, path: Path) -> Tensor:
    return thumbnail(cameras.training_planes(path, camera))


def fit_maps(
    method: str,
    cameras: TwoCameras,
    profiles: Mapping[str, Profile | None],
    small: Mapping[str, Tensor] | None = None,
) -> Ways:
    """The maps of both directions; `small` are the `thumbnails`, if they are known. Raises `UserError` if one fails."""
    small = small or thumbnails(cameras)
    matrices = {each: profile and profile.color_matrix for each, profile in profiles.items()}
    ways = {to: (OTHER[to], to) for to in CAMERAS}
    return {
        to: fit_raw_map(method, *(small[each] for each in way), way, tuple(matrices[each] for each in way))
        for to, way in ways.items()
    }


def fit_baselines(
    methods: Iterable[str],
    cameras: TwoCameras,
    profiles: Mapping[str, Profile | None],
    small: Mapping[str, Tensor] | None = None,
) -> dict[str, Ways]:
    """{method: its maps} to compare with. One that cannot be fitted is left out, with a note."""
    small, fitted = small or thumbnails(cameras), {}
    for method in methods:
        try:
            fitted[method] = fit_maps(method, cameras, profiles, small)
        except UserError as error:
            note(f"{method} is left out of the comparison: {error}")
    return fitted
