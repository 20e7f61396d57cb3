"""Which RAW file and which photograph belong together."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.demo import demo_photographs
from data.matching import by_content, by_names, by_times, time_of
from errors import UserError


def taken(path: Path, text: str, fraction: str = "") -> Path:
    """A photograph whose EXIF says when it was taken."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: text} | ({0x9291: fraction} if fraction else {}))
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, exif=exif)
    return path


def test_equal_names_match_and_others_are_noted(capsys):
    raws, photos = [Path("r/a.png"), Path("r/b.png")], [Path("p/b.jpg"), Path("p/c.jpg")]
    assert [(pair.raw.name, pair.photo.name, pair.name) for pair in by_names(raws, photos)] == [("b.png", "b.jpg", "b")]
    printed = capsys.readouterr().err
    assert "1 of 2 RAW files match none by name" in printed and "such as c.jpg" in printed
    with pytest.raises(UserError, match="no RAW file in r matches a photograph in p by name: choose another --match"):
        by_names(raws[:1], photos)


def test_times_match_though_the_clocks_differ(tmp_path):
    minutes = (0, 3, 4, 9)
    raws = [taken(tmp_path / "r" / f"{m}.jpg", f"2024:05:01 10:0{m}:00") for m in minutes]
    photos = [taken(tmp_path / "p" / f"x{m}.jpg", f"2024:05:01 11:1{m}:31", "4") for m in reversed(minutes)]
    photos.append(taken(tmp_path / "p" / "late.jpg", "2024:05:02 09:00:00"))
    photos.append(taken(tmp_path / "p" / "twice.jpg", "2024:05:01 11:13:32", "9"))  # a second photograph of one scene
    assert [(p.raw.stem, p.photo.stem) for p in by_times(raws, photos)] == [(str(m), f"x{m}") for m in minutes]
    assert time_of(photos[0]) - time_of(raws[0]) == pytest.approx(9 * 60 + 70 * 60 + 31.4)


def test_a_file_without_a_time_is_named(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    with pytest.raises(UserError, match="a.png does not note when it was taken: match by names or by content"):
        time_of(path)


def test_files_without_a_time_or_damaged_are_left_out_and_noted(tmp_path, capsys):
    raws, photos = (
        [taken(tmp_path / side / f"{m}.jpg", f"2024:05:01 10:0{m}:00") for m in (0, 3, 4)] for side in ("r", "p")
    )
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(raws[0])
    photos[2].write_bytes(photos[2].read_bytes()[:30])
    assert [(pair.raw.stem, pair.photo.stem) for pair in by_times(raws, photos)] == [("3", "3")]
    printed = capsys.readouterr().err
    assert f"1 of 3 files in {tmp_path / 'r'} are left out; the first: {raws[0]} does not note" in printed
    assert f"1 of 3 files in {tmp_path / 'p'} are left out; the first: cannot read {photos[2]}" in printed
    with pytest.raises(UserError, match="0.jpg does not note when it was taken"):
        by_times(raws[:1], photos)


def test_content_matches_in_any_order_and_one_photograph_has_one_raw_file():
    photos = demo_photographs()
    pictures = {
        Path("r/1.png"): photos["coffee.png"][::2, ::2],
        Path("r/2.png"): photos["chelsea.png"],
        Path("r/3.png"): photos["coffee.png"][20:380:3, 30:560:3],  # the same scene again, smaller
        Path("p/a.jpg"): photos["chelsea.png"][10:, 20:],
        Path("p/b.jpg"): photos["coffee.png"],
        Path("p/c.jpg"): photos["rocket.jpg"],
    }
    raws, others = (tuple(path for path in pictures if path.parent.name == side) for side in "rp")
    found = by_content(raws, others, pictures.__getitem__)
    assert [(pair.raw.stem, pair.photo.stem) for pair in found] == [("1", "b"), ("2", "a")]
