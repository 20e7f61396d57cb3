"""Windows, flips, and the stream of patches as a function of seed, stage and position alone."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.folders import Split
from data.patches import OfWhole, Patches, centre, flip, photo_tensor, random_window
from data.reference import Reference
from data.sensor import CFA_ORDERS
from data.unprocess import mosaic as mosaic_of
from errors import UserError

PATCH = 8


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("even, starts", ((True, {0, 2, 4}), (False, {0, 1, 2, 3, 4})))
def test_windows_reach_both_ends(even, starts):
    rng = np.random.default_rng(0)
    windows = [random_window((12, 12), 8, rng, Path("m.png"), even) for _ in range(200)]
    assert {rows.start for rows, _ in windows} == {columns.start for _, columns in windows} == starts
    assert len({(rows.start, columns.start) for rows, columns in windows}) == len(starts) ** 2
    assert all(side.stop - side.start == 8 for window in windows for side in window)


def test_a_window_may_span_the_whole_image():
    window = random_window((8, 10, 3), 8, np.random.default_rng(0), Path("p.png"), even=True)
    assert window[0] == slice(0, 8)


@pytest.mark.parametrize("shape", ((6, 40), (40, 6)))
def test_an_image_smaller_than_the_patch_is_refused(shape):
    with pytest.raises(UserError, match=f"m.png is {shape[0]}x{shape[1]}, smaller than a patch of 8: lower"):
        random_window(shape, 8, np.random.default_rng(0), Path("m.png"), even=True)


def test_the_centre_is_square_and_starts_at_even_positions():
    rows, columns = np.indices((9, 14))
    image = np.stack((rows, columns), axis=2)
    assert centre(image)[0, 0].tolist() == [0, 2] and centre(image).shape == (8, 8, 2)
    assert centre(image, most=5)[0, 0].tolist() == [2, 4] and centre(image, most=5).shape == (4, 4, 2)


FLIPS = ((False, False), (True, False), (False, True), (True, True))


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("rows, columns", FLIPS)
def test_the_flipped_mosaic_is_the_mosaic_of_the_flipped_photograph(cfa, rows, columns):
    photo = np.random.default_rng(0).integers(0, 256, (8, 10, 3))
    assert np.array_equal(flip(mosaic_of(photo, cfa), rows, columns), mosaic_of(flip(photo, rows, columns), cfa))


@pytest.mark.parametrize("rows, columns", FLIPS)
def test_a_flip_mirrors_and_undoes_itself_except_at_one_edge(rows, columns):
    image = np.arange(8 * 10).reshape(8, 10)
    flipped = flip(image, rows, columns)
    inside = image[:-1, :-1]
    assert np.array_equal(flipped[:-1, :-1], inside[:: -1 if rows else 1, :: -1 if columns else 1])
    assert np.array_equal(flip(flipped, rows, columns)[:-1, :-1], inside)


def test_a_flip_fills_the_edge_by_reflection():
    assert flip(np.arange(6)[:, None], rows=True, columns=False)[:, 0].tolist() == [4, 3, 2, 1, 0, 1]


def test_photo_tensor_by_hand():
    photo = np.array([[[0, 51, 255], [255, 0, 0]]], np.uint8)[:, ::-1]  # a view, as a flip returns
    torch.testing.assert_close(photo_tensor(photo), torch.tensor([[[1, 0]], [[0, 0.2]], [[0, 1.0]]]))


# --- random numbers --------------------------------------------------------------------------------------------------


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("flips", (False, True))
@pytest.mark.parametrize("stage", (0, 1, 2))
def test_a_sample_depends_on_seed_stage_and_position_alone(scenes, flips, stage):
    patches = Patches(scenes.split, scenes.files, PATCH, 1, stage, flips)
    forwards = [patches[k] for k in range(7)]
    for k in reversed(range(7)):
        assert same(Patches(scenes.split, scenes.files, PATCH, 1, stage, flips)[k], forwards[k])


def draws(scenes, seed: int, stage: int) -> list[tuple[int, ...]]:
    """Scene, top and left of the mosaics, and of the targets, of the first samples of an unpaired stream."""
    patches, found = Patches(scenes.unpaired, scenes.files, PATCH, seed, stage), []
    for sample in (patches[k] for k in range(6)):
        draw = ()
        for values in (scenes.digital(sample["mosaic"])[0], scenes.digital_of_photo(sample["target"])[0]):
            scene = scenes.number(values)
            [position] = np.argwhere(iio.imread(scenes.split.raws[scene]) == int(values[0, 0]))
            draw += (scene, *map(int, position))
        found.append(draw)
    return found


@pytest.mark.parametrize(
    "seed, stage, expected",  # as drawn before a run could have more than two stages
    (
        (0, 0, [(2, 16, 0, 1, 4, 6), (4, 16, 8, 4, 5, 14), (3, 2, 0, 3, 8, 1), (0, 4, 8, 0, 10, 5)]),
        (0, 1, [(4, 10, 8, 1, 15, 7), (0, 10, 16, 4, 6, 1), (1, 12, 14, 0, 15, 7), (2, 16, 12, 3, 14, 1)]),
        (3, 1, [(2, 4, 4, 3, 2, 7), (0, 2, 8, 0, 5, 1), (4, 16, 10, 2, 7, 5), (1, 4, 16, 1, 12, 2)]),
    ),
)
def test_the_first_two_stages_draw_the_same_as_ever(scenes, seed, stage, expected):
    assert draws(scenes, seed, stage)[:4] == expected


@pytest.mark.parametrize("stage", (0, 1))
def test_the_first_two_stages_use_consecutive_seeds(scenes, stage):
    for seed in (0, 1, 7):
        patches = Patches(scenes.unpaired, scenes.files, PATCH, seed, stage, flips=True)
        for k in (0, 3, 4, 12):
            epoch, index = divmod(k, scenes.count)
            orders = (np.random.default_rng((2 * seed + stage, s, epoch)).permutation(scenes.count) for s in (0, 1))
            raw, photo = (int(order[index]) for order in orders)
            rng = np.random.default_rng((2 * seed + stage, 2, k))
            expected = []
            for path, stride in ((scenes.split.raws[raw], 2), (scenes.split.photos[photo], 1)):
                top, left = (stride * int(n) for n in (rng.integers(0, (24 - PATCH) // stride + 1) for _ in range(2)))
                patch = iio.imread(path)[top : top + PATCH, left : left + PATCH]
                expected.append(flip(patch, *(rng.random(2) < 0.5)))
            assert np.array_equal(scenes.digital(patches[k]["mosaic"])[0], expected[0])
            assert torch.equal(patches[k]["target"], photo_tensor(expected[1]))


def test_no_stage_of_any_seed_repeats_another(scenes):
    streams = {(seed, stage): tuple(draws(scenes, seed, stage)) for seed in range(6) for stage in range(6)}
    assert len(set(streams.values())) == len(streams)


# --- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", (0, 1, 2))
@pytest.mark.parametrize("stage", (0, 3))
def test_an_epoch_draws_every_file_once(scenes, epoch, stage):
    positions = range(epoch * scenes.count, (epoch + 1) * scenes.count)
    for split in (scenes.split, scenes.unpaired):
        samples = [Patches(split, scenes.files, PATCH, 3, stage)[k] for k in positions]
        everything = list(range(scenes.count))
        assert sorted(scenes.number(scenes.digital(sample["mosaic"])) for sample in samples) == everything
        assert sorted(scenes.number(scenes.digital_of_photo(sample["target"])) for sample in samples) == everything


def drawn(scenes, split: Split, chunk: int, positions: range) -> list[tuple[int, int]]:
    """The scenes of mosaic and target of each sample."""
    samples = [Patches(split, scenes.files, PATCH, 3, chunk=chunk)[k] for k in positions]
    values = [(scenes.digital(sample["mosaic"]), scenes.digital_of_photo(sample["target"])) for sample in samples]
    return [(scenes.number(mosaic), scenes.number(target)) for mosaic, target in values]


@pytest.mark.parametrize("chunk", (1, 2, 3, 4))
def test_a_chunk_is_a_new_choice_of_files_without_repeats(scenes, chunk):
    for split in (scenes.split, scenes.unpaired):
        rows = drawn(scenes, split, chunk, range(12 * chunk))
        chunks = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
        for side in (0, 1):
            assert all(len({row[side] for row in part}) == chunk for part in chunks)
            assert len({tuple(row[side] for row in part) for part in chunks}) > 3  # not one order again and again
        covered = {row[0] for row in rows[: scenes.count // chunk * chunk]}
        assert chunk == 1 or len(covered) < scenes.count  # unlike an epoch, it may leave files out and repeat others
        assert all(mosaic == target for mosaic, target in rows) == split.paired


@pytest.mark.parametrize("chunk", (5, 6, 100))
def test_a_chunk_of_more_samples_than_files_is_an_epoch(scenes, chunk):
    for split in (scenes.split, scenes.unpaired):
        assert drawn(scenes, split, chunk, range(12)) == drawn(scenes, split, 0, range(12))


@pytest.mark.parametrize("chunk", (0, 3, 100))
def test_a_sample_of_a_chunk_depends_on_its_position_alone(scenes, chunk):
    forwards = [Patches(scenes.unpaired, scenes.files, PATCH, 1, flips=True, chunk=chunk)[k] for k in range(9)]
    patches = Patches(scenes.unpaired, scenes.files, PATCH, 1, flips=True, chunk=chunk)
    assert all(same(patches[k], forwards[k]) for k in reversed(range(9)))


@pytest.mark.parametrize("flips", (False, True))
def test_a_pair_is_the_same_window_of_the_same_scene(scenes, flips):
    patches = Patches(scenes.split, scenes.files, PATCH, seed=0, flips=flips)
    for k in range(12):
        mosaic, target = patches[k]["mosaic"], patches[k]["target"]
        assert mosaic.shape == (1, PATCH, PATCH) and target.shape == (3, PATCH, PATCH)
        assert torch.equal(scenes.digital(mosaic), scenes.digital_of_photo(target))


def test_the_span_is_that_of_the_whole_mosaic(scenes):
    reference = Reference(scenes.reader.sensor)
    sample = Patches(scenes.split, scenes.files, PATCH, seed=0, spans=OfWhole(reference.span, reference.sensor))[0]
    raw_path = scenes.split.raws[scenes.number(scenes.digital(sample["mosaic"]))]
    whole = scenes.reader.mosaic_tensor(iio.imread(raw_path))[None]
    assert sample["span"].shape == (2,) and torch.equal(sample["span"], reference.span(whole)[0])
    [(top, left)] = (
        (row, column)
        for row in range(0, scenes.side - PATCH + 1, 2)
        for column in range(0, scenes.side - PATCH + 1, 2)
        if torch.equal(whole[0, :, row : row + PATCH, column : column + PATCH], sample["mosaic"])
    )
    # Away from its mirrored border, a demosaiced patch resembles the same window of the demosaiced file.
    patch = reference(sample["mosaic"][None], sample["span"][None])[0][:, 3:-3, 3:-3]
    window = reference(whole)[0][:, top + 3 : top + PATCH - 3, left + 3 : left + PATCH - 3]
    assert (patch - window).abs().median() < 0.05


def test_without_spans_nothing_is_demosaiced(scenes, monkeypatch):
    monkeypatch.setattr(Reference, "span", lambda *_: pytest.fail("demosaiced a file"))
    sample = Patches(scenes.split, scenes.files, PATCH, seed=0)[0]
    assert set(sample) == {"mosaic", "target"}


def test_flips_occur_in_all_four_combinations(scenes):
    plain, flipped = (Patches(scenes.split, scenes.files, PATCH, seed=0, flips=flips) for flips in (False, True))
    found = set()
    for k in range(24):
        one, other = plain[k]["mosaic"][0, :-1, :-1], flipped[k]["mosaic"][0, :-1, :-1]
        found |= {dims for dims in ((), (0,), (1,), (0, 1)) if torch.equal(one.flip(dims), other)}
    assert found == {(), (0,), (1,), (0, 1)}


def test_unpaired_mosaics_and_targets_are_independent(scenes):
    patches = Patches(scenes.unpaired, scenes.files, PATCH, seed=0)
    samples = [patches[k] for k in range(6 * scenes.count)]
    values = [(scenes.digital(sample["mosaic"]), scenes.digital_of_photo(sample["target"])) for sample in samples]
    pairs = {(scenes.number(mosaic), scenes.number(target)) for mosaic, target in values}
    assert len(pairs) > 2 * scenes.count  # more than one partner for each scene
    assert not any(torch.equal(mosaic, target) for mosaic, target in values)


def test_there_may_be_fewer_mosaics_than_photographs(scenes):
    lopsided = Split(scenes.split.raws[:2], scenes.split.photos, paired=False)
    patches = Patches(lopsided, scenes.files, PATCH, seed=0)
    targets = {scenes.number(scenes.digital_of_photo(patches[k]["target"])) for k in range(scenes.count)}
    assert targets == set(range(scenes.count))


def test_a_pair_of_different_sizes_is_refused(scenes, mismatched):
    with pytest.raises(UserError, match=r"m.png and .*p.png are a pair, but of different sizes: 16x16 and 16x6"):
        Patches(mismatched, scenes.files, PATCH, seed=0)[0]


def test_a_file_smaller_than_the_patch_is_named(scenes):
    with pytest.raises(UserError, match="_raw.png is 24x24, smaller than a patch of 32"):
        Patches(scenes.split, scenes.files, 32, seed=0)[0]
