"""The mosaics of two cameras, a and b: different scenes to train on, and pairs of one scene to measure on.

All are read as planes (data/planes.py): float32, black 0, white 1, the channels R, Gr, Gb, B, or R, G, B.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data import lsmi
from data.cache import Files
from data.files import Reader, advising
from data.folders import mosaics
from data.patches import draw_order, generator_of, random_window
from data.planes import merge_greens, to_planes
from errors import UserError

CAMERAS = ("a", "b")
OTHER = {"a": "b", "b": "a"}
FEWEST = 2  # files of a camera


@dataclass(frozen=True)
class CamerasLayout:
    """Where the mosaics of cameras a and b lie below a dataset's root; the folders of a rootless one are named."""

    unpaired: tuple[str, str]  # of different scenes
    paired: tuple[str, str]  # of the same scenes, with the same names
    truth: tuple[str, str] = ("", "")  # what each paired scene should become, if that is not the other camera's mosaic
    mappings: bool = False  # the truth is a polynomial of each file: see `polynomial`
    profiles: tuple[str, str] = ("", "")  # of the cameras; camera files need none
    charts: bool = False  # data/lsmi.py finds files, pairs and colour charts in the folders `unpaired`


# A new dataset of two cameras is a row here.
CAMERA_LAYOUTS = {
    # data.simulate --cameras two
    "cameras": CamerasLayout(
        ("unpaired/a", "unpaired/b"), ("paired/a", "paired/b"), ("truth/a", "truth/b"), profiles=("a.json", "b.json")
    ),
    # Afifi and Abuolaim, Semi-Supervised Raw-to-Raw Mapping, BMVC 2021: iPhone X and Samsung S9
    "raw2raw": CamerasLayout(
        ("unpaired/iphone-x/dng", "unpaired/samsung-s9/dng"),
        ("paired/iphone-x/dng", "paired/samsung-s9/dng"),
        mappings=True,
    ),
    # any two folders, without pairs
    "folders": CamerasLayout(("", ""), ("", "")),
    # Kim et al., Large Scale Multi-Illuminant Dataset, ICCV 2021: the cameras of Table 2
    "lsmi": CamerasLayout(("sony", "galaxy"), ("", ""), charts=True),
}
View = Callable[[Tensor], Tensor]  # the planes of a whole file -> what measures compare of them


def find_cameras_layout(name: str) -> CamerasLayout:
    """The row of `CAMERA_LAYOUTS`. Raises `UserError` for an unknown name."""
    if name not in CAMERA_LAYOUTS:
        raise UserError(f"unknown layout of two cameras '{name}'; known are: {', '.join(CAMERA_LAYOUTS)}")
    return CAMERA_LAYOUTS[name]


@dataclass(frozen=True)
class Pair:
    """A mosaic, and what it should become: a mosaic of the other camera, or a .mat file with a polynomial."""

    source: Path
    camera: str  # of the source: "a" or "b"
    truth: Path


@dataclass(frozen=True)
class TwoCameras:
    """The files of two cameras, {"a": ..., "b": ...}, and how each camera's are read."""

    readers: Mapping[str, Reader]
    unpaired: Mapping[str, tuple[Path, ...]]
    pairs: tuple[Pair, ...]  # in both directions
    channels: int = 4  # of planes: 4, or 3 with the mean of the greens
    charts: Mapping[Path, lsmi.Charts] = field(default_factory=dict)  # of each file, if the layout knows them

    @property
    def aligned(self) -> bool:
        """Whether the pixels of a pair agree. If not, its charts can be compared."""
        return not self.charts

    def planes(self, path: Path, camera: str, channels: int = 0) -> Tensor:
        """The planes (1, C, H/2, W/2) of a file of this camera. Raises `UserError` as `Reader.mosaic` does."""
        reader = self.readers[camera]
        with advising(f"check the CFA order and the levels of camera {camera}"):
            mosaic = reader.mosaic(path)
        return to_planes(reader.mosaic_tensor(mosaic)[None], reader.sensor, channels or self.channels)

    def training_planes(self, path: Path, camera: str) -> Tensor:
        """The same of a training file, with its charts black: both cameras saw the same ones."""
        planes = self.planes(path, camera)
        self.hide_charts(path, planes[0], (2 * planes.shape[2], 2 * planes.shape[3]))
        return planes

    def hide_charts(self, path: Path, planes: Tensor, size: tuple[int, int], top: int = 0, left: int = 0) -> None:
        """Set the charts in a file's planes (C, h, w) to black, as `lsmi.Charts.hide` does; nothing without charts."""
        if path in self.charts:
            self.charts[path].hide(planes, size, top, left)

    def pair(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """(planes of the source, planes that it should become). Raises `UserError` if `aligned` sizes differ."""
        if pair.truth.suffix == ".mat":
            source = self.planes(pair.source, pair.camera, 4)
            both = source, polynomial(pair.truth, source)
            return both if self.channels == 4 else tuple(map(merge_greens, both))
        source, truth = self.planes(pair.source, pair.camera), self.planes(pair.truth, OTHER[pair.camera])
        if self.aligned and source.shape != truth.shape:
            sizes = " and ".join(f"{2 * planes.shape[2]}x{2 * planes.shape[3]}" for planes in (source, truth))
            raise UserError(f"{pair.source} and {pair.truth} are a pair, but of different sizes: {sizes}")
        return source, truth

    def views(self, pair: Pair) -> tuple[View, View]:
        """What measures of pixels compare of (the source, mapped; the truth): all, or the charts' mean colours.

        These are (1, C, charts, 24), of the charts that both show (`lsmi.Charts.colors`).
        """
        if self.aligned:
            return (lambda planes: planes,) * 2
        charts = self.charts[pair.source], self.charts[pair.truth]
        return tuple(partial(each.colors, names=lsmi.in_both(*charts)) for each in charts)


def open_cameras(
    layout: str, root: str, raws: tuple[str, str], readers: Mapping[str, Reader], channels: int = 4
) -> TwoCameras:
    """Find the files of two cameras; `raws` as for `camera_folders`. Raises `UserError` for missing files."""
    row = find_cameras_layout(layout)
    folders = camera_folders(layout, root, raws)
    files = lsmi.find_files(folders) if row.charts else {}
    unpaired = {camera: files[camera]["train"] if files else mosaics(folder).raws for camera, folder in folders.items()}
    for camera, folder in folders.items():
        if len(unpaired[camera]) < FEWEST:
            raise UserError(f"{folder} holds one mosaic: training needs at least {FEWEST} of each camera")
    if files:
        pairs, charts = _charted(folders, files)
        return TwoCameras(readers, unpaired, pairs, channels, charts)
    pairs = _pairs(Path(root), row) if root and row.paired[0] else ()
    return TwoCameras(readers, unpaired, pairs, channels)


def training_files(layout: str, root: str, raws: tuple[str, str]) -> dict[str, tuple[Path, ...]]:
    """{"a": its training mosaics, "b": ...}. Raises `UserError` for missing files, and as `camera_folders` does."""
    folders = camera_folders(layout, root, raws)
    if find_cameras_layout(layout).charts:
        return {camera: parts["train"] for camera, parts in lsmi.find_files(folders).items()}
    return {camera: mosaics(folder).raws for camera, folder in folders.items()}


def camera_folders(layout: str, root: str, raws: tuple[str, str]) -> dict[str, Path]:
    """{"a": folder of its training mosaics, "b": ...}. Raises `UserError` if the two are missing or the same.

    `raws` are the two folders of layout "folders"; of "lsmi", the names of the cameras, if they are others.
    """
    row = find_cameras_layout(layout)
    if not row.unpaired[0]:
        if not all(raws):
            raise UserError(f"layout '{layout}' needs two folders: --data.raw of camera a and --data-b.raw of camera b")
        folders = dict(zip(CAMERAS, map(Path, raws), strict=True))
    elif not root:
        raise UserError(f"layout '{layout}' needs the folder of the dataset: --data.root")
    else:
        names = [row.charts and raw or name for raw, name in zip(raws, row.unpaired, strict=True)]
        folders = {camera: Path(root) / name for camera, name in zip(CAMERAS, names, strict=True)}
    for folder in folders.values():
        if not folder.is_dir():
            raise UserError(f"no folder {folder}")
    if folders["a"].samefile(folders["b"]):
        raise UserError(f"{folders['a']} is the folder of both cameras: name two")
    return folders


def _charted(
    folders: Mapping[str, Path], files: Mapping[str, Mapping[str, tuple[Path, ...]]]
) -> tuple[tuple[Pair, ...], dict[Path, lsmi.Charts]]:
    """(the pairs of both directions, the charts of all files) of the two cameras of LSMI, whose files are known."""
    charts = {}
    for camera, folder in folders.items():
        charts |= lsmi.find_charts(folder, files[camera]["train"] + files[camera]["test"])
    both = lsmi.find_pairs(charts, files["a"]["test"], files["b"]["test"])
    return tuple([Pair(a, "a", b) for a, b in both] + [Pair(b, "b", a) for a, b in both]), charts


def _pairs(root: Path, row: CamerasLayout) -> tuple[Pair, ...]:
    """The pairs of both directions; none if a dataset has no folders of pairs."""
    found = []
    for camera, other, number in (("a", "b", 0), ("b", "a", 1)):
        sources = root / row.paired[number]
        if not sources.is_dir():
            continue
        truths, partners = _truths(root, row, sources, 1 - number)
        for source in mosaics(sources).raws:
            if source.stem not in partners:
                raise UserError(f"{source} has no partner of camera {other} in {truths}")
            found.append(Pair(source, camera, partners[source.stem]))
    return tuple(found)


def _truths(root: Path, row: CamerasLayout, sources: Path, number: int) -> tuple[Path, dict[str, Path]]:
    """The folder of what the files in `sources` should become, mosaics of camera `number`, and its files by stem."""
    if row.mappings:
        folder = sources.parent / "mapping"
        return folder, {path.stem: path for path in sorted(folder.glob("*.mat"))}
    exact = bool(row.truth[number]) and (root / row.truth[number]).is_dir()
    folder = root / (row.truth[number] if exact else row.paired[number])
    return folder, {path.stem: path for path in mosaics(folder).raws}


def polynomial(path: Path, planes: Tensor) -> Tensor:
    """What the raw-to-raw dataset's .mat file of a scene makes of planes (1, 4, h, w), clipped to [0, 1].

    16 terms fitted to a colour chart: R, Gr, Gb, B, their squares, their six products, the product of all four, and 1
    (Afifi and Abuolaim, section 3). Raises `UserError` if the file holds no such matrix.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        matrix = np.asarray(loadmat(path)["mapping_matrix"], np.float32)
        if matrix.shape != (16, 4) or not np.isfinite(matrix).all():
            raise ValueError
    except (OSError, KeyError, NotImplementedError, TypeError, ValueError, MatReadError):
        raise UserError(
            f"{path} holds no 16x4 mapping_matrix: it is damaged, or not of the raw-to-raw dataset"
        ) from None
    channels = planes.unbind(1)
    products = [channels[i] * channels[j] for i in range(4) for j in range(i + 1, 4)]
    terms = [*channels, *(channel**2 for channel in channels), *products]
    terms += [torch.stack(channels).prod(0), torch.ones_like(channels[0])]
    return torch.einsum("tnhw,tc->nchw", torch.stack(terms), torch.from_numpy(matrix)).clamp_(0, 1)


class CameraPatches(Dataset):
    """The endless stream of training samples: sample k is {"a": (C, P/2, P/2), "b": (C, P/2, P/2)}, float32 planes.

    Files are drawn in epochs without repeats; the two cameras' draws are independent.

    Args:
        cameras: whose files to draw.
        files: {"a": reads camera a's, "b": camera b's}.
        patch: side P in mosaic pixels, even.
        seed: of the run; not negative.
        augment: mirror and turn the planes at random (section 4.1 of the paper).

    A sample raises `UserError` if its file cannot be read or is smaller than a patch.
    """

    def __init__(self, cameras: TwoCameras, files: Mapping[str, Files], patch: int, seed: int, augment: bool):
        self.cameras, self.files, self.patch, self.seed, self.augment = cameras, files, patch, seed, augment

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        rng = generator_of(self.seed, 0, 2, k)
        return {camera: self._patch(camera, k, rng) for camera in CAMERAS}

    def _patch(self, camera: str, k: int, rng: np.random.Generator) -> Tensor:
        paths, reader = self.cameras.unpaired[camera], self.cameras.readers[camera]
        epoch, index = divmod(k, len(paths))
        path = paths[draw_order(self.seed, 0, CAMERAS.index(camera), epoch, len(paths))[index]]
        whole = self.files[camera].mosaic(path)
        window = random_window(whole.shape, self.patch, rng, path, even=True)
        planes = to_planes(reader.mosaic_tensor(whole[window])[None], reader.sensor, self.cameras.channels)[0]
        self.cameras.hide_charts(path, planes, whole.shape, window[0].start, window[1].start)
        if self.augment:
            turns, mirrored = rng.integers(4), rng.integers(2)
            planes = planes.rot90(int(turns), (1, 2))
            planes = planes.flip(2) if mirrored else planes
        return planes.contiguous()
