"""Trained raw-to-raw mappers for use: open them from a checkpoint, map one camera's mosaics to the other's."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import config as settings
from config import Config
from data.camera import Profile, from_dict
from data.planes import merge_greens, split_greens
from data.sensor import Sensor
from data.two_cameras import CAMERAS
from errors import UserError
from models import build_mapper
from pretrained import zoo


@dataclass(frozen=True)
class OpenMapper:
    """Two trained mappers, and what their checkpoint says of them."""

    source: str  # the file that they were opened from
    name: str  # in `models.MAPPERS`
    mapper: nn.Module  # in eval mode, on the device
    sensors: Mapping[str, Sensor]  # {"a": of the camera a, "b": ...}
    cameras: Mapping[str, Profile | None]
    config: Config  # of their run

    def map(self, planes: Tensor, to: str, downsample: int = 1) -> Tensor:
        """Planes (1, C, h, w) of one camera -> those that camera `to`, "a" or "b", would have taken, not clipped.

        A mapper of three channels maps four planes, too: each green keeps its own detail. The encoder sees the planes
        downsampled by this factor (Table 4). Raises `UserError` for planes that are too small, and for three planes
        if the mapper has four channels.
        """
        if planes.shape[1] == 3 and self.mapper.channels == 4:
            raise UserError(
                f"{self.source} maps planes of 4 channels, and these have 3 (R, G, B): use a mapper that was trained "
                "with --mapping.channels 3"
            )
        if self.mapper.channels == 3 and planes.shape[1] == 4:
            return split_greens(self.mapper.map_planes(merge_greens(planes), to, downsample), planes)
        return self.mapper.map_planes(planes, to, downsample)


def open_mapper(source: str, device: torch.device) -> OpenMapper:
    """Open a checkpoint of a raw-to-raw run. Raises `UserError` for others."""
    name, state, description = zoo.open_mapper_checkpoint(source)
    mapper = build_mapper(name, description.get("channels", 4)).eval().requires_grad_(False)
    mapper.load_state_dict(state)
    try:
        found = {each: description["sensors"][each] for each in CAMERAS}
        sensors = {
            each: Sensor(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
            for each, values in found.items()
        }
        profiles = {each: description["cameras"].get(each) for each in CAMERAS}
        run = description["config"]
    except (AttributeError, KeyError, TypeError, ValueError, UserError):
        raise UserError(f"{source} is not a checkpoint of fit.py: it does not say of which cameras it is") from None
    cameras = {each: from_dict(values, source) if values else None for each, values in profiles.items()}
    mapper.to(device, memory_format=torch.channels_last)  # as in training
    return OpenMapper(source, name, mapper, sensors, cameras, settings.from_dict(run))
