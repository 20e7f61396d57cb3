"""The files of two cameras: where they lie, pairs of both directions, and training patches."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from data.cache import Files
from data.files import Reader
from data.sensor import Sensor
from data.two_cameras import CameraPatches, camera_folders, find_cameras_layout, open_cameras, polynomial
from errors import UserError

READERS = {"a": Reader(Sensor("rggb", (0.0,) * 4, 1000.0)), "b": Reader(Sensor("bggr", (100.0,) * 4, 4100.0))}


def write(folder, count, value, side=16, first=0):
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        np.save(folder / f"{number}.npy", np.full((side, side), value + number, np.uint16))


@pytest.fixture
def root(tmp_path):
    """A dataset as data.simulate --cameras two writes it, with mosaics of one value each."""
    write(tmp_path / "unpaired" / "a", 3, 500)
    write(tmp_path / "unpaired" / "b", 4, 2100)
    for folder, value in (("paired/a", 300), ("paired/b", 1300), ("truth/a", 310), ("truth/b", 1310)):
        write(tmp_path / folder, 2, value)
    return tmp_path


def opened(root, layout="cameras", raws=("", "")):
    return open_cameras(layout, str(root), raws, READERS)


# --- where they lie --------------------------------------------------------------------------------------------------


def test_pairs_go_both_ways_towards_the_exact_mosaics(root):
    cameras = opened(root)
    assert {name: len(paths) for name, paths in cameras.unpaired.items()} == {"a": 3, "b": 4}
    assert [(p.camera, p.source.stem) for p in cameras.pairs] == [("a", "0"), ("a", "1"), ("b", "0"), ("b", "1")]
    source, truth = cameras.pair(cameras.pairs[1])
    torch.testing.assert_close(source, torch.full((1, 4, 8, 8), 0.301))
    torch.testing.assert_close(truth, torch.full((1, 4, 8, 8), 1211 / 4000))
    source, truth = cameras.pair(cameras.pairs[2])
    torch.testing.assert_close(source, torch.full((1, 4, 8, 8), 0.3))
    torch.testing.assert_close(truth, torch.full((1, 4, 8, 8), 0.31))


def test_without_exact_mosaics_the_truth_is_what_the_other_camera_took(root):
    for name in "ab":
        (root / "truth" / name).rename(root / f"away_{name}")
    assert {pair.truth.parent for pair in opened(root).pairs} == {root / "paired" / "a", root / "paired" / "b"}


def test_a_dataset_may_have_no_pairs(root):
    for name in "ab":
        (root / "paired" / name).rename(root / f"away_{name}")
    assert opened(root).pairs == ()
    assert opened("", "folders", (str(root / "unpaired/a"), str(root / "unpaired/b"))).pairs == ()


def test_the_public_dataset_has_a_polynomial_for_each_file(tmp_path):
    matrix = np.zeros((16, 4))
    for name in ("iphone-x", "samsung-s9"):
        write(tmp_path / "unpaired" / name / "dng", 2, 500)
        write(tmp_path / "paired" / name / "dng", 1, 200)
        (tmp_path / "paired" / name / "mapping").mkdir()
        savemat(tmp_path / "paired" / name / "mapping" / "0.mat", {"mapping_matrix": matrix})
    cameras = opened(tmp_path, "raw2raw")
    assert [(pair.camera, pair.truth.name) for pair in cameras.pairs] == [("a", "0.mat"), ("b", "0.mat")]
    assert cameras.pair(cameras.pairs[0])[1].eq(0).all()


@pytest.mark.parametrize(
    "layout, root, raws, sentence",
    (
        ("lens", "", ("", ""), "unknown layout of two cameras 'lens'; known are: cameras"),
        ("cameras", "", ("", ""), "needs the folder of the dataset: --data.root"),
        ("folders", "", ("a", ""), "needs two folders: --data.raw of camera a and --data-b.raw of camera b"),
        ("folders", "", ("absent", "b"), "no folder absent"),
        ("cameras", "absent", ("", ""), "no folder absent"),
    ),
)
def test_a_missing_folder_or_name_is_refused(layout, root, raws, sentence):
    with pytest.raises(UserError, match=sentence):
        camera_folders(layout, root, raws)


def test_one_folder_for_both_cameras_is_refused(root):
    folder = root / "unpaired" / "a"
    with pytest.raises(UserError, match="is the folder of both cameras"):
        camera_folders("folders", "", (str(folder), str(folder / ".." / "a")))


def test_a_single_mosaic_or_a_missing_partner_is_refused(root):
    (root / "truth" / "b" / "1.npy").unlink()
    with pytest.raises(UserError, match=r"paired/a/1.npy has no partner of camera b in .*truth/b"):
        opened(root)
    for number in (0, 1):
        (root / "unpaired" / "a" / f"{number}.npy").unlink()
    with pytest.raises(UserError, match="holds one mosaic: training needs at least 2 of each camera"):
        opened(root)


def test_a_pair_of_different_sizes_is_refused(root):
    np.save(root / "truth" / "b" / "0.npy", np.zeros((16, 20), np.uint16))
    cameras = opened(root)
    with pytest.raises(UserError, match="of different sizes: 16x16 and 16x20"):
        cameras.pair(cameras.pairs[0])


# --- the public dataset's truth --------------------------------------------------------------------------------------


def test_the_polynomial_s_terms_are_in_the_order_of_the_dataset(tmp_path):
    values = torch.tensor([0.2, 0.3, 0.5, 0.7])
    r, gr, gb, b = values.tolist()
    terms = [r, gr, gb, b, r * r, gr * gr, gb * gb, b * b, r * gr, r * gb, r * b, gr * gb, gr * b, gb * b]
    terms += [r * gr * gb * b, 1]
    planes = values.view(1, 4, 1, 1).expand(1, 4, 2, 2)
    for index, term in enumerate(terms):
        matrix = np.zeros((16, 4))
        matrix[index, 2] = 1
        savemat(tmp_path / "m.mat", {"mapping_matrix": matrix})
        expected = torch.tensor([0.0, 0.0, term, 0.0]).view(1, 4, 1, 1).expand(1, 4, 2, 2)
        torch.testing.assert_close(polynomial(tmp_path / "m.mat", planes), expected, msg=str(index))


@pytest.mark.parametrize("content", ({"other": np.zeros((16, 4))}, {"mapping_matrix": np.zeros((3, 3))}, None))
def test_a_file_without_the_polynomial_is_refused(tmp_path, content):
    (tmp_path / "m.mat").write_bytes(b"no matrix")
    if content:
        savemat(tmp_path / "m.mat", content)
    with pytest.raises(UserError, match="m.mat holds no 16x4 mapping_matrix"):
        polynomial(tmp_path / "m.mat", torch.zeros(1, 4, 2, 2))


# --- patches ---------------------------------------------------------------------------------------------------------


def patches_of(root, seed=0, augment=False, patch=8):
    cameras = opened(root)
    return CameraPatches(cameras, {name: Files(READERS[name]) for name in "ab"}, patch, seed, augment)


def test_an_epoch_draws_every_file_of_a_camera_once(root):
    patches = patches_of(root)
    drawn = {name: [patches[k][name].unique().item() for k in range(12)] for name in "ab"}
    assert all(len(set(drawn["a"][start : start + 3])) == 3 for start in range(0, 12, 3))
    assert all(len(set(drawn["b"][start : start + 4])) == 4 for start in range(0, 12, 4))
    assert patches[0]["a"].shape == (4, 4, 4) and patches[0]["a"].dtype == torch.float32


def test_a_sample_depends_on_seed_and_number_alone(root):
    generator = np.random.default_rng(0)
    for name in "ab":
        for path in (root / "unpaired" / name).iterdir():
            np.save(path, generator.integers(100, 1000, (16, 16)).astype(np.uint16))
    first, again, other = patches_of(root), patches_of(root), patches_of(root, seed=1)
    for k in (0, 5, 30):
        assert all(torch.equal(first[k][name], again[k][name]) for name in "ab")
    assert any(not torch.equal(first[k]["a"], other[k]["a"]) for k in range(5))


def test_augmentation_mirrors_and_turns_planes_and_mixes_no_channels(root):
    image = np.zeros((16, 16), np.uint16)
    image[0::2, 0::2], image[0, 0] = 400, 500  # R, with a mark in one corner
    for path in (root / "unpaired" / "a").iterdir():
        np.save(path, image)
    seen = set()
    for k in range(60):
        planes = patches_of(root, augment=True, patch=16)[k]["a"]
        assert planes[1:].eq(0).all() and planes[0].gt(0.45).sum() == 1
        seen.add(int(planes[0].argmax()))
    assert seen == {0, 7, 56, 63}


def test_a_patch_larger_than_a_file_is_refused(root):
    with pytest.raises(UserError, match="smaller than a patch of 32"):
        patches_of(root, patch=32)[0]


@pytest.mark.parametrize("name", ("cameras", "raw2raw", "folders"))
def test_layouts_are_found_by_name(name):
    assert len(find_cameras_layout(name).unpaired) == 2
