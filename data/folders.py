"""Datasets on disk: where the files lie, which mosaic and photograph form a pair, and the train, val and test splits.

A split depends on file names alone, so it is the same on every machine.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.conditions import TABLE
from data.files import MOSAIC_FILES, PHOTO_FILES, check_file
from data.notes import note
from errors import UserError

NEARLY_ALL = 0.9  # pairs="auto": if so many of all names match, names without a partner are a mistake
FEW = 10  # fewer mosaics or photographs of one's own camera are hardly enough to train on


@dataclass(frozen=True)
class Layout:
    """Where a dataset's files lie: in <root>/{train,val,test}/<raw> and <root>/{train,val,test}/<photos>."""

    raw: str  # folder of the mosaics
    photos: str  # folder of the photographs
    paired_by_default: bool  # what pairs="auto" means. True: names must match; False: paired only if all names match
    rootless: bool = False  # the user names the two folders of the training files instead of a root


# A new dataset is a row here.
LAYOUTS = {
    # Zurich RAW to RGB, 448x448; its 1.2k test pairs come in test/
    "zrr": Layout("huawei_raw", "canon", paired_by_default=True),
    # Fujifilm UltraISP, 256x256; only train/ has photographs
    "fujifilm": Layout("mediatek_raw", "fujifilm", paired_by_default=True),
    # NTIRE 2026 unpaired-ISP challenge
    "ntire26": Layout("raws", "jpegs", paired_by_default=False),
    # any two folders
    "folders": Layout("", "", paired_by_default=False, rootless=True),
}


@dataclass(frozen=True)
class Split:
    """The RAW mosaics and photographs of one split."""

    raws: tuple[Path, ...]
    photos: tuple[Path, ...]
    paired: bool  # the i-th mosaic and the i-th photograph show the same scene
    coupled: bool = False  # not paired, but the i-th mosaic is always drawn with the i-th photograph
    masks: tuple[Path, ...] = ()  # of the pairs, which say where they are aligned (data/masks.py), if there are any

    def __len__(self) -> int:
        return len(self.raws)

    def take(self, indices: Sequence[int]) -> "Split":
        """The pairs at `indices`, in that order."""
        raws, photos, masks = ([paths[i] for i in indices if paths] for paths in (self.raws, self.photos, self.masks))
        return Split(tuple(raws), tuple(photos), self.paired, masks=tuple(masks))


EMPTY = Split((), (), paired=True)


# --- opening a dataset -----------------------------------------------------------------------------------------------


def open_dataset(
    layout: str,
    root: str,
    raw: str = "",
    photos: str = "",
    pairs: str = "auto",
    val: int = 1024,
    test: int = 1024,
    exclude: str = "",
) -> dict[str, Split]:
    """Find the files of a dataset (section 4.1).

    Args:
        layout: a name in `LAYOUTS`.
        root: the folder of the dataset, unless the layout is `rootless`.
        raw: the folder of mosaics, for a `rootless` layout.
        photos: the folder of photographs, for a `rootless` layout.
        pairs: whether equal names mean the same scene: "yes", "no", or "auto". "auto" is "yes" for a layout that is
            `paired_by_default`; for others, files are paired if all names are equal. Then names that nearly all match
            are refused, because a file is probably missing.
        val: pairs to draw from train/ for validation if there is no val/ with pairs. They are those whose names come
            first by SHA-256. If they were more than half of train/, a quarter of it is drawn.
        test: likewise, for the test.
        exclude: a text file with names (one a line, with suffix or without) to leave out of train/, such as the
            misaligned pairs that the paper leaves out.

    Returns:
        {"train": Split, "val": Split, "test": Split}; val and test are empty if there are no pairs for them.

    Raises:
        UserError: unknown layout, missing folders or files, or missing partners.
    """
    splits = _find(layout, root, raw, photos, pairs)
    counts = len(splits["train"].raws), len(splits["train"].photos)
    if find_layout(layout).rootless and min(counts) < FEW and (val or test):  # without val and test: not for training
        note(
            f"{counts[0]} mosaics and {counts[1]} photographs are few to train on: collect at least {FEW}, better "
            "hundreds of each, of many scenes"
        )
    if exclude:
        splits["train"] = _exclude(splits["train"], Path(exclude))
    for name, count in (("val", val), ("test", test)):
        if not splits[name] and splits["train"].paired and count:
            splits["train"], splits[name] = _draw(splits["train"], count, name)
    return splits


def mosaics(raws: Path, photos: Path | None = None) -> Split:
    """The mosaics of a folder, or the one in a file; with `photos`, the photographs of the same names, or the one.

    Raises `UserError` if there are none, or one lacks its partner.
    """
    if not raws.is_file():
        if photos:
            return _two_folders(raws, photos, "yes")
        return Split(tuple(_files(raws, MOSAIC_FILES).values()), (), paired=False)
    _check_suffix(raws, MOSAIC_FILES, "mosaic")
    if photos:
        check_file(photos)
        _check_suffix(photos, PHOTO_FILES, "photograph")
    return Split((raws,), (photos,) if photos else (), paired=bool(photos))


def photographs(folder: Path) -> tuple[Path, ...]:
    """The photographs of a folder, sorted by name. Raises `UserError` if there are none."""
    return tuple(_files(folder, PHOTO_FILES).values())


def _check_suffix(path: Path, suffixes: set[str], kind: str) -> None:
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path} is not a {kind}: its suffix is none of {', '.join(sorted(suffixes))}")


def find_layout(name: str) -> Layout:
    """The row of `LAYOUTS`. Raises `UserError` for an unknown name."""
    if name not in LAYOUTS:
        raise UserError(f"unknown dataset layout '{name}'; known are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _find(name: str, root: str, raw: str, photos: str, pairs: str) -> dict[str, Split]:
    """The splits as the folders have them."""
    layout = find_layout(name)
    if pairs == "auto" and layout.paired_by_default:
        pairs = "yes"
    if layout.rootless:
        if not (raw and photos):
            raise UserError(f"layout '{name}' needs the two folders --data.raw and --data.photos")
        return {"train": _two_folders(Path(raw), Path(photos), pairs), "val": EMPTY, "test": EMPTY}
    if not root:
        raise UserError(f"layout '{name}' needs the folder of the dataset: --data.root")
    others = [path.name for path in Path(root).glob("[!.]*") if path.name not in ("train", "val", "test")]
    if alike := sorted(name for name in others if name.lower().startswith(("train", "val", "test"))):
        note(f"{Path(root) / alike[0]} is not used: the folders of a dataset are train, val and test")
    return {split: _split_folder(Path(root) / split, layout, pairs) for split in ("train", "val", "test")}


def _split_folder(folder: Path, layout: Layout, pairs: str) -> Split:
    """<root>/train; or <root>/val or <root>/test, which are empty unless they hold pairs."""
    raw, photos = folder / layout.raw, folder / layout.photos
    if folder.name == "train":
        return _two_folders(raw, photos, pairs)
    missing = [path.name for path in (raw, photos) if not path.is_dir()]
    if folder.is_dir() and (missing or pairs == "no"):
        reason = f"it has no folder {missing[0]}" if missing else "--data.pairs no says that its files are not pairs"
        note(f"{folder} is not used: {reason}")
    return EMPTY if missing or pairs == "no" else _two_folders(raw, photos, "yes")


def _two_folders(raw: Path, photos: Path, pairs: str) -> Split:
    raw_files, photo_files = _files(raw, MOSAIC_FILES), _files(photos, PHOTO_FILES)
    single, common = sorted(raw_files.keys() ^ photo_files.keys()), len(raw_files.keys() & photo_files.keys())
    if single and pairs != "no":
        side = raw if single[0] in raw_files else photos
        found = f"{len(single)} are in one of them only (the first: '{single[0]}' in {side.name})"
        if pairs == "yes" or common >= NEARLY_ALL * (common + len(single)):
            raise UserError(
                f"{raw} and {photos} must hold the same names, but {found}; for unpaired training data set "
                "--data.pairs no"
            )
        if common:
            note(
                f"{common} names are in both {raw} and {photos}, but {found}: the files are taken as unpaired; "
                "--data.pairs yes or no says which they are"
            )
    if single or pairs == "no":
        return Split(tuple(raw_files.values()), tuple(photo_files.values()), paired=False)
    return Split(tuple(raw_files.values()), tuple(photo_files[stem] for stem in raw_files), paired=True)


def _files(folder: Path, suffixes: set[str]) -> dict[str, Path]:
    """{stem: file}, sorted by name; numbers are sorted as numbers."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    found, others, folders = [], Counter(), []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if path.name.startswith(".") or path.name == TABLE:
                continue
            if path.suffix.lower() in suffixes:
                if not entry.is_file():  # the entry knows that without asking the disk
                    check_file(path)
                found.append(path)
            elif entry.is_dir():
                folders.append(path.name)
            else:
                others[path.suffix.lower() or "without a suffix"] += 1
    kinds = f"{others.total()} files in {folder} are not read: {', '.join(sorted(others))}"
    if not found:
        reasons = [kinds] if others else []
        reasons += [f"its folders, such as {min(folders)}, are not searched: give one of them"] if folders else []
        reason = "; ".join(reasons) or "it is empty"
        raise UserError(f"no images in {folder} ({', '.join(sorted(suffixes))}): {reason}")
    if others:
        note(kinds)
    if folders:
        note(f"the folders in {folder}, such as {min(folders)}, are not searched for images")
    found.sort(key=lambda path: (path.stem.zfill(12), path.name))
    files = {path.stem: path for path in found}
    if len(files) < len(found):
        path = next(path for path in found if files[path.stem] != path)
        raise UserError(f"{path} and {files[path.stem].name} differ in their suffix only: remove one of them")
    return files


def _exclude(train: Split, exclude: Path) -> Split:
    if not exclude.is_file():
        raise UserError(f"no file {exclude} with the names to exclude")
    if not train.paired:
        raise UserError(f"{exclude} names pairs to exclude, but the training files are not paired")
    names = {line.strip() for line in exclude.read_text("utf-8-sig", "surrogateescape").splitlines()} - {""}
    names_of = [{raw.stem, raw.name, photo.name} for raw, photo in zip(train.raws, train.photos, strict=True)]
    unknown = sorted(names.difference(*names_of))
    if unknown:
        raise UserError(f"{exclude}: {len(unknown)} names belong to no training pair; the first is '{unknown[0]}'")
    remaining = [i for i, own in enumerate(names_of) if not own & names]
    if not remaining:
        raise UserError(f"{exclude} leaves no training pair")
    return train.take(remaining)


def _draw(train: Split, count: int, name: str) -> tuple[Split, Split]:
    """Move `count` pairs, or a quarter if that is more than half, out of `train`: (the remaining, the drawn pairs)."""
    if 2 * count > len(train):
        wanted, count = count, len(train) // 4
        note(
            f"{count} of the {len(train)} training pairs are drawn for '{name}', because {wanted} would be more than "
            f"half of them; --data.{name}-count sets the number"
        )
    order = _by_hash(train.raws)
    return train.take(sorted(order[count:])), train.take(sorted(order[:count]))


def _by_hash(paths: Sequence[Path]) -> list[int]:
    """Indices in an order that looks random and depends on the file names alone."""
    names = [path.stem.encode("utf-8", "surrogateescape") for path in paths]
    return sorted(range(len(paths)), key=lambda i: hashlib.sha256(names[i]).digest())


# --- training without pairs ------------------------------------------------------------------------------------------


def unpaired(split: Split, mode: str, seed: int, fixed_points: bool = False) -> Split:
    """Remove the correspondence from a paired training split; return an unpaired one as it is.

    - "shuffled": the photographs are permuted once, by `seed`. Every scene is on both sides, but no photograph is drawn
      together with its own mosaic, unless `fixed_points` allows it: the released code takes any permutation, which
      leaves one scene in its place on average.
    - "disjoint": half of the scenes contribute their mosaics, the others their photographs. No scene is on both sides.

    Raises `UserError` for another mode, or fewer than two scenes to part.
    """
    if mode not in ("shuffled", "disjoint"):
        raise UserError(f"unknown unpaired mode '{mode}'; known are: shuffled, disjoint")
    if not split.paired:
        return split
    if len(split) < 2:
        raise UserError(f"unpaired mode '{mode}' needs at least two scenes, but there is {len(split)}")
    if mode == "shuffled":
        rng, places = np.random.default_rng(seed), np.arange(len(split))
        order = rng.permutation(len(split))
        while not fixed_points and (order == places).any():  # 2.7 trials on average
            order = rng.permutation(len(split))
        return Split(split.raws, tuple(split.photos[i] for i in order), paired=False, coupled=True)
    order = _by_hash(split.raws)
    half = len(order) // 2
    return Split(split.take(order[:half]).raws, split.take(order[half:]).photos, paired=False)
