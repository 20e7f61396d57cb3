"""A trained generator for use: open it from a checkpoint, develop mosaics into photographs."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

import config as settings
from config import Config
from data.camera import Profile, from_dict
from data.camera_files import CameraFile
from data.conditions import CLIPPED, NORMALISATIONS, Gains
from data.inputs import WITH_CONTEXT, context_of, prepare
from data.notes import note
from data.sensor import SENSORS, Sensor, mirror, mirrored_axes, multiply_above_black
from errors import UserError
from models import ModelSpec, build_model, model_spec
from pretrained import zoo

BAND = 1 << 19  # pixels, at most, that a thread develops at a time: they stay in a CPU's caches


@dataclass(frozen=True)
class Model:
    """A trained generator, and what its checkpoint says of it."""

    source: str  # the file or name that it was opened from
    name: str  # in `models.MODELS`
    generator: nn.Module  # in eval mode, on the device
    sensor: Sensor  # the camera that it was trained for
    config: Config | None  # of its run; None for a released model
    normalisation: str = "off"  # of the mosaics that it takes (data/conditions.py)
    camera: Profile | None = None  # of the camera files that it was trained on
    lens_shading: bool = False  # undone in the mosaics that it takes

    @property
    def spec(self) -> ModelSpec:
        """Its row of `models.MODELS`."""
        return model_spec(self.name)

    @property
    def trained_on(self) -> str:
        """The camera that it was trained for, in words."""
        return (self.camera.name if self.camera else "") or f"a camera of {self.sensor}"

    def levels_for(self, data: Sensor) -> Sensor:
        """Black levels to subtract: the model's own if CFA order and white level match, else the data's.

        The released RMFA-Net, for example, expects 63 for all channels of a camera whose levels the other released
        models take as 58 to 62.
        """
        return self.sensor if (self.sensor.cfa, self.sensor.white_level) == (data.cfa, data.white_level) else data

    def check_normalised(self, normalisation: str) -> None:
        """Raise `UserError` if mosaics are not normalised as those that this model was trained on."""
        if normalisation != self.normalisation:
            raise UserError(
                f"{self.source} was trained with --data.normalise {self.normalisation}, and these mosaics are read "
                f"with {normalisation}: test it with its own run, or with --input"
            )

    def note_another_camera(self, notes: Sequence[CameraFile]) -> None:
        """Print a note if camera files are not known to be of the camera that this model was trained on."""
        found = {each.name for each in notes} - {""}
        if others := sorted(found - {self.camera.name if self.camera else ""}):
            note(f"{self.source} was trained on {self.trained_on}, these are of {others[0]}: colours may be wrong")

    @torch.inference_mode()
    def develop(self, mosaic: Tensor, sensor: Sensor, gains: Gains | None = None, bits: Literal[8, 16] = 8) -> Tensor:
        """Render mosaics (N, 1, H, W) of `sensor` as sRGB of 8 or 16 bits (N, 3, H, W), channels-last in memory.

        A mosaic of another CFA order than the model's is mirrored to that order, and its image back. What is above
        black is multiplied by the `gains` of R, G and B first, if they are given, and clipped at white, unless the
        model's normalisation keeps more.

        Integers are digital numbers; in floating point, 1 is white. Values are truncated to whole ones, as by
        `evaluation.metrics.to_8_bit`. A CPU processes a large image in bands, which overlap by the network's reach, in
        as many threads as torch has, and reuses its memory: touching fresh memory would take longer than the
        arithmetic.
        """

        def signal(part: Tensor) -> Tensor:
            if gains is None and part.is_floating_point():
                return part
            values = part.clone() if part.is_floating_point() else part.float().div_(sensor.white_level)
            if gains is not None:
                multiply_above_black(values, gains, sensor, white=1.0)
                if self.normalisation in CLIPPED:
                    values.clamp_(max=1)
            return values

        axes = mirrored_axes(sensor.cfa, self.sensor.cfa)
        count, _, height, width = mosaic.shape
        if min(height, width) < self.spec.minimum:
            raise UserError(f"{self.source} needs images of at least {self.spec.minimum} pixels a side")
        rows, margin = self._bands(mosaic)
        levels = replace(sensor, cfa=self.sensor.cfa)
        context = None
        if self.spec.input_format in WITH_CONTEXT:  # of the whole image, not of each band
            context = context_of(signal(mosaic), sensor)
        kind, largest = (torch.uint8, 255) if bits == 8 else (torch.uint16, 65535)
        image = torch.empty(count, height, width, 3, dtype=kind, device=mosaic.device)

        def here(first: int, last: int) -> slice:  # rows of the mirrored mosaic, where they lie in this one
            return slice(height - last, height - first) if -2 in axes else slice(first, last)

        def render(top: int) -> None:
            bottom, first = min(height, top + rows), max(0, top - margin)
            band = signal(mosaic[:, :, here(first, min(height, bottom + margin))])
            inputs = prepare(mirror(band, axes), levels, self.spec.input_format, context)
            output = self.generator(inputs.contiguous(memory_format=torch.channels_last))
            visible = mirror(output[:, :, top - first : bottom - first], axes).float()
            if not visible[:, :, ::16, ::16].isfinite().all():  # some of the pixels, to save time: NaN spreads
                raise UserError(f"{self.source} gives values that are not finite: its training diverged")
            image[:, here(top, bottom)] = visible.mul_(largest).clamp_(0, largest).permute(0, 2, 3, 1)

        _in_threads(torch.inference_mode()(render), range(0, height, rows))
        return image.permute(0, 3, 1, 2)

    def _bands(self, mosaic: Tensor) -> tuple[int, int]:
        """The rows of each band of a mosaic (N, 1, H, W), and those that it needs of the next ones to each side.

        Multiples of `ModelSpec.multiple`: so each band starts with the CFA's first row, and where poolings start.
        """
        count, _, height, width = mosaic.shape
        reach, multiple = self.spec.reach, self.spec.multiple
        if reach is None:
            return height, 0
        margin = -(-reach // multiple) * multiple
        if mosaic.device.type != "cpu":
            return height, margin
        return _rows(height, count * width, torch.get_num_threads(), multiple, least=2 * margin), margin


def _rows(height: int, width: int, threads: int, multiple: int = 2, least: int = 2) -> int:
    """The rows, a `multiple`, of bands of at most about `BAND` pixels: one band, or as many for each thread.

    Bands have at least `least` rows: where a network sees far, their overlaps would be most of the arithmetic.
    """
    bands = -(-height * width // BAND)
    if bands > 1:
        bands += -bands % threads
    return max(least, multiple * -(-height // (multiple * bands)))


def _in_threads(render: Callable[[int], None], bands: Sequence[int]) -> None:
    """Call `render` for each of the bands, each in one thread.

    So threads wait for each other once, at the end, and not in each operation of torch. Those that read and write files
    meanwhile can take any core without stopping all.
    """
    threads = torch.get_num_threads()
    if min(threads, len(bands)) == 1:
        for band in bands:
            render(band)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(render, bands):
                pass
    finally:
        torch.set_num_threads(threads)


def open_model(source: str, device: torch.device) -> Model:
    """Open a checkpoint written by fit.py, a released file, or a released name. Raises `UserError` for others.

    A network with a smaller form for use (`ModelSpec.for_use`) is brought to that form.
    """
    name, state, description = zoo.open_checkpoint(source)
    spec, generator = model_spec(name), build_model(name).eval().requires_grad_(False)
    generator.load_state_dict(state)
    if spec.for_use:
        generator = spec.for_use(generator)
    sensor = sensor_of(source, name, description)
    config = settings.from_dict(description["config"]) if "config" in description else None
    normalisation = description.get("normalise", "off")
    if normalisation not in NORMALISATIONS:
        raise UserError(f"{source} is not a checkpoint of fit.py: its normalisation is {normalisation!r}")
    camera = from_dict(description["camera"], source) if "camera" in description else None
    generator.to(device, memory_format=torch.channels_last)
    shading = description.get("lens_shading") is True
    return Model(source, name, generator, sensor, config, normalisation, camera, shading)


def sensor_of(source: str, name: str, description: dict) -> Sensor:
    """The camera that a generator was trained for: in its checkpoint's description, or that of the released models.

    Raises `UserError` for a description of no camera.
    """
    if "sensor" not in description:
        return SENSORS[model_spec(name).released_for]
    try:
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in description["sensor"].items()}
        return Sensor(**values)
    except (AttributeError, RuntimeError, TypeError):
        raise UserError(f"{source} is not a checkpoint of fit.py: its sensor is {description['sensor']!r}") from None
