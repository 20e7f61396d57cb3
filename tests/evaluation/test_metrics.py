"""Quality measures: by hand, by TensorFlow's numbers (tests/golden/) and by scikit-image."""

import json
from math import inf, log10
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from errors import UserError
from evaluation import metrics
from evaluation.metrics import MEASURES, delta_e_2000, ms_ssim, psnr, psnr_float, ssim, to_8_bit

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TENSORFLOW = json.loads((GOLDEN / "tensorflow.json").read_text())["pairs"]
FUNCTIONS = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim, "delta_e": delta_e_2000}


def grey(*values: float) -> torch.Tensor:
    """Images of one level each, (N, 3, 2, 2)."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_the_table_of_measures():
    networks, sets = ["lpips", "lpips_plus", "dists"], ["kid", "fid"]
    assert list(MEASURES) == ["psnr", "psnr_float", "ssim", "ms_ssim", *networks, "delta_e", *sets]
    assert [name for name in MEASURES if MEASURES[name].higher_is_better] == ["psnr", "psnr_float", "ssim", "ms_ssim"]
    assert {name: measure.function for name, measure in MEASURES.items() if measure.function} == {
        **FUNCTIONS,
        "psnr_float": psnr_float,
    }
    assert [name for name in MEASURES if MEASURES[name].of_floats] == ["psnr_float"]


# --- 8 bits ----------------------------------------------------------------------------------------------------------


def test_8_bit_values_are_clipped_and_truncated():
    values = torch.tensor([-0.5, 0.0, 0.999, 1.0, 1.5, 0.5, 1.9 / 255])
    assert to_8_bit(values).tolist() == [0, 0, 254, 255, 255, 127, 1]
    assert to_8_bit(values).dtype == torch.uint8


def test_8_bit_values_survive_the_way_to_float_and_back():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_8_bit(every.float() / 255), every)
    assert to_8_bit(every) is every


def test_measures_do_not_change_their_input(random_image):
    image = random_image(1, 3, 11, 11) / 85 - 1
    before = image.clone()
    psnr(image, image), ssim(image, image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_floats_are_scored_as_8_bit_images(name, random_image):
    image = random_image(2, 3, 161, 161, seed=1) / 200 - 0.1  # some values are below 0, or above 1
    target = random_image(2, 3, 161, 161)
    value = FUNCTIONS[name](image, target)
    assert value.dtype == torch.float64 and value.shape == (2,)
    assert torch.equal(value, FUNCTIONS[name](to_8_bit(image), target))
    rounded = to_8_bit(image + 0.5 / 255)
    assert not torch.equal(value, FUNCTIONS[name](rounded, target))


# --- PSNR ------------------------------------------------------------------------------------------------------------


def test_psnr_by_hand():
    # 0.5 becomes 127: an error of 127 at every value.
    assert psnr(grey(0.5), grey(0.0)).item() == pytest.approx(20 * log10(255 / 127))


def test_psnr_is_of_truncated_levels():
    assert psnr(grey(0.999), grey(1.0)).item() == pytest.approx(20 * log10(255))  # 254 against 255


def test_psnr_averages_over_all_channels_and_pixels():
    image = torch.zeros(1, 3, 2, 2)
    image[0, 1, 0, 1] = 1
    assert psnr(image, torch.zeros(1, 3, 2, 2)).item() == pytest.approx(10 * log10(12))


def test_psnr_of_equal_images_is_infinite():
    assert psnr(grey(0.3), grey(0.3)).item() == inf


def test_psnr_is_computed_for_each_image():
    values = psnr(grey(0.5, 0.999), grey(0.0, 1.0))
    assert values.shape == (2,)
    assert values.tolist() == pytest.approx([20 * log10(255 / 127), 20 * log10(255)])


@pytest.mark.parametrize("size", ((256, 256), (3, 700), (1, 1)))
def test_psnr_is_exact(size, random_image):
    image, target = random_image(4, 3, *size), random_image(4, 3, *size, seed=1)
    error = (image.double() - target.double()).square().mean((1, 2, 3))
    torch.testing.assert_close(psnr(image, target), 10 * torch.log10(255**2 / error), atol=1e-9, rtol=0)


def test_psnr_of_the_largest_error_in_a_wide_image_does_not_overflow():
    black = torch.zeros(1, 3, 1, 30_000, dtype=torch.uint8)
    assert psnr(black, 255 - black).item() == 0


def test_images_of_several_models_share_their_targets(random_image):
    images, target = random_image(5, 2, 3, 12, 16), random_image(2, 3, 12, 16, seed=1)
    for measure in (psnr, ssim):
        expected = torch.stack([measure(model, target) for model in images])
        assert expected.unique().numel() == 10 and torch.equal(measure(images, target), expected)
        assert measure(images[0, 0], target[0]).shape == ()


# --- PSNR of floats --------------------------------------------------------------------------------------------------


def test_psnr_of_floats_by_hand():
    """An error of 0.1 everywhere is 20 dB; the levels between two of 8 bits count; values are clipped to [0, 1]."""
    assert psnr_float(grey(0.6), grey(0.5)).item() == pytest.approx(20, abs=1e-4)
    assert psnr_float(grey(0.5), grey(0.5 + 1e-4)).item() == pytest.approx(80, abs=0.01)
    assert psnr_float(grey(1.7, -3.0), grey(1.0, 0.0)).tolist() == [inf, inf]


def test_psnr_of_floats_is_the_released_code_s(random_image):
    image, target = random_image(2, 3, 9, 14) / 200 - 0.1, random_image(2, 3, 9, 14, seed=1)
    released = [
        20 * log10(1 / np.sqrt(np.mean((a.clip(0, 1) - b / 255) ** 2)))
        for a, b in zip(image.double().numpy(), target.double().numpy(), strict=True)
    ]
    assert psnr_float(image, target).tolist() == pytest.approx(released, abs=1e-5)
    assert psnr_float(image, target / 255).tolist() == psnr_float(image, target).tolist()


def test_psnr_of_floats_of_8_bit_images_is_psnr(random_image):
    image, target = random_image(2, 3, 9, 14), random_image(2, 3, 9, 14, seed=1)
    assert psnr_float(image, target).tolist() == pytest.approx(psnr(image, target).tolist(), abs=1e-5)


# --- SSIM and MS-SSIM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", (ssim, ms_ssim))
@pytest.mark.parametrize("name", TENSORFLOW)
def test_scores_equal_tensorflow_s(name, measure, golden_pairs):
    double, single = (TENSORFLOW[name][precision][measure.__name__] for precision in ("double", "single"))
    if double is None:  # TensorFlow refused the pair
        with pytest.raises(UserError, match="MS-SSIM needs sides of at least 161 pixels"):
            measure(*golden_pairs[name])
        return
    assert measure(*golden_pairs[name]).item() == pytest.approx(double, abs=3e-4)  # the error of single precision
    if name != "chessboards, inverted":  # where TensorFlow's single precision differs by 2e-4 from its double
        assert measure(*golden_pairs[name]).item() == pytest.approx(single, abs=4e-5)


def test_ssim_of_flat_channels_by_hand():
    """Without variance, SSIM is the luminance factor 2 a b / (a^2 + b^2), with its constant."""
    image, target = grey(100 / 255).repeat(1, 1, 6, 6), grey(60 / 255).repeat(1, 1, 6, 6)
    image[:, 1] = target[:, 1]
    constant = (0.01 * 255) ** 2
    luminance = (2 * 100 * 60 + constant) / (100**2 + 60**2 + constant)
    assert ssim(image, target).item() == pytest.approx((1 + 2 * luminance) / 3, abs=1e-4)


def test_ssim_of_an_inverted_image_is_negative_and_its_ms_ssim_zero(golden_pairs):
    image, target = golden_pairs["inverted, 178x256"]
    assert ssim(image, target) < -0.1 and ms_ssim(image, target) == 0


def test_scores_of_a_batch_are_those_of_each_image(golden_pairs):
    names = ("two photographs, 256x256", "blocks, 256x256")
    batch = [torch.cat(images) for images in zip(*(golden_pairs[name] for name in names), strict=True)]
    for measure in FUNCTIONS.values():
        alone = torch.cat([measure(*golden_pairs[name]) for name in names])
        assert torch.equal(measure(*batch), alone) and alone[0] != alone[1]


# --- large images in bands -------------------------------------------------------------------------------------------


def plain_similarity(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SSIM and its contrast-structure factor of each channel, as before there were bands: the whole image at once."""
    planes = torch.stack((x, y, x * y, x * x + y * y)).flatten(0, 1)
    blurred = F.conv2d(planes[:, None], metrics._window()).unflatten(0, (4, 3))[:, :, 0]
    mean_x, mean_y, product, squares = blurred
    means, squared_means = 2 * mean_x * mean_y, mean_x**2 + mean_y**2
    structure = (2 * product - means + metrics.C2) / (squares - squared_means + metrics.C2)
    similarity = structure * (means + metrics.C1) / (squared_means + metrics.C1)
    return similarity.double().mean((-2, -1)), structure.double().mean((-2, -1))


@pytest.mark.parametrize("size", ((161, 200), (190, 163), (256, 256), (333, 171)))
@pytest.mark.parametrize("band", (1 << 10, 20_000))
def test_bands_give_the_scores_of_the_whole_image(size, band, monkeypatch, random_image):
    """With 333 x 171 pixels, these are bands of 5 rows and of 116 rows; the last one is shorter."""
    noise, flat = random_image(3, *size).float(), random_image(3, 1, 1, seed=1)
    image, target = (0.3 * noise + 0.7 * flat).to(torch.uint8), (0.1 * noise.flip(1) + 0.6 * flat).to(torch.uint8)
    expected = delta_e_2000(image, target).item()
    monkeypatch.setattr(metrics, "BAND", band)
    assert delta_e_2000(image, target).item() == pytest.approx(expected, abs=1e-9)
    banded = [measure(image, target).item() for measure in (ssim, ms_ssim)]
    monkeypatch.setattr(metrics, "mean_similarity", plain_similarity)
    assert banded == pytest.approx([measure(image, target).item() for measure in (ssim, ms_ssim)], abs=1e-6)
    assert banded[1] > 0.1


def test_no_band_is_larger_than_it_may_be(monkeypatch, random_image):
    """The memory of a large image: what is computed at a time does not grow with it."""
    sizes, blur = [], metrics._blur
    monkeypatch.setattr(metrics, "_blur", lambda planes: sizes.append(planes[0].numel()) or blur(planes))
    image = random_image(3, 1200, 1500)
    ssim(image, image)
    assert len(sizes) == 14 and max(sizes) <= metrics.BAND + 10 * 1500


# --- Delta E 2000 ----------------------------------------------------------------------------------------------------


def lightness(level: int) -> float:
    """CIE L* of a grey sRGB level."""
    linear = ((level / 255 + 0.055) / 1.055) ** 2.4
    return 116 * linear ** (1 / 3) - 16


def test_delta_e_of_greys_by_hand():
    """Between greys it is the difference in lightness divided by S_L."""
    assert delta_e_2000(grey(1.0), grey(0.0)).item() == pytest.approx(100, abs=1e-3)  # S_L is 1 at a mean L* of 50
    dark, light = lightness(120), lightness(180)
    square = ((dark + light) / 2 - 50) ** 2
    expected = (light - dark) / (1 + 0.015 * square / (20 + square) ** 0.5)
    image, target = (torch.full((1, 3, 2, 2), level, dtype=torch.uint8) for level in (120, 180))
    assert delta_e_2000(image, target).item() == pytest.approx(expected, abs=0.01)


def test_delta_e_equals_scikit_image_s(random_image):
    from skimage.color import deltaE_ciede2000, rgb2lab

    image, target = random_image(2, 3, 9, 14), random_image(2, 3, 9, 14, seed=1)
    lab = (rgb2lab(x.permute(0, 2, 3, 1).numpy()) for x in (image, target))
    expected = deltaE_ciede2000(*lab).mean((1, 2))
    np.testing.assert_allclose(delta_e_2000(image, target), expected, atol=0.01)  # its matrix differs a little


def test_delta_e_is_the_mean_over_pixels_and_zero_for_equal_images(random_image):
    image, target = random_image(1, 3, 4, 6), random_image(1, 3, 4, 6, seed=1)
    half = torch.cat((image[..., :3], target[..., 3:]), -1)
    whole = delta_e_2000(image[..., 3:], target[..., 3:]).item()
    assert delta_e_2000(image, half).item() == pytest.approx(whole / 2) and whole > 1
    assert delta_e_2000(image, image) == 0


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "image, target, message",
    (
        ((1, 3, 161, 162), (1, 3, 162, 161), r"\(1, 3, 161, 162\).*\(1, 3, 162, 161\).*as many.*of the same size"),
        ((2, 3, 161, 161), (3, 3, 161, 161), "give as many targets as images, of the same size"),
        ((1, 1, 161, 161), (1, 1, 161, 161), "give RGB images"),
        ((1, 3, 161, 161), (1, 1, 161, 161), "give as many targets as images, of the same size"),
        ((1, 161, 161, 3), (1, 161, 161, 3), "give RGB images"),
        ((161, 161), (161, 161), "give RGB images"),
        ((0, 3, 161, 161), (0, 3, 161, 161), "not empty"),
        ((1, 3, 0, 161), (1, 3, 0, 161), "not empty"),
    ),
)
def test_images_that_cannot_be_compared_are_refused(name, image, target, message):
    with pytest.raises(UserError, match=message):
        FUNCTIONS[name](torch.zeros(image), torch.zeros(target))


@pytest.mark.parametrize(
    "measure, sides, message",
    (
        (ssim, (10, 300), "SSIM needs sides of at least 11 pixels, but the images are 10x300"),
        (ms_ssim, (300, 160), "MS-SSIM needs sides of at least 161 pixels, but the images are 300x160"),
    ),
)
def test_images_that_are_too_small_are_refused(measure, sides, message):
    with pytest.raises(UserError, match=message):
        measure(torch.zeros(1, 3, *sides), torch.zeros(1, 3, *sides))
    enough = [metrics.SSIM_MINIMUM if measure is ssim else metrics.MS_SSIM_MINIMUM] * 2
    assert measure(torch.zeros(1, 3, *enough), torch.zeros(1, 3, *enough)) == 1
