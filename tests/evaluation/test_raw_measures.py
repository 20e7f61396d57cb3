"""Measures of planes: by hand, by scikit-image, by plain loops."""

import math

import numpy as np
import pytest
import torch

from errors import UserError
from evaluation.raw_measures import RAW_MEASURES, angle, directed, file_by_file, kl, mae, mean_colour, psnr, ssim

FUNCTIONS = {"psnr": psnr, "ssim": ssim, "mae": mae, "kl": kl, "angle": angle}


def flat(*values: float, side: int = 12) -> torch.Tensor:
    """Planes of one value each, (1, C, side, side)."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1).expand(1, -1, side, side).clone()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    """Dark planes with structure and little noise, as of a mosaic."""
    coarse = torch.nn.functional.interpolate(noise(*shape[:2], 6, 5, seed=seed), shape[2:], mode="bicubic")
    return (0.3 * coarse + 0.02 * noise(*shape, seed=seed + 1)).clamp(0, 1)


def test_the_table_of_measures():
    assert {name: measure.function for name, measure in RAW_MEASURES.items()} == FUNCTIONS
    assert [name for name, measure in RAW_MEASURES.items() if measure.higher_is_better] == ["psnr", "ssim"]
    assert all(measure.of_floats for measure in RAW_MEASURES.values())


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_psnr_and_mae_by_hand():
    """An error of 0.1 in one of four planes: MSE 0.01 / 4, MAE 0.1 / 4."""
    planes, truth = flat(0.6, 0.2, 0.3, 0.4), flat(0.5, 0.2, 0.3, 0.4)
    assert psnr(planes, truth).item() == pytest.approx(20 + 10 * math.log10(4), abs=1e-5)
    assert mae(planes, truth).item() == pytest.approx(0.025, abs=1e-8)
    assert psnr(truth, truth).item() == math.inf and mae(truth, truth).item() == 0


def test_steps_smaller_than_8_bits_count():
    """The released code truncates mosaics to 8 bits, which makes these two equal."""
    planes, truth = flat(0.5, 0.5, 0.5, 0.5), flat(*[0.5 + 1e-4] * 4)
    assert psnr(planes, truth).item() == pytest.approx(80, abs=0.02)
    assert mae(planes, truth).item() == pytest.approx(1e-4, rel=1e-3)


def test_kl_of_two_bins_by_hand():
    """Half of the pixels in bin 0 and half in bin 255, against a quarter and three quarters; eps is negligible."""
    planes, truth = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    planes[..., :2], truth[..., :3] = 1, 1
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    expected += 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert kl(planes, truth).item() == pytest.approx(expected, abs=1e-6)
    assert kl(planes, truth.flip(-1)).item() == kl(planes, truth).item()  # not where the colours are


def test_kl_of_disjoint_histograms_is_bounded_by_eps():
    assert kl(flat(0, 0, 0, 0), flat(1, 1, 1, 1)).item() == pytest.approx(2 * math.log(1 + 1e7), rel=1e-9)


def test_kl_takes_the_mean_over_channels():
    one = kl(flat(0.0, 0.5, 0.5, 0.5), flat(1.0, 0.5, 0.5, 0.5)).item()
    assert one == pytest.approx(kl(flat(0, 0, 0, 0), flat(1, 1, 1, 1)).item() / 4)


def test_bins_of_kl_are_truncated():
    assert kl(flat(*[9.0 / 255] * 4), flat(*[9.99 / 255] * 4)).item() == 0
    assert kl(flat(*[9.99 / 255] * 4), flat(*[10.01 / 255] * 4)).item() > 1


def test_kl_equals_a_plain_loop():
    planes, truth = smooth(2, 4, 20, 30), smooth(2, 4, 20, 30, seed=5)
    for scored, x, y in zip(kl(planes, truth), planes, truth, strict=True):
        total = 0
        for i in range(4):
            p, q = (np.histogram(np.floor(z[i].numpy() * 255), 256, (0, 256))[0] / 600 for z in (x, y))
            total += sum(a * math.log((a + 1e-7) / (b + 1e-7)) for a, b in zip(p, q, strict=True))
            total += sum(b * math.log((b + 1e-7) / (a + 1e-7)) for a, b in zip(p, q, strict=True))
        assert scored.item() == pytest.approx(total / 4, rel=1e-9)


def test_angle_by_hand():
    red, yellow = flat(0.5, 0.0, 0.0, 0.0), flat(0.5, 0.25, 0.75, 0.0)  # the greens' mean is 0.5
    assert angle(red, yellow).item() == pytest.approx(45, abs=1e-5)
    assert angle(red, flat(0, 0, 0, 0.3)).item() == pytest.approx(90)
    assert angle(yellow, yellow / 3).item() == pytest.approx(0, abs=1e-5)  # brightness does not count
    assert angle(flat(1.0, 0.0, 0.0), flat(1.0, 1.0, 0.0)).item() == pytest.approx(45)
    assert math.isnan(angle(red, 0 * red).item())


def test_the_mean_colour_of_three_and_of_four_planes():
    assert mean_colour(flat(0.1, 0.2, 0.4, 0.5)[0]).tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert mean_colour(flat(0.1, 0.2, 0.5)[0]).tolist() == pytest.approx([0.1, 0.2, 0.5])


# --- SSIM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels, size", ((4, (40, 33)), (3, (11, 50)), (4, (11, 11))))
def test_ssim_equals_scikit_image_s(channels, size):
    similarity = pytest.importorskip("skimage.metrics").structural_similarity
    planes, truth = smooth(2, channels, *size), smooth(2, channels, *size, seed=3)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    pairs = zip(planes.double().numpy(), truth.double().numpy(), strict=True)
    expected = [similarity(x, y, channel_axis=0, **options) for x, y in pairs]
    assert ssim(planes, truth).tolist() == pytest.approx(expected, abs=1e-5)
    assert max(expected) < 0.95


def test_ssim_is_of_floats():
    """A texture finer than a step of 8 bits, of which nothing would be left."""
    texture = 0.2 + 0.003 * noise(1, 4, 24, 24)
    assert ssim(texture, texture).item() == pytest.approx(1, abs=1e-6)
    assert ssim(texture, texture.mean((2, 3), keepdim=True).expand_as(texture)).item() < 1 - 1e-4


def test_planes_too_small_for_ssim_are_refused():
    with pytest.raises(UserError, match="SSIM needs sides of at least 11 pixels, but the images are 10x12"):
        ssim(noise(1, 4, 10, 12), noise(1, 4, 10, 12))


# --- of every measure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_file_has_its_own_score_of_clipped_planes(name):
    planes, truth = 1.4 * noise(3, 4, 12, 14) - 0.2, 1.4 * noise(3, 4, 12, 14, seed=1) - 0.2
    before = planes.clone()
    scores = FUNCTIONS[name](planes.requires_grad_(), truth)
    assert scores.shape == (3,) and scores.dtype == torch.float64 and not scores.requires_grad
    assert torch.equal(planes, before) and scores.unique().numel() == 3
    assert torch.equal(scores, FUNCTIONS[name](planes.clamp(0, 1), truth.clamp(0, 1)))
    alone = [FUNCTIONS[name](x[None], y[None]).item() for x, y in zip(planes, truth, strict=True)]
    assert scores.tolist() == alone


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", (math.nan, math.inf))
def test_planes_that_are_not_finite_have_no_score(name, value):
    planes, truth = noise(2, 4, 12, 14), noise(2, 4, 12, 14, seed=1)
    planes[0, 2, 5, 5] = value
    first, second = FUNCTIONS[name](planes, truth).tolist()
    assert math.isnan(first) and math.isfinite(second)


@pytest.mark.parametrize(
    "shapes",
    (
        ((1, 4, 12, 12), (1, 4, 12, 14)),
        ((2, 4, 12, 12), (1, 4, 12, 12)),
        ((4, 12, 12), (4, 12, 12)),
        ((1, 1, 12, 12), (1, 1, 12, 12)),
        ((0, 4, 12, 12), (0, 4, 12, 12)),
    ),
)
def test_shapes_that_cannot_be_compared_are_refused(shapes):
    for function in FUNCTIONS.values():
        with pytest.raises(UserError, match=r"cannot compare planes of shape \(.*of the same size and not empty"):
            function(*(torch.zeros(shape) for shape in shapes))


def test_a_user_s_measure_is_extended_to_batches():
    @file_by_file
    def brightest(planes, truth):
        return planes.max() - truth.max()

    assert brightest(flat(2.0, 0, 0, 0), flat(0.5, 0, 0, 0)).tolist() == [0.5]


def test_columns_of_each_direction():
    columns = directed({"kl": RAW_MEASURES["kl"], "psnr": RAW_MEASURES["psnr"]})
    assert list(columns) == ["kl", "kl_ab", "kl_ba", "psnr", "psnr_ab", "psnr_ba"]
    assert columns["kl_ba"].function is kl and columns["kl_ba"].label == "KL divergence b->a"
