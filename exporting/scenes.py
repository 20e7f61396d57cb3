"""The mosaics on which an export is compared with PyTorch: read, cropped, tiled, or made up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from data.files import Reader
from data.photographs import read_photo
from data.sensor import CHANNELS, Sensor, offsets
from errors import UserError

T = TypeVar("T")
SYNTHETIC = ((256, 320), (250, 322), (66, 70))  # (height, width) of the made-up mosaics
COLOURS = 9  # random colours along each side of one of them


@dataclass(frozen=True)
class Scene:
    """A mosaic, and what it should look like if that is known."""

    name: str
    mosaic: Tensor  # (1, 1, H, W) digital numbers, float32
    target: Tensor | None = None  # (3, H, W) uint8 sRGB

    def of_size(self, size: tuple[int, int]) -> "Scene":
        """The scene tiled and cropped to (height, width), even; without its target, unless it has this size."""
        height, width = self.mosaic.shape[-2:]
        if (height, width) == size:
            return self
        tiled = self.mosaic.repeat(1, 1, -(-size[0] // height), -(-size[1] // width))
        return Scene(self.name, tiled[:, :, : size[0], : size[1]])


def read_scene(reader: Reader, raw: Path, photo: Path | None, largest: tuple[int, int]) -> Scene:
    """A mosaic's middle, at most `largest` (height, width), with its photograph if there is one.

    Raises `UserError` as `Reader.mosaic` and `read_photo` do, or if the two differ in size.
    """
    mosaic = torch.from_numpy(reader.mosaic(raw).astype("float32"))[None, None]
    height, width = mosaic.shape[-2:]
    target = None if photo is None else torch.from_numpy(reader.aligned(read_photo(photo))).permute(2, 0, 1)
    if target is not None and target.shape[1:] != (height, width):
        size = f"{target.shape[1]}x{target.shape[2]}"
        raise UserError(f"{photo} has {size} pixels, and its mosaic {raw} {height}x{width}: they must be equal")
    first = [max(0, own - most) // 4 * 2 for own, most in zip((height, width), largest, strict=True)]  # even
    rows, columns = (slice(start, start + most) for start, most in zip(first, largest, strict=True))
    return Scene(raw.name, mosaic[:, :, rows, columns], None if target is None else target[:, rows, columns])


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, spread over all of them."""
    return [items[index * len(items) // count] for index in range(count)] if len(items) > count else list(items)


def synthetic_scenes(sensor: Sensor, least: int = 0) -> Iterator[Scene]:
    """Mosaics of smooth random colours and noise, from black to white, the same ones each time.

    Those with a side of less than `least` pixels are left out.
    """
    generator = torch.Generator().manual_seed(0)
    for number, (height, width) in enumerate(SYNTHETIC):
        colours = torch.rand((1, 3, COLOURS, COLOURS), generator=generator)
        image = F.interpolate(colours, (height, width), mode="bilinear", align_corners=True)
        image = (image + 0.02 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        mosaic = torch.empty(1, 1, height, width)
        where = offsets(sensor.cfa)
        for channel, black in zip(CHANNELS, sensor.black_level, strict=True):
            row, column = where[channel]
            plane = image[:, "RGB".index(channel[0]), row::2, column::2]
            mosaic[:, 0, row::2, column::2] = (black + plane * (sensor.white_level - black)).round()
        if min(height, width) >= least:
            yield Scene(f"synthetic {number}", mosaic)
