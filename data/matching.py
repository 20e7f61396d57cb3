"""Which RAW file and which photograph show the same scene: by their names, their times, or their content."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from data.files import reading
from data.notes import note
from data.photographs import exif_of
from data.registration import features, fit_homography, matches, shrink
from data.threads import in_threads
from errors import UserError

SECONDS = 2.0  # between the two shots, once the clocks are compared
SIDE, LEAST = 480, 12  # pixels of the pictures whose content is compared; features that must fit
RATIO, SCALE = 0.8, 3.0  # of features (data/registration.py); these pictures are small


@dataclass(frozen=True)
class Pair:
    """A RAW file and the photograph of its scene."""

    raw: Path
    photo: Path

    @property
    def name(self) -> str:
        """What the pair is called in everything that is written of it: the name of the RAW file."""
        return self.raw.stem


def by_names(raws: Sequence[Path], photos: Sequence[Path]) -> list[Pair]:
    """Files of the same name. Raises `UserError` if there are none; notes what has no partner."""
    of_name = {photo.stem: photo for photo in photos}
    return _checked([Pair(raw, of_name[raw.stem]) for raw in raws if raw.stem in of_name], raws, photos, "name")


def by_times(raws: Sequence[Path], photos: Sequence[Path]) -> list[Pair]:
    """Files taken at the same time, up to `SECONDS`, once the difference of the two clocks is taken off.

    That difference is the one that most shots of the two cameras share, the smallest of several. Files that do not note
    their time are left out, with a note. Raises `UserError` if none of a camera does, and if no times match.
    """
    raws, first = _of_each(time_of, raws, "reading the times of RAW files")
    photos, second = _of_each(time_of, photos, "reading the times of photographs")
    first, second = np.array(first), np.array(second)
    differences = np.sort((second[None] - first[:, None]).ravel())
    close = np.searchsorted(differences, differences + SECONDS, side="right") - np.arange(len(differences))
    start = min(np.flatnonzero(close == close.max()), key=lambda index: abs(differences[index]))
    clock = float(np.median(differences[start : start + close[start]]))
    apart = np.abs(second[None] - first[:, None] - clock)
    note(f"the clock of the photographs is {clock:+.0f} s from that of the RAW files, as far as most shots tell")
    return _checked(_mutual(raws, photos, -apart, -SECONDS), raws, photos, "time")


def by_content(raws: Sequence[Path], photos: Sequence[Path], render: Callable[[Path], np.ndarray]) -> list[Pair]:
    """Files whose features fit together best, each the other's best.

    Every file is compared with every other one: about 10 ms a comparison. Damaged files are left out, with a note.

    Args:
        raws: the RAW files.
        photos: the photographs.
        render: a file, RAW or photograph -> its picture (H, W, 3) uint8.
    """

    def described(path: Path) -> tuple[np.ndarray, np.ndarray]:
        return features(shrink(render(path), SIDE))

    raws, first = _of_each(described, raws, "reading RAW files")
    photos, second = _of_each(described, photos, "reading photographs")
    rows = in_threads(lambda one: [_common(one, other) for other in second], first, "comparing")
    return _checked(_mutual(raws, photos, np.array(list(rows), float), LEAST), raws, photos, "content")


def _of_each(look: Callable[[Path], Any], paths: Sequence[Path], kind: str) -> tuple[list[Path], list[Any]]:
    """The files that `look` can read, and what it finds in them; the others are noted.

    Raises the first file's `UserError` if it can read none.
    """

    def attempt(path: Path) -> Any:
        try:
            return look(path)
        except UserError as error:
            return error

    found = list(zip(paths, in_threads(attempt, paths, kind), strict=True))
    good = [(path, each) for path, each in found if not isinstance(each, UserError)]
    if failed := [each for _, each in found if isinstance(each, UserError)]:
        if not good:
            raise failed[0]
        note(f"{len(failed)} of {len(found)} files in {paths[0].parent} are left out; the first: {failed[0]}")
    return [path for path, _ in good], [each for _, each in good]


def _common(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> int:
    """How many features of two pictures fit together."""
    pairs = matches(one[1], other[1], RATIO)
    _, inliers = fit_homography(one[0][pairs[:, 0]], other[0][pairs[:, 1]], SCALE)
    return int(inliers.sum())


def time_of(path: Path) -> float:
    """When a file was taken, in seconds, by its EXIF. Raises `UserError` if it does not say."""
    with reading(path):
        notes = exif_of(path)
        text, fraction = str(notes.get("DateTimeOriginal", "")), str(notes.get("SubsecTimeOriginal", "")).strip("\0 ")
        try:
            seconds = datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S").timestamp()
        except ValueError:
            raise UserError(f"{path} does not note when it was taken: match by names or by content") from None
    return seconds + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)


def _mutual(raws: Sequence[Path], photos: Sequence[Path], score: np.ndarray, least: float) -> list[Pair]:
    """The pairs whose score (raws, photographs) is at least `least`, and the highest of both files."""
    best = score.argmax(axis=1)
    return [
        Pair(raw, photos[column])
        for row, (raw, column) in enumerate(zip(raws, best, strict=True))
        if score[row, column] >= least and score[:, column].argmax() == row
    ]


def _checked(pairs: list[Pair], raws: Sequence[Path], photos: Sequence[Path], kind: str) -> list[Pair]:
    if not pairs:
        raise UserError(
            f"no RAW file in {raws[0].parent} matches a photograph in {photos[0].parent} by {kind}: choose another "
            "--match (name, time or content)"
        )
    used = [{pair.raw for pair in pairs}, {pair.photo for pair in pairs}]
    for files, found, what in ((raws, used[0], "RAW files"), (photos, used[1], "photographs")):
        if left := [path.name for path in files if path not in found]:
            note(f"{len(left)} of {len(files)} {what} match none by {kind} and are left out, such as {left[0]}")
    return pairs
