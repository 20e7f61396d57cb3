"""The challenges' scores, by hand."""

import math

import pytest

from errors import UserError
from exporting.score import score


@pytest.mark.parametrize(
    "formula, psnr, milliseconds, constant, expected",
    (
        ("2021", 24.0, 100, None, 24 + 20 * 0.1),
        ("2021", 24.0, 200, None, 24.0),
        ("2021", 24.0, 1200, None, 24 - 0.5),
        ("2021", 24.0, 100, 10.0, 25.0),
        ("2022", 5.0, 16, None, 1024 / 16),
        ("2022", 5.0, 16, 2.0, 32.0),
    ),
)
def test_by_hand(formula, psnr, milliseconds, constant, expected):
    assert score(psnr, milliseconds, formula, constant) == pytest.approx(expected)


@pytest.mark.parametrize("numbers", ((24, 0), (24, -1), (math.nan, 5), (24, math.inf), (600, 5)))
def test_numbers_that_no_phone_gives(numbers):
    with pytest.raises(UserError, match="--score"):
        score(*numbers)


def test_a_constant_must_be_positive():
    with pytest.raises(UserError, match="--score-constant"):
        score(24, 10, "2022", 0.0)
