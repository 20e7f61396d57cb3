"""Pairs of two cameras and a mapper between them, in place of datasets and trained networks."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import storage
from data.files import Reader
from data.planes import to_planes
from data.sensor import Sensor

SENSORS = {"a": Sensor("rggb", (64.0, 66.0, 65.0, 63.0), 4095.0), "b": Sensor("grbg", (0.0,) * 4, 1023.0)}
OTHER = {"a": "b", "b": "a"}
MATRIX = torch.tensor([[0.8, 0.1, 0.1, 0.0], [0.0, 0.9, 0.0, 0.0], [0.0, 0.0, 0.9, 0.0], [0.0, 0.0, 0.2, 0.6]])


@dataclass(frozen=True)
class Pair:
    source: Path
    camera: str
    truth: Path


@dataclass
class Cameras:
    """Two cameras' files; it records the names of those that it reads."""

    pairs: tuple[Pair, ...]
    readers: dict[str, Reader] = field(default_factory=lambda: {name: Reader(row) for name, row in SENSORS.items()})
    read: list[str] = field(default_factory=list)
    channels: int = 4
    charts: dict = field(default_factory=dict)
    aligned: bool = True

    def planes(self, path: Path, camera: str) -> Tensor:
        reader = self.readers[camera]
        return to_planes(reader.mosaic_tensor(reader.mosaic(path))[None], reader.sensor)

    def pair(self, pair: Pair) -> tuple[Tensor, Tensor]:
        self.read.append(f"{pair.camera}/{pair.source.name}")
        return self.planes(pair.source, pair.camera), self.planes(pair.truth, OTHER[pair.camera])


class Mapper:
    """In place of a trained mapper: a matrix of its file, or its inverse."""

    name, sensors = "fake", SENSORS

    def __init__(self, source: str, device: torch.device):
        self.matrices = {"b": storage.load(Path(source))["matrix"].to(device)}
        self.matrices["a"] = torch.linalg.inv(self.matrices["b"])

    def map(self, planes: Tensor, to: str) -> Tensor:
        return torch.einsum("ij,njhw->nihw", self.matrices[to], planes)
