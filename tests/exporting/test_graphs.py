"""The phone's form of each network computes what the network does, from digital numbers or normalised input."""

import pytest
import torch

from data.inputs import INPUT_FORMATS, PACKED_CHANNELS, WITH_CONTEXT, packed_input, prepare, split_input
from data.sensor import SENSORS
from errors import UserError
from exporting.graphs import LEVELS, PackedLevels, SplitLevels, pack, phone_form

from .conftest import OTHER, SMALL


@pytest.mark.parametrize("sensor", (SENSORS["fujifilm"], OTHER), ids=("fujifilm", "other"))
@pytest.mark.parametrize("levels, prepared", ((PackedLevels, packed_input), (SplitLevels, split_input)))
def test_levels_are_those_of_the_project(levels, prepared, sensor, make_mosaic):
    """Each number of a white level up to 16 bits, black, white and below black among them; nothing is clipped twice."""
    mosaic = make_mosaic(64, 66, sensor)
    mosaic[..., 0, :4] = torch.tensor([0.0, 1.0, sensor.white_level, sensor.white_level - 1])
    expected = prepared(mosaic / sensor.white_level, sensor)
    torch.testing.assert_close(levels(sensor)(pack(mosaic, sensor)), expected, rtol=0, atol=2e-7)
    assert levels is SplitLevels or expected.min() < 0


@pytest.mark.parametrize("sensor", (SENSORS["fujifilm"], SENSORS["fujifilm-rmfa"], OTHER), ids=str)
@pytest.mark.parametrize("name", ("dn", "packed_1020", "packed_63", "rggb_4095"))
def test_levels_of_published_phones(name, sensor, make_mosaic):
    """Black, white and below black among them; for each CFA site its own black level."""
    mosaic = make_mosaic(64, 66, sensor)
    mosaic[..., :2, :4] = torch.tensor([0.0, 1.0, sensor.white_level, sensor.white_level - 1])
    expected = prepare(mosaic / sensor.white_level, sensor, name)
    levels = LEVELS[name](sensor)(pack(mosaic, sensor))
    torch.testing.assert_close(levels, expected, rtol=0, atol=2e-7 * max(1, expected.max()))


def test_every_input_format_has_its_levels(make_mosaic):
    mosaic = make_mosaic(8, 10, OTHER)
    for name in INPUT_FORMATS:
        expected = prepare(mosaic / OTHER.white_level, OTHER, name)
        if name in WITH_CONTEXT:  # its numbers are an input of their own
            expected = expected[:, : len(PACKED_CHANNELS)]
        torch.testing.assert_close(LEVELS[name](OTHER)(pack(mosaic, OTHER)), expected, rtol=1e-5, atol=1e-6)


def test_levels_are_exact_in_double_precision(make_mosaic):
    mosaic = make_mosaic(16, 18, OTHER).double()
    expected = packed_input(mosaic / OTHER.white_level, OTHER)
    levels = PackedLevels(OTHER)
    black, factor = levels.black.double(), 1 / (OTHER.white_level - levels.black.double())
    torch.testing.assert_close((pack(mosaic, OTHER) - black) * factor, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("raw_input", ("dn", "normalised"))
@pytest.mark.parametrize("sensor", (None, OTHER), ids=("own", "other"))
@pytest.mark.parametrize("name", SMALL)
def test_the_phones_form_gives_the_same_image(name, sensor, raw_input, make_source, make_mosaic):
    source = make_source(name, raw_input, sensor)
    mosaic = make_mosaic(38, 46, source.sensor)
    module = phone_form(source.generator, source.input_format, source.sensor, raw_input)
    with torch.inference_mode():
        image = module(**source.inputs(mosaic))
        fractions = mosaic / source.sensor.white_level
        expected = source.generator(prepare(fractions, source.sensor, source.input_format)).clamp(0, 1)
    torch.testing.assert_close(image, expected, rtol=0, atol=5e-6)
    assert expected.std() > 0.01


def test_the_context_is_an_input_of_its_own(make_source, make_mosaic):
    source = make_source("efficient-context")
    inputs = source.inputs(make_mosaic(32, 32, source.sensor))
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {"raw": (1, 4, 16, 16), "context": (1, 15)}
    module = phone_form(source.generator, source.input_format, source.sensor)
    assert not torch.equal(module(**inputs), module(inputs["raw"], inputs["context"] + 1))


def test_the_image_is_clipped_and_the_generator_stays_as_it_was(make_source, make_mosaic):
    source = make_source()
    source.generator.conv3.weight *= 30
    before = {key: value.clone() for key, value in source.generator.state_dict().items()}
    mosaic = make_mosaic(16, 16, source.sensor)
    image = phone_form(source.generator, source.input_format, source.sensor, half=True)(**source.inputs(mosaic))
    assert image.min() == 0 and image.max() == 1 and image.dtype == torch.float32
    assert all(torch.equal(before[key], value) for key, value in source.generator.state_dict().items())


def test_a_network_of_ones_own_is_exported_as_it_is(make_mosaic):
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 12, 3, padding=1), torch.nn.PixelShuffle(2)).eval()
    module, packed = phone_form(network, "packed", OTHER, "normalised"), torch.rand(1, 4, 8, 8)
    assert torch.equal(module(packed), network(packed).clamp(0, 1))


def test_levels_of_an_unknown_format_are_refused(make_source):
    with pytest.raises(UserError, match="'mine'.*--raw-input normalised"):
        phone_form(make_source().generator, "mine", OTHER)
