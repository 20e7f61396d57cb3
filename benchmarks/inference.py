"""Full HD and 12-megapixel mosaics through each generator, beside LibRaw's development of the same mosaic.

python benchmarks/inference.py [--device cpu] [--models efficient robust rmfa-tiny] [--compile] [--json FILE]

Two tables a size. The network alone, on an input that is ready: as released (eager, float32, contiguous), and ours:
eager, channels-last; bfloat16; compiled; ONNX Runtime where it is installed. And from a 16-bit mosaic to an 8-bit sRGB
array: as released (packed and cut by NumPy), ours (`build.Model.develop`), and rawpy's `postprocess()`.
"""

import io
import struct
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import rawpy
import torch
from common import alternate, machine, parser, ratios, report, spread  # noqa: I001 - finds ours
from torch import Tensor, nn
from torch.nn import functional as F

from build import Model, choose_device
from data.sensor import PACKED_CHANNELS, Sensor, prepare
from errors import run_cli
from models import MODELS, build_model

SIZES = {"full-hd": (1088, 1920), "12-megapixel": (3000, 4000)}
BLACK = {"B": 62, "Gr": 60, "R": 58, "Gb": 61}
PLACES = {"B": (1, 1), "Gr": (0, 1), "R": (0, 0), "Gb": (1, 0)}


def as_released(name: str, generator: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network as the released code writes it."""
    plain = build_model(name).eval().requires_grad_(False).to(next(generator.parameters()).device)
    plain.load_state_dict(generator.state_dict())
    if name.startswith("rmfa"):
        return torch.no_grad()(plain)

    @torch.no_grad()
    def run(packed: Tensor) -> Tensor:
        x = torch.relu(plain.conv2(torch.tanh(plain.conv1(packed))))
        return F.pixel_shuffle(torch.relu(plain.conv3(x)), 2)

    return run


def as_released_whole(name: str, network: Callable[[Tensor], Tensor], device: torch.device) -> Callable:
    """From a mosaic (H, W) to an image (H, W, 3), as the released code does it, in our own words."""

    def packed(mosaic: np.ndarray) -> np.ndarray:
        x = mosaic.astype(np.float32)
        return np.stack([(x[r::2, c::2] - BLACK[k]) / (1023 - BLACK[k]) for k, (r, c) in PLACES.items()])

    def split(mosaic: np.ndarray) -> np.ndarray:
        x = np.clip(mosaic.astype(np.float32) - 63, 0, None) / 1023
        channels = np.ones((3, *x.shape), np.float32)
        for k, (r, c) in PLACES.items():
            channels["RGB".index(k[0]), r::2, c::2] = x[r::2, c::2]
        return channels

    read = split if name.startswith("rmfa") else packed

    def run(mosaic: np.ndarray) -> np.ndarray:
        image = network(torch.from_numpy(read(mosaic))[None].to(device))[0].permute(1, 2, 0).cpu().numpy()
        return (image.clip(0, 1) * 255).astype(np.uint8)

    return run


def with_onnx(generator: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """The network in ONNX Runtime, on the CPU."""
    import onnxruntime

    file, options = io.BytesIO(), onnxruntime.SessionOptions()
    with warnings.catch_warnings(action="ignore"):  # of constants, which are right for one size
        torch.onnx.export(generator, (inputs,), file, dynamo=False, input_names=["x"])
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it would slow the others' turns
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    array = inputs.numpy()
    return lambda: session.run(None, {"x": array})


def networks(name: str, size: tuple[int, int], device: torch.device, compiled: bool) -> dict[str, Callable]:
    """The ways of running the network on an input that is ready."""
    generator = build_model(name).eval().requires_grad_(False).to(device)
    mosaic = torch.rand(1, 1, *size, device=device)
    inputs = prepare(mosaic, Sensor(), generator.input_format)
    released, ours = as_released(name, generator), generator.to(memory_format=torch.channels_last)
    last = inputs.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def in_bf16() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return ours(last)

    ways = {"as released": lambda: released(inputs), "channels-last": torch.inference_mode()(lambda: ours(last))}
    ways["channels-last, bf16"] = in_bf16
    if compiled:
        faster = torch.compile(ours, dynamic=False)
        ways["channels-last, compiled"] = torch.no_grad()(lambda: faster(last))
    if find_spec("onnxruntime") and find_spec("onnx") and device.type == "cpu":
        ways["ONNX Runtime"] = with_onnx(build_model(name).eval(), inputs)
    return ways


def developers(name: str, size: tuple[int, int], device: torch.device) -> dict[str, Callable]:
    """The ways from a mosaic to an image."""
    sensor = Sensor(black_level=(63.0,) * 4) if name.startswith("rmfa") else Sensor()
    generator = build_model(name).eval().requires_grad_(False).to(device)
    whole = as_released_whole(name, as_released(name, generator), device)
    model = Model("", name, generator.to(memory_format=torch.channels_last), sensor, None)
    mosaic = np.random.default_rng(0).integers(60, 1024, size).astype(np.uint16)

    def ours() -> np.ndarray:
        digital = torch.from_numpy(mosaic).to(device)[None, None]
        return model.develop(digital, sensor)[0].permute(1, 2, 0).cpu().numpy()

    def ours_bf16() -> np.ndarray:
        with torch.autocast(device.type, torch.bfloat16):
            return ours()

    raw = rawpy.imread(io.BytesIO(dng(mosaic)))  # opened and, in the warm-up, unpacked before the clock runs
    difference = np.abs(ours().astype(int) - whole(mosaic))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3, "ours and theirs differ"
    return {"as released": lambda: whole(mosaic), "ours": ours, "ours, bf16": ours_bf16, "rawpy": raw.postprocess}


def dng(mosaic: np.ndarray, black: int = 60, white: int = 1023) -> bytes:
    """A DNG with an uncompressed 16-bit RGGB mosaic: the fewest tags that LibRaw needs (Adobe DNG 1.4)."""
    height, width = mosaic.shape
    pixels = mosaic.astype("<u2").tobytes()
    short, long, ratio = "H", "I", "i"
    identity = [value for i in range(9) for value in (int(i % 4 == 0), 1)]
    tags = [(256, long, [width]), (257, long, [height]), (258, short, [16]), (259, short, [1]), (262, short, [32803])]
    tags += [(271, "s", b"x\0"), (272, "s", b"x\0"), (273, long, [0]), (277, short, [1]), (278, long, [height])]
    tags += [(279, long, [len(pixels)]), (33421, short, [2, 2]), (33422, "B", [0, 1, 1, 2]), (50706, "B", [1, 4, 0, 0])]
    tags += [(50714, short, [black]), (50717, long, [white]), (50721, ratio, identity), (50778, short, [21])]
    kinds = {"B": (1, 1), "s": (2, 1), "H": (3, 2), "I": (4, 4), "i": (10, 8)}  # TIFF's type and size
    values = [v if kind == "s" else struct.pack(f"<{len(v)}{kind}", *v) for _, kind, v in tags]
    start = 8 + 2 + 12 * len(tags) + 4
    extra = b"".join(value for value in values if len(value) > 4)
    rows, behind = [], start
    for (tag, kind, _), value in zip(tags, values, strict=True):
        number, size = kinds[kind]
        held = struct.pack("<I", start + len(extra)) if tag == 273 else value
        if len(value) > 4:
            held, behind = struct.pack("<I", behind), behind + len(value)
        rows.append(struct.pack("<HHI", tag, number, len(value) // size) + held.ljust(4, b"\0"))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(rows) + b"\0" * 4 + extra + pixels


def measure(ways: dict[str, Callable], repeats: int, device: torch.device) -> tuple[dict, dict]:
    """Milliseconds of each way, and how many times each is as fast as the first."""
    times = alternate(ways, repeats, device)
    milliseconds = {name: spread([1e3 * t for t in some], 2) for name, some in times.items()}
    first = next(iter(ways))
    return milliseconds, {name: ratios(times[first], times[name]) for name in ways}


def main() -> None:
    options = parser(__doc__, repeats=15)
    options.add_argument("--device", default="auto")
    options.add_argument("--models", nargs="+", default=["efficient", "robust", "rmfa-tiny"], choices=MODELS)
    options.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    options.add_argument("--compile", action="store_true", help="also torch.compile (takes minutes)")
    asked = options.parse_args()
    device = choose_device(asked.device)
    torch.manual_seed(0)
    assert tuple(BLACK) == PACKED_CHANNELS
    figures = {"benchmark": "inference", "machine": machine(device), "repeats": asked.repeats, "milliseconds": {}}
    figures["times_as_fast_as_released"] = {}
    heads = ("", "ms", "lowest", "highest", "times as fast")
    for name in asked.models:
        for size in asked.sizes:
            both = {"network": networks(name, SIZES[size], device, asked.compile)}
            both["mosaic to array"] = developers(name, SIZES[size], device)
            for what, ways in both.items():
                key = f"{name}, {size}, {what}"
                times, faster = measure(ways, asked.repeats, device)
                figures["milliseconds"][key], figures["times_as_fast_as_released"][key] = times, faster
                rows = [(way, *times[way].values(), faster[way]["median"]) for way in ways]
                report(f"{key} on {device}", figures, [heads, *rows], asked.json)


if __name__ == "__main__":
    run_cli(main)
