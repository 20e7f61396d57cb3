"""TFLite files of Efficient and Robust ISP: operators, any size and a fixed one, 16 and 8 bits."""

import pytest
import torch

from exporting.targets import build_tflite, choose_targets
from exporting.tflite_file import TFLiteModel, TFLiteWriter

from .conftest import OTHER

CORE = {"CONV_2D": 3, "TANH": 1, "DEPTH_TO_SPACE": 1}
SIZE = (36, 44)


@pytest.fixture(autouse=True)
def _needed(needs):
    needs("tflite")


def difference(source, file, mosaic) -> torch.Tensor:
    inputs = {name: x.numpy() for name, x in source.inputs(mosaic).items()}
    return torch.from_numpy(TFLiteModel(file.content).run(inputs)) - source.image(mosaic)


@pytest.mark.parametrize("raw_input", ("dn", "normalised"))
@pytest.mark.parametrize("name", ("efficient", "robust"))
def test_the_same_image_in_float32(name, raw_input, make_source, make_mosaic):
    source = make_source(name, raw_input, OTHER)
    fixed, dynamic = build_tflite(source, "fp32", SIZE, ())
    assert (fixed.name, dynamic.name) == ("model.tflite", "model_none.tflite")
    assert difference(source, fixed, make_mosaic(*SIZE, OTHER)).abs().max() < 2e-6
    for size in (SIZE, (66, 70), (4, 4)):
        assert difference(source, dynamic, make_mosaic(*size, OTHER)).abs().max() < 2e-6
    levels = {"SUB": 1, "MUL": 1} if raw_input == "dn" else {}
    assert TFLiteModel(dynamic.content).operators() == CORE | levels | {"MINIMUM": 1}


def test_shapes_in_the_file(make_source):
    fixed, dynamic = (TFLiteModel(file.content) for file in build_tflite(make_source(), "fp32", SIZE, ()))
    assert fixed.input["shape"].tolist() == [1, 18, 22, 4] and fixed.output["shape"].tolist() == [1, 36, 44, 3]
    assert dynamic.input["shape_signature"].tolist() == [1, -1, -1, 4]
    assert dynamic.output["shape_signature"].tolist() == [1, -1, -1, 3]
    assert all(len(tensor["shape"]) <= 4 for tensor in fixed.interpreter.get_tensor_details())


def test_the_image_is_clipped(make_source, make_mosaic):
    source = make_source()
    source.generator.conv3.weight *= 30
    mosaic = make_mosaic(*SIZE, source.sensor)
    for precision in ("fp32", "int8"):
        _, file = build_tflite(source, precision, SIZE, [mosaic])
        image = TFLiteModel(file.content).run({"raw": source.inputs(mosaic)["raw"].numpy()})
        assert image.min() == 0 and image.max() == 1


def test_weights_of_16_bits(make_source, make_mosaic):
    source = make_source()
    size = len(build_tflite(source, "fp32", SIZE, ())[0].content)
    for file in build_tflite(source, "fp16", SIZE, ()):
        assert len(file.content) < 0.75 * size
        assert 1e-6 < difference(source, file, make_mosaic(*SIZE, source.sensor)).abs().max() < 2e-3


@pytest.mark.parametrize("name", ("efficient", "robust"))
def test_8_bits_with_no_float_between(name, make_source, make_mosaic):
    source = make_source(name)
    samples = [make_mosaic(32, 40, source.sensor, seed) for seed in range(3)]
    for file in build_tflite(source, "int8", SIZE, samples):
        assert "int8" in file.name
        assert TFLiteModel(file.content).operators() == CORE | {"SUB": 1, "MUL": 1, "QUANTIZE": 1, "DEQUANTIZE": 1}
        apart = difference(source, file, make_mosaic(*SIZE, source.sensor, seed=9))
        assert 0 < apart.square().mean().sqrt() < 0.01 and apart.abs().max() < 0.05


def test_the_model_says_which_targets_hold_it(make_source):
    assert choose_targets(None, make_source("robust")) == ["onnx", "tflite"]
    assert choose_targets(["tflite", "tflite"], make_source("efficient")) == ["tflite"]
    for name in ("rmfa-tiny", "efficient-context"):  # the latter is a subclass of Efficient ISP
        assert choose_targets(None, make_source(name)) == ["onnx"]


def test_the_writer_writes_other_graphs_too():
    file = TFLiteWriter((2, 3))
    x = file.tensor("raw", 4)
    picture = file.tensor("image", 1, factor=2)
    file.operator("DEPTH_TO_SPACE", [x], picture, "DepthToSpaceOptions", blockSize=2)
    model = TFLiteModel(file.finish([x], [picture]))
    raw = torch.arange(24.0).view(1, 4, 2, 3)
    assert torch.equal(torch.from_numpy(model.run({"raw": raw.numpy()})), torch.nn.functional.pixel_shuffle(raw, 2))
