"""One pair after the other: a RAW file and a photograph are read, aligned or checked, and written."""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import storage
from data import aligned, camera
from data.alignment import Options, align, render
from data.camera_files import CAMERA_FILES
from data.files import own_options, read_mosaic
from data.matching import Pair
from data.misalignment import judge, misalignment
from data.photographs import read_photo
from data.registration import shrink
from data.sensor import Sensor
from errors import UserError
from evaluation.alignment_page import PICTURES
from tasks.batch import Job, mark

SMALL = 800  # pixels of the longer side of the page's pictures
LEVELS = "give the RAW files' --cfa, --black-level and --white-level, or --camera"


@dataclass(frozen=True)
class Source:
    """How the RAW files of one camera are read."""

    sensor: Sensor
    size: tuple[int, int] = (0, 0)  # height and width of files without a header
    profile: camera.Profile | None = None  # of camera files

    def mosaic(self, path: Path) -> np.ndarray:
        """(H, W) digital numbers of `sensor`. Raises `UserError` as `read_mosaic` does."""
        with own_options():
            return read_mosaic(path, self.sensor, self.size)

    def picture(self, path: Path) -> np.ndarray:
        """(H, W, 3) uint8 to align with."""
        return render(self.mosaic(path), self.sensor)


def open_source(raws: Sequence[Path], levels: Sensor | None, profile: str, size: tuple[int, int]) -> Source:
    """How these RAW files are read: by their own notes, a camera's `profile` (a file), or the `levels` given.

    Raises `UserError` if none of these says it, or two do.
    """
    if any(path.suffix.lower() in CAMERA_FILES for path in raws):
        if levels or profile:
            raise UserError(
                "camera files note their CFA order and levels: leave out --camera and the options of levels"
            )
        own = _profile_of_undamaged(raws)
        return Source(own.sensor, profile=own)
    if levels and profile:
        raise UserError("--camera knows the CFA order and the levels: leave the options of levels out")
    if profile:
        known = camera.load(Path(profile))
        return Source(known.sensor, size if any(size) else known.size)
    if levels is None:
        raise UserError(f"{raws[0]} does not say what camera it is from: {LEVELS}")
    return Source(levels, size)


def _profile_of_undamaged(raws: Sequence[Path]) -> camera.Profile:
    """The profile of camera files, without those that cannot be read: each of these is refused with its pair.

    Raises `UserError` if none can be read, and as `data.camera.profile_of` does.
    """
    readable = tuple(
        path for path in raws if path.suffix.lower() not in CAMERA_FILES or _reads(camera.camera_notes, path)
    )
    try:
        return camera.profile_of(readable or tuple(raws))
    except UserError:
        found = camera.notes_of(readable)  # raises for two cameras; otherwise, pixels are missing
        whole = tuple(path for path, own in zip(readable, found, strict=True) if _reads(read_mosaic, path, own.sensor))
        if not whole:
            raise
        return camera.profile_of(whole)


def _reads(function: Callable[..., Any], path: Path, *arguments: Any) -> bool:
    try:
        function(path, *arguments)
    except UserError:
        return False
    return True


def claim_output(out: Path, facts: dict[str, Any]) -> None:
    """Mark a folder as one of align.py, written with these settings.

    Raises `UserError` if it holds files that align.py did not write, or was written with other settings.
    """
    marker = out / aligned.MARKER
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder: choose another OUT")
    foreign = sorted(path.name for path in out.glob("[!.]*"))  # before the marker: that one is written first
    if foreign and not marker.is_file():
        raise UserError(f"{out} holds files that align.py did not write, such as {foreign[0]}: choose another OUT")
    with storage.lock(out / aligned.LOCK):
        mark(marker, facts, f"{out} was written from other folders or with other settings: choose another OUT")


def jobs_of(out: Path, pairs: Sequence[Pair]) -> list[Job]:
    """A job for each pair: its RAW file becomes its record."""
    return [Job(pair.raw, out / aligned.PAIRS / f"{pair.name}.json") for pair in pairs]


def undone(out: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs without a record, and those whose pair was refused: perhaps a file has been repaired since."""
    done = {record["name"] for record in aligned.records(out) if not record["refused"]}
    return [job for job in jobs if job.source.stem not in done]


@dataclass
class _Shot:
    pair: Pair
    mosaic: np.ndarray
    photo: np.ndarray


@dataclass
class _Result:
    record: dict[str, Any]
    pictures: dict[str, np.ndarray]  # by the names of PICTURES, small
    parts: tuple = ()  # mosaic, warped photograph, mask and patches to write


class _Worker:
    """Reads pairs, and keeps a record of those that are refused."""

    excludes_refused = False  # excluded.txt names them

    def __init__(self, out: Path, pairs: Sequence[Pair], source: Source, options: Options):
        self.out, self.source, self.options = out, source, options
        self.pair_of = {pair.raw: pair for pair in pairs}

    def read(self, raw: Path) -> _Shot:
        """The two files of a pair."""
        pair = self.pair_of[raw]
        try:
            return _Shot(pair, self.source.mosaic(raw), read_photo(pair.photo))
        except UserError as error:
            self._refuse(pair, str(error))
            raise

    def work(self, shot: _Shot) -> _Result:
        """What is to be written of a pair. Raises `UserError`, which names its files, if it is refused."""
        try:
            return self.judge(shot)
        except UserError as error:
            self._refuse(shot.pair, str(error))
            raise UserError(f"{shot.pair.raw} and {shot.pair.photo}: {error}") from None

    def write(self, job: Job, result: _Result) -> None:
        """Write the pictures of the page, then the patches, then the record."""
        for name, image in result.pictures.items():
            storage.write_bytes(job.target.with_name(f"{job.target.stem}.{name}.jpg"), _jpeg(image))
        if result.parts:
            aligned.write_patches(self.out, *result.parts)
        storage.write_json(job.target, result.record)

    def _refuse(self, pair: Pair, sentence: str) -> None:
        record = aligned.record_of(pair.name, pair.raw, pair.photo, {}, []) | {"refused": sentence}
        record["excluded"] = [pair.name] if self.excludes_refused else []
        storage.write_json(self.out / aligned.PAIRS / f"{pair.name}.json", record)


class Aligner(_Worker):
    """Aligns pairs, and cuts them into patches."""

    def __init__(self, out: Path, pairs: Sequence[Pair], source: Source, options: Options, rules: aligned.Rules):
        super().__init__(out, pairs, source, options)
        self.rules = rules

    def judge(self, shot: _Shot) -> _Result:
        """The aligned pair."""
        if min(shot.photo.shape[:2]) < self.rules.patch:
            size = "{}x{}".format(*shot.photo.shape[:2])
            raise UserError(f"the photograph is {size}, smaller than a patch of {self.rules.patch}: lower --patch")
        if (shot.photo == shot.photo[..., :1]).all():
            raise UserError("the photograph is grey: a network would learn to make grey pictures")
        rendered = render(shot.mosaic, self.source.sensor)
        found = align(rendered, shot.photo, self.options)
        warped = found.warp(shot.photo)
        patches = aligned.patches_of(shot.pair.name, rendered, warped, found, self.rules, self.options)
        record = aligned.record_of(shot.pair.name, shot.pair.raw, shot.pair.photo, found.figures, patches)
        chosen = [patch for patch in patches if self.rules.everything or not patch.rejected]
        record["excluded"] = [patch.name for patch in chosen if patch.rejected]
        return _Result(record, _pictures(rendered, shot.photo, warped), (shot.mosaic, warped, found.mask, chosen))


class Checker(_Worker):
    """Measures how far the pairs of an existing dataset are misaligned."""

    excludes_refused = True  # nobody can train on them

    def judge(self, shot: _Shot) -> _Result:
        """The figures of the pair, which `excluded` names if it is misaligned."""
        rendered = render(shot.mosaic, self.source.sensor)
        if rendered.shape != shot.photo.shape:
            sizes = "{}x{} and {}x{}".format(*rendered.shape[:2], *shot.photo.shape[:2])
            raise UserError(f"they have different sizes, {sizes}: pairs of a dataset must have one")
        figures = misalignment(rendered, shot.photo)
        reason, judged = judge(figures, self.options.flow)
        record = aligned.record_of(shot.pair.name, shot.pair.raw, shot.pair.photo, figures, [])
        record |= {"excluded": [shot.pair.name] if reason else [], "misaligned": reason, "judged": judged}
        return _Result(record, _pictures(rendered, shot.photo, shot.photo) if reason else {})


def facts_of(raws: Path, photos: Path, source: Source, **settings: Any) -> dict[str, Any]:
    """What a folder of align.py is known by."""
    given = {
        name: asdict(value) if hasattr(value, "__dataclass_fields__") else value for name, value in settings.items()
    }
    return {"raws": str(raws.resolve()), "photos": str(photos.resolve()), "sensor": asdict(source.sensor), **given}


def _pictures(rendered: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """The page's pictures of a pair, of one size: the photograph before is only resized."""
    import cv2

    small = shrink(rendered, SMALL)
    size = small.shape[1::-1]
    others = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (before, after))
    return dict(zip(PICTURES, (small, *others), strict=True))


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=88)
    return buffer.getvalue()
