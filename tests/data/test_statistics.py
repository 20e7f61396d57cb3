"""A rendering fitted to statistics: it recovers known ones, and depends less on the scenes than optimal transport."""

import numpy as np
import pytest
import torch

from data.statistics import CENTRE, GAMMA, SIDE, carry, fit_rendering, independent, render, statistics, thumbnail
from data.transport import ROUNDS, fit_color_map, transport
from errors import UserError

TRUE = torch.tensor([0.9, 0.3, 0.5, -0.2, -0.1, -0.15, -0.2, -0.1, -0.2, -0.6, 0.2], dtype=torch.float64)


def camera_images(count: int, seed: int, brightness: float = 0.0) -> list[torch.Tensor]:
    """Thumbnails of camera colours: coarse coloured noise, whose brightness varies from image to image."""
    random, images = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        coarse = torch.rand(1, 3, 6, 6, generator=random) * 0.5 + torch.rand(1, 1, 6, 6, generator=random) * 0.5
        image = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0].permute(1, 2, 0)
        images.append((image.double() * 2 ** (brightness + 0.6 * torch.randn(1, generator=random))).clamp(0, 1) * 0.8)
    return images


def rendered(images: list[torch.Tensor]) -> list[torch.Tensor]:
    return [render(TRUE, image).clamp(0, 1) for image in images]


def test_by_hand():
    colors = torch.tensor([[0.2, 0.4, 0.6]], dtype=torch.float64)
    plain = torch.zeros(11, dtype=torch.float64)
    torch.testing.assert_close(render(plain, colors), colors)
    stops = torch.tensor([1.0, 0.0, -1.0] + [0.0] * 8, dtype=torch.float64)
    torch.testing.assert_close(
        render(stops, colors), colors * torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64) ** (1 / GAMMA)
    )
    mixed = torch.tensor([0.0] * 3 + [-0.5, 0.0] + [0.0] * 6, dtype=torch.float64)
    red = (1.5 * 0.2**GAMMA - 0.5 * 0.4**GAMMA, 0.0)
    assert render(mixed, colors)[0, 0].item() == pytest.approx(max(red[0], 1e-4) ** (1 / GAMMA), rel=1e-5)
    lifted = torch.tensor([0.0] * 10 + [0.5], dtype=torch.float64)
    torch.testing.assert_close(render(lifted, colors), colors + 0.5 * colors * (1 - colors))


def test_grey_stays_grey_and_black_and_white_stay_where_they_are():
    matrix_and_tone = torch.cat((torch.zeros(3, dtype=torch.float64), TRUE[3:]))
    for grey in (0.0, 0.5, 1.0):
        out = render(matrix_and_tone, torch.full((1, 3), grey, dtype=torch.float64))
        assert (out - out[0, 0]).abs().max() < 1e-5
        assert grey == 0.5 or out[0, 0].item() == pytest.approx(grey, abs=0.03)


def error(carried: np.ndarray, images: list[torch.Tensor]) -> float:
    colors = torch.stack(images).reshape(-1, 3)
    return float(np.abs(carried.clip(0, 1) - render(TRUE, colors).clamp(0, 1).numpy()).mean())


def test_the_rendering_of_the_same_scenes_is_found():
    images = camera_images(60, seed=0)
    parameters = fit_rendering(images, rendered(images))
    assert error(carry(parameters, torch.stack(images).reshape(-1, 3).double().numpy()), images) < 0.02


def test_other_scenes_mislead_it_less_than_optimal_transport():
    """The photographs show brighter scenes than the mosaics do: transport brightens all images for that."""
    images, others = camera_images(60, seed=0), camera_images(60, seed=1, brightness=0.5)
    colors, wanted = (torch.stack(side).reshape(-1, 3).double().numpy() for side in (images, rendered(others)))
    ours = error(carry(fit_rendering(images, rendered(others)), colors), images)
    theirs = error(transport(colors, wanted, ROUNDS, np.random.default_rng(0)), images)
    assert ours < 0.75 * theirs


def test_the_rendering_does_not_depend_on_the_number_of_threads():
    images, others, threads = camera_images(60, seed=0), rendered(camera_images(60, seed=1)), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(fit_rendering(images, others))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


def test_a_colour_map_is_fitted_to_the_rendering():
    images = camera_images(20, seed=0)
    colors = torch.stack(images).reshape(-1, 3).double().numpy()
    photographs = torch.stack(rendered(images)).reshape(-1, 3).double().numpy()
    fitted = fit_color_map(colors, photographs, carry=lambda points: carry(TRUE, points))
    assert np.abs(fitted.of_pixels(colors).clip(0, 1) - photographs).mean() < 0.01


@pytest.mark.parametrize("value", (0.0, 0.5, 1.0))
def test_constant_images_end_with_a_sentence_or_a_finite_rendering(value):
    constant, others = [torch.full((SIDE, SIDE, 3), value)] * 12, rendered(camera_images(12, seed=1))
    try:
        assert fit_rendering(constant, others).isfinite().all()
    except UserError as sentence:
        assert "no rendering fits" in str(sentence)


# --- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_of_a_plain_image_by_hand():
    found = statistics(torch.tensor([0.2, 0.5, 0.6]).expand(1, 100, 3))[0]
    mean = 1.3 / 3
    expected = [mean] * 7 + [-0.3, 0.1] * 3 + [0.2, 0.5, 0.6] * 2 + [0.0] * 3
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_parts_of_one_picture_count_as_few_images():
    rows = torch.randn(64, 22, generator=torch.Generator().manual_seed(0))
    assert independent(rows) == pytest.approx(64, rel=0.15)
    quarters = rows[:16].repeat_interleave(4, 0)
    assert 10 < independent(quarters) < 32
    assert independent(rows[:1]) == 1


def test_a_thumbnail_has_the_means_of_its_image():
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    small = thumbnail(image)
    assert small.shape == (SIDE, SIDE, 3)
    torch.testing.assert_close(small.mean((0, 1)), image[0].mean((1, 2)))
    assert CENTRE.shape == TRUE.shape
