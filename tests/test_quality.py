"""The comparison of ways to train without pairs: its splits, the commands that it prints, its table."""

import shlex

import pytest

import fit
from errors import UserError
from evaluation.tables import Table
from tasks.data import open_data

from .benchmark_runs import run_main


@pytest.fixture
def splits(load, monkeypatch, tmp_path, make_pairs):
    """Six pairs in the splits that `quality` makes."""
    root = tmp_path / "pairs"
    make_pairs(root / "train" / "mediatek_raw", root / "train" / "fujifilm", 6, 0)
    make_pairs(root / "val" / "mediatek_raw", root / "val" / "fujifilm", 2, 1)
    run_main(load, monkeypatch, "quality", "split", root, tmp_path / "data")
    return tmp_path / "data"


def test_each_split_parts_the_scenes(splits):
    def stems(kind: str, side: str, split: str) -> set[str]:
        return {path.stem for path in (splits / split / kind / "train" / side).iterdir()}

    seen = set()
    for split in ("hash", "swap", "name", "random0", "random1"):
        mosaics, photographs = stems("unpaired", "raws", split), stems("unpaired", "jpegs", split)
        assert len(mosaics) == len(photographs) == 3 and not mosaics & photographs
        assert stems("paired", "raws", split) == stems("paired", "jpegs", split) == mosaics
        seen.add(frozenset(mosaics))
    assert stems("unpaired", "raws", "hash") == stems("unpaired", "jpegs", "swap") and len(seen) >= 3
    config = fit.parse(["--data.layout", "ntire26", "--data.root", str(splits / "name" / "unpaired"), "--data.no-demo"])
    found, _, _ = open_data(config[0])
    assert not found["train"].paired and len(found["val"]) == 2 and found["val"].paired


def numbers(folder) -> list[int]:
    return sorted(int(path.stem) for path in folder.iterdir())


def test_parts_of_one_photograph_stay_together(load, monkeypatch, splits, tmp_path):
    (tmp_path / "pairs" / "train" / "metadata.csv").write_text("file,red_gain,blue_gain\n")
    options = ("--group", "2", "--files", "2")
    run_main(load, monkeypatch, "quality", "split", tmp_path / "pairs", tmp_path / "grouped", *options)
    for split in ("hash", "swap", "name", "random0"):
        folder = tmp_path / "grouped" / split / "unpaired" / "train"
        mosaics, photographs = numbers(folder / "raws"), numbers(folder / "jpegs")
        assert (folder / "metadata.csv").is_file()
        for side in (mosaics, photographs):
            assert len(side) == 2 and side[0] % 2 == 0 and side[1] == side[0] + 1
        assert not set(mosaics) & set(photographs)
    with pytest.raises(UserError, match="has 6 training pairs, which --group 4 does not divide"):
        run_main(load, monkeypatch, "quality", "split", tmp_path / "pairs", tmp_path / "other", "--group", "4")


def test_each_of_few_pairs_is_left_out_once(load, monkeypatch, splits, tmp_path):
    run_main(load, monkeypatch, "quality", "split", tmp_path / "pairs", tmp_path / "folds", "--leave-out")
    left = [numbers(tmp_path / "folds" / f"fold{fold}" / "paired" / "val" / "raws") for fold in range(6)]
    assert left == [[0], [1], [2], [3], [4], [5]]
    assert numbers(tmp_path / "folds" / "fold2" / "unpaired" / "train" / "jpegs") == [0, 1, 3, 4, 5]


def test_quality_says_where_its_datasets_are_missing(load, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no folder .*absent: make it with `split`"):
        run_main(load, monkeypatch, "quality", "results", tmp_path / "absent")


def test_quality_prints_a_command_that_fit_accepts_for_each_run(load, monkeypatch, capsys, splits):
    options = ("--splits", "hash", "name", "--seeds", "0", "1", "--runs", "R", "--", "--data.cfa", "grbg")
    run_main(load, monkeypatch, "quality", "commands", splits, *options)
    lines = capsys.readouterr().out.splitlines()
    names = set()
    for line in lines:
        train, score = (shlex.split(part) for part in line.split(" && "))
        config, resume = fit.parse(train[2:])
        assert resume and config.data.cfa == "grbg" and config.run in score[score.index("--checkpoint") + 1]
        names.add(config.run)
    assert len(names) == len(lines) == 4 * len(load("quality").WAYS)


def test_quality_tables_mean_and_deviation(load, monkeypatch, capsys, splits, tmp_path):
    for seed, psnr in ((0, 20.0), (1, 22.0)):
        mean = {"psnr": psnr, "ssim": 0.5, "lpips": 0.25}
        Table({}, tuple(mean), {}, mean).write(
            tmp_path / f"synthetic-pairs-hash-{seed}" / "scores" / "step_0004000.csv"
        )
    run_main(load, monkeypatch, "quality", "results", splits, "--runs", tmp_path, "--splits", "hash", "name")
    printed = capsys.readouterr().out
    assert "| PSNR: synthetic pairs (2 runs) | 21.00 ± 1.00 | 21.00 |  |" in printed and "published game" not in printed
