"""Compare ways to train without pairs, on several splits of a set of pairs into mosaics and photographs.

python benchmarks/quality.py split PAIRS DATA [--group 4]     link the pairs into datasets: DATA/hash, DATA/swap, ...
python benchmarks/quality.py commands DATA [-- OPTION ...]    print a line for each run: way x split x seed
python benchmarks/quality.py results DATA                     the table of all runs that are trained and scored

PAIRS is a dataset of layout "fujifilm" with train/ and val/, DATA a folder to make. The options after -- are those of
the camera and of the frozen networks, for all runs.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import common  # noqa: F401 - adds the repository's root to sys.path
import numpy as np

import fit
from config import Config
from data.conditions import tables_of
from data.folders import Split, open_dataset, unpaired
from errors import UserError, run_cli
from evaluation.metrics import MEASURES
from evaluation.tables import read_table

SPLITS = ("hash", "swap", "name", "random0", "random1")
COLUMNS = ("psnr", "ssim", "lpips")
SCHEDULE = "--log.val-every 1000 --log.save-every 1000 --log.state-every 1000"
GAME = (  # the settings of docs/results.md
    "fujifilm-efficient --pretrain.steps 3000 --pretrain.lr 1e-3 --pretrain.content 0 --pretrain.tv 0.03 "
    "--train.steps 1200 --train.lr 1e-3 --train.critic-lr 5e-4 --train.critic-every 1 --train.content 0.5 "
    "--train.tv 0.3 --train.ema 0.998 --train.schedule cosine --compute.precision bf16 "
    "--data.patch 64 --data.batch 8 --data.flips --data.workers 0 --data.test-count 0 "
    "--log.val-every 400 --log.save-every 400 --log.state-every 400"
)
TOWARDS = (
    "--train.mode unpaired --train.steps 0 --data.reference transport --data.color-map transport --pretrain.steps 4000 "
    "--pretrain.lr 4e-3 --pretrain.schedule cosine --pretrain.mse 1 --pretrain.content 0 --pretrain.tv 0"
)

# A way to train -> (the pairs that it sees, its options). "paired" are ceilings: they see the mosaics' own photographs.
WAYS = {
    "published game": ("unpaired", GAME),
    "towards transport": ("unpaired", f"quick {TOWARDS} {SCHEDULE}"),
    "towards transport, weighted": ("unpaired", f"quick --data.weights semantic {TOWARDS} {SCHEDULE}"),
    "synthetic pairs": ("unpaired", f"quick --data.color-map transport {SCHEDULE}"),
    "synthetic pairs, statistics": ("unpaired", f"quick {SCHEDULE}"),
    "synthetic pairs, statistics, LPIPS+": ("unpaired", f"quick --train.lpips 1 {SCHEDULE}"),
    "synthetic pairs, weighted": ("unpaired", f"quick --data.color-map transport --data.weights semantic {SCHEDULE}"),
    "paired, MSE": ("paired", f"quick --train.mode paired {SCHEDULE}"),
    "paired, Eq. 10": ("paired", f"{GAME} --train.mode paired --train.content 1 --train.tv 1"),
}
# The same for cameras whose light and exposure change from scene to scene (data/conditions.py, data/context.py).
for kind in ("exposure", "gray_world", "as_shot"):
    for way in ("synthetic pairs", "synthetic pairs, statistics", "paired, MSE"):
        WAYS[f"{way}, {kind}"] = (WAYS[way][0], f"{WAYS[way][1]} --data.normalise {kind}")
WAYS["towards transport, as_shot"] = ("unpaired", f"{WAYS['towards transport'][1]} --data.normalise as_shot")
BEST = "synthetic pairs, statistics, as_shot"
WAYS[f"{BEST}, LPIPS+"] = (WAYS[BEST][0], f"{WAYS[BEST][1]} --train.lpips 1")
for way in ("paired, MSE", "paired, MSE, as_shot", BEST):
    WAYS[f"{way}, context"] = (WAYS[way][0], f"{WAYS[way][1]} --model efficient-context")


# --- the datasets ----------------------------------------------------------------------------------------------------


def halves(train: Split, split: str, group: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose mosaics are trained on, and those whose photographs are, as indices. All splits are disjoint.

    Neighbouring pairs, `group` of them, are parts of one photograph and stay together.
    """
    if group > 1:
        sides = halves(train.take(range(0, len(train), group)), split)
        return tuple((group * firsts[:, None] + np.arange(group)).ravel() for firsts in sides)
    count = len(train)
    if split in ("hash", "swap"):
        mosaics = unpaired(train, "disjoint", seed=0).raws
        chosen = np.array([index for index, path in enumerate(train.raws) if path in set(mosaics)])
    elif split == "name":
        chosen = np.arange(count // 2)
    else:
        chosen = np.random.default_rng(int(split.removeprefix("random"))).permutation(count)[: count // 2]
    others = np.setdiff1d(np.arange(count), chosen)
    return (others, chosen) if split == "swap" else (np.sort(chosen), others)


def link(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        os.symlink(file.resolve(), folder / file.name)


def few(chosen: np.ndarray, files: int, group: int) -> np.ndarray:
    """At most so many of the files, in whole groups, drawn at random; 0: all."""
    if not 0 < files < len(chosen):
        return chosen
    groups = chosen.reshape(-1, group)
    return groups[np.sort(np.random.default_rng(0).permutation(len(groups))[: files // group])].ravel()


def split_pairs(pairs: str, out: Path, group: int, files: int) -> None:
    """Link the pairs into the datasets OUT/SPLIT/{unpaired,paired}, of layout "ntire26". Raises `UserError`."""
    splits = _open(pairs, out, group)
    if not splits["val"]:
        raise UserError(f"{pairs} has no val/ with pairs")
    for name in SPLITS:
        mosaics, photographs = (few(side, files, group) for side in halves(splits["train"], name, group))
        for kind, shown in (("unpaired", photographs), ("paired", mosaics)):
            train = splits["train"].take(mosaics).raws, splits["train"].take(shown).photos
            _link_dataset(out / name / kind, train, (splits["val"].raws, splits["val"].photos))


def leave_out(pairs: str, out: Path, group: int) -> None:
    """Link few pairs into the datasets OUT/fold0, ..., each with another group to validate on. Raises `UserError`."""
    pairs = _open(pairs, out, group)["train"]
    for fold in range(len(pairs) // group):
        own = range(fold * group, (fold + 1) * group)
        train, val = (pairs.take([i for i in range(len(pairs)) if (i in own) == left]) for left in (False, True))
        for kind in ("unpaired", "paired"):
            _link_dataset(out / f"fold{fold}" / kind, (train.raws, train.photos), (val.raws, val.photos))


def _open(pairs: str, out: Path, group: int) -> dict[str, Split]:
    if out.exists():
        raise UserError(f"{out} exists: name another folder")
    splits = open_dataset("fujifilm", pairs, pairs="yes", val=0, test=0)
    if group < 1 or len(splits["train"]) % group:
        raise UserError(f"{pairs} has {len(splits['train'])} training pairs, which --group {group} does not divide")
    return splits


def _link_dataset(folder: Path, train: tuple[Sequence[Path], ...], val: tuple[Sequence[Path], ...]) -> None:
    """FOLDER/{train,val}/{raws,jpegs}, and the tables of the mosaics."""
    for split, (raws, photos) in (("train", train), ("val", val)):
        link(raws, folder / split / "raws")
        link(photos, folder / split / "jpegs")
        link(tables_of(raws), folder / split)


# --- the runs --------------------------------------------------------------------------------------------------------


def run_name(way: str, split: str, seed: int) -> str:
    return f"{way.replace(',', '').replace(' ', '-')}-{split}-{seed}"


def commands(given: argparse.Namespace, options: Sequence[str]) -> list[str]:
    """A shell line for each run: train it, then score its last checkpoint. Raises `UserError` as `fit.parse`."""
    lines = []
    for way in given.ways:
        kind, own = WAYS[way]
        for split in given.splits:
            data = ("--data.layout", "ntire26", "--data.root", str(given.data / split / kind))
            for seed in given.seeds:
                run = ("--run", run_name(way, split, seed), "--runs", given.runs)
                train = (*own.split(), *data, *options, "--seed", str(seed), *run)
                last = _last_checkpoint(fit.parse(train)[0])
                score = ("python", "inference.py", "--checkpoint", last, *run, "--measures", *COLUMNS)
                lines.append(f"{shlex.join(('python', 'fit.py', *train, '--resume'))} && {shlex.join(score)}")
    return lines


def _last_checkpoint(config: Config) -> str:
    """The file that a run ends with."""
    name = f"step_{config.train.steps:07d}" if config.train.steps else "pretrained"
    return str(Path(config.runs) / config.run / "checkpoints" / f"{name}.pt")


def results(given: argparse.Namespace) -> list[str]:
    """A table in Markdown: for each way and measure, the mean and deviation over splits and seeds, and each split's."""
    lines = [f"| | {' | '.join(('all', *given.splits))} |", "|---" * (len(given.splits) + 2) + "|"]
    for column in COLUMNS:
        digits = MEASURES[column].digits
        for way in given.ways:
            found = {split: _scores(given, way, split, column) for split in given.splits}
            every = [score for scores in found.values() for score in scores]
            if not every:
                continue
            cells = [f"{np.mean(every):.{digits}f} ± {np.std(every):.{digits}f}"]
            cells += [f"{np.mean(scores):.{digits}f}" if scores else "" for scores in found.values()]
            lines.append(f"| {MEASURES[column].label}: {way} ({len(every)} runs) | {' | '.join(cells)} |")
    return lines


def _scores(given: argparse.Namespace, way: str, split: str, column: str) -> list[float]:
    """The score of the last checkpoint of each seed's run, of the runs that have one."""
    found = []
    for seed in given.seeds:
        scored = sorted(
            (Path(given.runs) / run_name(way, split, seed) / "scores").glob("[ps]*.csv")
        )  # pretrained, step_
        table = read_table(scored[-1]) if scored else None
        found += [table.mean[column]] if table else []
    return found


def _place(split: str) -> tuple[int, str]:
    """Where a split comes in tables."""
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), split


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = options.add_subparsers(dest="step", required=True)
    splitting = steps.add_parser("split", help="link a set of pairs into datasets")
    splitting.add_argument("pairs", help="a dataset of layout fujifilm")
    splitting.add_argument("data", type=Path, help="the folder to make")
    splitting.add_argument("--leave-out", action="store_true", help="folds, instead, of very few pairs")
    splitting.add_argument("--files", type=int, default=0, metavar="N", help="at most so many on a side (all)")
    splitting.add_argument("--group", type=int, default=1, metavar="N", help="pairs that are parts of one photograph")
    for name in ("commands", "results"):
        step = steps.add_parser(name)
        step.add_argument("data", type=Path, help="the folder that `split` made")
        step.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="only these")
        step.add_argument("--splits", nargs="+", metavar="S", help="only these (all in DATA)")
        step.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="(0 1 2)")
        step.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (%(default)s)")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given = options.parse_args(sys.argv[1:end])
    if given.step == "split":
        if given.files and (given.leave_out or given.files < given.group):
            raise UserError("--files needs at least a whole --group, and has no effect with --leave-out")
        make = leave_out if given.leave_out else partial(split_pairs, files=given.files)
        make(given.pairs, given.data, given.group)
        return
    if not given.data.is_dir():
        raise UserError(f"no folder {given.data}: make it with `split`")
    given.splits = given.splits or sorted((path.name for path in given.data.glob("[!.]*")), key=_place)
    print("\n".join(commands(given, sys.argv[end + 1 :]) if given.step == "commands" else results(given)))


if __name__ == "__main__":
    run_cli(main)
