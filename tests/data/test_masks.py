"""Masks of pairs: which files they are, how they are read, and their patches."""

from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.cache import cached_files
from data.folders import Split
from data.masks import read_mask, with_masks
from data.patches import Patches
from errors import UserError

PATCH = 8


def is_aligned(values: np.ndarray) -> np.ndarray:
    """A pattern that the digital numbers of a scene decide, so that every patch shows which mask belongs to it."""
    return values % 3 > 0


@pytest.fixture
def masked(scenes, tmp_path) -> Split:
    """The scenes with their masks, and one mask more."""
    for raw, photo in zip(scenes.split.raws, scenes.split.photos, strict=True):
        iio.imwrite(tmp_path / photo.name, (255 * is_aligned(iio.imread(raw))).astype(np.uint8))
    iio.imwrite(tmp_path / "more.png", np.zeros((4, 4), np.uint8))
    return with_masks(scenes.split, tmp_path)


# --- files -----------------------------------------------------------------------------------------------------------


def test_masks_have_the_names_of_the_photographs(scenes, masked, tmp_path):
    assert masked.masks == tuple(tmp_path / f"{i}_photo.png" for i in range(scenes.count))
    assert replace(masked, masks=()) == scenes.split
    assert masked.take([3, 1]).masks == (masked.masks[3], masked.masks[1]) and not scenes.split.take([3, 1]).masks


def test_a_mask_is_true_where_it_is_255(masked, scenes):
    assert np.array_equal(read_mask(masked.masks[2]), is_aligned(iio.imread(scenes.split.raws[2])))


def test_missing_masks_and_files_without_pairs_are_refused(masked, scenes, tmp_path):
    for i in (1, 4):
        masked.masks[i].unlink()
    message = r"has no mask of 2 of the 5 training pairs \(the first: '1_photo.png'\): .*--data.exclude"
    with pytest.raises(UserError, match=message):
        with_masks(scenes.split, tmp_path)
    with pytest.raises(UserError, match="no folder absent with the masks"):
        with_masks(scenes.split, Path("absent"))
    with pytest.raises(UserError, match="the training files are not paired"):
        with_masks(scenes.unpaired, tmp_path)


ONES = np.full((6, 8), 255, np.uint8)
BAD_MASKS = (
    ("RGB", np.dstack([ONES] * 3), "has the pixel format RGB: save the mask as 8-bit grey"),
    ("16 bits", ONES.astype(np.uint16) * 257, "has the pixel format I;16: save the mask as 8-bit grey"),
    ("other values", ONES - 1, r"is no mask: it has values other than 255 \(aligned\) and 0"),
    ("0 and 1", ONES // 255, "is no mask: it has values other than 255"),
    ("nothing is aligned", 0 * ONES, r"marks no pixel as aligned: leave its pair out \(--data.exclude\)"),
)


@pytest.mark.parametrize("pixels, message", [row[1:] for row in BAD_MASKS], ids=[row[0] for row in BAD_MASKS])
def test_what_is_no_mask_is_refused(tmp_path, pixels, message):
    iio.imwrite(tmp_path / "m.png", pixels)
    with pytest.raises(UserError, match=f"m.png {message}"):
        read_mask(tmp_path / "m.png")


def test_a_damaged_mask_and_one_of_another_size_are_refused(masked, scenes):
    masked.masks[0].write_bytes(masked.masks[0].read_bytes()[:60])
    with pytest.raises(UserError, match="cannot read .*0_photo.png"):
        read_mask(masked.masks[0])
    iio.imwrite(masked.masks[0], np.full((24, 22), 255, np.uint8))
    patches = Patches(masked, scenes.files, PATCH, seed=0)
    with pytest.raises(UserError, match="0_photo.png is the mask of .*, but of another size: 24x22 and 24x24"):
        [patches[k] for k in range(scenes.count)]


# --- patches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ("off", "memory", "disk"))
def test_a_patch_has_its_own_part_of_the_mask_however_it_is_flipped(masked, scenes, tmp_path, cache):
    files = cached_files(masked, scenes.files, cache, tmp_path / "cache", draws=1000)
    patches, seen = Patches(masked, files, PATCH, seed=0, flips=True), set()
    for k in range(3 * scenes.count):
        sample = patches[k]
        values = scenes.digital_of_photo(sample["target"])
        assert sample["mask"].shape == (1, PATCH, PATCH) and sample["mask"].dtype == torch.bool
        assert np.array_equal(sample["mask"].numpy(), is_aligned(values.numpy()))
        seen.add(scenes.number(values))
    assert seen == set(range(scenes.count))


def test_masks_change_nothing_else_of_a_sample(masked, scenes):
    for k in range(scenes.count):
        with_mask, without = (Patches(split, scenes.files, PATCH, 3)[k] for split in (masked, scenes.split))
        del with_mask["mask"]
        assert with_mask.keys() == without.keys() and all(
            torch.equal(with_mask[name], without[name]) for name in without
        )


def test_a_cache_on_disk_belongs_to_its_masks(masked, scenes, tmp_path):
    def index_of(split: Split) -> set[str]:
        cached_files(split, scenes.files, "disk", tmp_path / "cache", draws=1000)
        return {path.name for path in (tmp_path / "cache").glob("*.json")}

    first = index_of(masked)
    assert index_of(masked) == first and len(first) == 1
    iio.imwrite(masked.masks[0], np.full((24, 24), 255, np.uint8))
    assert len(index_of(masked)) == 2 and len(index_of(scenes.split)) == 3
