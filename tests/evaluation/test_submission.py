"""A submission: the readme, the archive, and that a wrong archive is noticed."""

import io
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from errors import UserError
from evaluation.submission import CHALLENGES, Submission, check

CPU = torch.device("cpu")
README = (
    "runtime per image [s] : 0.5\nCPU[1] / GPU[0] : 1\nExtra Data [1] / No Extra Data [0] : 0\nOther description : x\n"
)
SIZES = {"a.jpg": (8, 16), "b.jpg": (16, 8)}


def jpeg(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 100, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(path: Path, **changes: bytes | None) -> Path:
    """An archive of two images and a readme, of which some are replaced, added or, for None, left out."""
    parts = {name: jpeg(*size) for name, size in SIZES.items()} | {"readme.txt": README.encode()} | changes
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            if content is not None:
                file.writestr(name, content)
    return path


# --- what is measured and written ------------------------------------------------------------------------------------


def rendered(*batches: tuple[int, int, int]) -> Submission:
    """A submission that has rendered batches of (count, height, width)."""

    def render(mosaics: torch.Tensor) -> torch.Tensor:
        time.sleep(0.001)
        return mosaics.expand(-1, 3, -1, -1)

    submission = Submission("ntire26", render, CPU)
    for count, height, width in batches:
        assert submission(torch.zeros(count, 1, height, width)).shape == (count, 3, height, width)
    return submission


def test_each_batch_is_timed_and_its_sizes_are_noted():
    submission = rendered((1, 8, 16), (2, 4, 6))
    assert submission.sizes == [(8, 16), (4, 6), (4, 6)] and [count for _, count in submission.calls] == [1, 2]
    assert all(seconds >= 0.001 for seconds, _ in submission.calls)


def test_the_runtime_is_the_mean_without_the_first_batch():
    submission = rendered()
    submission.calls[:] = [(9.0, 2)]
    assert submission.runtime == 4.5
    submission.calls += [(1.0, 4), (1.5, 1)]
    assert submission.runtime == 0.5


def test_the_readme_has_the_four_lines_of_the_challenge():
    submission = rendered((1, 2, 2))
    lines = submission.readme("efficient, 3,060 parameters", extra_data=False).splitlines()
    assert re.fullmatch(r"runtime per image \[s\] : \d+\.\d{4}", lines[0])
    assert lines[1:3] == ["CPU[1] / GPU[0] : 1", "Extra Data [1] / No Extra Data [0] : 0"]
    assert lines[3].startswith("Other description : efficient, 3,060 parameters; PyTorch ") and len(lines) == 4
    lines = submission.readme("efficient", extra_data=True, remark=" Two\nlines. ").splitlines()
    assert lines[2].endswith(": 1") and lines[3].startswith("Other description : Two lines. efficient; PyTorch ")


def test_the_archive_is_flat_and_holds_what_was_rendered(tmp_path):
    submission = rendered((1, 8, 16), (1, 16, 8))
    for name, size in SIZES.items():
        (tmp_path / name).write_bytes(jpeg(*size))
    (tmp_path / "another.jpg").write_bytes(b"of an earlier test")
    packed = submission.pack(tmp_path, SIZES, README)
    assert packed == tmp_path / "submission.zip" and (tmp_path / "readme.txt").read_text() == README
    with zipfile.ZipFile(packed) as parts:
        assert parts.namelist() == ["a.jpg", "b.jpg", "readme.txt"]
        assert all(parts.read(name) == (tmp_path / name).read_bytes() for name in parts.namelist())


def test_an_archive_that_fails_its_check_is_not_written(tmp_path):
    submission = rendered((2, 8, 16))
    for name, size in SIZES.items():
        (tmp_path / name).write_bytes(jpeg(*size))
    with pytest.raises(UserError, match="b.jpg in the archive is 16x8, and its mosaic 8x16"):
        submission.pack(tmp_path, SIZES, README)
    assert not list(tmp_path.glob("*.zip")) and not list(tmp_path.glob(".*"))


# --- the check -------------------------------------------------------------------------------------------------------


def test_a_right_archive_passes(tmp_path):
    check("ntire26", archive(tmp_path / "a.zip"), SIZES)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    (
        ({"b.jpg": None}, "lacks b.jpg, and 0 files more"),
        ({"readme.txt": None, "a.jpg": None}, "lacks a.jpg, and 1 files more"),
        ({"c.jpg": jpeg(8, 8)}, "must not have c.jpg"),
        ({"images/": b""}, "must not have images/"),
        ({"a.jpg": jpeg(16, 8)}, "a.jpg in the archive is 16x8, and its mosaic 8x16"),
        ({"a.jpg": jpeg(8, 16)[:200]}, "a.jpg in the archive is no readable JPEG"),
        ({"a.jpg": b""}, "a.jpg in the archive is no readable JPEG"),
        ({"readme.txt": README.replace("CPU[1]", "CPU").encode()}, r"readme.txt must have the lines runtime per image"),
        ({"readme.txt": b"\xff"}, "the archive is damaged"),
    ),
)
def test_a_wrong_archive_is_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        check("ntire26", archive(tmp_path / "a.zip", **changes), SIZES)


def test_a_damaged_archive_is_refused(tmp_path):
    path = archive(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"runtime")] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="the archive is damaged: Bad CRC-32"):
        check("ntire26", path, SIZES)
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="the archive is damaged"):
        check("ntire26", path, SIZES)


def test_every_readme_can_be_filled_in():
    for name in CHALLENGES:
        submission = Submission(name, lambda mosaics: mosaics, CPU)
        submission(torch.zeros(1, 1, 2, 2))
        assert "{" not in submission.readme("efficient", False)
