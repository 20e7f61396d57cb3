"""The kinds of model files. A new target is a function here, a row in `TARGETS`, and one in `packages.PACKAGES`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.inputs import prepare
from data.sensor import Sensor
from errors import UserError
from exporting.graphs import inputs_of, phone_form
from exporting.onnx_file import OnnxModel, quantise_onnx, write_onnx
from exporting.quantise import calibrate
from exporting.tflite_file import TFLiteModel
from exporting.tflite_isp import is_supported, write_isp

PRECISIONS = ("fp32", "fp16", "int8")
STEMS = {"onnx": ("model",), "tflite": ("model", "model_none")}  # of the names of a target's files
EXAMPLE = (36, 44)  # a mosaic's (height, width) for tracing, beyond twice the least that the network takes


@dataclass(frozen=True)
class Source:
    """What is exported."""

    name: str  # in `models.MODELS`
    generator: nn.Module  # on the CPU, in eval mode
    input_format: str
    sensor: Sensor  # the camera that it was trained for
    raw_input: str  # in `exporting.graphs.RAW_INPUTS`
    minimum: int = 0  # the least mosaic pixels of a side

    def check_size(self, what: str, size: Sequence[int]) -> None:
        """Raise `UserError` if a mosaic's (height, width) is too small for the network; `what` is what it is of."""
        if min(size) < self.minimum:
            found = "x".join(map(str, size))
            raise UserError(
                f"{what} is {found}, but {self.name} needs mosaics of at least {self.minimum} pixels a side"
            )

    def inputs(self, mosaic: Tensor) -> dict[str, Tensor]:
        """What the phone's form takes for a mosaic (1, 1, H, W), digital numbers."""
        return inputs_of(mosaic, self.sensor, self.input_format, self.raw_input)

    @torch.inference_mode()
    def image(self, mosaic: Tensor) -> Tensor:
        """PyTorch's image (1, 3, H, W) in [0, 1], by the network that was trained, in float32."""
        inputs = prepare(mosaic / self.sensor.white_level, self.sensor, self.input_format)
        return self.generator(inputs).clamp(0, 1)


@dataclass(frozen=True)
class PhoneFile:
    """A model file, not yet on the disk."""

    name: str
    target: str
    precision: str
    size: tuple[int, int] | None  # (height, width) of the only mosaics that it takes; None: of any
    content: bytes

    def open(self, threads: int) -> OnnxModel | TFLiteModel:
        """The file in its runtime, on this machine's CPU."""
        return (OnnxModel if self.target == "onnx" else TFLiteModel)(self.content, threads)


def build_onnx(source: Source, precision: str, size: tuple[int, int], samples: Sequence[Tensor]) -> list[PhoneFile]:
    """One file for all sizes. For int8, `samples` are mosaics (1, 1, H, W) of digital numbers to calibrate on."""
    module = phone_form(
        source.generator, source.input_format, source.sensor, source.raw_input, half=precision == "fp16"
    )
    example = torch.zeros(1, 1, *(2 * source.minimum + side for side in EXAMPLE))
    content = write_onnx(module, source.inputs(example))
    if precision == "int8":
        inputs = [source.inputs(mosaic) for mosaic in samples]
        content = quantise_onnx(content, [{name: x.numpy() for name, x in each.items()} for each in inputs])
    return [PhoneFile(*file_names("onnx", precision), "onnx", precision, None, content)]


def build_tflite(source: Source, precision: str, size: tuple[int, int], samples: Sequence[Tensor]) -> list[PhoneFile]:
    """One file for mosaics of `size`, and one for all sizes: the names are those of the Mobile AI challenge."""
    scales = None
    if precision == "int8":
        prepared = (prepare(mosaic / source.sensor.white_level, source.sensor, "packed") for mosaic in samples)
        scales = calibrate(source.generator, prepared)
    sensor, files = (source.sensor if source.raw_input == "dn" else None), []
    for name, fixed in zip(file_names("tflite", precision), (size, None), strict=True):
        content = write_isp(source.generator, sensor, fixed, precision == "fp16", scales)
        files.append(PhoneFile(name, "tflite", precision, fixed, content))
    return files


def file_names(target: str, precision: str) -> list[str]:
    """The names of a target's files: model.onnx, model_fp16.onnx, ..."""
    suffix = "" if precision == "fp32" else f"_{precision}"
    return [f"{stem}{suffix}.{target}" for stem in STEMS[target]]


TARGETS: dict[str, Callable[..., list[PhoneFile]]] = {"onnx": build_onnx, "tflite": build_tflite}


def choose_targets(wanted: Sequence[str] | None, source: Source) -> list[str]:
    """The targets to export to: by default all that hold this model. Raises `UserError` for one that does not."""
    can = [name for name in TARGETS if name != "tflite" or is_supported(source.generator)]
    for name in wanted or ():
        if name not in can:
            only = "Efficient and Robust ISP only"
            raise UserError(f"--to {name} is for {only}, not for {source.name}: use --to {' '.join(can)}")
    return list(dict.fromkeys(wanted or can))
