"""Known warps through the simulated camera are found again, to the bounds that docs/alignment.md names."""

import cv2
import numpy as np
import pytest

import data.alignment
from data.alignment import NotAligned, Options, align, render
from data.demo import demo_photographs
from data.files import read_mosaic
from data.local_motion import compose
from data.photographs import read_photo
from data.sensor import Sensor
from errors import UserError


@pytest.fixture
def benchmark(load):
    return load("alignment")


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    return demo_photographs()


@pytest.mark.parametrize("name", ("chelsea.png", "astronaut.png"))
def test_a_homography_is_found_and_not_refined_to_death(benchmark, photos, name):
    mosaic, sensor, truth = benchmark.shot(photos[name], seed=1)
    found = align(render(mosaic, sensor), photos[name], Options())
    assert benchmark.errors(found.map, truth)[0] <= 0.08
    assert found.figures["local_share"] < 0.1  # refining locally could only harm
    assert found.figures["ncc"] > 0.98 and found.figures["flow_median"] < 0.3 and 0.8 < found.mask.mean() < 1


def test_a_smooth_local_warp_is_found_where_a_homography_cannot_follow(benchmark, photos):
    mosaic, sensor, truth = benchmark.shot(photos["coffee.png"], seed=2, local=2.0)
    rendered = render(mosaic, sensor)
    found = align(rendered, photos["coffee.png"], Options())
    mean, _, most = benchmark.errors(found.map, truth)
    assert mean <= 0.3 and most <= 0.7 and found.figures["local_share"] > 0.5
    without = align(rendered, photos["coffee.png"], Options(local="off"))
    assert benchmark.errors(without.map, truth)[0] > 0.4 and "local_share" not in without.figures


def test_identity_stays_identity_and_twice_is_the_same(benchmark, photos):
    mosaic, sensor, truth = benchmark.shot(photos["chelsea.png"], seed=0, corners=0)
    rendered = render(mosaic, sensor)
    found, again = (align(rendered, photos["chelsea.png"], Options()) for _ in range(2))
    assert benchmark.errors(found.map, truth)[0] <= 0.05
    assert np.array_equal(found.map, again.map) and np.array_equal(found.mask, again.mask)
    warped, exact = found.warp(photos["chelsea.png"]), photos["chelsea.png"][: mosaic.shape[0], : mosaic.shape[1]]
    assert warped.shape == exact.shape and warped.dtype == np.uint8
    assert np.abs(warped.astype(int) - exact)[8:-8, 8:-8].mean() < 1


def test_an_occluded_area_is_masked_and_little_else(benchmark, photos):
    photo = photos["coffee.png"].copy()
    mosaic, sensor, truth = benchmark.shot(photo, seed=3, corners=6)
    photo[120:200, 220:320] = photo[300:380, 420:520][::-1]
    found = align(render(mosaic, sensor), photo, Options())
    x, y = np.moveaxis(truth, -1, 0)
    occluded = (y > 123) & (y < 197) & (x > 223) & (x < 317)
    near = (y > 90) & (y < 230) & (x > 190) & (x < 350)
    inside = (y > 8) & (y < photo.shape[0] - 8) & (x > 8) & (x < photo.shape[1] - 8)
    assert (~found.mask[occluded]).mean() > 0.9
    assert found.mask[inside & ~near].mean() > 0.9


def test_pictures_of_two_scenes_and_pictures_of_nothing_are_refused(benchmark, photos):
    mosaic, sensor, _ = benchmark.shot(photos["chelsea.png"], seed=0)
    rendered, nothing = render(mosaic, sensor), np.zeros((200, 300, 3), np.uint8)
    for first, second in ((rendered, photos["coffee.png"]), (rendered, nothing), (nothing + 128, photos["coffee.png"])):
        with pytest.raises(NotAligned, match="features of the two pictures fit together.* not show the same scene"):
            align(first, second, Options())
    with pytest.raises(NotAligned, match="less than 32 pixels"):
        align(rendered[:30], photos["chelsea.png"], Options())


def test_a_homography_that_no_camera_could_see_is_refused(monkeypatch):
    mirrored, places = np.diag([-1.0, 1, 1]), np.random.default_rng(0).uniform(0, 99, (60, 2))
    monkeypatch.setattr(data.alignment, "features", lambda image: (places, np.zeros((60, 128))))
    monkeypatch.setattr(data.alignment, "matches", lambda *_: np.stack((np.arange(60), np.arange(60)), -1))
    monkeypatch.setattr(data.alignment, "fit_homography", lambda *_: (mirrored, np.ones(60, bool)))
    with pytest.raises(NotAligned, match="would mirror"):
        align(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), Options())


def test_a_larger_turned_photograph_is_brought_into_the_pixels_of_the_mosaic(benchmark, photos):
    small = photos["astronaut.png"]
    mosaic, sensor, _ = benchmark.shot(small, seed=4, corners=0)
    photo = np.rot90(cv2.resize(small, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)).copy()
    found = align(render(mosaic, sensor), photo, Options())
    assert found.scale == pytest.approx(1.5, rel=0.01)
    x, y = np.meshgrid(np.arange(512), np.arange(512))
    expected = np.stack((1.5 * (y + 0.5) - 0.5, 767 - (1.5 * (x + 0.5) - 0.5)), -1)
    assert np.linalg.norm(found.map - expected, axis=-1).mean() < 0.15
    assert np.abs(found.warp(photo).astype(int) - small)[8:-8, 8:-8].mean() < 3


@pytest.mark.parametrize("name", ("1082_3", "2044_8", "3049_8", "5300_5"))
def test_real_pairs_are_brought_back_after_they_were_moved(real, name):
    sensor, photo = Sensor("rggb", (0.0,) * 4, 4095.0), read_photo(real("rhid_pairs", "rgb", f"{name}.png"))
    rendered = render(read_mosaic(real("rhid_pairs", "raw", f"{name}.raw"), sensor, (512, 512)), sensor)
    matrix = np.vstack((cv2.getRotationMatrix2D((255.5, 255.5), 2, 1.1), (0, 0, 1)))
    matrix[:2, 2] += (5, -7)
    moved = cv2.warpPerspective(photo, matrix, (512, 512), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    before, after = (align(rendered, image, Options()) for image in (photo, moved))
    distance = np.linalg.norm(cv2.perspectiveTransform(before.map, matrix) - after.map, axis=-1)
    assert distance[before.mask & after.mask].mean() < 0.3


# --- the rendering ---------------------------------------------------------------------------------------------------


def test_rendering_makes_grey_grey_and_saturation_white():
    sensor = Sensor("grbg", (60.0, 62.0, 64.0, 66.0), 1023.0)
    mosaic = np.empty((32, 32), np.uint16)
    for (row, column), value in {(0, 0): 262, (0, 1): 160, (1, 0): 130, (1, 1): 264}.items():
        mosaic[row::2, column::2] = value
    mosaic[8:16, 8:16] = 1023
    picture = render(mosaic, sensor)
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
    assert (picture[10:14, 10:14] == 255).all()
    flat = render(np.where(mosaic == 1023, np.roll(mosaic, 16, 1), mosaic), sensor)[4:-4, 4:-4]
    assert np.ptp(flat.reshape(-1, 3).astype(int), axis=1).max() <= 2  # grey
    assert not render(np.full((8, 8), 60, np.uint16), Sensor("rggb", (60.0,) * 4, 1023.0)).any()  # black


@pytest.mark.parametrize("wrong", ({"ratio": 0}, {"inliers": 3}, {"ncc": 1.5}, {"flow": 0.0}, {"local": "some"}))
def test_impossible_thresholds_are_refused(wrong):
    with pytest.raises(UserError, match=f"alignment: .*{next(iter(wrong))}"):
        Options(**wrong)


def test_composition_moves_by_the_field_first_and_by_the_homography_then():
    field = np.zeros((2, 3, 2), np.float32) + np.float32([1.5, -0.5])
    places = compose(np.diag([2.0, 3.0, 1.0]), field, (32, 48))
    assert np.allclose(places[10, 20], (2 * 21.5, 3 * 9.5), atol=1e-4)
