"""The stream of patches: a function of seed and position alone, whoever reads it and from wherever."""

from itertools import islice

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.demosaic import Reference
from data.files import Files, Reader
from data.folders import Split, mosaics
from data.loader import Patches, evaluation_pairs, photo_tensor, training_batches, whole_files
from data.sensor import Sensor
from errors import UserError

SENSOR = Sensor(white_level=8191.0)
CPU = torch.device("cpu")
REFERENCE = Reference(SENSOR)
FILES = Files(Reader(SENSOR), REFERENCE)
COUNT, SIDE, PATCH = 5, 24, 8


def photo_of(mosaic: np.ndarray) -> np.ndarray:
    """A photograph that tells where it was taken: every pixel is its mosaic's, in two bytes."""
    return np.stack((mosaic // 256, mosaic % 256, np.zeros_like(mosaic)), axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    """Scenes whose values are all different: those of scene i begin at 1000 i."""
    folder = tmp_path_factory.mktemp("scenes")
    for i in range(COUNT):
        mosaic = (1000 * i + np.random.default_rng(i).permutation(SIDE * SIDE)).reshape(SIDE, SIDE).astype(np.uint16)
        iio.imwrite(folder / f"{i}_raw.png", mosaic)
        iio.imwrite(folder / f"{i}_photo.png", photo_of(mosaic))
    return Split(*(tuple(folder / f"{i}_{side}.png" for i in range(COUNT)) for side in ("raw", "photo")), paired=True)


@pytest.fixture
def loose(split) -> Split:
    return Split(split.raws, split.photos, paired=False)


def digital(mosaic: torch.Tensor) -> torch.Tensor:
    return (8191 * mosaic).round()


def digital_of_photo(target: torch.Tensor) -> torch.Tensor:
    high, low, _ = (255 * target).round().unbind(-3)
    return (256 * high + low).unsqueeze(-3)


def scene(values: torch.Tensor) -> int:
    return int(values.amax()) // 1000


@pytest.mark.parametrize("flips", (False, True))
def test_a_sample_depends_on_seed_and_position_alone(split, flips):
    patches = Patches(split, FILES, PATCH, seed=1, flips=flips)
    forwards = [patches[k] for k in range(7)]
    for k in reversed(range(7)):
        fresh = Patches(split, FILES, PATCH, seed=1, flips=flips)[k]
        assert all(torch.equal(a, b) for a, b in zip(fresh, forwards[k], strict=True))


def test_another_seed_gives_another_stream(split):
    one, two = (Patches(split, FILES, PATCH, seed) for seed in (0, 1))
    assert any(not torch.equal(one[k][0], two[k][0]) for k in range(COUNT))


@pytest.mark.parametrize("epoch", (0, 1, 2))
def test_an_epoch_visits_every_file_once(split, loose, epoch):
    positions = range(epoch * COUNT, (epoch + 1) * COUNT)
    for pairs in (split, loose):
        samples = [Patches(pairs, FILES, PATCH, seed=3)[k] for k in positions]
        assert sorted(scene(digital(m)) for m, _, _ in samples) == list(range(COUNT))
        assert sorted(scene(digital_of_photo(t)) for _, _, t in samples) == list(range(COUNT))


@pytest.mark.parametrize("flips", (False, True))
def test_a_pair_is_of_one_scene_and_one_window(split, flips):
    patches = Patches(split, FILES, PATCH, seed=0, flips=flips)
    for k in range(12):
        mosaic, _, target = patches[k]
        assert mosaic.shape == (1, PATCH, PATCH) and target.shape == (3, PATCH, PATCH)
        assert torch.equal(digital(mosaic), digital_of_photo(target))


def test_a_patch_is_rendered_with_the_range_of_its_whole_mosaic(split):
    mosaic, span, _ = Patches(split, FILES, PATCH, seed=0)[0]
    raw_path = next(path for path in split.raws if int(iio.imread(path).max()) // 1000 == scene(digital(mosaic)))
    whole = Reader(SENSOR).mosaic_tensor(iio.imread(raw_path))[None]
    rows, columns = (
        (r, c)
        for r in range(0, SIDE - PATCH + 1, 2)
        for c in range(0, SIDE - PATCH + 1, 2)
        if torch.equal(whole[0, :, r : r + PATCH, c : c + PATCH], mosaic)
    ).__next__()
    window = slice(rows + 2, rows + PATCH - 2), slice(columns + 2, columns + PATCH - 2)
    patch = REFERENCE(mosaic[None], span[None])
    assert torch.equal(REFERENCE.span(whole)[0], span)
    # Away from the border, where a patch is mirrored, demosaicing the patch is demosaicing the whole.
    middle = REFERENCE(whole)[0][:, window[0], window[1]][:, 1:-1, 1:-1]
    assert (patch[0][:, 3:-3, 3:-3] - middle).abs().median() < 0.05


def test_flips_happen_and_all_four_ways(split):
    plain, flipped = (Patches(split, FILES, PATCH, seed=0, flips=flips) for flips in (False, True))
    ways = set()
    for k in range(24):
        one, other = plain[k][0][0, :-1, :-1], flipped[k][0][0, :-1, :-1]
        ways |= {dims for dims in ((), (0,), (1,), (0, 1)) if torch.equal(one.flip(dims), other)}
    assert ways == {(), (0,), (1,), (0, 1)}


def test_unpaired_sides_are_independent(loose):
    patches = Patches(loose, FILES, PATCH, seed=0)
    samples = [patches[k] for k in range(6 * COUNT)]
    pairs = {(scene(digital(m)), scene(digital_of_photo(t))) for m, _, t in samples}
    assert len(pairs) > 2 * COUNT  # not one partner for each
    assert not any(torch.equal(digital(m), digital_of_photo(t)) for m, _, t in samples)


def test_unpaired_sides_may_differ_in_number(loose):
    lopsided = Split(loose.raws[:2], loose.photos, paired=False)
    patches = Patches(lopsided, FILES, PATCH, seed=0)
    targets = {scene(digital_of_photo(patches[k][2])) for k in range(COUNT)}
    assert targets == set(range(COUNT))


@pytest.mark.parametrize("workers", (0, 2))
def test_batches_from_a_later_step_are_the_tail_of_the_stream(split, workers):
    patches = Patches(split, FILES, PATCH, seed=0)
    whole = list(islice(training_batches(patches, 3, 0, 0, CPU), 4))
    tail = list(islice(training_batches(patches, 3, 2, workers, CPU), 2))
    for expected, later in zip(whole[2:], tail, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(expected, later, strict=True))
    assert [tuple(t.shape) for t in whole[0]] == [(3, 1, PATCH, PATCH), (3, 2), (3, 3, PATCH, PATCH)]
    assert torch.equal(whole[1][0][0], patches[3][0])


def test_evaluation_pairs_are_whole_and_in_order(split):
    pairs = list(evaluation_pairs(split, Reader(SENSOR), CPU))
    assert len(pairs) == COUNT
    for i, (mosaic, target) in enumerate(pairs):
        assert mosaic.shape == (1, 1, SIDE, SIDE) and target.shape == (1, 3, SIDE, SIDE)
        assert np.array_equal(digital(mosaic)[0, 0], iio.imread(split.raws[i]))
        assert torch.equal(digital(mosaic), digital_of_photo(target))


def test_white_is_one_and_black_keeps_its_level():
    tensor = Reader(Sensor()).mosaic_tensor(np.array([[0, 62], [1023, 341]], np.uint16))
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, torch.tensor([[[0, 62 / 1023], [1, 1 / 3]]]))


def test_photo_tensor_by_hand():
    photo = np.array([[[0, 51, 255], [255, 0, 0]]], np.uint8)[:, ::-1]  # a view, as a flip leaves it
    torch.testing.assert_close(photo_tensor(photo), torch.tensor([[[1, 0]], [[0, 0.2]], [[0, 1.0]]]))


@pytest.fixture
def mismatched(tmp_path) -> Split:
    iio.imwrite(tmp_path / "m.png", np.zeros((16, 16), np.uint16))
    iio.imwrite(tmp_path / "p.png", np.zeros((16, 6, 3), np.uint8))
    return Split((tmp_path / "m.png",), (tmp_path / "p.png",), paired=True)


def test_a_pair_of_two_sizes_is_refused(mismatched):
    for read in (
        lambda: Patches(mismatched, FILES, PATCH, seed=0)[0],
        lambda: list(evaluation_pairs(mismatched, Reader(SENSOR), CPU)),
    ):
        with pytest.raises(UserError, match=r"m.png and .*p.png are a pair, but \d+x\d+ and \d+x\d+"):
            read()


def test_a_patch_that_fits_no_file_names_it(split):
    with pytest.raises(UserError, match="_raw.png is 24x24, smaller than a patch of 32"):
        Patches(split, FILES, 32, seed=0)[0]


@pytest.mark.parametrize("workers", (0, 2))
def test_a_broken_file_is_told_without_a_worker_s_traceback(split, tmp_path, workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(split.raws[0].read_bytes()[:200])
    patches = Patches(Split((broken,), split.photos[:1], paired=True), FILES, PATCH, seed=0)
    with pytest.raises(UserError) as caught:
        next(training_batches(patches, 2, 0, workers, CPU))
    assert str(broken) in str(caught.value) and "Traceback" not in str(caught.value)


def sized(folder, sizes: list[tuple[int, int]]) -> Split:
    """Pairs of these sizes, whose first number is their place."""
    raws, photos = folder / "raws", folder / "photos"
    raws.mkdir()
    photos.mkdir()
    for index, size in enumerate(sizes):
        iio.imwrite(raws / f"{index}.png", np.full(size, index, np.uint16))
        iio.imwrite(photos / f"{index}.png", np.full((*size, 3), index, np.uint8))
    names = [f"{index}.png" for index in range(len(sizes))]
    return Split(tuple(raws / name for name in names), tuple(photos / name for name in names), paired=True)


def test_whole_files_come_in_order_and_together_where_they_fit(tmp_path):
    pairs = sized(tmp_path, [(8, 8)] * 5 + [(8, 16)] * 2 + [(8, 8)] * 20)
    batches = list(whole_files(pairs, Reader(SENSOR), pixels=256, threads=3))
    assert [name for names, _, _ in batches for name in names] == [f"{index}.png" for index in range(27)]
    assert [len(names) for names, _, _ in batches] == [4, 1, 2, 4, 4, 4, 4, 4]
    for names, raw, photos in batches:
        assert raw.shape[1:] == (1, *photos.shape[2:]) and photos.dtype == torch.uint8
        expected = [int(name.split(".")[0]) for name in names]
        assert photos[:, 0, 0, 0].tolist() == expected
        assert (raw[:, 0, 0, 0] * SENSOR.white_level).round().int().tolist() == expected


def test_a_file_larger_than_the_limit_comes_alone(tmp_path):
    pairs = sized(tmp_path, [(8, 8)] * 2)
    assert [len(names) for names, _, _ in whole_files(pairs, Reader(SENSOR), pixels=10)] == [1, 1]


def test_without_pairs_whole_files_have_no_photographs(tmp_path):
    pairs = sized(tmp_path, [(8, 8)] * 2)
    for split in (Split(pairs.raws, (), paired=False), mosaics(pairs.raws[0].parent)):
        [(names, _, photos)] = whole_files(split, Reader(SENSOR))
        assert names == ["0.png", "1.png"] and photos is None


def test_a_pair_of_two_sizes_is_told_from_a_thread(mismatched):
    with pytest.raises(UserError, match="are a pair, but"):
        list(whole_files(mismatched, Reader(SENSOR)))
