"""Quality measures: by hand, by the numbers of TensorFlow (golden/), and by the toolboxes that others quote."""

import json
import runpy
import subprocess
import sys
import zlib
from math import inf, log10
from pathlib import Path

import numpy as np
import pytest
import torch

import metrics
from errors import UserError
from metrics import MEASURES, NETWORKS, PROTOCOLS, build, choose, delta_e_2000, ms_ssim, psnr, ssim, to_8_bit
from pretrained import backbones

GOLDEN = Path(__file__).parent / "golden"
TENSORFLOW = json.loads((GOLDEN / "tensorflow.json").read_text())["pairs"]
MEASURED = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim, "delta_e": delta_e_2000}


def grey(*values: float) -> torch.Tensor:
    """An image of one level each, (N, 3, 2, 2)."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def levels(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """golden/images.py's image and target, each (1, 3, H, W), checked to be those that TensorFlow saw."""
    found = runpy.run_path(str(GOLDEN / "images.py"))["pairs"]()
    assert {name: zlib.crc32(b"".join(x.tobytes() for x in pair)) for name, pair in found.items()} == {
        name: numbers["crc32"] for name, numbers in TENSORFLOW.items()
    }
    return {name: tuple(torch.from_numpy(x.copy()).movedim(-1, 0)[None] for x in pair) for name, pair in found.items()}


# --- 8 bits ----------------------------------------------------------------------------------------------------------


def test_8_bits_are_clipped_and_truncated():
    values = torch.tensor([-0.5, 0.0, 0.999, 1.0, 1.5, 0.5, 1.9 / 255])
    assert to_8_bit(values).tolist() == [0, 0, 254, 255, 255, 127, 1]
    assert to_8_bit(values).dtype == torch.uint8


def test_an_8_bit_photograph_comes_back_as_it_was():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_8_bit(every.float() / 255), every)
    assert to_8_bit(every) is every


def test_what_is_measured_stays_as_it_was():
    image = levels(1, 3, 11, 11) / 85 - 1
    before = image.clone()
    psnr(image, image), ssim(image, image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("name", MEASURED)
def test_floats_are_measured_as_their_8_bits(name):
    image, target = levels(2, 3, 161, 161, seed=1) / 200 - 0.1, levels(2, 3, 161, 161)  # some are below 0, or above 1
    value = MEASURED[name](image, target)
    assert value.dtype == torch.float64 and value.shape == (2,)
    assert torch.equal(value, MEASURED[name](to_8_bit(image), target))
    assert not torch.equal(value, MEASURED[name](to_8_bit(image + 0.5 / 255), target))  # rounded


# --- PSNR ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("size", ((256, 256), (3, 700), (1, 1)))
def test_psnr_is_exact_in_integers(size):
    image, target = levels(4, 3, *size), levels(4, 3, *size, seed=1)
    error = (image.double() - target.double()).square().mean((1, 2, 3))
    torch.testing.assert_close(psnr(image, target), 10 * torch.log10(255**2 / error), atol=1e-9, rtol=0)


def test_psnr_of_the_largest_error_in_a_wide_image():
    black = torch.zeros(1, 3, 1, 30_000, dtype=torch.uint8)
    assert psnr(black, 255 - black).item() == 0


def test_several_models_are_measured_against_the_same_targets():
    images, target = levels(5, 2, 3, 12, 16), levels(2, 3, 12, 16, seed=1)
    for measure in (psnr, ssim):
        expected = torch.stack([measure(model, target) for model in images])
        assert expected.unique().numel() == 10 and torch.equal(measure(images, target), expected)
        assert measure(images[0, 0], target[0]).shape == ()


# --- SSIM and MS-SSIM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", (ssim, ms_ssim))
@pytest.mark.parametrize("name", TENSORFLOW)
def test_tensorflow_says_the_same(name, measure, pairs):
    precise, usual = (TENSORFLOW[name][precision][measure.__name__] for precision in ("double", "single"))
    if precise is None:  # it refused
        with pytest.raises(UserError, match="MS-SSIM needs sides of at least 161 pixels"):
            measure(*pairs[name])
        return
    assert measure(*pairs[name]).item() == pytest.approx(precise, abs=3e-4)  # single precision costs that much
    if name != "chessboards, inverted":  # where TensorFlow alone is 2e-4 away from its own double precision
        assert measure(*pairs[name]).item() == pytest.approx(usual, abs=4e-5)


def test_ssim_of_flat_channels_by_hand():
    """No variance: the luminance alone, 2 a b / (a^2 + b^2) with its constant."""
    image, target = grey(100 / 255).repeat(1, 1, 6, 6), grey(60 / 255).repeat(1, 1, 6, 6)
    image[:, 1] = target[:, 1]
    constant = (0.01 * 255) ** 2
    luminance = (2 * 100 * 60 + constant) / (100**2 + 60**2 + constant)
    assert ssim(image, target).item() == pytest.approx((1 + 2 * luminance) / 3, abs=1e-4)


def test_ssim_of_an_inverse_is_negative_and_ms_ssim_of_it_zero(pairs):
    image, target = pairs["inverted, 178x256"]
    assert ssim(image, target) < -0.1 and ms_ssim(image, target) == 0


def test_measures_are_of_each_image(pairs):
    names = ("two photographs, 256x256", "blocks, 256x256")
    batch = [torch.cat(images) for images in zip(*(pairs[name] for name in names), strict=True)]
    for measure in MEASURED.values():
        alone = torch.cat([measure(*pairs[name]) for name in names])
        assert torch.equal(measure(*batch), alone) and alone[0] != alone[1]


# --- Delta E 2000 ----------------------------------------------------------------------------------------------------


def lightness(level: int) -> float:
    """CIE L* of a grey sRGB level."""
    linear = ((level / 255 + 0.055) / 1.055) ** 2.4
    return 116 * linear ** (1 / 3) - 16


def test_delta_e_of_greys_by_hand():
    """Without colour it is the difference in lightness over S_L."""
    assert delta_e_2000(grey(1.0), grey(0.0)).item() == pytest.approx(100, abs=1e-3)  # S_L is 1 half way
    dark, light = lightness(120), lightness(180)
    square = ((dark + light) / 2 - 50) ** 2
    expected = (light - dark) / (1 + 0.015 * square / (20 + square) ** 0.5)
    image, target = (torch.full((1, 3, 2, 2), level, dtype=torch.uint8) for level in (120, 180))
    assert delta_e_2000(image, target).item() == pytest.approx(expected, abs=0.01)


def test_delta_e_is_scikit_image_s():
    from skimage.color import deltaE_ciede2000, rgb2lab

    image, target = levels(2, 3, 9, 14), levels(2, 3, 9, 14, seed=1)
    lab = (rgb2lab(x.permute(0, 2, 3, 1).numpy()) for x in (image, target))
    expected = deltaE_ciede2000(*lab).mean((1, 2))
    np.testing.assert_allclose(delta_e_2000(image, target), expected, atol=0.01)  # their matrices differ a little


def test_delta_e_is_the_mean_over_pixels_and_zero_for_equals():
    image, target = levels(1, 3, 4, 6), levels(1, 3, 4, 6, seed=1)
    half = torch.cat((image[..., :3], target[..., 3:]), -1)
    whole = delta_e_2000(image[..., 3:], target[..., 3:]).item()
    assert delta_e_2000(image, half).item() == pytest.approx(whole / 2) and whole > 1
    assert delta_e_2000(image, image) == 0


# --- what cannot be compared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize(
    "image, target, says",
    (
        ((1, 3, 161, 162), (1, 3, 162, 161), r"\(1, 3, 161, 162\).*\(1, 3, 162, 161\); give as many of one size"),
        ((2, 3, 161, 161), (3, 3, 161, 161), "give as many of one size"),
        ((1, 1, 161, 161), (1, 1, 161, 161), "give RGB images"),
        ((1, 3, 161, 161), (1, 1, 161, 161), "give as many of one size"),
        ((1, 161, 161, 3), (1, 161, 161, 3), "give RGB images"),
        ((161, 161), (161, 161), "give RGB images"),
        ((0, 3, 161, 161), (0, 3, 161, 161), "not empty"),
        ((1, 3, 0, 161), (1, 3, 0, 161), "not empty"),
    ),
)
def test_what_is_no_pair_of_images_is_refused(name, image, target, says):
    with pytest.raises(UserError, match=says):
        MEASURED[name](torch.zeros(image), torch.zeros(target))


@pytest.mark.parametrize(
    "measure, sides, says",
    (
        (ssim, (10, 300), "SSIM needs sides of at least 11 pixels, not 10x300"),
        (ms_ssim, (300, 160), "MS-SSIM needs sides of at least 161 pixels, not 300x160"),
    ),
)
def test_images_that_are_too_small_are_refused(measure, sides, says):
    with pytest.raises(UserError, match=says):
        measure(torch.zeros(1, 3, *sides), torch.zeros(1, 3, *sides))
    enough = [metrics.SSIM_MINIMUM if measure is ssim else metrics.MS_SSIM_MINIMUM] * 2
    assert measure(torch.zeros(1, 3, *enough), torch.zeros(1, 3, *enough)) == 1


# --- protocols -------------------------------------------------------------------------------------------------------


class Distance(torch.nn.Module):
    """Stands for a network: it notes what it is fed."""

    def forward(self, image, target):
        assert image.dtype == torch.float32 and not torch.is_grad_enabled()
        self.range = image.min().item(), image.max().item()
        return (image - target).abs().mean((1, 2, 3))


def no_network(name: str) -> torch.nn.Module:
    raise AssertionError(f"nobody asked for {name}")


def test_every_column_of_a_protocol_has_a_heading():
    assert list(MEASURES) == ["psnr", "ssim", "ms_ssim", "lpips", "lpips_plus", "dists", "delta_e"]
    assert [name for name in MEASURES if MEASURES[name].higher_is_better] == ["psnr", "ssim", "ms_ssim"]
    for protocol in PROTOCOLS.values():
        assert set(protocol.measures) <= {*protocol.functions, *NETWORKS} <= set(MEASURES)
        assert "\n" not in protocol.summary and "truncated" in protocol.summary


@pytest.mark.parametrize(
    "protocol, expected",
    (
        ("paper", ("psnr", "ssim", "ms_ssim", "lpips")),
        ("ntire26", ("psnr", "ssim", "delta_e")),
        ("pyiqa", ("psnr", "ssim", "ms_ssim", "lpips", "lpips_plus")),
    ),
)
def test_a_protocol_has_its_usual_columns_and_gives_others_in_the_order_asked(protocol, expected):
    assert choose(protocol) == expected
    assert choose(protocol, ["dists", "psnr", "dists"]) == ("dists", "psnr")
    assert tuple(build(protocol, (), lambda _: Distance())) == expected


@pytest.mark.parametrize(
    "protocol, names, says",
    (
        ("papers", (), "unknown protocol 'papers'; known are: paper, ntire26, pyiqa"),
        ("paper", ("psnr", "mse"), "protocol 'paper' has no measure 'mse'; known are: psnr, ssim, .*, delta_e"),
        ("pyiqa", ("delta_e",), "protocol 'pyiqa' has no measure 'delta_e'; known are: psnr, ssim, .*, dists$"),
    ),
)
def test_an_unknown_name_lists_the_known(protocol, names, says):
    for ask in (choose, lambda *names: build(*names, no_network)):
        with pytest.raises(UserError, match=says):
            ask(protocol, names)


def test_the_paper_s_functions_are_those_of_this_file():
    functions = build("paper", ("delta_e", "psnr", "ms_ssim", "ssim"), no_network)
    assert functions == {name: MEASURED[name] for name in ("delta_e", "psnr", "ms_ssim", "ssim")}
    assert build("ntire26", ("psnr", "ssim", "delta_e"), no_network).items() <= functions.items()


def test_a_network_is_asked_for_once_and_sees_8_bits_between_0_and_1():
    built = {}
    functions = build("paper", ("psnr", "lpips"), lambda name: built.setdefault(name, Distance()))
    assert list(functions) == ["psnr", "lpips"] and list(built) == ["lpips"]
    image, target = levels(5, 3, 64, 64), levels(5, 3, 64, 64, seed=1)
    score = functions["lpips"](image, target)
    assert built["lpips"].range == (0, 1) and score.dtype == torch.float64
    torch.testing.assert_close(score, (image / 255 - target / 255).abs().mean((1, 2, 3)).double())
    assert functions["lpips"](image.float(), target).shape == (5,)
    assert functions["lpips"](image[None], target).shape == (1, 5)
    with pytest.raises(UserError, match="give as many of one size"):
        functions["lpips"](image, target[..., 1:])


@pytest.mark.parametrize("name", ("psnr", "ssim", "ms_ssim"))
def test_protocol_pyiqa_is_pyiqa(name, pairs):
    pyiqa = pytest.importorskip("pyiqa")
    image, target = pairs["gamma, 181x240"]
    [measured] = build("pyiqa", [name], no_network).values()
    expected = pyiqa.create_metric(name, device="cpu")(image / 255, target / 255)
    assert measured(image, target).dtype == torch.float64
    assert measured(image, target).tolist() == pytest.approx(expected.tolist(), abs=1e-9)
    if name != "psnr":
        assert abs(measured(image, target) - MEASURED[name](image, target)) > 1e-3  # on Y: other numbers
        with pytest.raises(UserError, match="SSIM needs sides of at least"):
            measured(image[..., :10], target[..., :10])


def test_importing_is_cheap_and_building_needs_no_toolbox():
    code = """
import sys, metrics
metrics.build("paper", ["psnr", "ssim", "ms_ssim", "delta_e"], None)
metrics.choose("pyiqa")
assert not {"pyiqa", "colour", "skimage"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=GOLDEN.parents[1], check=True)


def test_a_network_needs_an_image_that_it_can_see():
    functions = build("paper", ["lpips"], lambda _: backbones.lpips("random"))
    small, enough = (torch.zeros(1, 3, side, side, dtype=torch.uint8) for side in (16, 32))
    assert functions["lpips"](enough, enough).item() == 0
    with pytest.raises(UserError, match="LPIPS needs sides of at least 32 pixels, not 16x16"):
        functions["lpips"](small, small)
