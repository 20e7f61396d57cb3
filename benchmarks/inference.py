"""Times the generators on Full HD and 12-megapixel mosaics, against LibRaw's development of the same mosaic.

python benchmarks/inference.py [--device cpu] [--models efficient robust rmfa-tiny] [--compile] [--json FILE]

There are two tables for each model and size. "Network": the network alone, on an input that is ready in memory: as
released (eager, float32, contiguous), channels-last, in bfloat16, compiled, and in ONNX Runtime if it is installed.
"Mosaic to array": from a 16-bit mosaic to an 8-bit sRGB array: as released (NumPy before and after the network), by
`tasks.model.Model.develop`, and by rawpy's `postprocess()`.
"""

import io
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import rawpy
import torch
from common import alternate, dng, label, machine, parser, ratios, report, spread
from torch import Tensor, nn
from torch.nn import functional as F

from data.inputs import PACKED_CHANNELS, prepare
from data.sensor import SENSORS
from errors import run_cli
from models import MODELS, build_model, model_spec
from tasks.device import choose_device
from tasks.model import Model

SIZES = {"full-hd": (1088, 1920), "12-megapixel": (3000, 4000)}  # (height, width)
# Black levels and first pixels (row, column) of the packed channels, as the released code has them.
BLACK = {"B": 62, "Gr": 60, "R": 58, "Gb": 61}
FIRST_PIXELS = {"B": (1, 1), "Gr": (0, 1), "R": (0, 0), "Gb": (1, 0)}

RELEASED = [name for name in MODELS if name in ("efficient", "robust") or name.startswith("rmfa")]

Alternatives = dict[str, Callable[[], object]]


# --- the released way ------------------------------------------------------------------------------------------------


def as_released(name: str, generator: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network as the released code computes it, with the weights of `generator`."""
    plain = build_model(name).eval().requires_grad_(False).to(next(generator.parameters()).device)
    plain.load_state_dict(generator.state_dict())
    if name.startswith("rmfa"):
        return torch.no_grad()(plain)

    @torch.no_grad()
    def run(packed: Tensor) -> Tensor:
        x = torch.relu(plain.conv2(torch.tanh(plain.conv1(packed))))
        return F.pixel_shuffle(torch.relu(plain.conv3(x)), 2)

    return run


def develop_as_released(
    name: str, network: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[np.ndarray], np.ndarray]:
    """The released code's way from a mosaic (H, W) to an image (H, W, 3), uint8, reimplemented."""

    def packed(mosaic: np.ndarray) -> np.ndarray:
        x = mosaic.astype(np.float32)
        return np.stack([(x[r::2, c::2] - BLACK[k]) / (1023 - BLACK[k]) for k, (r, c) in FIRST_PIXELS.items()])

    def split(mosaic: np.ndarray) -> np.ndarray:
        x = np.clip(mosaic.astype(np.float32) - 63, 0, None) / 1023
        channels = np.ones((3, *x.shape), np.float32)
        for k, (r, c) in FIRST_PIXELS.items():
            channels["RGB".index(k[0]), r::2, c::2] = x[r::2, c::2]
        return channels

    to_input = split if name.startswith("rmfa") else packed

    def run(mosaic: np.ndarray) -> np.ndarray:
        image = network(torch.from_numpy(to_input(mosaic))[None].to(device))[0].permute(1, 2, 0).cpu().numpy()
        return (image.clip(0, 1) * 255).astype(np.uint8)

    return run


# --- the alternatives ------------------------------------------------------------------------------------------------


def with_onnx(generator: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """The network in ONNX Runtime, on the CPU."""
    import onnxruntime

    file, options = io.BytesIO(), onnxruntime.SessionOptions()
    with warnings.catch_warnings(action="ignore"):  # of constants, which are right for one size
        torch.onnx.export(generator, (inputs,), file, dynamo=False, input_names=["x"])
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # would slow down the other alternatives
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    array = inputs.numpy()
    return lambda: session.run(None, {"x": array})


def ways_to_run(name: str, size: tuple[int, int], device: torch.device, compiled: bool) -> Alternatives:
    """The ways to run the network on an input that is ready in memory, for a mosaic of this (height, width)."""
    generator = build_model(name).eval().requires_grad_(False).to(device)
    mosaic = torch.rand(1, 1, *size, device=device)
    inputs = prepare(mosaic, SENSORS["fujifilm"], model_spec(name).input_format)
    released, network = as_released(name, generator), generator.to(memory_format=torch.channels_last)
    channels_last = inputs.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def in_float32() -> Tensor:
        return network(channels_last)

    @torch.inference_mode()
    def in_bf16() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(channels_last)

    ways = {"as released": lambda: released(inputs), "channels-last": in_float32, "channels-last, bf16": in_bf16}
    if compiled:
        compiled_network = torch.compile(network, dynamic=False)
        ways["channels-last, compiled"] = torch.no_grad()(lambda: compiled_network(channels_last))
    if find_spec("onnxruntime") and find_spec("onnx") and device.type == "cpu":
        ways["ONNX Runtime"] = with_onnx(build_model(name).eval(), inputs)
    return ways


def ways_to_develop(name: str, size: tuple[int, int], device: torch.device) -> Alternatives:
    """The ways from a mosaic of this (height, width) to an image; checks that two of them give the same image."""
    sensor = SENSORS[model_spec(name).released_for]
    generator = build_model(name).eval().requires_grad_(False).to(device)
    released = develop_as_released(name, as_released(name, generator), device)
    model = Model("", name, generator.to(memory_format=torch.channels_last), sensor, None)
    mosaic = np.random.default_rng(0).integers(60, 1024, size).astype(np.uint16)

    def develop() -> np.ndarray:
        digital = torch.from_numpy(mosaic).to(device)[None, None]
        return model.develop(digital, sensor)[0].permute(1, 2, 0).cpu().numpy()

    def develop_in_bf16() -> np.ndarray:
        with torch.autocast(device.type, torch.bfloat16):
            return develop()

    raw = rawpy.imread(io.BytesIO(dng(mosaic)))  # opened here, and unpacked in the warm-up: neither is timed
    difference = np.abs(develop().astype(int) - released(mosaic))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3, "Model.develop and the released way differ"
    return {
        "as released": lambda: released(mosaic),
        "ours": develop,
        "ours, bf16": develop_in_bf16,
        "rawpy": raw.postprocess,
    }


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(ways: Alternatives, repeats: int, device: torch.device) -> tuple[dict, dict]:
    """(milliseconds of each way, how many times as fast each is as the first)."""
    times = alternate(ways, repeats, device)
    milliseconds = {name: spread([1e3 * t for t in values], 2) for name, values in times.items()}
    first = next(iter(times.values()))
    return milliseconds, {name: ratios(first, values) for name, values in times.items()}


def main() -> None:
    options = parser(__doc__, repeats=15)
    options.add_argument("--device", default="auto", help="as for fit.py (%(default)s)")
    models = ["efficient", "robust", "rmfa-tiny"]
    options.add_argument("--models", nargs="+", default=models, choices=RELEASED, help="(%(default)s)")
    options.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="sizes of the mosaic (all)")
    options.add_argument("--compile", action="store_true", help="also time the compiled network (takes minutes)")
    given = options.parse_args()
    device = choose_device(given.device)
    torch.manual_seed(0)
    assert tuple(BLACK) == PACKED_CHANNELS
    figures = {"benchmark": "inference", "machine": machine(device), "repeats": given.repeats, "milliseconds": {}}
    figures["times_as_fast_as_released"] = {}
    heading = ("", "ms", "lowest", "highest", "times as fast as released")
    for name in given.models:
        for size in given.sizes:
            both = {"network": ways_to_run(name, SIZES[size], device, given.compile)}
            both["mosaic to array"] = ways_to_develop(name, SIZES[size], device)
            for part, ways in both.items():
                key = f"{name}, {size}, {part}"
                times, faster = measure(ways, given.repeats, device)
                figures["milliseconds"][key], figures["times_as_fast_as_released"][key] = times, faster
                rows = [(label(way), *times[way].values(), faster[way]["median"]) for way in ways]
                report(f"{key} on {device}", figures, [heading, *rows], given.json)


if __name__ == "__main__":
    run_cli(main)
