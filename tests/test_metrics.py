"""Quality measures by hand, under the protocol of the paper's tables."""

from math import inf, log10

import pytest
import torch

from metrics import psnr, to_8_bit


def grey(*values: float) -> torch.Tensor:
    """An image of one level each, (N, 3, 2, 2)."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_8_bits_are_clipped_and_truncated():
    values = torch.tensor([-0.5, 0.0, 0.999, 1.0, 1.5, 0.5, 1.9 / 255])
    assert to_8_bit(values).tolist() == [0, 0, 254, 255, 255, 127, 1]
    assert to_8_bit(values).dtype == torch.uint8


def test_an_8_bit_photograph_comes_back_as_it_was():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_8_bit(levels.float() / 255), levels)


def test_psnr_by_hand():
    # 0.5 becomes 127: an error of 127 at every number.
    assert psnr(grey(0.5), grey(0.0)).item() == pytest.approx(20 * log10(255 / 127))


def test_psnr_counts_truncated_levels():
    assert psnr(grey(0.999), grey(1.0)).item() == pytest.approx(20 * log10(255))  # 254 against 255


def test_psnr_averages_over_all_channels_and_pixels():
    image = torch.zeros(1, 3, 2, 2)
    image[0, 1, 0, 1] = 1
    assert psnr(image, torch.zeros(1, 3, 2, 2)).item() == pytest.approx(10 * log10(12))


def test_psnr_of_the_same_image_is_infinite():
    assert psnr(grey(0.3), grey(0.3)).item() == inf


def test_psnr_is_of_each_image():
    values = psnr(grey(0.5, 0.999), grey(0.0, 1.0))
    assert values.shape == (2,)
    assert values.tolist() == pytest.approx([20 * log10(255 / 127), 20 * log10(255)])
