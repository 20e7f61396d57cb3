"""LSMI's files, pairs and colour charts: what is found, what is hidden in training, what is compared."""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data import lsmi
from data.cache import Files
from data.files import Reader
from data.two_cameras import CameraPatches, TwoCameras, open_cameras, training_files
from errors import UserError

from ..lsmi_tree import BRIGHTEST_WALL, CHARTS, LIGHTS, SIZES, draw, edit, patches, write_lsmi, write_picture
from ..two_cameras import CAMERAS, SEEN

READERS = {name: Reader(sensor) for name, sensor in CAMERAS.items()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Tests do not change it."""
    return write_lsmi(tmp_path_factory.mktemp("lsmi"))


@pytest.fixture
def root(tmp_path) -> Path:
    """One to change."""
    return write_lsmi(tmp_path)


def opened(root: Path, channels: int = 3, raws: tuple[str, str] = ("", "")) -> TwoCameras:
    return open_cameras("lsmi", str(root), raws, READERS, channels)


def names(paths) -> list[str]:
    return [path.name for path in paths]


# --- files -----------------------------------------------------------------------------------------------------------


def test_training_files_are_those_of_the_training_places_and_no_others(tree):
    """Place4 is for validation; TIFF and NPY files of LSMI's own code lie beside the mosaics."""
    found = opened(tree)
    files = [f"Place{place}_{light}" for place in (1, 2, 3) for light in ("1", "12")]
    assert sorted(names(found.unpaired["a"])) == [f"{name}.arw" for name in files]
    assert sorted(path.parent.name for path in found.unpaired["b"][::2]) == ["Place1", "Place2", "Place6"]
    assert training_files("lsmi", str(tree), ("", "")) == found.unpaired


def test_pairs_are_of_the_same_place_and_lights_in_both_directions(tree):
    found = [(pair.camera, pair.source.name, pair.truth.name) for pair in opened(tree).pairs]
    assert found == [
        ("a", "Place5_1.arw", "Place5_1.dng"),
        ("a", "Place5_12.arw", "Place5_12.dng"),
        ("b", "Place5_1.dng", "Place5_1.arw"),
        ("b", "Place5_12.dng", "Place5_12.arw"),
    ]


def test_a_place_of_the_pairs_trains_no_camera(root):
    edit(root / "sony" / "split.json", lambda content: content["mixed_train"].append("Place5"))
    assert not any("Place5" in path.name for paths in opened(root).unpaired.values() for path in paths)


def test_other_cameras_are_named(root):
    (root / "sony").rename(root / "nikon")
    assert opened(root, raws=("nikon", "")).unpaired["a"][0].parts[-3] == "nikon"
    with pytest.raises(UserError, match="no folder .*sony"):
        opened(root)
    with pytest.raises(UserError, match="is the folder of both cameras"):
        opened(root, raws=("galaxy", ""))


def lose(name: str, root: Path) -> None:
    (root / "galaxy" / name).unlink()


def damage(name: str, text: str, root: Path) -> None:
    (root / "galaxy" / name).write_text(text)


def list_an_absent_place(root: Path) -> None:
    edit(root / "galaxy" / "split.json", lambda content: content["x_train"].append("Place99"))


def empty_a_place(root: Path) -> None:
    for path in (root / "galaxy" / "Place2").iterdir():
        path.unlink()


def forget_a_place(root: Path) -> None:
    edit(root / "galaxy" / "meta.json", lambda content: content.pop("Place2"))


def three_corners(root: Path) -> None:
    edit(root / "galaxy" / "meta.json", lambda content: content["Place2"]["MCCCoord"]["mcc1"].pop())


def nothing_to_train_on(root: Path) -> None:
    edit(root / "galaxy" / "split.json", lambda content: content.pop("x_train"))


@pytest.mark.parametrize(
    "spoil, sentence",
    (
        (partial(lose, "split.json"), "no file .*galaxy/split.json, which layout lsmi needs"),
        (partial(lose, "meta.json"), "no file .*galaxy/meta.json, which layout lsmi needs"),
        (partial(damage, "split.json", "{"), "galaxy/split.json is damaged: it holds no JSON object"),
        (partial(damage, "meta.json", "[1]"), "galaxy/meta.json is damaged: it holds no JSON object"),
        (partial(damage, "split.json", '{"x_train": "Place1"}'), "its 'x_train' is not a list of places to train"),
        (partial(damage, "split.json", '{"places": ["Place1"]}'), "its 'places' is not a list of places to train"),
        (partial(damage, "meta.json", json.dumps({f"Place{n}": {} for n in range(9)})), "MCCCoord of Place1 is not"),
        (list_an_absent_place, "split.json lists Place99, but there is no folder .*galaxy/Place99"),
        (empty_a_place, "galaxy/Place2 holds no camera files Place2_1"),
        (forget_a_place, "galaxy/meta.json has no Place2, which split.json lists"),
        (three_corners, "MCCCoord of Place2 is not an object of charts with four corners"),
        (nothing_to_train_on, "galaxy/split.json lists no places to train on"),
    ),
)
def test_missing_and_damaged_files_are_refused(root, spoil, sentence):
    spoil(root)
    with pytest.raises(UserError, match=sentence):
        opened(root)


# --- charts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", ("a", "b"))
def test_patches_have_the_colours_of_the_chart_in_perspective(tree, camera):
    found = opened(tree)
    pair = next(pair for pair in found.pairs if pair.camera == camera and pair.source.stem == "Place5_12")
    colours = found.views(pair)[0](found.pair(pair)[0])
    assert colours.shape == (1, 3, 2, 24)  # mcc3 is not known
    for number in (0, 1):
        expected = (patches(50 + number) * LIGHTS["12"]) @ SEEN[camera].T
        np.testing.assert_allclose(colours[0, :, number].T, expected, atol=1e-3)


@pytest.mark.parametrize("orientation, turns", ((1, 0), (6, -1), (3, 2), (8, 1)))
def test_corners_are_those_of_the_upright_picture(orientation, turns):
    """dcraw turns pictures, and LSMI's corners are of what it writes; a mosaic is read as it was recorded."""
    upright = np.zeros((*SIZES["a"], 3))
    draw(upright, CHARTS["a"]["mcc1"], patches(0))
    recorded = np.rot90(upright, -turns)[::2, ::2]  # EXIF's 6: turn it clockwise to see it upright
    planes = torch.from_numpy(recorded.copy()).permute(2, 0, 1)[None]
    charts = lsmi.Charts(Path("x"), {"mcc1": CHARTS["a"]["mcc1"]}, orientation)
    np.testing.assert_allclose(charts.colors(planes, ("mcc1",))[0, :, 0].T, patches(0), atol=1e-6)


def test_values_are_clipped_before_they_are_averaged():
    planes = torch.full((1, 60, 60), 0.5, dtype=torch.float64)
    planes[:, ::2] = 3.0
    colours = lsmi.patch_colors(planes, np.array([(4, 4), (110, 4), (110, 80), (4, 80)]))
    assert 0.6 < colours.mean() < 0.9


def test_a_chart_out_of_the_picture_is_refused():
    charts = lsmi.Charts(Path("Place1_1.dng"), {"mcc2": CHARTS["a"]["mcc2"]})
    with pytest.raises(UserError, match="Place1_1.dng is 60x88, and its colour chart mcc2 in meta.json lies outside"):
        charts.colors(torch.zeros(1, 3, 30, 44), ("mcc2",))


def test_a_turned_file_is_noticed(root):
    write_picture(root / "sony" / "Place1" / "Place1_1.arw", "a", 1, "1", orientation=3)
    charts = opened(root).charts
    turned = {path.name: each.orientation for path, each in charts.items() if each.orientation != 1}
    assert turned == {"Place1_1.arw": 3}


def test_a_pair_without_a_chart_in_both_is_left_out_with_a_note(root, capsys):
    def forget(content: dict) -> None:
        content["Place5"]["MCCCoord"]["mcc1"] = None
        content["Place5"]["MCCCoord"]["mcc2"] = [[0, 0], [40, 30], [40, 0], [0, 30]]  # they cross

    edit(root / "galaxy" / "meta.json", forget)
    assert opened(root).pairs == ()
    printed = capsys.readouterr().err
    assert "2 of 2 pairs show no colour chart in both pictures, and are left out" in printed
    assert "galaxy/meta.json does not say where 6 of 12 colour charts are" in printed


def test_a_chart_that_one_camera_shows_small_is_not_compared(root):
    edit(
        root / "galaxy" / "meta.json",
        lambda content: content["Place5"]["MCCCoord"].update(mcc2=[[0, 0], [40, 0], [40, 30], [0, 30]]),
    )
    found = opened(root)
    assert all(view(found.pair(found.pairs[0])[n]).shape[2] == 1 for n, view in enumerate(found.views(found.pairs[0])))


# --- training --------------------------------------------------------------------------------------------------------


def test_charts_are_black_in_a_window_as_in_the_whole():
    planes = torch.ones(3, 60, 88)
    charts = lsmi.Charts(Path("x"), CHARTS["a"])
    window = charts.hide(planes[:, 12:44, 20:52].clone(), SIZES["a"], 24, 40)
    whole = charts.hide(planes, SIZES["a"])
    assert torch.equal(window, whole[:, 12:44, 20:52]) and window.eq(0).any() and window.eq(1).any()
    assert whole[:, 28, 20].eq(0).all() and whole[:, 44, 64].eq(0).all()  # in mcc1, in mcc2
    assert whole[:, 40, 20].eq(1).all() and whole[:, 20, 64].eq(1).all()  # beside them
    area = sum(cv2.contourArea(np.float32(corners)) for corners in CHARTS["a"].values())
    edges = sum(cv2.arcLength(np.float32(corners), True) for corners in CHARTS["a"].values())
    assert whole[0].eq(0).sum().item() == pytest.approx((area + 2 * edges) / 4, rel=0.02)  # and a pixel around them


@pytest.mark.parametrize("channels", (3, 4))
def test_training_never_sees_a_chart(tree, channels):
    found = opened(tree, channels)
    samples = CameraPatches(found, {name: Files(reader) for name, reader in READERS.items()}, 64, 0, augment=True)
    for sample in map(samples.__getitem__, range(8)):
        assert all(part.shape == (channels, 32, 32) and part.max() <= BRIGHTEST_WALL for part in sample.values())
    path = found.unpaired["b"][0]
    assert found.planes(path, "b").max() > 0.5 >= BRIGHTEST_WALL >= found.training_planes(path, "b").max()
