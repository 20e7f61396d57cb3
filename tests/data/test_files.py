"""Decoded files: the same patches from wherever they are kept, chosen by size, and no half cache ever taken for one."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data import files as module
from data.demosaic import DEMOSAICERS, Reference
from data.files import Files, InMemory, OnDisk, Reader, free_memory, keep
from data.folders import Split
from data.loader import Patches, training_batches
from data.sensor import Sensor
from errors import UserError

MANY = 1000  # draws: enough to be worth a cache
READER = Reader(Sensor())


@pytest.fixture
def split(tmp_path) -> Split:
    """Five mosaics and three photographs, of several sizes."""
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    folder.mkdir()
    for i in range(5):
        iio.imwrite(folder / f"{i}_raw.png", rng.integers(60, 1024, (24 + 2 * i, 30)).astype(np.uint16))
    for i in range(3):
        iio.imwrite(folder / f"{i}.png", rng.integers(0, 256, (17 + i, 19, 3)).astype(np.uint8))
    raws, photos = (folder / f"{i}_raw.png" for i in range(5)), (folder / f"{i}.png" for i in range(3))
    return Split(tuple(raws), tuple(photos), paired=False)


@pytest.fixture
def files() -> Files:
    return Files(READER, Reference(READER.sensor))


def samples(split: Split, files: Files) -> list[tuple[torch.Tensor, ...]]:
    patches = Patches(split, files, 12, seed=0, flips=True)
    return [patches[k] for k in range(12)]


def same(a: list, b: list) -> bool:
    return all(torch.equal(x, y) for one, two in zip(a, b, strict=True) for x, y in zip(one, two, strict=True))


@pytest.mark.parametrize(("place", "kind"), (("off", Files), ("memory", InMemory), ("disk", OnDisk)))
def test_patches_are_the_same_wherever_files_are_kept(split, files, place, kind, tmp_path):
    kept = keep(split, files, place, tmp_path / "cache", MANY)
    assert type(kept) is kind
    assert same(samples(split, kept), samples(split, Files(READER, Reference(READER.sensor))))


@pytest.mark.parametrize("place", ("memory", "disk"))
@pytest.mark.parametrize("workers", (0, 2))
def test_what_is_kept_is_not_read_again(split, files, place, workers, tmp_path):
    kept = keep(split, files, place, tmp_path / "cache", MANY)
    expected = samples(split, kept)
    for path in (*split.raws, *split.photos):
        path.unlink()
    assert same(samples(split, kept), expected)
    batches = training_batches(Patches(split, kept, 12, seed=0, flips=True), 4, 0, workers, torch.device("cpu"))
    assert torch.equal(next(batches)[0], torch.stack([sample[0] for sample in expected[:4]]))


def test_a_cache_on_disk_is_found_again(split, files, tmp_path, monkeypatch):
    expected = samples(split, keep(split, files, "disk", tmp_path / "cache", MANY))
    monkeypatch.setattr(module, "_decode", lambda *_: pytest.fail("decoded again"))
    for place in ("disk", "auto"):
        assert same(samples(split, keep(split, files, place, tmp_path / "cache", MANY)), expected)
    assert {path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"} == {".bin", ".json"}


@pytest.mark.parametrize("harm", ("no content", "short content", "broken index", "foreign index"))
def test_a_damaged_cache_is_made_anew(split, files, tmp_path, harm):
    expected = samples(split, keep(split, files, "disk", tmp_path, MANY))
    content, index = (next(tmp_path.glob(f"decoded*.{kind}")) for kind in ("bin", "json"))
    if harm == "no content":
        content.unlink()
    elif harm == "short content":
        content.write_bytes(content.read_bytes()[:-1])
    else:
        index.write_text('{"bytes"' if harm == "broken index" else "[]")
    assert same(samples(split, keep(split, files, "auto", tmp_path, MANY, processes=2)), expected)


def test_a_changed_file_is_another_cache(split, files, tmp_path):
    keep(split, files, "disk", tmp_path, MANY)
    iio.imwrite(split.photos[0], np.full((17, 19, 3), 7, np.uint8))
    assert (keep(split, files, "disk", tmp_path, MANY).photo(split.photos[0]) == 7).all()
    other = Files(Reader(Sensor(white_level=4095.0)), Reference(Sensor(white_level=4095.0)))
    assert type(keep(split, other, "disk", tmp_path, MANY)) is OnDisk
    assert len(list(tmp_path.glob("*.bin"))) == 3
    bilinear = Files(READER, Reference(READER.sensor, DEMOSAICERS["bilinear"]))
    for path in split.raws:  # a span is that of its demosaicing
        assert torch.equal(keep(split, bilinear, "disk", tmp_path, MANY).mosaic(path)[1], bilinear.mosaic(path)[1])


def test_several_processes_do_not_fill_the_memory_with_copies(split, files, tmp_path):
    with pytest.raises(UserError, match="--data.cache disk"):
        keep(split, files, "memory", tmp_path, MANY, processes=2)


@pytest.mark.parametrize("stop", (KeyboardInterrupt, OSError(28, "No space left on device"), SystemExit))
def test_what_stops_the_writing_leaves_nothing_that_counts(split, files, tmp_path, monkeypatch, stop):
    decode = module._decode

    def stopped(*arguments):
        for count, done in enumerate(decode(*arguments)):
            if count == 4:
                raise stop
            yield done

    with monkeypatch.context() as patch:
        patch.setattr(module, "_decode", stopped)
        with pytest.raises(BaseException, match="No space|^$"):
            keep(split, files, "disk", tmp_path / "cache", MANY)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    assert same(samples(split, keep(split, files, "disk", tmp_path / "cache", MANY)), samples(split, files))


def test_a_kill_in_the_writing_leaves_no_cache(split, files, tmp_path, monkeypatch):
    """What is tidied up after an exception stays after a kill: between any two writes, there is none or a whole one."""
    keep(split, files, "disk", tmp_path / "whole", MANY)
    content, index = (next((tmp_path / "whole").glob(f"*.{kind}")) for kind in ("bin", "json"))
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / f".{content.name}.partial").write_bytes(content.read_bytes()[:100])
    assert same(samples(split, keep(split, files, "disk", folder, MANY)), samples(split, files))
    index.unlink()  # killed between the two renames
    assert same(samples(split, keep(split, files, "disk", tmp_path / "whole", MANY)), samples(split, files))


@pytest.mark.parametrize(
    ("memory", "disk", "processes", "kind"),
    ((1 << 20, 1 << 20, 1, InMemory), (1 << 20, 1 << 20, 2, OnDisk), (10, 1 << 20, 1, OnDisk), (10, 10, 1, Files)),
)
def test_the_place_is_chosen_by_size(split, files, tmp_path, monkeypatch, memory, disk, processes, kind):
    monkeypatch.setattr(module, "free_memory", lambda: memory)
    monkeypatch.setattr(module, "_free_disk", lambda folder: disk)
    assert type(keep(split, files, "auto", tmp_path, MANY, processes)) is kind


def test_a_short_run_reads_its_files(split, files, tmp_path):
    assert keep(split, files, "auto", tmp_path, draws=9) is files
    assert type(keep(split, files, "auto", tmp_path, draws=10)) is InMemory


@pytest.mark.parametrize("place", ("memory", "disk"))
def test_what_does_not_fit_is_refused(split, files, tmp_path, monkeypatch, place):
    monkeypatch.setattr(module, "free_memory", lambda: 10)
    monkeypatch.setattr(module, "_free_disk", lambda folder: 10)
    with pytest.raises(UserError, match=f"{place} has 0.00 GiB free"):
        keep(split, files, place, tmp_path, MANY)


def test_an_unknown_place_is_refused(split, files, tmp_path):
    with pytest.raises(UserError, match="known are: auto, memory, disk, off"):
        keep(split, files, "ram", tmp_path, MANY)


def test_a_broken_file_is_told_before_training(split, files, tmp_path):
    split.raws[3].write_bytes(split.raws[3].read_bytes()[:60])
    with pytest.raises(UserError, match="3_raw.png"):
        keep(split, files, "memory", tmp_path, MANY)


def test_there_is_free_memory():
    assert 1 << 20 < free_memory() < 1 << 50
