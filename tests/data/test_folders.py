"""Dataset layouts and splits, on tiny datasets made here and on real files."""

from pathlib import Path

import numpy as np
import pytest

from data.files import read_mosaic
from data.folders import LAYOUTS, Layout, Split, open_dataset, unpaired
from data.photographs import read_photo
from data.sensor import Sensor
from errors import UserError


@pytest.fixture
def make_part(write_mosaic, write_photo):
    """make_part(folder, layout, names): pairs in train/, val/ or test/ of a dataset."""

    def make(folder: Path, layout: str, names) -> None:
        row = LAYOUTS[layout]
        for name in names:
            if layout == "ntire26":
                (folder / row.raw).mkdir(parents=True, exist_ok=True)
                np.save(folder / row.raw / f"{name}.npy", np.zeros((4, 4, 4), np.uint16))
            else:
                write_mosaic(folder / row.raw / f"{name}.png")
            write_photo(folder / row.photos / f"{name}.{'png' if layout == 'fujifilm' else 'jpg'}")

    return make


def stems(paths) -> list[str]:
    return [path.stem for path in paths]


def sizes(splits: dict[str, Split]) -> list[int]:
    return [len(splits[name]) for name in ("train", "val", "test")]


def split_of(count: int, paired: bool = True) -> Split:
    raws, photos = (tuple(Path(f"{side}/{i}.png") for i in range(count)) for side in ("raw", "photo"))
    return Split(raws, photos, paired)


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_zrr_has_its_own_test_pairs_and_its_validation_pairs_are_drawn(tmp_path, make_part):
    make_part(tmp_path / "train", "zrr", range(12))
    make_part(tmp_path / "test", "zrr", range(100, 103))
    splits = open_dataset("zrr", str(tmp_path), val=4, test=2)
    assert sizes(splits) == [8, 4, 3]
    assert stems(splits["test"].raws) == ["100", "101", "102"]
    assert splits["train"].raws[0].parent == tmp_path / "train" / "huawei_raw"
    assert splits["train"].photos[0].parent == tmp_path / "train" / "canon"


def test_val_and_test_pairs_are_drawn_if_they_have_no_folders(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", range(12))
    splits = open_dataset("fujifilm", str(tmp_path), val=3, test=2)
    assert sizes(splits) == [7, 3, 2]
    all_stems = [stem for split in splits.values() for stem in stems(split.raws)]
    assert sorted(all_stems, key=int) == [str(i) for i in range(12)]
    assert all(stems(split.raws) == stems(split.photos) and split.paired for split in splits.values())


def test_a_val_folder_without_photographs_is_not_the_validation_split(tmp_path, make_part, write_mosaic):
    make_part(tmp_path / "train", "fujifilm", range(8))
    write_mosaic(tmp_path / "val" / "mediatek_raw" / "99.png")
    splits = open_dataset("fujifilm", str(tmp_path), val=2, test=0)
    assert len(splits["val"]) == 2 and "99" not in stems(splits["val"].raws)


def test_a_val_folder_with_pairs_is_the_validation_split(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", range(8))
    make_part(tmp_path / "val", "fujifilm", (90, 91))
    splits = open_dataset("fujifilm", str(tmp_path), val=4, test=0)
    assert stems(splits["val"].raws) == ["90", "91"] and len(splits["train"]) == 8 and not splits["test"]


def test_ntire26_pairs_arrays_with_jpegs(tmp_path, make_part):
    make_part(tmp_path / "train", "ntire26", range(4))
    train = open_dataset("ntire26", str(tmp_path), val=0, test=0)["train"]
    assert [path.name for path in train.raws] == [f"{i}.npy" for i in range(4)]
    assert [path.name for path in train.photos] == [f"{i}.jpg" for i in range(4)]


def test_two_folders_with_the_same_names_are_paired(tmp_path, write_mosaic, write_photo):
    for name in ("a", "b", "c", "d"):
        write_mosaic(tmp_path / "m" / f"{name}.png")
        write_photo(tmp_path / "p" / f"{name}.jpg")
    splits = open_dataset("folders", "", str(tmp_path / "m"), str(tmp_path / "p"), val=1, test=1)
    assert sizes(splits) == [2, 1, 1] and splits["train"].paired


def test_two_folders_with_other_names_are_unpaired_and_have_no_validation_pairs(tmp_path, write_mosaic, write_photo):
    for i in range(3):
        write_mosaic(tmp_path / "m" / f"{i}.png")
    for i in range(5):
        write_photo(tmp_path / "p" / f"other{i}.jpg")
    splits = open_dataset("folders", "", str(tmp_path / "m"), str(tmp_path / "p"), val=1, test=1)
    assert not splits["train"].paired and (len(splits["train"].raws), len(splits["train"].photos)) == (3, 5)
    assert not splits["val"] and not splits["test"]


def test_equal_names_are_pairs_unless_the_user_says_no(tmp_path, make_part, write_photo):
    make_part(tmp_path / "train", "ntire26", range(8))
    splits = open_dataset("ntire26", str(tmp_path), pairs="no", val=2, test=0)
    assert not splits["train"].paired and len(splits["train"].raws) == 8 and not splits["val"]
    assert open_dataset("ntire26", str(tmp_path), val=2, test=0)["train"].paired
    write_photo(tmp_path / "train" / "jpegs" / "more.jpg")
    assert not open_dataset("ntire26", str(tmp_path), val=2, test=0)["train"].paired


@pytest.mark.parametrize("paired_by_default", (True, False))
def test_a_new_layout_is_one_row(tmp_path, monkeypatch, make_part, write_mosaic, paired_by_default):
    monkeypatch.setitem(LAYOUTS, "phone", Layout("raw", "dslr", paired_by_default))
    make_part(tmp_path / "train", "phone", range(6))
    splits = open_dataset("phone", str(tmp_path), val=1, test=1)
    assert sizes(splits) == [4, 1, 1] and splits["train"].photos[0].parent == tmp_path / "train" / "dslr"
    write_mosaic(tmp_path / "train" / "raw" / "single.png")
    if paired_by_default:
        with pytest.raises(UserError, match="must hold the same names"):
            open_dataset("phone", str(tmp_path))
    else:
        assert not open_dataset("phone", str(tmp_path))["train"].paired


def test_files_are_sorted_by_number_and_hidden_ones_are_ignored(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", (10, 9, 100, 1))
    (tmp_path / "train" / "fujifilm" / "._9.png").write_bytes(b"macOS")
    (tmp_path / "train" / "fujifilm" / "notes.txt").write_text("no image")
    assert stems(open_dataset("fujifilm", str(tmp_path), val=0, test=0)["train"].raws) == ["1", "9", "10", "100"]


def test_drawn_pairs_depend_on_names_alone(tmp_path, make_part):
    roots = tmp_path / "a", tmp_path / "elsewhere" / "b"
    for root, names in zip(roots, (range(12), reversed(range(12))), strict=True):
        make_part(root / "train", "fujifilm", names)
    one, two = (open_dataset("fujifilm", str(root), val=3, test=2) for root in roots)
    assert all(stems(one[name].raws) == stems(two[name].raws) for name in one)


@pytest.mark.parametrize("name", ("val", "test"))
def test_a_quarter_is_drawn_with_a_note_if_the_count_is_more_than_half(tmp_path, make_part, capsys, name):
    make_part(tmp_path / "train", "fujifilm", range(9))
    for count, drawn in ((4, 4), (5, 2), (1024, 2)):
        splits = open_dataset("fujifilm", str(tmp_path), **{"val": 0, "test": 0, name: count})
        assert (len(splits["train"]), len(splits[name])) == (9 - drawn, drawn)
        sentence = f"note: 2 of the 9 training pairs are drawn for '{name}', because {count} would be more than half"
        assert capsys.readouterr().err.startswith(sentence) == (drawn < count)


def test_a_larger_validation_split_contains_the_smaller(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", range(12))
    few, more = (stems(open_dataset("fujifilm", str(tmp_path), val=n, test=0)["val"].raws) for n in (2, 5))
    assert set(few) < set(more)


def test_excluded_names_are_in_no_split(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", range(8))
    (tmp_path / "bad.txt").write_text("3\n5.png\n\n")
    splits = open_dataset("fujifilm", str(tmp_path), val=2, test=0, exclude=str(tmp_path / "bad.txt"))
    names = {stem for split in splits.values() for stem in stems(split.raws)}
    assert names == {"0", "1", "2", "4", "6", "7"}


def test_excluded_stems_may_hold_dots(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", ("scene.1", "scene.2", "scene"))
    (tmp_path / "bad.txt").write_text("scene.1\n")
    train = open_dataset("fujifilm", str(tmp_path), val=0, test=0, exclude=str(tmp_path / "bad.txt"))["train"]
    assert sorted(stems(train.raws)) == ["scene", "scene.2"]


def test_real_pairs_show_the_same_view(real):
    splits = open_dataset("folders", "", str(real("rhid_pairs", "raw")), str(real("rhid_pairs", "rgb")), val=1, test=1)
    assert sizes(splits) == [2, 1, 1]
    for raw, photo in zip(splits["train"].raws, splits["train"].photos, strict=True):
        mosaic = read_mosaic(raw, Sensor("rggb", (0.0,) * 4, 4095.0), (512, 512))
        green = read_photo(photo)[..., 1]
        sites = mosaic.astype(float)[::2, 1::2].ravel()
        assert np.corrcoef(sites, green[::2, 1::2].ravel())[0, 1] > 0.5


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    (
        (dict(layout="mai22", root="x"), "'mai22'.*" + ", ".join(LAYOUTS)),
        (dict(layout="fujifilm", root=""), "fujifilm.*--data.root"),
        (dict(layout="folders", root="x"), "--data.raw and --data.photos"),
        (dict(layout="fujifilm", root="nowhere"), "no folder nowhere/train/mediatek_raw"),
    ),
)
def test_unknown_or_missing_datasets_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        open_dataset(**arguments)


def test_an_empty_folder_is_refused_with_the_suffixes_that_are_read(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", range(2))
    for path in (tmp_path / "train" / "fujifilm").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no images in .*train/fujifilm .*.jpg.*.png"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0)


def test_names_without_a_partner_are_counted_and_the_first_is_named(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", range(4))
    (tmp_path / "train" / "fujifilm" / "2.png").unlink()
    with pytest.raises(UserError, match="1 are in one of them only .the first: '2' in mediatek_raw"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0)


def test_two_files_of_the_same_stem_are_refused(tmp_path, make_part, write_photo):
    make_part(tmp_path / "train", "fujifilm", range(2))
    write_photo(tmp_path / "train" / "fujifilm" / "1.jpg")
    with pytest.raises(UserError, match="1.jpg.*1.png.*suffix only"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0)


def test_an_excluded_name_must_belong_to_a_pair(tmp_path, make_part):
    make_part(tmp_path / "train", "zrr", range(6))
    (tmp_path / "exclude.txt").write_text("3\ntrain/4.png\n")
    with pytest.raises(UserError, match="1 names belong to no training pair; the first is 'train/4.png'"):
        open_dataset("zrr", str(tmp_path), val=1, test=0, exclude=str(tmp_path / "exclude.txt"))


def test_the_exclude_file_must_exist_leave_pairs_and_have_pairs_to_exclude(tmp_path, make_part):
    make_part(tmp_path / "train", "fujifilm", range(2))
    with pytest.raises(UserError, match="no file nowhere.txt"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0, exclude="nowhere.txt")
    (tmp_path / "all.txt").write_text("0\n1\n")
    with pytest.raises(UserError, match="all.txt leaves no training pair"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0, exclude=str(tmp_path / "all.txt"))
    with pytest.raises(UserError, match="all.txt names pairs to exclude, but the training files are not paired"):
        open_dataset("fujifilm", str(tmp_path), pairs="no", exclude=str(tmp_path / "all.txt"))


# --- training without pairs ------------------------------------------------------------------------------------------


def test_shuffled_keeps_every_scene_on_both_sides_in_an_order_fixed_by_the_seed():
    split = split_of(20)
    once, again, other = (unpaired(split, "shuffled", seed) for seed in (0, 0, 1))
    assert once == again and once.photos != other.photos and not once.paired
    assert once.raws == split.raws and sorted(once.photos) == sorted(split.photos) and once.photos != split.photos


def partners(split: Split) -> list[int]:
    """The number of the photograph that is drawn with each mosaic."""
    return [int(stem) for stem in stems(split.photos)]


@pytest.mark.parametrize("count", range(2, 8))
def test_shuffled_leaves_no_photograph_with_its_own_mosaic(count):
    orders = {tuple(partners(unpaired(split_of(count), "shuffled", seed))) for seed in range(100)}
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert not any(order[i] == i for order in orders for i in range(count))
    assert len(orders) == {2: 1, 3: 2, 4: 9}.get(count, len(orders)) > (count > 2)  # every derangement is possible


@pytest.mark.parametrize("count", (2, 3, 7))
def test_shuffled_with_fixed_points_is_the_seed_s_plain_permutation(count):
    for seed in range(20):
        split = unpaired(split_of(count), "shuffled", seed, fixed_points=True)
        assert partners(split) == np.random.default_rng(seed).permutation(count).tolist() and split.coupled
        if not any(i == k for i, k in enumerate(partners(split))):  # the first one without fixed points is taken
            assert unpaired(split_of(count), "shuffled", seed) == split


@pytest.mark.parametrize("count", (2, 7, 20))
def test_disjoint_has_no_scene_on_both_sides(count):
    halves = unpaired(split_of(count), "disjoint", 0)
    assert not set(stems(halves.raws)) & set(stems(halves.photos)) and not halves.paired
    assert (len(halves.raws), len(halves.photos)) == (count // 2, count - count // 2)


def test_an_unpaired_split_is_returned_as_it_is():
    split = split_of(3, paired=False)
    assert unpaired(split, "shuffled", 0) is split and unpaired(split, "disjoint", 0) is split


def test_unknown_modes_and_a_single_scene_are_refused():
    with pytest.raises(UserError, match="'random'.*shuffled, disjoint"):
        unpaired(split_of(3), "random", 0)
    with pytest.raises(UserError, match="at least two scenes"):
        unpaired(split_of(1), "disjoint", 0)
