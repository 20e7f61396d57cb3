"""Another camera's mosaics for an ISP: read at their own levels and mapped to the camera that the ISP is trained for.

*Generalizing ISP Model by Unsupervised Raw-to-raw Mapping*, section 4.3: with `--adapt`, mosaics of a new camera are
mapped to the camera of a trained ISP; with `data.map`, an ISP is trained on mosaics that are mapped to a new camera.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import storage
from config import Data
from data.camera import Profile
from data.camera_files import CameraFile
from data.conditions import BALANCED, NEEDS_NOTES, Gains, gains_of, noted
from data.files import Reader, advising
from data.sensor import Sensor, mirrored_axes
from errors import UserError
from tasks import closed_form
from tasks.closed_form import OTHER, ClosedForm, planes_of
from tasks.conversion import Converter, Mapper, carried_gains
from tasks.model import Model

BLACK = 0.01  # of white: black levels that differ by less are those of one camera
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class MappedReader(Reader):
    """Reads files of one camera as mosaics of another one: in its levels, as map_raw.py writes them.

    The planes stay where they are: in the CFA order of the files, so that nothing moves against photographs, and
    networks mirror the order as they do with any camera's (`Model.develop`). Where `sensor` has another order than
    `converter.target`, mosaics are mirrored to it, and `aligned` mirrors their photographs.
    """

    converter: Converter
    sha256: str  # of the map's file

    @property
    def profile(self) -> Profile | None:
        """Of the camera that mosaics are mapped to, with its own CFA order; None if the map does not know it."""
        return self.converter.profiles[1]

    @property
    def summary(self) -> str:
        """The map, for tables."""
        mapper, to = self.converter.mapper, self.converter.to
        return f"{mapper.source} ({mapper.name}, {self.sha256[:12]}), to camera {to}"

    def read(self, path: Path) -> tuple[np.ndarray, CameraFile | None]:
        """(mosaic (H, W) of the other camera, uint16, notes of a camera file). Raises `UserError` for other files.

        Others are files of another CFA order or white level than the map has.
        """
        with advising(f"{self.converter.mapper.source} is a map of another camera"):
            shot = self.converter.read(path)
        return np.ascontiguousarray(np.flip(self.converter.convert(shot).mosaic, self._axes)), shot.notes

    def recorded(self, path: Path) -> np.ndarray:
        """(H, W) digital numbers of the other camera, uint16. Raises `UserError` as `read` does."""
        return self.read(path)[0]

    def gains(self, path: Path, recorded: np.ndarray) -> Gains:
        """The gains that normalise a mapped mosaic, `recorded` (H, W); those that are noted are carried over."""
        red, green, blue = gains_of(path, recorded, self.sensor, self.normalisation)
        if self.normalisation in BALANCED and self.normalisation in NEEDS_NOTES and None not in noted(path)[:2]:
            red, blue = self.carried(path, recorded, (red, blue))
        return red, green, blue

    def carried(self, path: Path, recorded: np.ndarray, gains: tuple[float, float]) -> tuple[float, float]:
        """Gains of red and blue for the file at `path`, as ones for its mapped mosaic, `recorded`: as map_raw.py does.

        The mean of the mosaic stays of one colour.
        """
        shot = self.converter.read(path)
        return carried_gains(gains, planes_of(shot.mosaic, shot.sensor), planes_of(recorded, self.sensor))

    def remark(self, notes: CameraFile | None) -> str:
        """What is wrong with a camera file of these notes for this map, after "is of"; "" if nothing is known."""
        expected, found = self.converter.expected_name, notes.name if notes else ""
        wrong = expected and found and found != expected
        return f"{found}, and the map is of {expected}: colours may be wrong" if wrong else ""

    def facts(self, raws: Iterable[Path]) -> tuple:
        """All that decides how these mosaics are read, beside their own content: for digests."""
        return *super().facts(raws), ("map", self.sha256, self.converter.to)

    def for_training(self) -> "MappedReader":
        """The same mosaics in the CFA order of the camera that they are mapped to: a network learns that one."""
        order = self.converter.mapper.sensors[self.converter.to].cfa
        return replace(self, sensor=replace(self.sensor, cfa=order))

    def aligned(self, photo: np.ndarray) -> np.ndarray:
        """A photograph (H, W, 3), mirrored if the mosaics are."""
        return np.ascontiguousarray(np.flip(photo, self._axes))

    @property
    def _axes(self) -> tuple[int, ...]:
        """Along which mosaics are mirrored, counted from the first axis."""
        return tuple(axis + 2 for axis in mirrored_axes(self.converter.target.cfa, self.sensor.cfa))


# --- which map, and to which camera ----------------------------------------------------------------------------------


def open_map(source: str, device: torch.device) -> Mapper:
    """A checkpoint of a raw-to-raw run, or a .json file of map_raw.py --save. Raises `UserError` for others."""
    path = Path(source)
    if path.suffix.lower() == ".json":
        return closed_form.load(path)
    from tasks.mapping import open_mapper

    return open_mapper(source, device)


def adapted_reader(model: Model, source: str, wish: str, device: torch.device) -> MappedReader:
    """A reader of another camera's files for a trained model: `--adapt`.

    Args:
        model: the ISP.
        source: the map.
        wish: the camera of the map, "a" or "b", that is the model's; "": the one whose name or levels are the model's.
        device: where to map.

    Raises `UserError` for other maps, and if neither or both cameras of the map could be the model's.
    """
    mapper, name = open_map(source, device), model.camera.name if model.camera else ""
    to = find_target(
        mapper,
        wish,
        lambda to: is_camera(mapper, to, model.sensor, name),
        (f"the camera of {model.source}, {model.trained_on}", "--adapt-to"),
    )
    # RMFA-Net's input has its own camera's scale, others' has none.
    levels = model.sensor if model.spec.input_format == "split" else mapper.sensors[to]
    return _reader(source, Converter(mapper, to, 1, device, _in_place(mapper, to, levels), model.lens_shading), model)


def mapped_reader(data: Data) -> MappedReader:
    """The reader of a run's mosaics with `data.map`. It maps on the CPU: processes that read patches have no GPU.

    Raises `UserError` for other maps, for levels of another camera, and as `find_target` does.
    """
    mapper, own = open_map(data.map, CPU), Sensor(data.cfa, data.black_level, data.white_level)
    to = find_source(mapper, data, own, "")
    if not _alike(mapper.sensors[OTHER[to]], own):
        raise UserError(
            f"{data.map} maps camera {OTHER[to]}, of {mapper.sensors[OTHER[to]]}, and the run's mosaics have {own}: "
            "give a map from their camera, or --data.map-to the other one"
        )
    target = _in_place(mapper, to, mapper.sensors[to])
    return _reader(data.map, Converter(mapper, to, 1, CPU, target, data.lens_shading), data)


def find_source(mapper: Mapper, data: Data, own: Sensor | None, name: str) -> str:
    """The camera to map a run's mosaics to, which have these levels and this camera's name if they are known.

    Raises `UserError` as `find_target` does.
    """
    return find_target(
        mapper,
        data.map_to,
        lambda to: own is None or is_camera(mapper, OTHER[to], own, name),
        ("that of the run's mosaics" + (f", {name or own}" if own else ""), "--data.map-to"),
    )


def find_target(mapper: Mapper, wish: str, fits: Callable[[str], bool], words: tuple[str, str]) -> str:
    """The camera, "a" or "b", to which to map.

    Args:
        mapper: the map; one in closed form knows one direction.
        wish: the user's; "" for none.
        fits: whether mapping to a camera makes sense.
        words: the camera that decides it, and the option that gives the wish, for messages.

    Raises `UserError` if a map does not know the direction, or, without a wish, if none or both fit.
    """
    possible = (mapper.to,) if isinstance(mapper, ClosedForm) else tuple(OTHER)
    if wish and wish not in possible:
        raise UserError(f"{mapper.source} is a map to camera {mapper.to}, not {wish}: fit another with map_raw.py")
    found = [wish] if wish else [to for to in possible if fits(to)]
    if len(found) == 1:
        return found[0]
    what = "both directions of {} seem to fit" if found else "neither direction of {} seems to fit"
    what = what if len(possible) > 1 else f"{{}}, a map to camera {possible[0]}, does not seem to fit"
    raise UserError(
        f"{what.format(mapper.source)} {words[0]}: give another map, or say with {words[1]} {' or '.join(possible)} to "
        "which camera to map"
    )


def is_camera(mapper: Mapper, which: str, sensor: Sensor, name: str) -> bool:
    """Whether a camera of a map is the one of this name or, if one of the names is not known, of these levels."""
    own = mapper.cameras.get(which)
    if name and own and own.name:
        return own.name == name
    return _alike(mapper.sensors[which], sensor)


def _alike(one: Sensor, other: Sensor) -> bool:
    black = zip(one.black_level, other.black_level, strict=True)
    near = all(abs(a - b) <= BLACK * one.white_level for a, b in black)
    return near and (one.cfa, one.white_level) == (other.cfa, other.white_level)


def _in_place(mapper: Mapper, to: str, levels: Sensor) -> Sensor:
    """These levels in the CFA order of the files, so that planes stay where they are."""
    return replace(levels, cfa=mapper.sensors[OTHER[to]].cfa)


def _reader(source: str, converter: Converter, of: Model | Data) -> MappedReader:
    own = converter.profiles[0]
    return MappedReader(
        converter.target,
        own.size if own else (0, 0),
        of.normalisation if isinstance(of, Model) else of.normalise,
        lens_shading=converter.lens_shading,
        converter=converter,
        sha256=storage.sha256_of(Path(source)),
    )
