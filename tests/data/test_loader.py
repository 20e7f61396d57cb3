"""Training batches that can start at any step, and whole files for evaluation."""

import multiprocessing
import os
import signal
from itertools import islice
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.folders import Split, mosaics
from data.loader import Positions, evaluation_pairs, training_batches, whole_files
from data.patches import OfWhole, Patches
from data.reference import Reference
from errors import UserError

CPU = torch.device("cpu")
PATCH = 8


# --- training --------------------------------------------------------------------------------------------------------


def test_processes_share_each_batch():
    alone = list(islice(Positions(2, 6), 12))
    assert alone == list(range(12, 24))
    shares = [list(islice(Positions(2, 6, rank, 3), 4)) for rank in range(3)]
    assert shares == [[12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]]


@pytest.mark.parametrize("workers", (0, 2))
def test_a_batch_depends_on_its_step_alone(scenes, workers):
    patches = Patches(
        scenes.split,
        scenes.files,
        PATCH,
        seed=0,
        spans=OfWhole(Reference(scenes.reader.sensor).span, scenes.reader.sensor),
    )
    whole = list(islice(training_batches(patches, 3, 0, 0, CPU), 4))
    tail = list(islice(training_batches(patches, 3, 2, workers, CPU), 2))
    for expected, later in zip(whole[2:], tail, strict=True):
        assert expected.keys() == later.keys() and all(torch.equal(expected[name], later[name]) for name in expected)
    shapes = {name: tuple(tensor.shape) for name, tensor in whole[0].items()}
    assert shapes == {"mosaic": (3, 1, PATCH, PATCH), "target": (3, 3, PATCH, PATCH), "span": (3, 2)}
    assert torch.equal(whole[1]["mosaic"][0], patches[3]["mosaic"])


def test_closing_the_batches_ends_the_reading_processes(scenes):
    patches = Patches(scenes.split, scenes.files, PATCH, seed=0)
    batches = training_batches(patches, 2, 0, 2, CPU)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()


def test_batches_have_no_span_unless_the_patches_have(scenes):
    patches = Patches(scenes.split, scenes.files, PATCH, seed=0)
    assert set(next(training_batches(patches, 3, 0, 0, CPU))) == {"mosaic", "target"}


@pytest.mark.parametrize("workers", (0, 2))
def test_a_damaged_file_is_reported_without_a_traceback(scenes, tmp_path, workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(scenes.split.raws[0].read_bytes()[:200])
    split = Split((broken,), scenes.split.photos[:1], paired=True)
    with pytest.raises(UserError) as caught:
        next(training_batches(Patches(split, scenes.files, PATCH, seed=0), 2, 0, workers, CPU))
    assert str(broken) in str(caught.value) and "Traceback" not in str(caught.value)
    assert caught.value.__traceback__ and not multiprocessing.active_children()  # Python's end would wait for them


class Killed(Patches):
    """Patches whose reading process is killed, as the system does when memory is full."""

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_reading_process_is_reported_without_a_traceback(scenes):
    with pytest.raises(UserError, match="was killed, probably for lack of memory: lower --data.workers") as caught:
        next(training_batches(Killed(scenes.split, scenes.files, PATCH, seed=0), 2, 0, 2, CPU))
    assert caught.value.__traceback__ and not multiprocessing.active_children()  # Python's end would wait for them


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_evaluation_pairs_are_whole_and_in_order(scenes):
    pairs = list(evaluation_pairs(scenes.split, scenes.reader, CPU))
    assert len(pairs) == scenes.count
    for i, (mosaic, target) in enumerate(pairs):
        assert mosaic.shape == (1, 1, scenes.side, scenes.side) and target.shape == (1, 3, scenes.side, scenes.side)
        assert np.array_equal(scenes.digital(mosaic)[0, 0], iio.imread(scenes.split.raws[i]))
        assert torch.equal(scenes.digital(mosaic), scenes.digital_of_photo(target))


def write_numbered(folder: Path, sizes: list[tuple[int, int]]) -> Split:
    """Pairs of these sizes; every value of the i-th is i."""
    raws, photos = folder / "raws", folder / "photos"
    raws.mkdir()
    photos.mkdir()
    for index, size in enumerate(sizes):
        iio.imwrite(raws / f"{index}.png", np.full(size, index, np.uint16))
        iio.imwrite(photos / f"{index}.png", np.full((*size, 3), index, np.uint8))
    names = [f"{index}.png" for index in range(len(sizes))]
    return Split(tuple(raws / name for name in names), tuple(photos / name for name in names), paired=True)


def test_whole_files_come_in_order_and_batched_by_size(tmp_path, scenes):
    pairs = write_numbered(tmp_path, [(8, 8)] * 5 + [(8, 16)] * 2 + [(8, 8)] * 20)
    batches = list(whole_files(pairs, scenes.reader, pixels=256, threads=3))
    assert [name for names, _, _ in batches for name in names] == [f"{index}.png" for index in range(27)]
    assert [len(names) for names, _, _ in batches] == [4, 1, 2, 4, 4, 4, 4, 4]
    for names, raw, photos in batches:
        assert raw.shape[1:] == (1, *photos.shape[2:]) and photos.dtype == torch.uint8
        expected = [int(name.split(".")[0]) for name in names]
        assert photos[:, 0, 0, 0].tolist() == expected
        assert scenes.digital(raw)[:, 0, 0, 0].int().tolist() == expected


def test_a_file_larger_than_the_limit_is_a_batch_of_its_own(tmp_path, scenes):
    pairs = write_numbered(tmp_path, [(8, 8)] * 2)
    assert [len(names) for names, _, _ in whole_files(pairs, scenes.reader, pixels=10)] == [1, 1]


def test_whole_files_have_no_photographs_without_pairs(tmp_path, scenes):
    pairs = write_numbered(tmp_path, [(8, 8)] * 2)
    for split in (Split(pairs.raws, (), paired=False), mosaics(pairs.raws[0].parent)):
        [(names, _, photos)] = whole_files(split, scenes.reader)
        assert names == ["0.png", "1.png"] and photos is None


@pytest.mark.parametrize("read", (lambda *a: whole_files(*a), lambda *a: evaluation_pairs(*a, CPU)))
def test_a_pair_of_different_sizes_is_refused(mismatched, scenes, read):
    with pytest.raises(UserError, match=r"m.png and .*p.png are a pair, but of different sizes: 16x16 and 16x6"):
        list(read(mismatched, scenes.reader))
