"""Caches of decoded files: the same patches from each, chosen by size, and an incomplete cache is never used."""

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data import cache as module
from data.cache import Files, InMemory, OnDisk, cached_files, free_memory
from data.files import Reader
from data.folders import Split
from data.loader import training_batches
from data.patches import OfWhole, Patches
from data.reference import Reference
from data.sensor import SENSORS
from errors import UserError

MANY = 1000  # draws: enough for a cache to be worthwhile
FUJIFILM = SENSORS["fujifilm"]


@pytest.fixture
def split(tmp_path, write_mosaic, write_photo) -> Split:
    """Five mosaics and three photographs, of several sizes."""
    raws = tuple(tmp_path / "data" / f"{i}_raw.png" for i in range(5))
    photos = tuple(tmp_path / "data" / f"{i}.png" for i in range(3))
    for i, path in enumerate(raws):
        write_mosaic(path, seed=i, size=(24 + 2 * i, 30))
    for i, path in enumerate(photos):
        write_photo(path, seed=i, size=(17 + i, 19))
    return Split(raws, photos, paired=False)


@pytest.fixture
def files() -> Files:
    return Files(Reader(FUJIFILM))


def patches_of(split: Split, files: Files) -> Patches:
    return Patches(split, files, 12, seed=0, flips=True, spans=OfWhole(Reference(FUJIFILM).span, FUJIFILM))


def samples(split: Split, files: Files) -> list[dict[str, torch.Tensor]]:
    patches = patches_of(split, files)
    return [patches[k] for k in range(12)]


def same(a: list, b: list) -> bool:
    return all(
        one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(a, b, strict=True)
    )


# --- content ---------------------------------------------------------------------------------------------------------


def test_files_are_read_as_pixels(split, files):
    for path in split.raws:
        assert np.array_equal(files.mosaic(path), iio.imread(path))
    for path in split.photos:
        assert np.array_equal(files.photo(path), iio.imread(path))


@pytest.mark.parametrize(("cache", "kind"), (("off", Files), ("memory", InMemory), ("disk", OnDisk)))
def test_patches_are_the_same_with_every_cache(split, files, cache, kind, tmp_path):
    cached = cached_files(split, files, cache, tmp_path / "cache", MANY)
    assert type(cached) is kind
    assert same(samples(split, cached), samples(split, files))


@pytest.mark.parametrize("cache", ("memory", "disk"))
@pytest.mark.parametrize("workers", (0, 2))
def test_cached_files_are_not_read_again(split, files, cache, workers, tmp_path):
    cached = cached_files(split, files, cache, tmp_path / "cache", MANY)
    expected = samples(split, cached)
    for path in (*split.raws, *split.photos):
        path.unlink()
    assert same(samples(split, cached), expected)
    batch = next(training_batches(patches_of(split, cached), 4, 0, workers, torch.device("cpu")))
    assert torch.equal(batch["mosaic"], torch.stack([sample["mosaic"] for sample in expected[:4]]))


def test_a_cache_on_disk_is_used_by_the_next_run(split, files, tmp_path, monkeypatch):
    expected = samples(split, cached_files(split, files, "disk", tmp_path / "cache", MANY))
    monkeypatch.setattr(module, "_decode", lambda *_: pytest.fail("decoded again"))
    for cache in ("disk", "auto"):
        assert same(samples(split, cached_files(split, files, cache, tmp_path / "cache", MANY)), expected)
    assert {path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"} == {".bin", ".json"}


def test_changed_files_and_readers_get_a_cache_of_their_own(split, files, tmp_path):
    cached_files(split, files, "disk", tmp_path, MANY)
    iio.imwrite(split.photos[0], np.full((17, 19, 3), 7, np.uint8))
    assert (cached_files(split, files, "disk", tmp_path, MANY).photo(split.photos[0]) == 7).all()
    other = Files(Reader(replace(FUJIFILM, white_level=4095.0)))
    assert type(cached_files(split, other, "disk", tmp_path, MANY)) is OnDisk
    assert len(list(tmp_path.glob("*.bin"))) == 3


# --- damage and interruption -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ("no content", "short content", "broken index", "foreign index"))
def test_a_damaged_cache_is_written_again(split, files, tmp_path, damage):
    expected = samples(split, cached_files(split, files, "disk", tmp_path, MANY))
    content, index = (next(tmp_path.glob(f"decoded*.{kind}")) for kind in ("bin", "json"))
    if damage == "no content":
        content.unlink()
    elif damage == "short content":
        content.write_bytes(content.read_bytes()[:-1])
    else:
        index.write_text('{"bytes"' if damage == "broken index" else "[]")
    assert same(samples(split, cached_files(split, files, "auto", tmp_path, MANY, processes=2)), expected)


def test_new_content_is_never_read_with_an_old_index(split, files, tmp_path, monkeypatch):
    """A damaged cache is written again in another order, and the process is killed before it writes the index."""
    cached_files(split, files, "disk", tmp_path, MANY)
    content = next(tmp_path.glob("decoded*.bin"))
    content.write_bytes(content.read_bytes()[:-1])
    reordered = Split(split.raws[::-1], split.photos[::-1], paired=False)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module.storage, "write_bytes", killed)
        cached_files(reordered, files, "disk", tmp_path, MANY)
    assert content.is_file() and not list(tmp_path.glob("*.json"))
    assert same(samples(split, cached_files(split, files, "disk", tmp_path, MANY)), samples(split, files))


@pytest.mark.parametrize("stop", (KeyboardInterrupt, OSError(28, "No space left on device"), SystemExit))
def test_an_interrupted_write_leaves_no_files(split, files, tmp_path, monkeypatch, stop):
    decode = module._decode

    def stopped(*arguments):
        for count, decoded in enumerate(decode(*arguments)):
            if count == 4:
                raise stop
            yield decoded

    with monkeypatch.context() as patched:
        patched.setattr(module, "_decode", stopped)
        with pytest.raises(BaseException, match="No space|^$"):
            cached_files(split, files, "disk", tmp_path / "cache", MANY)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    assert same(samples(split, cached_files(split, files, "disk", tmp_path / "cache", MANY)), samples(split, files))


def test_a_killed_write_leaves_no_cache(split, files, tmp_path):
    """A killed process cannot remove its files: a part of the content, or the content without an index."""
    cached_files(split, files, "disk", tmp_path / "whole", MANY)
    content, index = (next((tmp_path / "whole").glob(f"*.{kind}")) for kind in ("bin", "json"))
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / f".{content.stem}.partial.bin").write_bytes(content.read_bytes()[:100])
    assert same(samples(split, cached_files(split, files, "disk", folder, MANY)), samples(split, files))
    assert not list(folder.glob(".*.partial.*"))
    index.unlink()  # killed between the two writes
    assert same(samples(split, cached_files(split, files, "disk", tmp_path / "whole", MANY)), samples(split, files))


# --- choice ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "disk", "processes", "kind"),
    ((1 << 20, 1 << 20, 1, InMemory), (1 << 20, 1 << 20, 2, OnDisk), (10, 1 << 20, 1, OnDisk), (10, 10, 1, Files)),
)
def test_auto_chooses_by_free_memory_disk_and_processes(
    split, files, tmp_path, monkeypatch, memory, disk, processes, kind
):
    monkeypatch.setattr(module, "free_memory", lambda: memory)
    monkeypatch.setattr(module, "_free_disk", lambda folder: disk)
    assert type(cached_files(split, files, "auto", tmp_path, MANY, processes)) is kind


def test_mosaics_without_photographs_are_cached(split, files, tmp_path):
    mosaics = Split(split.raws, (), paired=False)
    cached = cached_files(mosaics, files, "auto", tmp_path / "cache", draws=MANY)
    assert isinstance(cached, InMemory)
    assert (cached.mosaic(split.raws[2]) == files.mosaic(split.raws[2])).all()


def test_auto_caches_nothing_for_a_short_run(split, files, tmp_path):
    assert cached_files(split, files, "auto", tmp_path, draws=9) is files
    assert type(cached_files(split, files, "auto", tmp_path, draws=10)) is InMemory


def test_several_processes_cannot_cache_in_memory(split, files, tmp_path):
    with pytest.raises(UserError, match="--data.cache disk"):
        cached_files(split, files, "memory", tmp_path, MANY, processes=2)


@pytest.mark.parametrize("cache", ("memory", "disk"))
def test_a_cache_that_does_not_fit_is_refused(split, files, tmp_path, monkeypatch, cache):
    monkeypatch.setattr(module, "free_memory", lambda: 10)
    monkeypatch.setattr(module, "_free_disk", lambda folder: 10)
    with pytest.raises(UserError, match=f"{cache} has 0.00 GiB free"):
        cached_files(split, files, cache, tmp_path, MANY)


def test_an_unknown_cache_is_refused(split, files, tmp_path):
    with pytest.raises(UserError, match="known are: auto, memory, disk, off"):
        cached_files(split, files, "ram", tmp_path, MANY)


def test_a_damaged_file_is_reported_before_training(split, files, tmp_path):
    split.raws[3].write_bytes(split.raws[3].read_bytes()[:60])
    with pytest.raises(UserError, match="3_raw.png"):
        cached_files(split, files, "memory", tmp_path, MANY)


def test_there_is_free_memory():
    assert 1 << 20 < free_memory() < 1 << 50
