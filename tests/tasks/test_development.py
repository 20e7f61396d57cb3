"""Developing single files: at their own levels, in the light that the user wishes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.camera import Profile
from data.sensor import SENSORS, Sensor
from errors import UserError
from models import build_model
from tasks import development
from tasks.development import Developer, Wishes
from tasks.model import Model

from ..dng import dng

CPU = torch.device("cpu")
FUJIFILM = SENSORS["fujifilm"]
PROFILE = Profile(
    make="Maker",
    model="Phone 1",
    sensor=FUJIFILM,
    size=(64, 96),
    count=20,
    red_gain=(1.8, 2.0, 2.2),
    blue_gain=(1.4, 1.5, 1.6),
    gains_noted=True,
    iso=(100.0, 400.0),
    black_by_iso={},
    color_matrix=None,
    noise=None,
)
SIGNAL = np.random.default_rng(0).uniform(0.02, 0.4, (64, 96))  # of white above black


def model_of(name="efficient", **facts) -> Model:
    torch.manual_seed(0)
    return Model("m.pt", name, build_model(name).eval().requires_grad_(False), FUJIFILM, None, **facts)


@pytest.fixture
def write(tmp_path):
    """write(black, white, **notes): a new camera file of `SIGNAL`."""
    numbers = itertools.count()

    def write_file(black=64, white=1023, **notes):
        path, digital = tmp_path / f"{next(numbers)}.dng", (black + SIGNAL * (white - black)).round()
        path.write_bytes(dng(digital.astype(np.uint16), black=black, white=white, **notes))
        return path

    return write_file


def gains_for(path, wish, **facts):
    return Developer(model_of(**facts), Wishes(wish), FUJIFILM).read(path).gains


def test_by_default_the_light_stays_as_it_was_recorded(write):
    assert gains_for(write(), "", camera=PROFILE) is None
    assert gains_for(write(), "trained", camera=PROFILE) is None


def test_the_cameras_balance_is_taken_relative_to_the_trainings(write):
    assert gains_for(write(gains=(3.0, 1.2)), "camera", camera=PROFILE) == pytest.approx((1.5, 1.0, 0.8), rel=1e-4)
    assert gains_for(write(), (1.0, 3.0), camera=PROFILE) == pytest.approx((0.5, 1.0, 2.0))


def test_without_a_profile_the_published_rendering_says_in_what_light_the_model_was_trained(write):
    red, green, blue = gains_for(write(gains=(3.2, 1.4)), "camera")
    assert (red, green, blue) == pytest.approx((3.2 / (1.6 / 1.2), 1, 1.4 / (1.4 / 1.2)), rel=1e-4)


def test_a_model_of_balanced_mosaics_gets_the_gains_themselves(write):
    balanced = {"camera": PROFILE, "normalisation": "white_balance"}
    assert gains_for(write(gains=(3.0, 1.2)), "", **balanced) == pytest.approx((3.0, 1.0, 1.2), rel=1e-4)
    assert gains_for(write(gains=(3.0, 1.2)), "trained", **balanced) == pytest.approx((2.0, 1.0, 1.5))
    with pytest.raises(UserError, match=r"does not say in what light it was trained"):
        Developer(model_of(normalisation="white_balance"), Wishes("trained"), FUJIFILM)


def test_grey_is_estimated_on_request(write):
    red, green, blue = gains_for(write(), "auto", camera=PROFILE, normalisation="white_balance")
    assert green == 1 and red == pytest.approx(1, abs=0.05) and blue == pytest.approx(1, abs=0.05)


def test_a_balance_that_is_not_noted_is_refused_with_what_to_do(write):
    with pytest.raises(UserError, match=r"0.dng notes no white balance: choose --wb auto"):
        gains_for(write(gains=None), "camera", camera=PROFILE)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    (
        ("0.raw", bytes(2 * 64 * 96), "0.raw has no header: name a profile of their camera with --camera"),
        ("0.pgm", b"P5 96 64 4095 " + bytes([9]) * 2 * 64 * 96, "white level 1023: name a profile of their camera wi"),
    ),
)
def test_a_plain_mosaic_of_another_camera_needs_a_profile(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as error:
        Developer(model_of(), Wishes(), FUJIFILM).read(tmp_path / name)
    assert "--data." not in str(error.value)


def test_exposure_multiplies_all_colours(write):
    shot = Developer(model_of(), Wishes(exposure=1.0), FUJIFILM).read(write())
    assert shot.gains == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("name", ("efficient", "rmfa-tiny"))
def test_levels_are_brought_over(write, name):
    """The same scene in 10 and in 14 bits, with other black levels, gives the same photograph."""
    developer = Developer(model_of(name), Wishes(bits=16), FUJIFILM)
    first, second = (
        developer.develop(developer.read(write(black, white)), CPU).astype(int)
        for black, white in ((64, 1023), (2048, 16383))
    )
    assert np.abs(first - second).max() < 65535 * 2e-3  # ten bits are steps of 1e-3


def test_gains_in_the_network_are_those_of_a_brighter_mosaic(write):
    """Gains during development equal a mosaic that was multiplied before."""
    model, digital = model_of(), torch.from_numpy(SIGNAL).float()[None, None]
    sensor = Sensor("rggb", (0.0,) * 4, 1023.0)
    brighter = digital.clone()
    brighter[..., 0::2, 0::2] *= 1.5
    brighter[..., 1::2, 1::2] *= 3.0
    expected = model.develop(brighter.clamp(max=1), sensor)
    before = digital.clone()
    assert torch.equal(model.develop(digital, sensor, (1.5, 1.0, 3.0)), expected)
    assert torch.equal(digital, before)  # the caller's mosaic stays as it is
    context = replace(model_of("efficient-context"), camera=None)
    expected = context.develop(brighter.clamp(max=1), sensor)
    assert torch.equal(context.develop(digital, sensor, (1.5, 1.0, 3.0)), expected)


def test_sixteen_bits_truncate_to_eight(write):
    model, digital = model_of(), torch.from_numpy(SIGNAL).float()[None, None]
    fine = model.develop(digital, FUJIFILM, bits=16)
    assert fine.dtype == torch.uint16 and len(fine.unique()) > 256
    coarse = (fine.double() / 65535 * 255).floor()
    assert (coarse - model.develop(digital, FUJIFILM).double()).abs().max() <= 1


def test_what_is_unlike_the_training_is_told(write):
    def remarks(**notes):
        return Developer(model_of(camera=PROFILE), Wishes(), FUJIFILM).read(write(**notes)).remarks

    assert remarks(iso=200) == ()
    assert remarks(camera=("Maker", "Phone 2")) == (
        "of another camera than Maker Phone 1 (Maker Phone 2): colours may be wrong",
    )
    assert remarks(iso=6400) == ("of an ISO outside 100 to 400",)
    (remark,) = remarks(gains=(1.2, 2.5))
    assert "--wb camera" in remark


def test_a_portrait_comes_out_upright(write):
    developer = Developer(model_of(), Wishes(), FUJIFILM)
    flat, upright = (developer.develop(developer.read(write(orientation=o)), CPU) for o in (1, 6))
    assert flat.shape == (64, 96, 3) and np.array_equal(upright, np.rot90(flat, -1))


def test_a_photograph_is_refused_where_memory_is_short(write, monkeypatch):
    monkeypatch.setattr(development, "free_memory", lambda: 1 << 20)  # enough for the photograph, 74 KiB
    developer = Developer(model_of("rmfa-tiny"), Wishes(), FUJIFILM)
    with pytest.raises(
        UserError, match=r"0.dng of 0 million pixels needs about 0.0 GiB with rmfa-tiny, .* look at images whole"
    ):
        developer.develop(developer.read(write()), CPU)
    developer = Developer(model_of(), Wishes(), FUJIFILM)
    assert developer.develop(developer.read(write()), CPU).shape == (64, 96, 3)
    monkeypatch.setattr(development, "free_memory", lambda: 1 << 10)
    with pytest.raises(UserError, match=r"use a machine with more memory$"):
        developer.develop(developer.read(write()), CPU)
