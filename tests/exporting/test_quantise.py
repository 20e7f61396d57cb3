"""8-bit scales: hand-computed, 0 exact, errors within half a step."""

import numpy as np
import pytest
import torch

from exporting.quantise import IMAGE, TANH_INPUT, Scale, calibrate, scale_of_filters, scale_of_range


def test_by_hand():
    scale = scale_of_range(-1.0, 1.55)
    assert scale.scale == pytest.approx([0.01]) and scale.zero == -28
    numbers = np.array([-1.0, 0.0, 0.5, 1.55, 9.0, -9.0])
    assert scale.of(numbers).tolist() == [-128, -28, 22, 127, 127, -128]


@pytest.mark.parametrize("low, high", ((-0.3, 0.7), (0.2, 3.0), (-5.0, -1.0), (0.0, 0.0), (-1e-9, 1e6)))
def test_zero_is_exact_and_errors_are_half_a_step(low, high):
    scale = scale_of_range(low, high)
    values = np.linspace(min(low, 0), max(high, 0), 101)
    back = (scale.of(values).astype(float) - scale.zero) * scale.scale
    assert abs(back - values).max() <= 1.001 * scale.scale[0]  # a whole one at the ends, as 0 has been rounded
    assert (scale.of(np.zeros(1)) - scale.zero) * scale.scale == 0


def test_filters_have_a_scale_each():
    weight = np.array([[1.27, -0.5], [0.0, 0.0], [-254.0, 2.0]])
    scale = scale_of_filters(weight)
    assert scale.scale == pytest.approx([0.01, 1 / 127, 2.0]) and scale.zero == 0
    assert scale.of(weight).tolist() == [[127, -50], [0, 0], [-127, 1]]


def test_the_image_is_clipped_by_its_scale():
    assert IMAGE.of(np.array([-1.0, 0.0, 1.0, 2.0])).tolist() == [-128, -128, 127, 127]


def test_biases_are_32_bits():
    assert Scale(np.array([1e-6])).of(np.array([1.0]), np.int32).tolist() == [1_000_000]


def test_calibration_sees_all_mosaics(make_source):
    network = make_source().generator
    inputs = [torch.rand(1, 4, 8, 8), 3 * torch.rand(1, 4, 6, 8) - 0.5]
    scales = calibrate(network, inputs)
    low, high = (-scales["packed"].zero - 128, -scales["packed"].zero + 127)
    step = scales["packed"].scale[0]
    assert low * step == pytest.approx(inputs[1].min().item(), abs=step)
    assert high * step == pytest.approx(inputs[1].max().item(), abs=step)
    network.conv1.bias += 50  # beyond what changes the tanh
    assert 127 * calibrate(network, inputs)["conv1"].scale[0] < TANH_INPUT
