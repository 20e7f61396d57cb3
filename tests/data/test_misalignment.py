"""Which pairs of a dataset are misaligned, and which cannot be judged."""

import cv2
import numpy as np
import pytest

from data.alignment import render
from data.demo import demo_boxes, demo_photographs
from data.misalignment import judge, misalignment
from data.sensor import SENSORS
from data.unprocess import Camera, expose, unprocess

SIDE, SHIFT, LARGEST = 128, 3.0, 1.2


@pytest.fixture(scope="module")
def verdicts() -> list[tuple[bool, str, bool]]:
    """(whether a pair was shifted, why it is said to be misaligned, whether it can be judged) of many patches."""
    camera, rng, found = Camera.random(0), np.random.default_rng(0), []
    for photo in (photo for name, photo in demo_photographs().items() if name != "retina.jpg"):
        for _, top, left in [box for box in demo_boxes(photo, SIDE) if box[0] == 1.0][::4]:
            patch = photo[top : top + SIDE, left : left + SIDE]
            rendered = render(expose(unprocess(patch, camera), camera, rng), SENSORS["fujifilm"])
            angle = rng.uniform(0, 2 * np.pi)
            matrix = np.float32([[1, 0, SHIFT * np.cos(angle)], [0, 1, SHIFT * np.sin(angle)]])
            shifted = cv2.warpAffine(
                patch, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
            )
            found += [
                (bad, *judge(misalignment(rendered, image), LARGEST))
                for bad, image in ((False, patch), (True, shifted))
            ]
    return found


def test_nearly_all_shifted_pairs_are_found_and_hardly_any_good_one(verdicts):
    shifted, good = ([why for bad, why, _ in verdicts if bad == wanted] for wanted in (True, False))
    assert len(good) >= 80
    assert np.mean([bool(why) for why in shifted]) >= 0.95
    assert np.mean([bool(why) for why in good]) <= 0.02


def test_a_shift_is_measured_in_pixels_and_another_scene_is_recognised():
    photo = demo_photographs()["coffee.png"]
    figures = misalignment(photo[100:228, 200:328], photo[104:232, 197:325])
    assert figures["shift"] == pytest.approx(5.0) and figures["ncc_shifted"] > 0.99 > figures["ncc"]
    assert judge(figures, LARGEST) == ("shifted", True) and judge(figures, 5.5)[0] != "shifted"
    other = misalignment(photo[100:228, 200:328], demo_photographs()["chelsea.png"][100:228, 200:328])
    assert judge(other, LARGEST) == ("shows something else", True)


def test_flat_pairs_cannot_be_judged():
    flat = np.random.default_rng(0).integers(100, 103, (64, 64, 3), np.uint8)
    assert judge(misalignment(flat, flat[::-1].copy()), LARGEST) == ("", False)
