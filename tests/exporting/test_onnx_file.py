"""ONNX files: one DepthToSpace, all even sizes, no trace of this machine, 16 and 8 bits."""

import getpass
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.sensor import SENSORS
from errors import UserError
from exporting.onnx_file import OnnxModel
from exporting.targets import Source, build_onnx
from models.padding import in_multiples

from .conftest import OTHER

ROOT = Path(__file__).resolve().parents[2]
SIZES = ((64, 64), (66, 70), (68, 90), (4, 8), (130, 98), (250, 322))  # some have odd halves, or odd quarters


@pytest.fixture(scope="module")
def files():
    """Each file is built once in this module."""
    return {}


@pytest.fixture
def build(needs, make_source, files):
    """build(name, precision, raw_input): (source, file)."""
    needs("onnx")

    def make(name: str, precision: str = "fp32", raw_input: str = "dn", samples=()):
        source, key = make_source(name, raw_input), (name, precision, raw_input)
        if key not in files:
            (files[key],) = build_onnx(source, precision, (64, 64), samples)
        return source, files[key]

    return make


def difference(source, model, mosaic) -> float:
    inputs = {name: x.numpy() for name, x in source.inputs(mosaic).items()}
    return (torch.from_numpy(model.run(inputs)) - source.image(mosaic)).abs().max().item()


@pytest.mark.parametrize("raw_input", ("dn", "normalised"))
@pytest.mark.parametrize("name, bound", (("efficient", 2e-6), ("efficient-context", 5e-6), ("rmfa-tiny", 1e-4)))
def test_one_file_for_all_even_sizes(name, bound, raw_input, build, make_mosaic):
    source, file = build(name, raw_input=raw_input)
    model = OnnxModel(file.content)
    for size in SIZES:
        assert difference(source, model, make_mosaic(*size, source.sensor)) < bound, size


def test_normalised_input(build, make_mosaic):
    source, file = build("efficient", raw_input="normalised")
    model = OnnxModel(file.content)
    assert difference(source, model, make_mosaic(38, 46, source.sensor)) < 2e-6
    assert model.operators() == {"Conv": 3, "Tanh": 1, "Relu": 1, "DepthToSpace": 1, "Clip": 1}


def test_operators_and_names(build):
    import onnx

    _, file = build("efficient")
    assert file.name == "model.onnx"
    operators = OnnxModel(file.content).operators()
    assert operators["DepthToSpace"] == 1 and not {"Reshape", "Transpose", "Shape"} & operators.keys()
    model = onnx.load_from_string(file.content)
    onnx.checker.check_model(model)
    (raw,), (image,) = model.graph.input, model.graph.output
    assert (raw.name, image.name) == ("raw", "image")
    sides = [side.dim_param or side.dim_value for side in raw.type.tensor_type.shape.dim]
    assert sides == [1, 4, "height", "width"]
    shuffle = next(node for node in model.graph.node if node.op_type == "DepthToSpace")
    assert {a.name: a.s for a in shuffle.attribute}["mode"] == b"CRD"


@pytest.mark.parametrize("name", ("efficient", "rmfa-tiny"))
def test_nothing_in_the_file_says_where_it_was_made(name, build):
    _, file = build(name)
    for trace in (str(ROOT), str(Path(torch.__file__).parent), str(Path.home()), ".py", "stack_trace"):
        assert trace.encode() not in file.content, trace
    assert f"/{getpass.getuser()}/".encode() not in file.content


class Halved(torch.nn.Module):
    """Packed (N, 4, h, w) -> (N, 3, 2 h, 2 w): by way of an eighth of the sides, so it pads them, and a twentieth."""

    def _render(self, packed):
        small, seen = (torch.nn.functional.avg_pool2d(packed, side) for side in (8, 20))
        back = torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear")
        back = back + seen[..., :1].mean((2, 3), keepdim=True)
        return torch.nn.functional.pixel_shuffle(torch.cat((packed, back, packed - back), dim=1), 2)

    def forward(self, packed):
        return in_multiples(self._render, packed, 8, scale=2)


@pytest.fixture(scope="module")
def padded():
    """A network that pads, and its file, built once."""
    network = Halved().eval()
    source = Source("mine", network, "packed", SENSORS["fujifilm"], "dn", minimum=40)
    return source, OnnxModel(build_onnx(source, "fp32", (64, 64), ())[0].content)


@pytest.mark.parametrize("size", ((40, 42), (48, 64), (66, 70), (250, 322)))
def test_networks_that_need_multiples_take_all_even_sizes(size, needs, make_mosaic, request):
    needs("onnx")
    source, model = request.getfixturevalue("padded")
    mosaic = make_mosaic(*size, source.sensor)
    assert source.image(mosaic).std() > 0.1
    assert difference(source, model, mosaic) < 2e-6


def test_a_network_by_others(needs, make_source, make_mosaic):
    """LAN pads, crops, and takes the numbers of a 10-bit phone as a mosaic."""
    needs("onnx")
    source = make_source("lan", sensor=OTHER)
    (file,) = build_onnx(source, "fp32", (64, 64), ())
    model = OnnxModel(file.content)
    for size in SIZES:
        assert difference(source, model, make_mosaic(*size, source.sensor)) < 2e-6, size


class Undecided(torch.nn.Module):
    """A network that PyTorch cannot export: what it computes depends on the values of the image."""

    def forward(self, packed):
        image = torch.nn.functional.pixel_shuffle(packed.repeat(1, 3, 1, 1), 2)
        return image if packed.mean() > 0 else -image


def test_a_network_that_cannot_be_exported(needs, make_source):
    needs("onnx")
    with pytest.raises(UserError, match="exporter to ONNX does not take this network: "):
        build_onnx(replace(make_source(), generator=Undecided()), "fp32", (64, 64), ())


def test_16_bits(build, make_mosaic):
    source, file = build("efficient", "fp16")
    assert file.name == "model_fp16.onnx" and len(file.content) < 0.7 * len(build("efficient")[1].content)
    assert 1e-5 < difference(source, OnnxModel(file.content), make_mosaic(38, 46, source.sensor)) < 5e-3


def test_8_bits(build, make_source, make_mosaic):
    sensor = make_source().sensor
    samples = [make_mosaic(32, 40, sensor, seed) for seed in range(3)]
    source, file = build("efficient", "int8", samples=samples)
    operators = OnnxModel(file.content).operators()
    assert operators["QuantizeLinear"] and operators["DequantizeLinear"] and operators["DepthToSpace"] == 1
    assert 1e-4 < difference(source, OnnxModel(file.content), make_mosaic(38, 46, source.sensor)) < 0.1
