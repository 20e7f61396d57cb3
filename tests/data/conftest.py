"""Small datasets, and the real files and golden values if their environment variables are set."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.cache import Files
from data.files import Reader
from data.folders import Split
from data.sensor import SENSORS


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """The arrays of golden.npz, made with the paper's released code."""
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="session")
def real() -> Callable[..., Path]:
    """real(*parts): a path below the folder with real files."""
    folder = os.environ.get("ISP_DATA")
    if not folder:
        pytest.skip("ISP_DATA is not set: a folder with rhid_pairs/ and raw_samples/")
    return lambda *parts: Path(folder, *parts)


@pytest.fixture(scope="session")
def write_mosaic() -> Callable[..., None]:
    """write_mosaic(path, seed, size): a 10-bit mosaic of noise."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (8, 8)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(path, np.random.default_rng(seed).integers(0, 1024, size).astype(np.uint16))

    return write


@pytest.fixture(scope="session")
def write_photo() -> Callable[..., None]:
    """write_photo(path, seed, size): a photograph of noise."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (8, 8)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(path, np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8))

    return write


@dataclass(frozen=True)
class Scenes:
    """Five pairs of 24x24 pixels whose values are all different: those of scene i begin at 1000 i.

    A photograph holds its mosaic's values in two bytes, so every pixel shows where it was taken.
    """

    split: Split
    reader: Reader
    count: int = 5
    side: int = 24

    @property
    def unpaired(self) -> Split:
        return replace(self.split, paired=False)

    @property
    def files(self) -> Files:
        return Files(self.reader)

    def digital(self, mosaic: torch.Tensor) -> torch.Tensor:
        """The digital numbers of a mosaic (..., 1, H, W), 1 is white."""
        return (8191 * mosaic).round()

    def digital_of_photo(self, target: torch.Tensor) -> torch.Tensor:
        """The digital numbers (..., 1, H, W) that a photograph (..., 3, H, W) holds."""
        high, low, _ = (255 * target).round().unbind(-3)
        return (256 * high + low).unsqueeze(-3)

    def number(self, values: torch.Tensor) -> int:
        """The scene that digital numbers are from."""
        return int(values.amax()) // 1000


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Scenes:
    folder = tmp_path_factory.mktemp("scenes")
    for i in range(Scenes.count):
        values = np.random.default_rng(i).permutation(Scenes.side**2).reshape(Scenes.side, Scenes.side)
        mosaic = (1000 * i + values).astype(np.uint16)
        photo = np.stack((mosaic // 256, mosaic % 256, np.zeros_like(mosaic)), axis=2).astype(np.uint8)
        iio.imwrite(folder / f"{i}_raw.png", mosaic)
        iio.imwrite(folder / f"{i}_photo.png", photo)
    raws, photos = (tuple(folder / f"{i}_{side}.png" for i in range(Scenes.count)) for side in ("raw", "photo"))
    sensor = replace(SENSORS["fujifilm"], white_level=8191.0)
    return Scenes(Split(raws, photos, paired=True), Reader(sensor))


@pytest.fixture
def mismatched(tmp_path) -> Split:
    """One pair whose mosaic and photograph differ in size."""
    iio.imwrite(tmp_path / "m.png", np.zeros((16, 16), np.uint16))
    iio.imwrite(tmp_path / "p.png", np.zeros((16, 6, 3), np.uint8))
    return Split((tmp_path / "m.png",), (tmp_path / "p.png",), paired=True)
