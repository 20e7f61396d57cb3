"""Layouts, splits and files: on tiny datasets made here, and on real files of several cameras."""

import os
import pickle
import struct
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from data.folders import (
    LAYOUTS,
    PHOTO_FILES,
    Split,
    flip,
    open_dataset,
    random_window,
    read_mosaic,
    read_photo,
    unpaired,
)
from data.sensor import CFA_ORDERS, Sensor, offsets
from errors import UserError

TEN_BITS = Sensor(white_level=1023.0)


def write_mosaic(path: Path, seed: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, np.random.default_rng(seed).integers(0, 1024, size).astype(np.uint16))


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8))


def make_part(folder: Path, layout: str, names) -> None:
    raw, photo = LAYOUTS[layout]
    for name in names:
        if layout == "ntire26":
            (folder / raw).mkdir(parents=True, exist_ok=True)
            np.save(folder / raw / f"{name}.npy", np.zeros((4, 4, 4), np.uint16))
        else:
            write_mosaic(folder / raw / f"{name}.png")
        write_photo(folder / photo / f"{name}.{'png' if layout == 'fujifilm' else 'jpg'}")


def stems(paths) -> list[str]:
    return [path.stem for path in paths]


def a_split(count: int, paired: bool = True) -> Split:
    return Split(
        tuple(Path(f"raw/{i}.png") for i in range(count)), tuple(Path(f"photo/{i}.jpg") for i in range(count)), paired
    )


def real(*parts: str) -> Path:
    folder = os.environ.get("ISP_DATA")
    if not folder:
        pytest.skip("ISP_DATA is not set: a folder with simcam/, rhid_pairs/ and raw_samples/")
    return Path(folder, *parts)


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_zrr_takes_its_own_test_pairs_and_draws_the_validation_pairs(tmp_path):
    make_part(tmp_path / "train", "zrr", range(12))
    make_part(tmp_path / "test", "zrr", range(100, 103))
    splits = open_dataset("zrr", str(tmp_path), val=4, test=2)
    assert [len(splits[part]) for part in ("train", "val", "test")] == [8, 4, 3]
    assert stems(splits["test"].raws) == ["100", "101", "102"]
    assert splits["train"].raws[0].parent == tmp_path / "train" / "huawei_raw"
    assert splits["train"].photos[0].parent == tmp_path / "train" / "canon"


def test_fujifilm_without_val_and_test_draws_both(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(12))
    splits = open_dataset("fujifilm", str(tmp_path), val=3, test=2)
    assert [len(splits[part]) for part in ("train", "val", "test")] == [7, 3, 2]
    drawn = [stem for part in splits.values() for stem in stems(part.raws)]
    assert sorted(drawn, key=int) == [str(i) for i in range(12)]
    assert all(stems(part.raws) == stems(part.photos) and part.paired for part in splits.values())


def test_a_val_folder_with_mosaics_alone_is_no_validation_split(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(8))
    write_mosaic(tmp_path / "val" / "mediatek_raw" / "99.png")
    splits = open_dataset("fujifilm", str(tmp_path), val=2, test=0)
    assert len(splits["val"]) == 2 and "99" not in stems(splits["val"].raws)


def test_a_val_folder_with_pairs_is_the_validation_split(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(8))
    make_part(tmp_path / "val", "fujifilm", (90, 91))
    splits = open_dataset("fujifilm", str(tmp_path), val=4, test=0)
    assert stems(splits["val"].raws) == ["90", "91"] and len(splits["train"]) == 8 and not splits["test"]


def test_ntire26_pairs_arrays_with_jpegs(tmp_path):
    make_part(tmp_path / "train", "ntire26", range(4))
    train = open_dataset("ntire26", str(tmp_path), val=0, test=0)["train"]
    assert [path.name for path in train.raws] == [f"{i}.npy" for i in range(4)]
    assert [path.name for path in train.photos] == [f"{i}.jpg" for i in range(4)]


def test_folders_with_common_names_are_paired(tmp_path):
    for name in ("a", "b", "c", "d"):
        write_mosaic(tmp_path / "m" / f"{name}.png")
        write_photo(tmp_path / "p" / f"{name}.jpg")
    splits = open_dataset("folders", "", str(tmp_path / "m"), str(tmp_path / "p"), val=1, test=1)
    assert [len(splits[part]) for part in ("train", "val", "test")] == [2, 1, 1] and splits["train"].paired


def test_folders_without_common_names_are_unpaired_and_have_no_validation_pairs(tmp_path):
    for i in range(3):
        write_mosaic(tmp_path / "m" / f"{i}.png")
    for i in range(5):
        write_photo(tmp_path / "p" / f"other{i}.jpg")
    splits = open_dataset("folders", "", str(tmp_path / "m"), str(tmp_path / "p"), val=1, test=1)
    assert not splits["train"].paired and (len(splits["train"].raws), len(splits["train"].photos)) == (3, 5)
    assert not splits["val"] and not splits["test"]


def test_equal_names_need_not_be_pairs(tmp_path):
    make_part(tmp_path / "train", "ntire26", range(8))
    said = open_dataset("ntire26", str(tmp_path), pairs="no", val=2, test=0)
    assert not said["train"].paired and len(said["train"].raws) == 8 and not said["val"]
    assert open_dataset("ntire26", str(tmp_path), val=2, test=0)["train"].paired
    write_photo(tmp_path / "train" / "jpegs" / "more.jpg")
    assert not open_dataset("ntire26", str(tmp_path), val=2, test=0)["train"].paired


def test_numbered_files_come_in_the_order_of_their_numbers_and_hidden_ones_not_at_all(tmp_path):
    make_part(tmp_path / "train", "fujifilm", (10, 9, 100, 1))
    (tmp_path / "train" / "fujifilm" / "._9.png").write_bytes(b"macOS")
    (tmp_path / "train" / "fujifilm" / "notes.txt").write_text("no image")
    assert stems(open_dataset("fujifilm", str(tmp_path), val=0, test=0)["train"].raws) == ["1", "9", "10", "100"]


def test_the_draw_depends_on_names_alone(tmp_path):
    for folder, names in ((tmp_path / "a", range(12)), (tmp_path / "elsewhere" / "b", reversed(range(12)))):
        make_part(folder / "train", "fujifilm", names)
    one, two = (open_dataset("fujifilm", str(p), val=3, test=2) for p in (tmp_path / "a", tmp_path / "elsewhere" / "b"))
    assert all(stems(one[part].raws) == stems(two[part].raws) for part in one)


def test_another_val_count_keeps_the_first_drawn(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(12))
    few, more = (stems(open_dataset("fujifilm", str(tmp_path), val=n, test=0)["val"].raws) for n in (2, 5))
    assert set(few) < set(more)


def test_excluded_names_are_in_no_split(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(8))
    (tmp_path / "bad.txt").write_text("3\n5.png\n\n")
    splits = open_dataset("fujifilm", str(tmp_path), val=2, test=0, exclude=str(tmp_path / "bad.txt"))
    names = {stem for part in splits.values() for stem in stems(part.raws)}
    assert names == {"0", "1", "2", "4", "6", "7"}


def test_an_excluded_name_of_no_pair_is_a_mistake(tmp_path):
    make_part(tmp_path / "train", "zrr", range(6))
    (tmp_path / "exclude.txt").write_text("3\ntrain/4.png\n")
    with pytest.raises(UserError, match="1 names are of no training pair, the first is 'train/4.png'"):
        open_dataset("zrr", str(tmp_path), val=1, test=0, exclude=str(tmp_path / "exclude.txt"))


def test_an_excluded_stem_may_hold_a_dot(tmp_path):
    make_part(tmp_path / "train", "fujifilm", ("scene.1", "scene.2", "scene"))
    (tmp_path / "bad.txt").write_text("scene.1\n")
    train = open_dataset("fujifilm", str(tmp_path), val=0, test=0, exclude=str(tmp_path / "bad.txt"))["train"]
    assert sorted(stems(train.raws)) == ["scene", "scene.2"]


@pytest.mark.parametrize(
    "given, says",
    (
        (dict(layout="mai22", root="x"), "'mai22'.*" + ", ".join(LAYOUTS)),
        (dict(layout="fujifilm", root=""), "fujifilm.*--data.root"),
        (dict(layout="folders", root="x"), "--data.raw and --data.photos"),
        (dict(layout="fujifilm", root="nowhere"), "no folder nowhere/train/mediatek_raw"),
    ),
)
def test_a_dataset_that_is_not_named_or_not_there(given, says):
    with pytest.raises(UserError, match=says):
        open_dataset(**given)


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(2))
    for path in (tmp_path / "train" / "fujifilm").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no images in .*train/fujifilm .*.jpg.*.png"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0)


def test_names_on_one_side_only_are_counted_and_the_first_named(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(4))
    (tmp_path / "train" / "fujifilm" / "2.png").unlink()
    with pytest.raises(UserError, match="1 are on one side only .the first: '2' in mediatek_raw"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0)


def test_two_files_of_one_stem_are_refused(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(2))
    write_photo(tmp_path / "train" / "fujifilm" / "1.jpg")
    with pytest.raises(UserError, match="1.jpg.*1.png.*one name"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0)


@pytest.mark.parametrize("part", ("val", "test"))
def test_too_few_pairs_to_draw_from(tmp_path, part):
    make_part(tmp_path / "train", "fujifilm", range(8))
    with pytest.raises(UserError, match=f"8 training pairs are too few to draw 5.*--data.{part}-count to 2"):
        open_dataset("fujifilm", str(tmp_path), **{"val": 0, "test": 0, part: 5})


def test_a_missing_exclude_file_and_one_that_names_everything(tmp_path):
    make_part(tmp_path / "train", "fujifilm", range(2))
    with pytest.raises(UserError, match="no file nowhere.txt"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0, exclude="nowhere.txt")
    (tmp_path / "all.txt").write_text("0\n1\n")
    with pytest.raises(UserError, match="all.txt leaves no training pair"):
        open_dataset("fujifilm", str(tmp_path), val=0, test=0, exclude=str(tmp_path / "all.txt"))


# --- unpaired --------------------------------------------------------------------------------------------------------


def test_shuffled_keeps_every_scene_on_both_sides_in_an_order_fixed_by_the_seed():
    split = a_split(20)
    once, again, other = (unpaired(split, "shuffled", seed) for seed in (0, 0, 1))
    assert once == again and once.photos != other.photos and not once.paired
    assert once.raws == split.raws and sorted(once.photos) == sorted(split.photos) and once.photos != split.photos


@pytest.mark.parametrize("count", (2, 7, 20))
def test_disjoint_has_no_scene_on_both_sides(count):
    halves = unpaired(a_split(count), "disjoint", 0)
    assert not set(stems(halves.raws)) & set(stems(halves.photos)) and not halves.paired
    assert (len(halves.raws), len(halves.photos)) == (count // 2, count - count // 2)


def test_what_is_unpaired_stays_as_it_is():
    split = a_split(3, paired=False)
    assert unpaired(split, "shuffled", 0) is split and unpaired(split, "disjoint", 0) is split


def test_unpaired_mistakes():
    with pytest.raises(UserError, match="'random'.*shuffled, disjoint"):
        unpaired(a_split(3), "random", 0)
    with pytest.raises(UserError, match="at least two scenes"):
        unpaired(a_split(1), "disjoint", 0)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ("png", "tif", "pgm"))
def test_a_16_bit_image_is_read_as_it_is(tmp_path, suffix):
    values = np.array([[0, 1, 1023, 512], [3, 4, 5, 6]], np.uint16)
    iio.imwrite(tmp_path / f"m.{suffix}", values)
    mosaic = read_mosaic(tmp_path / f"m.{suffix}", TEN_BITS)
    assert np.array_equal(mosaic, values) and mosaic.dtype in (np.uint16, np.float32)


def test_a_pgm_of_10_bits_keeps_its_digital_numbers(tmp_path):
    values = np.array([[0, 1023], [512, 60]], ">u2")
    (tmp_path / "m.pgm").write_bytes(b"P5 2 2 1023\n" + values.tobytes())
    assert np.array_equal(read_mosaic(tmp_path / "m.pgm", TEN_BITS), values)


def test_npy_channels_become_the_mosaic_s_sites(tmp_path):
    np.save(tmp_path / "m.npy", np.array([[[1, 2, 3, 4], [5, 6, 7, 8]]], np.uint16))
    assert read_mosaic(tmp_path / "m.npy", TEN_BITS).tolist() == [[1, 2, 5, 6], [3, 4, 7, 8]]


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
def test_npy_of_fractions_becomes_digital_numbers(tmp_path, dtype):
    np.save(tmp_path / "m.npy", np.full((1, 1, 4), [0, 0.25, 0.5, 1], dtype))
    mosaic = read_mosaic(tmp_path / "m.npy", TEN_BITS)
    assert mosaic.dtype == np.float32
    np.testing.assert_allclose(mosaic, [[0, 255.75], [511.5, 1023]])


@pytest.mark.parametrize("dtype", (np.uint16, np.int32, np.float32))
def test_npy_of_digital_numbers_is_read_as_it_is(tmp_path, dtype):
    np.save(tmp_path / "m.npy", np.array([[0, 60], [1023, 2]], dtype))
    assert read_mosaic(tmp_path / "m.npy", TEN_BITS).tolist() == [[0, 60], [1023, 2]]


def test_headless_files_are_little_endian(tmp_path):
    (tmp_path / "m.raw").write_bytes(struct.pack("<8H", *range(1, 9)))
    assert read_mosaic(tmp_path / "m.raw", TEN_BITS, (2, 4)).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_photograph_is_rgb_whatever_the_file_has(tmp_path):
    iio.imwrite(tmp_path / "grey.png", np.full((4, 6), 7, np.uint8))
    iio.imwrite(tmp_path / "alpha.png", np.full((4, 6, 4), 7, np.uint8))
    for name in ("grey.png", "alpha.png"):
        photo = read_photo(tmp_path / name)
        assert photo.shape == (4, 6, 3) and photo.dtype == np.uint8 and (photo == 7).all()


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array) if path.suffix == ".npy" else iio.imwrite(path, array)
    return path


@pytest.mark.parametrize(
    "name, array, says",
    (
        ("m.png", np.zeros((4, 4), np.uint8), "8 bits.*full bit depth"),
        ("m.npy", np.zeros((4, 4), np.uint8), "8 bits.*full bit depth"),
        ("m.png", np.zeros((4, 4, 3), np.uint8), r"no mosaic.*\(4, 4, 3\)"),
        ("m.npy", np.zeros((4, 4, 3), np.uint16), r"no mosaic.*\(4, 4, 3\)"),
        ("m.npy", np.zeros(4, np.uint16), r"no mosaic.*\(4,\)"),
        ("m.png", np.full((4, 4), 4095, np.uint16), "4095.*1023.*--data.white-level"),
        ("m.npy", np.full((4, 4), -1, np.int16), "from -1 .*--data.white-level"),
        ("m.npy", np.array([[0, np.nan], [1, 2]], np.float32), "nan.*outside"),
        ("m.npy", np.array([[0, np.inf], [1, 2]], np.float32), "inf.*outside"),
        ("m.npy", np.array([[0, 1], [-np.inf, 2]], np.float32), "-inf.*outside"),
        ("m.npy", np.array([["a", "b"]]), "not numbers"),
        ("m.npy", np.zeros((2, 2), np.complex64), "not numbers"),
        ("m.png", np.zeros((5, 4), np.uint16), "5x4.*even sides"),
        ("m.npy", np.zeros((4, 7), np.uint16), "4x7.*even sides"),
        ("m.npy", np.zeros((0, 4), np.uint16), "0x4"),
        ("m.npy", np.zeros((0, 2, 4), np.float32), "0x4"),
    ),
)
def test_what_is_no_mosaic_is_refused_by_name(tmp_path, name, array, says):
    path = save(tmp_path / name, array)
    with pytest.raises(UserError, match=says) as caught:
        read_mosaic(path, TEN_BITS)
    assert str(path) in str(caught.value)


class Bomb:
    def __reduce__(self):
        return os._exit, (1,)


def test_a_pickle_in_an_npy_is_not_run(tmp_path):
    np.save(tmp_path / "m.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "n.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("m.npy", "n.npy"):
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            read_mosaic(tmp_path / name, TEN_BITS)


@pytest.mark.parametrize("read", (lambda path: read_mosaic(path, TEN_BITS), read_photo))
def test_a_truncated_png_is_refused(tmp_path, read):
    write_mosaic(tmp_path / "m.png", size=(64, 64))
    whole = (tmp_path / "m.png").read_bytes()
    for length in (0, 20, len(whole) // 2):
        (tmp_path / "m.png").write_bytes(whole[:length])
        with pytest.raises(UserError, match="m.png"):
            read(tmp_path / "m.png")


@pytest.mark.parametrize("suffix", ("jpg", "webp", "tif"))
def test_garbage_is_no_photograph(tmp_path, suffix):
    assert f".{suffix}" in PHOTO_FILES
    (tmp_path / f"p.{suffix}").write_bytes(b"garbage" * 100)
    with pytest.raises(UserError, match=f"cannot read .*p.{suffix}"):
        read_photo(tmp_path / f"p.{suffix}")


@pytest.mark.parametrize("suffix", ("pgm", "npy", "dng", "tif"))
def test_garbage_is_no_mosaic(tmp_path, suffix):
    (tmp_path / f"m.{suffix}").write_bytes(b"garbage" * 100)
    with pytest.raises(UserError, match=f"cannot read .*m.{suffix}"):
        read_mosaic(tmp_path / f"m.{suffix}", TEN_BITS)


@pytest.mark.parametrize("suffix", ("png", "npy", "raw", "dng"))
def test_a_missing_mosaic_is_named(tmp_path, suffix):
    with pytest.raises(UserError, match=f"m.{suffix}"):
        read_mosaic(tmp_path / f"m.{suffix}", TEN_BITS, (2, 2))


def test_a_headless_file_needs_its_size_and_must_have_it(tmp_path):
    (tmp_path / "m.raw").write_bytes(bytes(30))
    with pytest.raises(UserError, match="no header.*--data.raw-height and --data.raw-width"):
        read_mosaic(tmp_path / "m.raw", TEN_BITS)
    with pytest.raises(UserError, match="30 bytes; 4x4 16-bit pixels are 32"):
        read_mosaic(tmp_path / "m.raw", TEN_BITS, (4, 4))


def test_npy_of_rggb_channels_needs_an_rggb_sensor(tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((2, 2, 4), np.uint16))
    with pytest.raises(UserError, match="RGGB.*bggr"):
        read_mosaic(tmp_path / "m.npy", Sensor("bggr"))


# --- real files ------------------------------------------------------------------------------------------------------


def test_a_dng_is_what_libraw_says():
    rawpy, path = pytest.importorskip("rawpy"), real("raw_samples", "colorchart.dng")
    mosaic = read_mosaic(path, Sensor("rggb", (2056.0,) * 4, 15000.0))
    with rawpy.imread(str(path)) as raw:
        assert raw.color_desc == b"RGBG" and raw.raw_pattern.tolist() == [[0, 1], [3, 2]]  # R G / G B
        assert (raw.black_level_per_channel, raw.white_level) == ([2056] * 4, 15000)
        assert np.array_equal(mosaic, raw.raw_image_visible)
    assert mosaic.shape == (1156, 1734) and mosaic.dtype == np.uint16


def test_a_dng_of_another_order_or_depth_says_what_to_set():
    path = real("raw_samples", "colorchart.dng")
    with pytest.raises(UserError, match="order rggb, not bggr: set --data.cfa rggb"):
        read_mosaic(path, Sensor("bggr", (2056.0,) * 4, 15000.0))
    with pytest.raises(UserError, match="outside 0 to the white level 2100"):
        read_mosaic(path, Sensor("rggb", (2056.0,) * 4, 2100.0))
    with pytest.raises(UserError, match="black level is 2056, not 0: set --data.black-level 2056 2056 2056 2056"):
        read_mosaic(path, Sensor("rggb", (0.0,) * 4, 15000.0))


def test_a_phone_s_pgm():
    path = real("raw_samples", "n900_grbg_2592x304.pgm")
    mosaic = read_mosaic(path, Sensor("grbg", (0.0,) * 4, 1023.0))
    expected = np.frombuffer(path.read_bytes()[-2 * 304 * 2592 :], ">u2").reshape(304, 2592)
    assert np.array_equal(mosaic, expected)


def test_one_scene_in_four_headless_orders():
    scenes = {}
    for cfa in CFA_ORDERS:
        sensor = Sensor(cfa, (600.0,) * 4, 16383.0)
        mosaic = read_mosaic(real("raw_samples", f"DSC_1339_768x512_{cfa}.raw"), sensor, (512, 768))
        channels = {name: mosaic[row::2, column::2] for name, (row, column) in offsets(cfa).items()}
        scenes[cfa] = (channels["R"], channels["B"], channels["Gr"].astype(int) + channels["Gb"])
    for cfa in CFA_ORDERS:
        assert all(np.array_equal(a, b) for a, b in zip(scenes[cfa], scenes["rggb"], strict=True))


def test_real_pairs_of_headless_files_and_photographs():
    splits = open_dataset("folders", "", str(real("rhid_pairs", "raw")), str(real("rhid_pairs", "rgb")), val=1, test=1)
    assert [len(splits[part]) for part in ("train", "val", "test")] == [2, 1, 1]
    for raw, photo in zip(splits["train"].raws, splits["train"].photos, strict=True):
        mosaic = read_mosaic(raw, Sensor("rggb", (0.0,) * 4, 4095.0), (512, 512))
        green = read_photo(photo)[..., 1]
        sites = mosaic.astype(float)[::2, 1::2].ravel()
        assert np.corrcoef(sites, green[::2, 1::2].ravel())[0, 1] > 0.5  # the same view


# --- patches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("even, starts", ((True, {0, 2, 4}), (False, {0, 1, 2, 3, 4})))
def test_windows_cover_both_ends(even, starts):
    rng = np.random.default_rng(0)
    windows = [random_window((12, 12), 8, rng, Path("m.png"), even) for _ in range(200)]
    assert {rows.start for rows, _ in windows} == {columns.start for _, columns in windows} == starts
    assert len({(rows.start, columns.start) for rows, columns in windows}) == len(starts) ** 2
    assert all(side.stop - side.start == 8 for window in windows for side in window)


def test_a_window_may_be_the_whole_image():
    window = random_window((8, 10, 3), 8, np.random.default_rng(0), Path("p.png"), even=True)
    assert window[0] == slice(0, 8)


@pytest.mark.parametrize("shape", ((6, 40), (40, 6)))
def test_a_patch_larger_than_the_image(shape):
    with pytest.raises(UserError, match=f"m.png is {shape[0]}x{shape[1]}, smaller than a patch of 8: lower"):
        random_window(shape, 8, np.random.default_rng(0), Path("m.png"), even=True)


FLIPS = ((False, False), (True, False), (False, True), (True, True))


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("rows, columns", FLIPS)
def test_the_flipped_mosaic_is_the_mosaic_of_the_flipped_photograph(cfa, rows, columns):
    def mosaic_of(image: np.ndarray) -> np.ndarray:
        mosaic = np.empty(image.shape[:2], image.dtype)
        for channel, (row, column) in offsets(cfa).items():
            mosaic[row::2, column::2] = image[row::2, column::2, "RGB".index(channel[0])]
        return mosaic

    photo = np.random.default_rng(0).integers(0, 256, (8, 10, 3))
    assert np.array_equal(flip(mosaic_of(photo), rows, columns), mosaic_of(flip(photo, rows, columns)))


@pytest.mark.parametrize("rows, columns", FLIPS)
def test_a_flip_mirrors_and_is_its_own_inverse_but_for_one_edge(rows, columns):
    image = np.arange(8 * 10).reshape(8, 10)
    flipped = flip(image, rows, columns)
    inside = image[:-1, :-1]
    assert np.array_equal(flipped[:-1, :-1], inside[:: -1 if rows else 1, :: -1 if columns else 1])
    assert np.array_equal(flip(flipped, rows, columns)[:-1, :-1], inside)


def test_the_edge_that_a_flip_leaves_is_filled_by_reflection():
    assert flip(np.arange(6)[:, None], rows=True, columns=False)[:, 0].tolist() == [4, 3, 2, 1, 0, 1]
