"""Cutting patches from photographs, against values worked out by hand."""

import numpy as np
import pytest

from data import cuts
from data.unprocess import Camera
from errors import UserError


def test_the_grid_holds_every_position_that_fits_at_every_scale():
    assert cuts.grid((8, 12), 4, 4, (1.0, 0.5)) == [
        *((1.0, top, left) for top in (0, 4) for left in (0, 4, 8)),
        *((0.5, 0, left) for left in (0,)),
    ]
    assert cuts.grid((7, 7), 4, 2, (1.0,)) == [(1.0, 0, 0), (1.0, 0, 2), (1.0, 2, 0), (1.0, 2, 2)]
    assert cuts.grid((3, 9), 4, 1, (1.0,)) == []


def test_shrinking_averages_areas():
    photo = np.array([[[0], [4], [10]], [[8], [12], [10]]], np.uint8).repeat(3, axis=2).repeat(2, axis=1)
    assert cuts.shrink(photo, 1) is photo
    assert cuts.shrink(photo[:, :4], 0.5)[..., 0].tolist() == [[4, 8]]


def test_picking_keeps_the_order_and_repeats_nothing():
    pool = [("train", f"{i}.png", 1.0, 0, 0) for i in range(10)]
    picked = cuts.pick(pool, 4, np.random.default_rng(0))
    assert len(set(picked)) == 4 and picked == sorted(picked) and set(picked) < set(pool)
    assert cuts.pick(pool, 20, np.random.default_rng(0)) == pool


@pytest.mark.parametrize("patch", (-2, 0, 7))
def test_a_patch_must_be_even_and_positive(patch):
    with pytest.raises(UserError, match=f"patch is {patch}, but must be even and positive"):
        cuts.check_patch(patch)


def test_the_description_changes_with_everything_that_decides_the_content():
    plan = [("train", "a.png", 1.0, 0, 0), ("val", "b.png", 1.0, 0, 0)]
    camera = Camera.random(0)
    texts = {
        cuts.describe(camera, plan, 0, 16),
        cuts.describe(Camera.random(1), plan, 0, 16),
        cuts.describe(camera, plan[:1], 0, 16),
        cuts.describe(camera, [("train", "a.png", 1.0, 0, 2), plan[1]], 0, 16),
        cuts.describe(camera, plan, 1, 16),
        cuts.describe(camera, plan, 0, 18),
    }
    assert len(texts) == 6 and cuts.describe(camera, plan[::-1], 0, 16) in texts


def test_the_text_of_camera_json_is_stable():
    """A demo dataset that an earlier version wrote is accepted only if its camera.json has the same text."""
    camera = Camera(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), 2.0, 1.5, 1.25, 1e-4, 0.0)
    text = cuts.describe(camera, [("val", "b.png", 0.5, 2, 4), ("train", "a.png", 1.0, 0, 0)], 3, 16)
    lines = [line.strip() for line in text.splitlines()]
    matrix = "[ [ 1.0, 0.0, 0.0 ], [ 0.0, 1.0, 0.0 ], [ 0.0, 0.0, 1.0 ] ]"
    assert " ".join(lines) == (
        f'{{ "camera": {{ "rgb2cam": {matrix}, "red_gain": 2.0, "blue_gain": 1.5, "rgb_gain": 1.25, "shot": 0.0001, '
        '"read": 0.0, "cfa": "rggb", "black": [ 58, 60, 61, 62 ], "white": 1023 }, "seed": 3, "patch": 16, '
        '"counts": { "train": 1, "val": 1, "test": 0 }, "plan": 1602541194 }'
    )
    assert text.startswith('{\n "camera": {\n  "rgb2cam": [\n') and text.endswith("\n}\n")


def test_an_empty_folder_may_be_filled_and_any_other_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert cuts.refuse_existing(tmp_path / "empty") == tmp_path / "empty"
    assert cuts.refuse_existing(tmp_path / "absent") == tmp_path / "absent"
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="exists; give another folder"):
            cuts.refuse_existing(path)
