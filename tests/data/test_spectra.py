"""Spectral image formation: integrals by hand, the exact map between two cameras, and how much it depends on light."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data import spectra
from data.spectra import CAMERAS, LIGHTS, Lighting, matrices
from errors import UserError

ROOT = Path(__file__).resolve().parents[2]
HALF = np.full((3, 3), 0.5)


@pytest.fixture
def linear() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(10, 14, 3))


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


# --- image formation -------------------------------------------------------------------------------------------------


def test_the_integral_by_hand():
    sensitivities = np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.25]])  # two wavelengths
    light = np.array([2.0, 4.0])
    basis = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    expected = [
        [2 * 0.1 + 0.5 * 4 * 0.5, 2 * 0.2 + 0.5 * 4 * 0.3, 2 * 0.7 + 0.5 * 4 * 0.2],
        [4 * 0.5, 4 * 0.3, 4 * 0.2],
        [0.25 * 4 * 0.5, 0.25 * 4 * 0.3, 0.25 * 4 * 0.2],
    ]
    np.testing.assert_allclose(spectra.formation(sensitivities, light, basis), expected)


@pytest.mark.parametrize("camera, step", (("a", 5), ("b", 10)))
def test_a_patch_under_incandescent_light_is_the_sum_over_the_wavelengths_of_the_tables(camera, step):
    """Camera b is measured every 10 nm; under a smooth light, the sum over these wavelengths gives the same colours."""
    import colour
    from colour.recovery import MSDS_BASIS_FUNCTIONS_sRGB_MALLETT2019 as MALLETT

    rho, raw = np.array([0.2, 0.5, 0.1]), np.zeros(3)
    for wavelength in range(400, 681, step):
        reflectance = sum(rho[i] * MALLETT[wavelength][i] for i in range(3))
        for i in range(3):
            sensitivity = colour.MSDS_CAMERA_SENSITIVITIES[CAMERAS[camera]][wavelength][i]
            raw[i] += sensitivity * colour.SDS_ILLUMINANTS["A"][wavelength] * reflectance
    found = matrices("A")["ab".index(camera)] @ rho
    np.testing.assert_allclose(found / found[1], raw / raw[1], rtol=0.01)


def test_srgb_becomes_linear_by_hand():
    image = np.array([[0, 10, 255]], np.uint8)
    np.testing.assert_allclose(spectra.to_linear(image), [[0, 10 / 255 / 12.92, 1]])
    np.testing.assert_allclose(spectra.to_linear(np.array([0.5])), [0.21404114])


def test_white_in_daylight_has_the_same_green_in_both_cameras():
    white = matrices("D65") @ np.ones(3)
    assert white[0, 1] == pytest.approx(white[1, 1]) and 0.8 < white[0, 1] < 1


@pytest.mark.parametrize("light", LIGHTS)
def test_the_brightest_of_the_six_values_of_white_is_one(light, linear):
    assert (matrices(light) @ np.ones(3)).max() == pytest.approx(1)
    for raw in Lighting((light, "D65"), HALF).record(linear):
        assert raw.min() >= 0 and raw.max() <= 1


def test_the_colour_matrix_turns_the_white_of_daylight_into_the_cameras_white():
    white = np.array([0.95047, 1.0, 1.08883])  # XYZ
    for i, camera in enumerate(CAMERAS):
        np.testing.assert_allclose(spectra.color_matrix(camera) @ white, matrices("D65")[i] @ np.ones(3), rtol=1e-4)


def test_cached_matrices_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        matrices("A")[0] = 0


# --- the map from a to b ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", (False, True))
@pytest.mark.parametrize("exposures", ((1.0, 1.0), (2.0, 0.5)))
def test_the_transform_of_a_is_b(linear, mixed, exposures):
    for seed in range(4):
        drawn = Lighting.draw(np.random.default_rng(seed), mixed)
        lighting = Lighting(drawn.lights, drawn.nodes, exposures)
        raw_a, raw_b = lighting.record(linear)
        found = np.einsum("hwij,hwj->hwi", lighting.transform(linear.shape[:2]), raw_a)
        np.testing.assert_allclose(found, raw_b, atol=1e-9)


# Sampled every 10 nm, 400 to 680 nm, instead of every 5 nm: 3.9, 10.4, 7.9, 21.2 and 25.9 %.
@pytest.mark.parametrize(
    "light, change", (("A", 0.040), ("FL2", 0.105), ("FL11", 0.072), ("LED-RGB1", 0.206), ("HP1", 0.208))
)
def test_how_far_the_transform_under_a_light_is_from_that_in_daylight(light, change):
    daylight, other = (Lighting((name,), HALF).transform((1, 1)) for name in ("D65", light))
    assert distance(other, daylight) == pytest.approx(change, abs=0.001)


def test_under_one_light_the_transform_is_the_same_everywhere():
    found = Lighting.draw(np.random.default_rng(0), mixed=False).transform((6, 8))
    assert found.shape == (6, 8, 3, 3)
    np.testing.assert_allclose(found, np.broadcast_to(found[0, 0], found.shape), atol=1e-13)


def test_under_two_lights_the_transform_goes_smoothly_from_one_lights_to_the_others():
    nodes = np.array([[1.0, 0.5, 0.0]]).repeat(3, axis=0)  # the first light on the left
    found = Lighting(("D65", "HP1"), nodes).transform((4, 400))
    left, right = (Lighting((name,), HALF).transform((1, 1))[0, 0] for name in ("D65", "HP1"))
    assert distance(found[0, 0], left) < 1e-4 and distance(found[0, -1], right) < 1e-4
    np.testing.assert_array_equal(found[0], found[3])
    steps = np.linalg.norm(np.diff(found[0], axis=0), axis=(1, 2))
    assert distance(right, left) > 0.2 and steps.max() < 0.01 * np.linalg.norm(left)


def test_equal_shares_of_two_lights_by_hand(linear):
    """The sensor adds the light of both, so the matrices of the cameras are averaged, not the transforms."""
    lighting = Lighting(("A", "FL2"), HALF)
    a, b = (matrices("A") + matrices("FL2")) / 2
    np.testing.assert_allclose(lighting.transform((2, 3)), np.broadcast_to(b @ np.linalg.inv(a), (2, 3, 3, 3)))
    np.testing.assert_allclose(lighting.record(linear)[1], linear @ b.T)


def test_the_map_of_shares_by_hand():
    found = spectra.shares(np.array([[0.0, 0.0], [1.0, 1.0]]), (4, 2))
    smooth = [t * t * (3 - 2 * t) for t in (0.125, 0.375, 0.625, 0.875)]
    np.testing.assert_allclose(found, np.transpose([smooth, smooth]))
    nodes = np.random.default_rng(0).uniform(size=(3, 3))
    found = spectra.shares(nodes, (301, 301))
    assert nodes.min() <= found.min() and found.max() <= nodes.max()
    assert found[150, 150] == pytest.approx(nodes[1, 1])
    np.testing.assert_allclose(found[[0, 0, -1, -1], [0, -1, 0, -1]], nodes[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-3)


def test_lights_are_drawn_by_seed_and_every_light_occurs():
    drawn = [Lighting.draw(np.random.default_rng(seed), mixed=True) for seed in range(40)]
    assert all(len({*lighting.lights}) == 2 and np.ptp(lighting.nodes) > 0 for lighting in drawn)
    assert {name for lighting in drawn for name in lighting.lights} == set(LIGHTS)
    again = Lighting.draw(np.random.default_rng(7), mixed=True)
    assert again.lights == drawn[7].lights and (again.nodes == drawn[7].nodes).all()


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", (False, True))
def test_a_transform_is_read_as_it_was_written(tmp_path, mixed):
    drawn = Lighting.draw(np.random.default_rng(1), mixed)
    lighting = Lighting(drawn.lights, drawn.nodes, (1.5, 0.75))
    lighting.save(tmp_path / "0.npz", (12, 20))
    np.testing.assert_array_equal(spectra.load_transform(tmp_path / "0.npz"), lighting.transform((12, 20)))
    assert (tmp_path / "0.npz").stat().st_size < 4096


def test_a_file_that_holds_no_transform_is_refused(tmp_path):
    Lighting(("A",), HALF).save(tmp_path / "cut.npz", (4, 4))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    np.savez(tmp_path / "other.npz", image=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no transform")
    for name in ("cut.npz", "other.npz", "array.npy", "text.npz", "absent.npz"):
        with pytest.raises(UserError, match=name):
            spectra.load_transform(tmp_path / name)


def test_importing_reads_no_table():
    code = "import sys, data.simulate; assert 'colour' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_srgb_there_and_back():
    image = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(255 * spectra.to_srgb(spectra.to_linear(image)), image, atol=1e-3)
