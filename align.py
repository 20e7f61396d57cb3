"""Align pairs of RAW files and photographs of the same scenes by another camera, as a dataset that fit.py reads.

python align.py RAWS PHOTOS OUT [--match name|time|content] [--patch 256]          writes OUT/{raw,photos,masks}
python align.py --check DATASET OUT          measures the pairs of a dataset: OUT/excluded.txt, for --data.exclude
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import storage
from config import Data
from data import aligned, camera
from data.aligned import Rules
from data.alignment import Options
from data.camera_files import CAMERA_FILES
from data.folders import LAYOUTS, mosaics, open_dataset, photographs
from data.matching import Pair, by_content, by_names, by_times
from data.notes import note
from data.photographs import read_photo
from data.sensor import CFA_ORDERS, Sensor
from errors import UserError, run_cli
from evaluation.alignment_page import write_alignment_page
from tasks.alignment import Aligner, Checker, Source, claim_output, facts_of, jobs_of, open_source, undone
from tasks.batch import Batch, depth_for

THRESHOLDS = {  # of Options: what the option's help says
    "ratio": "distance of the best to the second best match of a feature, at most (Lowe, 2004: 0.8)",
    "reprojection": "pixels by which MAGSAC's inliers may be off",
    "inliers": "matches that must fit the homography",
    "reach": "pixels by which the local refinement moves at most",
    "round_trip": "pixels: largest error of the flow there and back in the mask",
    "mask_ncc": "lowest correlation around a pixel of the mask",
    "ncc": "lowest correlation of a kept patch",
    "flow": "pixels: largest mean residual flow of a kept patch (Xing et al.: 1.2); with --check, of a pair",
}
COARSE = 0.8  # pixels of a photograph for one of the mosaic: with fewer, the aligned photograph is visibly blurred
CHECKED = ("flow",)  # the thresholds that --check has


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit together."""
    options = argparse.ArgumentParser("align.py", description="Align photographs to the RAW files of the same scenes.")
    add = options.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="RAWS PHOTOS OUT; with --check, DATASET OUT or RAWS PHOTOS OUT")
    add("--check", action="store_true", help="measure pairs that should be aligned already, and list the misaligned")
    add("--match", choices=("name", "time", "content"), help="how RAW files and photographs belong together (name)")
    add("--patch", type=int, metavar="P", help=f"pixels of a side of the patches; 0: whole frames ({Rules.patch})")
    add("--valid", type=float, metavar="SHARE", help=f"of a kept patch that its mask must hold ({Rules.valid})")
    add("--write-all", action="store_true", help="write rejected patches, too, and name them in excluded.txt")
    add("--local", choices=("auto", "off"), help="refine locally where held-out colours agree better (auto)")
    for field in fields(Options):
        if field.name in THRESHOLDS:
            text = f"{THRESHOLDS[field.name]} ({field.default:g})"
            add(f"--{field.name.replace('_', '-')}", type=type(field.default), metavar="X", help=text)
    add("--camera", default="", metavar="FILE", help="profile (python -m data.camera) of plain mosaics")
    add("--cfa", choices=CFA_ORDERS, help="of plain mosaics: colour order of the top left 2x2 pixels")
    add("--black-level", type=float, nargs=4, metavar=("R", "Gr", "Gb", "B"), help="of plain mosaics")
    add("--white-level", type=float, metavar="W", help="of plain mosaics, in digital numbers")
    add("--raw-height", type=int, default=0, metavar="H", help="of .raw files without a header, in pixels")
    add("--raw-width", type=int, default=0, metavar="W", help="of .raw files without a header, in pixels")
    add("--n", type=int, metavar="N", help="work on the pairs whose index modulo N is the --remainder")
    add("--remainder", type=int, metavar="R", help="of the index modulo N (0)")
    given = options.parse_args(arguments)
    for wrong, sentence in _mistakes(given):
        if wrong:
            options.error(sentence)
    return given


def _mistakes(given: argparse.Namespace) -> list[tuple[object, str]]:
    """(whether it is so, the sentence)."""
    levels = (given.cfa, given.black_level, given.white_level)
    unused = [name for name in (*THRESHOLDS, "match", "patch", "valid", "local") if getattr(given, name) is not None]
    unused = [f"--{name.replace('_', '-')}" for name in unused if name not in CHECKED]
    unused += ["--write-all"] if given.write_all else []
    return [
        ("" in given.folders, "a folder's name is empty"),
        (not given.check and len(given.folders) != 3, "give three folders: RAWS PHOTOS OUT"),
        (given.check and len(given.folders) not in (2, 3), "give DATASET OUT or RAWS PHOTOS OUT to --check"),
        (given.check and unused, f"{''.join(unused[:1])} has no effect with --check"),
        (given.patch == 0 and given.valid is not None, "--valid has no effect with --patch 0"),
        (given.local == "off" and given.reach is not None, "--reach has no effect with --local off"),
        (any(levels) and not all(levels), "--cfa, --black-level and --white-level belong together"),
        (bool(given.raw_height) != bool(given.raw_width), "--raw-height and --raw-width belong together"),
        (min(given.raw_height, given.raw_width) < 0, "--raw-height and --raw-width must be positive"),
        (given.remainder is not None and given.n is None, "--remainder needs --n"),
        (given.n is not None and given.n < 1, "--n must be at least 1"),
        (given.n and not 0 <= (given.remainder or 0) < given.n, "--remainder must lie between 0 and --n - 1"),
    ]


# --- which pairs -----------------------------------------------------------------------------------------------------


def refuse_nested(given: argparse.Namespace) -> None:
    """Raise `UserError` if OUT is one of the folders to read, or two of these are one."""
    *sources, out = (Path(folder).resolve() for folder in given.folders)
    if out in sources:
        raise UserError(f"{given.folders[-1]} is to be written and read: choose another OUT")


def levels_of(given: argparse.Namespace) -> Sensor | None:
    """The camera of the command line; None if it is not given."""
    return Sensor(given.cfa, tuple(given.black_level), given.white_level) if given.cfa else None


def pairs_to_align(given: argparse.Namespace) -> tuple[list[Pair], Source]:
    """The pairs of the two folders, and how their RAW files are read."""
    raws, photos = mosaics(Path(given.folders[0])).raws, photographs(Path(given.folders[1]))
    source = open_source(raws, levels_of(given), given.camera, (given.raw_height, given.raw_width))
    if given.match == "time":
        return by_times(raws, photos), source
    if given.match == "content":
        known = set(raws)
        return by_content(
            raws, photos, lambda path: source.picture(path) if path in known else read_photo(path)
        ), source
    return by_names(raws, photos), source


def pairs_to_check(given: argparse.Namespace) -> tuple[list[Pair], Source]:
    """The training pairs of a dataset, and how their RAW files are read: by default, as fit.py reads them."""
    levels = levels_of(given)
    if len(given.folders) == 3:
        split = open_dataset("folders", "", *given.folders[:2], pairs="yes", val=0, test=0)["train"]
    else:
        root = Path(given.folders[0])
        found = [name for name, layout in LAYOUTS.items() if layout.raw and (root / "train" / layout.raw).is_dir()]
        if not found:
            known = ", ".join(f"train/{layout.raw} ({name})" for name, layout in LAYOUTS.items() if layout.raw)
            raise UserError(f"{root} has the folders of no known dataset: {known}")
        split = open_dataset(found[0], str(root), pairs="yes", val=0, test=0)["train"]
        if not (levels or given.camera or split.raws[0].suffix.lower() in CAMERA_FILES):
            levels = Sensor(Data.cfa, Data.black_level, Data.white_level)
    pairs = [Pair(raw, photo) for raw, photo in zip(split.raws, split.photos, strict=True)]
    return pairs, open_source(split.raws, levels, given.camera, (given.raw_height, given.raw_width))


# --- the work --------------------------------------------------------------------------------------------------------


def training_command(out: Path, given: argparse.Namespace, source: Source) -> str:
    """The command that trains on the aligned pairs, with the camera of their mosaics."""
    words = ["python", "fit.py", "quick", "--run", "aligned", "--train.mode", "paired"]
    words += ["--data.layout", "folders", "--data.raw", out / aligned.RAW, "--data.photos", out / aligned.PHOTOS]
    words += ["--data.masks", out / aligned.MASKS]
    if (out / aligned.EXCLUDED).read_text("utf-8").strip():
        words += ["--data.exclude", out / aligned.EXCLUDED]
    if source.profile or given.camera:
        words += ["--data.camera", out / "camera.json" if source.profile else given.camera]
    else:
        black, white = (f"{level:g}" for level in source.sensor.black_level), f"{source.sensor.white_level:g}"
        words += ["--data.cfa", source.sensor.cfa, "--data.black-level", *black, "--data.white-level", white]
    return shlex.join(map(str, words))


def finish(out: Path, batch: Batch, files: int, given: argparse.Namespace, source: Source) -> None:
    """Write the tables and the page of all records so far; report what failed."""
    count, kept = aligned.write_tables(out)
    found = list(aligned.records(out))
    with storage.lock(out / aligned.LOCK):  # other jobs may end now, too
        print(f"page: {write_alignment_page(out, out / aligned.PAIRS, found)}")
    if given.check:
        bad = sum(bool(record.get("excluded")) and not record["refused"] for record in found)
        unsure = sum(not record.get("judged", True) for record in found)
        print(f"{bad} of {count} pairs are misaligned; {unsure} have too little detail to tell, and are not excluded")
        if bad:
            print(f"leave them out: --data.exclude {out / aligned.EXCLUDED}")
    else:
        print(f"{count} of {len(found)} pairs are aligned, {kept} patches kept: {out / aligned.TABLE}")
        if coarse := [record["name"] for record in found if record["figures"].get("scale", 1) < COARSE]:
            note(
                f"{len(coarse)} of {len(found)} photographs are coarser than their mosaics (column scale), such as "
                f"that of {coarse[0]}: a network that is trained on them learns their blur"
            )
        if kept:
            print(f"train: {training_command(out, given, source)}")
    if count:
        batch.end(files)
    sentence = f"; the first: {batch.failed[0]}" if batch.failed else ""
    if not count:
        raise UserError(f"no pair of {out} could be {'checked' if given.check else 'aligned'}{sentence}")


def main() -> None:
    given = parse(sys.argv[1:])
    refuse_nested(given)
    out = Path(given.folders[-1])
    chosen = {name: getattr(given, name) for name in (*THRESHOLDS, "local") if getattr(given, name) is not None}
    options = Options(**chosen)
    sizes = {name: getattr(given, name) for name in ("patch", "valid") if getattr(given, name) is not None}
    rules = Rules(**sizes, everything=given.write_all)
    pairs, source = pairs_to_check(given) if given.check else pairs_to_align(given)
    settings = {"check": given.check, "options": options, "rules": rules, "match": given.match or "name"}
    claim_output(out, facts_of(pairs[0].raw.parent, pairs[0].photo.parent, source, **settings))
    if source.profile and not given.check:
        with storage.lock(out / aligned.LOCK):
            storage.write_json(out / "camera.json", camera.to_dict(source.profile))
    jobs = jobs_of(out, pairs if given.n is None else pairs[given.remainder or 0 :: given.n])
    missing = undone(out, jobs)
    if done := len(jobs) - len(missing):
        note(f"{done} of {len(jobs)} pairs are there already and are kept")
    worker = Checker(out, pairs, source, options) if given.check else Aligner(out, pairs, source, options, rules)
    batch = Batch("checked" if given.check else "aligned", worker.read, worker.work, worker.write, depth_for(missing))
    batch.run(missing)
    finish(out, batch, len(missing), given, source)


if __name__ == "__main__":
    run_cli(main)
