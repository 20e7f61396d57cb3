"""A trained generator for use: opening checkpoints, and developing mosaics whole or in bands."""

import dataclasses
import threading

import pytest
import torch
from torch import nn

import storage
from config import Config, to_dict
from data.inputs import prepare
from data.sensor import SENSORS, Sensor, mirrored_axes
from errors import UserError
from evaluation.metrics import to_8_bit
from models import MODELS, ModelSpec, build_model
from tasks import model as module
from tasks.model import Model, open_model
from training.checkpoint import save_generator

CPU = torch.device("cpu")
SENSOR = SENSORS["fujifilm"]

# --- developing ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=("efficient", "robust", "rmfa-tiny", "efficient-context"))
def model(request) -> Model:
    torch.manual_seed(0)
    generator = build_model(request.param).eval().to(memory_format=torch.channels_last)
    if request.param == "efficient-context":  # it starts without any influence of the context
        nn.init.normal_(generator.context[-1].weight, std=0.2)
    return Model("", request.param, generator, SENSOR, None)


@torch.no_grad()
def develop_whole(model: Model, mosaic: torch.Tensor) -> torch.Tensor:
    """The image of a mosaic, 1 is white, developed at once."""
    return to_8_bit(model.generator(prepare(mosaic, SENSOR, model.spec.input_format)))


@pytest.mark.parametrize("rows", (2, 6, 20, 64))
def test_an_image_developed_in_bands_equals_the_whole_image(model, rows, monkeypatch):
    monkeypatch.setattr(module, "_rows", lambda *_, **__: rows)
    mosaic = torch.rand(2, 1, 52, 40, generator=torch.Generator().manual_seed(0))
    difference = model.develop(mosaic, SENSOR).int() - develop_whole(model, mosaic).int()
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 1e-3  # truncated: rounding can show


@pytest.mark.parametrize("gains", (None, (1.5, 1.0, 2.0)))
def test_bands_in_threads_are_those_of_one_thread(model, gains, monkeypatch, restored):
    """Bit by bit; operations have one thread meanwhile, and as many as before afterwards."""
    monkeypatch.setattr(module, "BAND", 6 * 40 * 2)
    mosaic = torch.randint(60, 1000, (2, 1, 72, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    monkeypatch.setattr(module, "_rows", lambda *_, **__: 6)
    expected, seen, forward = model.develop(mosaic, SENSOR, gains), set(), model.generator.forward

    def watched(inputs: torch.Tensor) -> torch.Tensor:
        seen.add((threading.get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return forward(inputs)

    torch.set_num_threads(3)
    monkeypatch.setattr(model.generator, "forward", watched)
    assert torch.equal(model.develop(mosaic, SENSOR, gains), expected)
    assert torch.get_num_threads() == 3
    if model.spec.reach is None:  # it takes images whole: its operations are divided
        assert seen == {(threading.get_ident(), 3, True)}
    else:
        assert {facts[1:] for facts in seen} == {(1, True)} and threading.get_ident() not in {one[0] for one in seen}


def test_a_failing_band_ends_the_image_and_leaves_the_threads_as_they_were(monkeypatch, restored):
    monkeypatch.setattr(module, "BAND", 6 * 40)
    model = Model("bad.pt", "efficient", build_model("efficient").eval().requires_grad_(False), SENSOR, None)
    model.generator.conv3.bias.fill_(float("nan"))
    torch.set_num_threads(2)
    with pytest.raises(UserError, match="bad.pt gives values that are not finite"):
        model.develop(torch.rand(1, 1, 52, 40), SENSOR)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("height", "width", "threads", "rows"),
    (
        (3000, 4000, 1, 132),  # 23 bands of 2^19 pixels
        (3000, 4000, 2, 126),  # 24: as many for each thread
        (1088, 1920, 16, 68),  # 4 would leave 12 threads idle
        (400, 600, 16, 400),  # small: whole, and its operations are divided
        (2, 1 << 20, 4, 2),
    ),
)
def test_bands_are_small_and_as_many_for_each_thread(height, width, threads, rows):
    assert module._rows(height, width, threads) == rows
    assert rows % 2 == 0 and (rows - 2) * width < 1 << 19
    assert -(-height // rows) % threads == 0 or height * width <= 1 << 19 or rows == 2


def test_bands_of_a_network_that_sees_far_are_long_and_start_where_it_pools():
    assert module._rows(3000, 4000, 2, multiple=16, least=256) == 256
    assert module._rows(1088, 1920, 2, multiple=16, least=256) == 272
    assert module._rows(400, 600, 2, multiple=16, least=256) == 400


@pytest.mark.parametrize("cfa", ("rggb", "bggr"))
@pytest.mark.parametrize("rows", (8, 56))
def test_bands_of_a_network_that_pools_equal_the_whole_image(cfa, rows, monkeypatch):
    """Also of a mirrored mosaic, and where the sides are no multiples of the poolings."""
    torch.manual_seed(0)
    generator = build_model("per-pixel-kernels-small").eval()
    nn.init.normal_(generator.kernels.weight, std=2.0)  # it starts without any influence of the U-Net
    model = Model("", "per-pixel-kernels-small", generator, SENSOR, None)
    mosaic, sensor = torch.rand(1, 1, 250, 36), dataclasses.replace(SENSOR, cfa=cfa)
    images = []
    for each in (rows, 250):
        monkeypatch.setattr(module, "_rows", lambda *_, each=each, **__: each)
        images.append(model.develop(mosaic, sensor, bits=16).int())
    assert (images[0] - images[1]).abs().max() <= 1  # of 65,535


def test_bands_start_at_even_rows_whatever_the_reach(monkeypatch):
    """A 3x3 and a 5x5 convolution at full resolution reach three pixels."""
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 5, padding=2), nn.Sigmoid()
    spec = ModelSpec(lambda: nn.Sequential(*layers), input_format="split", reach=3)
    monkeypatch.setitem(MODELS, "odd", spec)
    model = Model("", "odd", spec.build().eval(), SENSOR, None)
    mosaic = torch.rand(1, 1, 52, 40, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "BAND", 6 * 40)
    assert (model.develop(mosaic, SENSOR).int() - develop_whole(model, mosaic).int()).abs().max() <= 1


def test_digital_numbers_are_developed_like_fractions_of_white(model):
    digital = torch.randint(60, 1024, (1, 1, 32, 40), generator=torch.Generator().manual_seed(0))
    expected = develop_whole(model, digital / 1023)
    for numbers in (digital.to(torch.uint16), digital.to(torch.int32), digital / 1023):
        developed = model.develop(numbers, SENSOR)
        assert developed.dtype == torch.uint8 and developed.is_contiguous(memory_format=torch.channels_last)
        assert (developed.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("cfa, axes", (("rggb", ()), ("grbg", (-1,)), ("gbrg", (-2,)), ("bggr", (-2, -1))))
@pytest.mark.parametrize("trained", ("rggb", "gbrg"))
def test_a_mosaic_of_another_cfa_order_is_mirrored_to_the_model_s(model, cfa, axes, trained, monkeypatch):
    """The network sees what it was trained for: a mirrored scene is developed to exactly the mirrored image."""
    monkeypatch.setattr(module, "BAND", 12 * 40)
    mosaic = torch.rand(1, 1, 52, 40, generator=torch.Generator().manual_seed(0))  # of an RGGB camera
    sensors = {name: dataclasses.replace(SENSOR, cfa=name) for name in ("rggb", trained, cfa)}
    model = dataclasses.replace(model, sensor=sensors[trained])
    expected, actual = (
        model.develop(scene, sensors[name]) for scene, name in ((mosaic, "rggb"), (mosaic.flip(axes), cfa))
    )
    assert mirrored_axes("rggb", cfa) == axes
    difference = (actual.flip(axes).int() - expected.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3  # bands of other rows: rounding can show


def test_developing_does_not_change_the_mosaic(model):
    mosaic = torch.rand(1, 1, 32, 40)
    before = mosaic.clone()
    model.develop(mosaic, SENSOR)
    assert torch.equal(mosaic, before)


def test_the_model_s_own_levels_count_for_data_of_the_same_range(model):
    other_black = dataclasses.replace(SENSOR, black_level=(63.0,) * 4)
    assert model.levels_for(other_black) == SENSOR
    for other in (dataclasses.replace(SENSOR, white_level=4095.0), dataclasses.replace(SENSOR, cfa="bggr")):
        assert model.levels_for(other) == other


# --- opening ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(**description): the file of a robust generator with this description."""

    def save(**description):
        torch.manual_seed(0)
        path = tmp_path / "step_0000010.pt"
        save_generator(path, build_model("robust"), 10, {"model": "robust", **description})
        return path

    return save


def test_a_checkpoint_of_fit_knows_its_model_camera_and_config(checkpoint):
    sensor, config = Sensor("bggr", (1.0, 2.0, 3.0, 4.0), 4095.0), Config(seed=7)
    path = checkpoint(sensor=dataclasses.asdict(sensor), config=to_dict(config))
    model = open_model(str(path), CPU)
    assert (model.source, model.name, model.sensor, model.config) == (str(path), "robust", sensor, config)
    assert not model.generator.training and not any(p.requires_grad for p in model.generator.parameters())
    expected = storage.load(path)["generator"]
    assert all(torch.equal(value, expected[key]) for key, value in model.generator.state_dict().items())


@pytest.mark.parametrize(("name", "sensor"), (("efficient", "fujifilm"), ("rmfa-tiny", "fujifilm-rmfa")))
def test_a_released_file_is_of_the_camera_that_its_model_was_released_for(tmp_path, name, sensor):
    torch.save(build_model(name).state_dict(), tmp_path / "weights.pth")
    model = open_model(str(tmp_path / "weights.pth"), CPU)
    assert (model.name, model.sensor, model.config) == (name, SENSORS[sensor], None)


def test_weights_that_are_not_finite_are_refused(checkpoint):
    path = checkpoint()
    content = storage.load(path)
    content["generator"]["conv1.bias"][0] = float("nan")
    storage.save(path, content)
    with pytest.raises(UserError, match="step_0000010.pt has weights that are not finite: its training diverged"):
        open_model(str(path), CPU)


@pytest.mark.parametrize("sensor", (3, {"cfa": "rggb"}, {"cfa": "rggb", "black_level": None, "white_level": 1023.0}))
def test_a_damaged_description_of_the_camera_is_refused(checkpoint, sensor):
    with pytest.raises(UserError, match="step_0000010.pt is not a checkpoint of fit.py: its sensor is"):
        open_model(str(checkpoint(sensor=sensor)), CPU)
