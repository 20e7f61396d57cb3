"""An archive of rendered images in the form in which a challenge takes them, checked before it is sent in."""

import io
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import storage
from errors import UserError

ARCHIVE, README = FILES = "submission.zip", "readme.txt"


@dataclass(frozen=True)
class Challenge:
    """What a challenge takes: images named as the mosaics, and a readme, in an archive without folders."""

    suffix: str  # of the images
    pillow: str  # the name of their format in Pillow
    readme: tuple[str, ...]  # its lines, with {runtime} in seconds an image, {cpu} and {extra} 0 or 1, {description}


# A new challenge is a row here.
CHALLENGES = {
    # NTIRE 2026, learned smartphone ISP with unpaired data. The lines are those of the readme.txt that the NTIRE
    # challenges ask for on CodaLab and Codabench.
    "ntire26": Challenge(
        "jpg",
        "JPEG",
        (
            "runtime per image [s] : {runtime:.4f}",
            "CPU[1] / GPU[0] : {cpu}",
            "Extra Data [1] / No Extra Data [0] : {extra}",
            "Other description : {description}",
        ),
    ),
}


@dataclass
class Submission:
    """Renders like `render`, notes how long that takes and the sizes of the mosaics; packs the images at the end."""

    challenge: str  # a name in `CHALLENGES`
    render: Callable[[Tensor], Tensor]  # mosaics (N, 1, H, W) -> (N, 3, H, W)
    device: torch.device
    calls: list[tuple[float, int]] = field(default_factory=list)  # (seconds, images)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width) of each mosaic, in order

    def __call__(self, mosaics: Tensor) -> Tensor:
        self._wait()
        start = time.perf_counter()
        images = self.render(mosaics)
        self._wait()
        self.calls.append((time.perf_counter() - start, len(mosaics)))
        self.sizes += [tuple(mosaics.shape[-2:])] * len(mosaics)
        return images

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def runtime(self) -> float:
        """Mean seconds of the network for an image, without the first batch, which is slower, if there are more.

        Reading and writing files does not count.
        """
        calls = self.calls[1:] or self.calls
        return sum(seconds for seconds, _ in calls) / max(1, sum(count for _, count in calls))

    def readme(self, model: str, extra_data: bool, remark: str = "") -> str:
        """The text of the readme: what was measured, on what, and the `model` in words, after the user's `remark`.

        `extra_data` says whether the model was trained on other data than the challenge's.
        """
        cpu = self.device.type == "cpu"
        where = f"CPU, {torch.get_num_threads()} threads" if cpu else torch.cuda.get_device_name(self.device)
        facts = [remark.strip().rstrip("."), f"{model}; PyTorch {torch.__version__} on {where}"]
        description = " ".join(". ".join(filter(None, facts)).split())  # in one line
        values = {"runtime": self.runtime, "cpu": int(cpu), "extra": int(extra_data), "description": description}
        return "".join(f"{line.format(**values)}\n" for line in CHALLENGES[self.challenge].readme)

    def pack(self, folder: Path, names: Iterable[str], readme: str) -> Path:
        """Write readme.txt and the archive of a folder's images, `names` in the order of rendering; check, return it.

        Raises `UserError` as `check` does.
        """
        sizes, archive = dict(zip(names, self.sizes, strict=True)), folder / ARCHIVE
        storage.write_bytes(folder / README, readme.encode(errors="replace"))
        with storage.writing(archive) as temporary:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as parts:  # images do not get smaller
                for name in (*sizes, README):
                    parts.write(folder / name, name)
            check(self.challenge, temporary, sizes)
        return archive


def check(challenge: str, archive: Path, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise `UserError` if an archive is not a readme and one readable image of the right size for each mosaic."""
    rules = CHALLENGES[challenge]
    try:
        with zipfile.ZipFile(archive) as parts:
            found, wanted = Counter(parts.namelist()), Counter((*sizes, README))
            for wrong, sentence in ((wanted - found, "lacks"), (found - wanted, "must not have")):
                if wrong:
                    raise UserError(f"the archive {sentence} {min(wrong)}, and {wrong.total() - 1} files more")
            for name, size in sizes.items():
                _check_image(parts.read(name), name, rules.pillow, size)
            text = parts.read(README).decode()
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise UserError(f"the archive is damaged: {error}") from None
    fields = [line.partition(":")[0] for line in rules.readme]
    if [line.partition(":")[0] for line in text.splitlines()] != fields:
        raise UserError(f"{README} must have the lines {', '.join(field.strip() for field in fields)}")


def _check_image(content: bytes, name: str, kind: str, size: tuple[int, int]) -> None:
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            image.load()
            found = image.height, image.width
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} in the archive is no readable {kind}: {storage.first_line(error)}") from None
    if found != size:
        raise UserError(f"{name} in the archive is {found[0]}x{found[1]}, and its mosaic {size[0]}x{size[1]}")
