"""Scores of maps between two cameras, by hand; tables that are kept until something changes."""

import math
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from torch import Tensor

import storage
from data.files import Reader
from data.planes import from_planes
from data.sensor import Sensor
from errors import UserError
from evaluation.metrics import Measure
from evaluation.raw_measures import RAW_MEASURES, kl, psnr, ssim
from evaluation.tables import checkpoints, read_best, read_table, write_ranking
from tasks.raw_scoring import MapperScorer, by_direction, columns_of, open_tables, score_maps, write_results

from .made_up_cameras import MATRIX, OTHER, SENSORS, Cameras, Mapper, Pair

CPU = torch.device("cpu")


@pytest.fixture
def cameras(tmp_path) -> Cameras:
    """Three pairs of 24x28 pixels, the middle one larger; camera b sees camera a's planes through `MATRIX`."""
    pairs = []
    for name in range(3):
        generator = torch.Generator().manual_seed(name)
        height = 16 if name == 1 else 12
        seen = {"a": 0.9 * torch.rand(1, 4, height, 14, generator=generator)}
        seen["b"] = torch.einsum("ij,njhw->nihw", MATRIX, seen["a"])
        paths = {camera: tmp_path / "paired" / camera / f"{name}.png" for camera in "ab"}
        for camera, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(path, from_planes(seen[camera], SENSORS[camera])[0, 0].numpy())
        pairs += [Pair(paths[camera], camera, paths[OTHER[camera]]) for camera in "ab"]
    return Cameras(tuple(sorted(pairs, key=lambda pair: (pair.camera, pair.source.name))))


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with three mappers: the matrix, one near it, and the identity."""
    for step, share in ((10, 0.9), (20, 1.0), (30, 0.0)):
        matrix = share * MATRIX + (1 - share) * torch.eye(4)
        storage.save(tmp_path / "runs" / "own" / "checkpoints" / f"step_{step:07d}.pt", {"matrix": matrix})
    return tmp_path / "runs" / "own"


def identity(planes: Tensor, to: str) -> Tensor:
    return planes


def scorer(run: Path, cameras: Cameras, measures=(), **options) -> MapperScorer:
    return MapperScorer(open_tables(run, cameras, measures), cameras, Mapper, CPU, **options)


# --- any maps --------------------------------------------------------------------------------------------------------


def test_scores_equal_those_computed_pair_by_pair(cameras):
    maps = {"identity": identity, "half": lambda planes, to: planes / 2 if to == "b" else planes}
    columns = columns_of(cameras, ["psnr", "kl_ba", "ssim"])
    assert columns == ("psnr", "psnr_ab", "psnr_ba", "kl_ba", "ssim", "ssim_ab", "ssim_ba")
    results = score_maps(maps, cameras, columns, CPU)
    assert list(results) == ["identity", "half"]
    for name, mapping in maps.items():
        rows, means = results[name]
        assert list(rows) == ["0.png", "1.png", "2.png"] and all(tuple(row) == columns for row in rows.values())
        for pair in cameras.pairs:
            (source, truth), end = cameras.pair(pair), f"{pair.camera}{OTHER[pair.camera]}"
            row, mapped = rows[pair.source.name], mapping(source, OTHER[pair.camera])
            assert row[f"psnr_{end}"] == psnr(mapped, truth).item()
            assert row[f"ssim_{end}"] == ssim(mapped, truth).item()
            assert end == "ab" or row["kl_ba"] == kl(mapped, truth).item()
        for column in columns:
            assert means[column] == pytest.approx(sum(row[column] for row in rows.values()) / 3)
        for row in (*rows.values(), means):
            assert row["psnr"] == pytest.approx((row["psnr_ab"] + row["psnr_ba"]) / 2)
    assert results["half"][1]["psnr_ba"] == results["identity"][1]["psnr_ba"]
    assert results["half"][1]["psnr_ab"] != results["identity"][1]["psnr_ab"]


def test_pairs_are_read_once_for_all_maps_in_order_of_progress(cameras):
    done = []
    score_maps({"one": identity, "two": identity}, cameras, columns_of(cameras), CPU, done.append)
    assert sorted(cameras.read) == ["a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png", "b/2.png"]
    assert done == [1, 2, 3, 4, 5, 6]


def test_only_the_direction_that_is_asked_for_is_mapped(cameras):
    mapped = []
    columns = columns_of(cameras, ["psnr_ba"])
    results = score_maps({"map": lambda planes, to: mapped.append(to) or planes}, cameras, columns, CPU)
    assert mapped == ["a"] * 3 and columns == ("psnr_ba",) and set(results["map"][1]) == {"psnr_ba"}


def test_each_direction_counts_the_same_with_unequal_numbers_of_files(cameras):
    some = Cameras(cameras.pairs[2:])  # one file of a
    rows, means = score_maps({"identity": identity}, some, columns_of(some, ["mae"]), CPU)["identity"]
    assert set(rows["0.png"]) == {"mae_ba"} and set(rows["2.png"]) == {"mae", "mae_ab", "mae_ba"}
    assert means["mae_ab"] == rows["2.png"]["mae_ab"]
    assert means["mae"] == pytest.approx((means["mae_ab"] + sum(row["mae_ba"] for row in rows.values()) / 3) / 2)


def test_pairs_of_one_direction_alone(cameras):
    some = Cameras(cameras.pairs[:3])
    assert columns_of(some, ["psnr"]) == ("psnr", "psnr_ab")
    rows, means = score_maps({"identity": identity}, some, columns_of(some, ["psnr"]), CPU)["identity"]
    assert means["psnr"] == means["psnr_ab"] and all(row["psnr"] == row["psnr_ab"] for row in rows.values())
    with pytest.raises(UserError, match="no pair has a mosaic of camera b, which 'psnr_ba' needs"):
        columns_of(some, ["psnr_ba"])


def test_infinite_and_missing_values(cameras):
    truths = {OTHER[pair.camera]: cameras.pair(pair)[1] for pair in cameras.pairs if pair.source.stem == "0"}
    sizes = [(1, 4, 12, 14), (1, 4, 16, 14)]

    def perfect_once(planes: Tensor, to: str) -> Tensor:
        """The truth of file 0 to camera b; NaN for the larger file to camera a."""
        if to == "a" and planes.shape == sizes[1]:
            return planes * math.nan
        return truths["b"] if to == "b" and planes.shape == sizes[0] else planes

    rows, means = score_maps({"map": perfect_once}, cameras, columns_of(cameras, ["psnr"]), CPU)["map"]
    assert rows["0.png"]["psnr_ab"] == means["psnr_ab"] == math.inf
    assert math.isnan(rows["1.png"]["psnr_ba"]) and math.isnan(means["psnr_ba"]) and math.isnan(means["psnr"])


def test_a_map_that_changes_the_size_is_refused(cameras):
    with pytest.raises(UserError, match="cannot compare planes of shape .*of the same size"):
        score_maps({"cropped": lambda planes, to: planes[..., 1:]}, cameras, columns_of(cameras), CPU)


def test_columns_are_those_of_the_protocol_in_both_directions(cameras):
    names = [f"{name}{end}" for name in ("psnr", "ssim", "mae", "kl") for end in ("", "_ab", "_ba")]
    assert list(columns_of(cameras)) == names
    assert columns_of(cameras, ["angle"]) == ("angle", "angle_ab", "angle_ba")
    assert columns_of(cameras, columns_of(cameras, ["psnr"])) == columns_of(cameras, ["psnr"])  # as process_set.py asks


@pytest.mark.parametrize(
    "measures, protocol, message",
    (
        ((), "paper", "'paper' scores photographs, but this model makes mosaics of another camera"),
        (("lpips",), "raw2raw", "protocol 'raw2raw' has no measure 'lpips'"),
        ((), "other", "unknown protocol 'other'"),
    ),
)
def test_wrong_protocols_and_measures_are_refused(cameras, measures, protocol, message):
    with pytest.raises(UserError, match=message):
        columns_of(cameras, measures, protocol)


def test_a_measure_of_planes_needs_a_function(cameras, monkeypatch):
    monkeypatch.setitem(RAW_MEASURES, "network", Measure("Network", "", False, 2, None))
    with pytest.raises(UserError, match="measure 'network_ab' has no function: planes are not scored by networks"):
        score_maps({"identity": identity}, cameras, columns_of(cameras, ["network"]), CPU)


def test_without_pairs_nothing_is_scored(run):
    with pytest.raises(UserError, match="no pairs, of the same scenes: nothing can be scored"):
        open_tables(run, Cameras(()))


def test_means_by_direction(cameras):
    results = score_maps({"identity": identity}, cameras, columns_of(cameras, ["psnr", "mae_ab"]), CPU)
    means = results["identity"][1]
    assert by_direction(results) == [
        {"map": "identity", "direction": "a->b", "files": 3, "psnr": means["psnr_ab"], "mae": means["mae_ab"]},
        {"map": "identity", "direction": "b->a", "files": 3, "psnr": means["psnr_ba"]},
    ]


def test_results_of_several_maps_are_written(cameras, tmp_path):
    maps = {"identity": identity, "dark": lambda planes, to: planes / 2}
    results = score_maps(maps, cameras, columns_of(cameras, ["psnr"]), CPU)
    write_results(results, {"data": "test"}, tmp_path / "test")
    for name in maps:
        table = read_table(tmp_path / "test" / name / "metrics.csv")
        assert table.header == {"data": "test", "map": name} and table.columns == ("psnr", "psnr_ab", "psnr_ba")
        assert table.mean["psnr"] == pytest.approx(results[name][1]["psnr"], abs=1e-6)
        assert table.rows["1.png"]["psnr_ba"] == pytest.approx(results[name][0]["1.png"]["psnr_ba"], abs=1e-6)
    lines = (tmp_path / "test" / "compare.csv").read_text().splitlines()
    assert lines[:2] == ["# data: test", "map,psnr,psnr_ab,psnr_ba"]
    assert [line.split(",")[0] for line in lines[2:]] == ["identity", "dark"]


# --- the checkpoints of a run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", (0, 2))
def test_checkpoints_are_scored_and_ranked_by_the_mean_of_both_directions(run, cameras, at_once):
    subject = scorer(run, cameras, at_once=at_once)
    assert subject.score(checkpoints(run)) == {} and subject.notes == {}
    assert subject.tables.folder == run / "scores" / "raw2raw"
    assert subject.tables.columns == ("psnr", "psnr_ab", "psnr_ba")
    ranking = subject.tables.ranking(run, higher_is_better=True)
    assert [row["step"] for row in ranking] == [20, 10, 30] and ranking[0]["psnr"] > 50  # only the quantisation
    assert all(row["psnr"] == pytest.approx((row["psnr_ab"] + row["psnr_ba"]) / 2, abs=1e-5) for row in ranking)
    expected = score_maps({"map": Mapper(str(checkpoints(run)[0]), CPU).map}, cameras, subject.tables.columns, CPU)
    table = subject.tables.read(checkpoints(run)[0])
    assert table.mean == pytest.approx(expected["map"][1], abs=1e-6)
    assert table.header["protocol"].startswith("raw2raw: ") and table.header["data"].startswith("6 pairs, ")
    write_ranking(run, subject.tables, ranking)
    assert read_best(run)["step"] == 20 and read_best(run)["ranked_by"] == "psnr"


def test_unchanged_checkpoints_are_not_scored_again(run, cameras):
    paths = checkpoints(run)
    scorer(run, cameras).score(paths[:2])
    cameras.read.clear()
    scorer(run, cameras).score(paths[:2])
    assert not cameras.read
    scorer(run, cameras).score(paths)
    assert len(cameras.read) == 6
    storage.save(paths[0], {"matrix": torch.eye(4)})
    scorer(run, cameras).score(paths)
    assert len(cameras.read) == 12
    assert scorer(run, cameras).tables.read(paths[0]).rows == scorer(run, cameras).tables.read(paths[2]).rows


def test_other_measures_are_added_to_a_table(run, cameras):
    path = checkpoints(run)[0]
    scorer(run, cameras).score([path])
    assert not open_tables(run, cameras, ["kl_ab"]).is_complete(path)
    scorer(run, cameras, ["kl_ab"]).score([path])
    table = open_tables(run, cameras).read(path)
    assert table.columns == ("kl_ab", "psnr", "psnr_ab", "psnr_ba") and set(table.mean) == set(table.columns)


def test_changed_files_readers_and_protocols_make_tables_stale(run, cameras, monkeypatch):
    path = checkpoints(run)[0]
    scorer(run, cameras).score([path])
    assert open_tables(run, cameras).is_complete(path)
    for camera in "ab":
        other = dict(cameras.readers) | {camera: Reader(Sensor("bggr", SENSORS[camera].black_level, 4095.0))}
        assert not open_tables(run, Cameras(cameras.pairs, other)).is_complete(path)
    assert not open_tables(run, Cameras(cameras.pairs[1:])).is_complete(path)
    truth = cameras.pairs[0].truth
    iio.imwrite(truth, (iio.imread(truth) // 2).astype(np.uint16))
    assert not open_tables(run, cameras).is_complete(path)


def test_a_damaged_checkpoint_does_not_stop_the_others(run, cameras):
    paths = checkpoints(run)
    paths[1].write_bytes(b"damaged")
    failed = scorer(run, cameras).score(paths)
    assert list(failed) == [paths[1]] and "not a readable checkpoint" in failed[paths[1]]
    assert open_tables(run, cameras).is_complete(paths[0]) and open_tables(run, cameras).is_complete(paths[2])


def test_a_mapper_of_other_cameras_is_noted(run, cameras, capsys):
    cameras.readers["b"] = Reader(Sensor("grbg", (0.0,) * 4, 16383.0))
    scorer(run, cameras).score(checkpoints(run)[:1])
    printed = capsys.readouterr().err
    assert "fake was trained on a camera b with CFA grbg, black 0 0 0 0, white 1023" in printed
    assert printed.count("colours may be wrong") == 1


def test_too_many_checkpoints_at_once_are_refused(run, cameras):
    with pytest.raises(UserError, match="--at-once must lie between 0 and 1024, but is -1"):
        scorer(run, cameras, at_once=-1)


@pytest.mark.parametrize("at_once", (1, 2))
def test_progress_goes_by_mosaics(run, cameras, at_once):
    subject, parts = scorer(run, cameras, at_once=at_once), []
    assert subject.open() == 6
    subject.score(checkpoints(run)[:2], parts.append)
    moments = sorted({round(6 * part) for part in parts})
    assert moments == list(range(at_once, 13, at_once)) and parts[-1] == 2
