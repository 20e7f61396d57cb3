"""Maps between two cameras that are fitted without pairs: known maps are found, bad input is refused."""

import json

import pytest
import torch

from data.raw_maps import (
    METHODS,
    LightMap,
    LinearMap,
    chromaticity,
    colors_of,
    fit_raw_map,
    from_dict,
    light_of,
    mix,
    thumbnail,
    to_dict,
)
from data.raw_statistics import fit_lights, matrix_of, moments, solve_transport
from errors import UserError

TRUE = torch.tensor([[0.6, 0.3, 0.05], [0.25, 0.7, 0.0], [0.05, 0.3, 0.55]], dtype=torch.float64)
DOUBLE = {"dtype": torch.float64}


def pictures(count: int, seed: int, brightness: float = 0.0) -> torch.Tensor:
    """Thumbnails (N, 4, 16, 16) of scenes of skewed colours (few are saturated), whose brightness and light vary."""
    random, scenes = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        coarse = torch.rand(1, 3, 8, 8, generator=random, **DOUBLE) ** 2
        grey = torch.rand(1, 1, 8, 8, generator=random, **DOUBLE)
        scene = torch.nn.functional.interpolate(0.6 * coarse + 0.4 * grey, (16, 16), mode="bilinear")
        light = (0.15 * torch.randn(3, generator=random, **DOUBLE)).exp().view(3, 1, 1)
        scenes.append(scene * light * 0.5 * 2 ** (brightness + 0.5 * torch.randn(1, generator=random, **DOUBLE)))
    return torch.cat(scenes)[:, [0, 1, 1, 2]].clamp(0, 1)


def by_camera_b(planes: torch.Tensor) -> torch.Tensor:
    return mix(planes, TRUE.expand(len(planes), 3, 3)).clamp(0, 1)


def error(fitted, planes: torch.Tensor) -> float:
    return float((fitted(planes).clamp(0, 1) - by_camera_b(planes)).square().mean().sqrt())


@pytest.fixture(scope="module")
def sides() -> tuple[torch.Tensor, torch.Tensor]:
    """Camera a's pictures, and camera b's of other scenes."""
    return pictures(60, seed=0), by_camera_b(pictures(60, seed=1))


# --- maps ------------------------------------------------------------------------------------------------------------


def test_a_linear_map_by_hand():
    planes = torch.tensor([0.1, 0.2, 0.4, 0.5]).view(1, 4, 1, 1)
    fitted = LinearMap(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0)), (0.01, 0.02, 0.03))
    expected = [0.1 + 0.6 + 1.5 + 0.01, 0.4 + 1.0 + 3.0 + 0.02, 0.4 + 2.0 + 3.0 + 0.02, 0.7 + 2.4 + 4.5 + 0.03]
    torch.testing.assert_close(fitted(planes).flatten(), torch.tensor(expected))


def test_the_mean_of_the_greens_is_that_of_the_matrix_and_their_difference_stays():
    planes, matrix = torch.rand(2, 4, 6, 8, **DOUBLE), TRUE.expand(2, 3, 3)
    mixed = mix(planes, matrix)
    colors = torch.stack((planes[:, 0], planes[:, 1:3].mean(1), planes[:, 3]), dim=1)
    torch.testing.assert_close(mixed[:, 1:3].mean(1), torch.einsum("gc,nchw->nghw", TRUE, colors)[:, 1])
    torch.testing.assert_close(mixed[:, 1] - mixed[:, 2], TRUE[1, 1] * (planes[:, 1] - planes[:, 2]))
    assert torch.equal(LinearMap()(planes.float()), planes.float())


@pytest.mark.parametrize("method", METHODS)
def test_three_planes_are_mapped_as_four_with_equal_greens(sides, method):
    four = tuple(side[:20] for side in sides)
    three = tuple(side[:, [0, 1, 3]] for side in four)
    fitted = fit_raw_map(method, *three)
    assert fitted == fit_raw_map(method, *four)
    torch.testing.assert_close(fitted(three[0]), fitted(four[0])[:, [0, 1, 3]])


def test_the_matrix_of_three_planes_is_the_map_s():
    matrix = ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0))
    assert LinearMap(matrix).of_planes(3).tolist() == [list(row) for row in matrix]


def test_a_light_map_carries_the_mean_colour_by_hand():
    """Twice as red as camera a's usual light becomes four times as red as camera b's."""
    fitted = LightMap(
        ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.0, 0.0), (0.5, -0.5), ((2.0, 0.0), (0.0, 1.0)), 0.5
    )
    planes = torch.tensor([0.4, 0.2, 0.2, 0.2]).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    expected = torch.tensor([0.1 * 4 * torch.e**0.5, 0.1, 0.1, 0.1 * torch.e**-0.5])
    torch.testing.assert_close(fitted(planes)[0, :, 0, 0], expected)


def test_each_picture_of_a_batch_has_its_own_light(sides):
    fitted, planes = fit_raw_map("light", *sides), pictures(3, seed=5)
    torch.testing.assert_close(fitted(planes), torch.cat([fitted(planes[i : i + 1]) for i in range(3)]))


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_after_it_was_written(sides, method):
    fitted = fit_raw_map(method, *sides)
    again = from_dict(json.loads(json.dumps(to_dict(fitted))), "x")
    assert again == fitted and again(sides[0]).isfinite().all() and again(sides[0]).shape == sides[0].shape


@pytest.mark.parametrize(
    "content",
    (
        None,
        [],
        {},
        {"kind": "other"},
        {"kind": "linear", "matrix": [[1, 2], [3, 4]]},
        {"kind": "linear", "matrix": "x"},
        {"kind": "linear", "matrix": [[1e400] * 3] * 3},
        {"kind": "light", "matrix": [[1, 0, 0]] * 3},
        {"kind": "linear", "gain": 1},
    ),
)
def test_what_is_no_map_is_refused_by_name(content):
    with pytest.raises(UserError, match="x.json holds no map of colours: write it with map_raw.py --save"):
        from_dict(content, "x.json")


# --- fits ------------------------------------------------------------------------------------------------------------


def test_gains_match_the_means(sides):
    fitted = fit_raw_map("gains", *sides)
    torch.testing.assert_close(
        colors_of(fitted(sides[0])).mean((0, 1)), colors_of(sides[1]).mean((0, 1)), rtol=1e-4, atol=0
    )
    matrix = torch.tensor(fitted.matrix)
    assert torch.equal(matrix, matrix.diag().diag()) and fitted.offset == (0, 0, 0)


def test_transport_matches_second_moments_by_a_symmetric_positive_matrix(sides):
    fitted = fit_raw_map("transport", *sides)
    a, b = (colors_of(side).flatten(0, 1) for side in (fitted(sides[0]), sides[1]))
    torch.testing.assert_close(a.T @ a, b.T @ b, rtol=1e-4, atol=0)
    matrix = torch.tensor(fitted.matrix)
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0 and fitted.offset == (0, 0, 0)


def test_transport_of_diagonal_moments_by_hand():
    found = solve_transport(torch.tensor([4.0, 1.0]).diag(), torch.tensor([1.0, 9.0]).diag())
    torch.testing.assert_close(found, torch.tensor([0.5, 3.0]).diag())


def test_affine_matches_means_and_covariances(sides):
    fitted = fit_raw_map("affine", *sides)
    a, b = (colors_of(side).flatten(0, 1) for side in (fitted(sides[0]), sides[1]))
    torch.testing.assert_close(a.mean(0), b.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.cov(a.T), torch.cov(b.T), rtol=1e-3, atol=1e-6)


def test_statistics_find_the_matrix_of_the_same_scenes():
    planes = pictures(60, seed=0)
    found = torch.tensor(fit_raw_map("statistics", planes, by_camera_b(planes.flip(3) * 0.9999)).matrix)
    torch.testing.assert_close(found, TRUE.float(), atol=0.04, rtol=0)


@pytest.mark.parametrize(("count", "share"), ((60, 0.7), (24, 0.9)))
def test_statistics_of_other_scenes_are_nearer_to_the_truth_than_transport(count, share):
    """Transport takes each difference for the camera's, and finds symmetric maps only. The mean of three draws."""
    errors = dict.fromkeys(("statistics", "transport"), 0.0)
    for seed in range(3):
        planes, others = pictures(count, 2 * seed), by_camera_b(pictures(count, 2 * seed + 1))
        for method in errors:
            errors[method] += error(fit_raw_map(method, planes, others), planes)
    assert errors["statistics"] < share * errors["transport"]


def test_exchanging_the_sides_inverts_what_statistics_find(sides):
    there, back = (torch.tensor(fit_raw_map("statistics", *pair).matrix) for pair in (sides, sides[::-1]))
    torch.testing.assert_close(there @ back, torch.eye(3), atol=0.02, rtol=0)


def test_a_light_map_gives_each_picture_the_light_of_b(sides):
    fitted = fit_raw_map("light", *sides)
    lights = [chromaticity(light_of(colors_of(planes))) for planes in (fitted(sides[0]), sides[1])]
    torch.testing.assert_close(lights[0].mean(0), lights[1].mean(0), atol=0.02, rtol=0)
    assert 0.5 < float(lights[0].std() / lights[1].std()) < 2


def test_lights_of_few_pictures_are_taken_as_alike():
    """A difference of covariances counts fully for many pictures, hardly for two."""
    generator = torch.Generator().manual_seed(0)
    narrow, wide = (scale * torch.randn(2000, 2, generator=generator, **DOUBLE) for scale in (0.1, 0.3))
    *_, many = fit_lights(narrow, wide)
    *_, few = fit_lights(narrow[:2], wide[:2])
    assert many.diagonal().mean() == pytest.approx(3, rel=0.05)
    shares = [float(torch.cov(side[:2].T, correction=0).trace()) for side in (narrow, wide)]
    assert few.trace() / 2 < 1.6 and shares[0] != shares[1]


def test_maps_do_not_depend_on_the_number_of_threads(sides):
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append([fit_raw_map(method, *(side[:10] for side in sides)) for method in METHODS])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_bad_pictures_get_a_sentence(sides, method):
    a, b = sides
    with pytest.raises(UserError, match="camera b has 1 pictures, but a map needs at least 2: add some"):
        fit_raw_map(method, a, b[:1])
    with pytest.raises(UserError, match="camera a has 1 pictures"):
        fit_raw_map(method, b, a[:1], names=("b", "a"))
    with pytest.raises(UserError, match="a colour of camera a's pictures has the same value everywhere"):
        fit_raw_map(method, torch.full((3, 4, 16, 16), 0.5), b)
    with pytest.raises(UserError, match="cameras a and b have a picture in common"):
        fit_raw_map(method, a, torch.cat((b, a[3:4])))


def test_grey_pictures_have_gains_only(sides):
    grey = sides[0][:, :1].expand(-1, 4, -1, -1)
    fit_raw_map("gains", grey, sides[1])
    for method in METHODS.keys() - {"identity", "gains"}:
        with pytest.raises(UserError, match="camera a has grey pictures only .*use --method gains"):
            fit_raw_map(method, grey, sides[1])


def test_an_unknown_method_names_the_known_ones(sides):
    with pytest.raises(UserError, match="unknown method 'x'; known are: identity, gains, transport"):
        fit_raw_map("x", *sides)


# --- statistics ------------------------------------------------------------------------------------------------------


def test_moments_are_hermite_polynomials_by_hand():
    colors = torch.tensor([[[1.0, 2.0, 3.0]]], **DOUBLE)
    found = moments(colors, torch.zeros(3, **DOUBLE), torch.eye(3, **DOUBLE))[0].tolist()
    expected = [1, 2, 3]  # x
    expected += [0, -2, 0, 0]  # x^2 - 1; x^3 - 3x, (x^2 - 1)y, (x^2 - 1)z
    expected += [2, 3, 6]  # xy; x(y^2 - 1), xyz
    expected += [3, 8]  # xz; x(z^2 - 1)
    expected += [3, 2, 9]  # y^2 - 1; y^3 - 3y, (y^2 - 1)z
    expected += [6, 16]  # yz; y(z^2 - 1)
    expected += [8, 18]  # z^2 - 1; z^3 - 3z
    assert found == expected


def test_moments_of_normal_colours_vanish():
    normal = torch.randn(1, 200_000, 3, generator=torch.Generator().manual_seed(0), **DOUBLE)
    assert moments(normal, torch.zeros(3, **DOUBLE), torch.eye(3, **DOUBLE)).abs().max() < 0.03


def test_rows_of_the_matrix_sum_to_one():
    matrix = matrix_of(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], **DOUBLE))
    torch.testing.assert_close(matrix.sum(1), torch.ones(3, **DOUBLE))
    assert matrix[0].tolist() == pytest.approx([0.7, 0.1, 0.2]) and matrix[2, 1].item() == pytest.approx(0.6)


def test_a_thumbnail_has_the_means_of_its_planes():
    planes = torch.rand(1, 4, 96, 128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(thumbnail(planes).mean((2, 3)), planes.mean((2, 3)))
