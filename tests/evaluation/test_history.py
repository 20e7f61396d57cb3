"""What the files of a run's folder say, read without changing anything."""

import json
import os

import pytest

from errors import UserError
from evaluation import history
from evaluation.history import LastLogged, read_last, read_log, read_summary, read_usage


def line(step: int, **values: float) -> str:
    return json.dumps({"stage": "train", "step": step, **values}) + "\n"


def test_the_end_of_a_log_is_read_alone(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    path.write_text("damaged}\n" + "".join(line(step, loss=0.5) for step in range(1000)) + '{"stage": "tr')
    monkeypatch.setattr(history, "TAIL", 4096)
    assert read_last(tmp_path) == LastLogged("train", 999, None)
    found = read_log(path, 4096)
    assert [entry["step"] for entry in found] == list(range(1000 - len(found), 1000)) and 50 < len(found) < 100
    with pytest.raises(UserError, match="line 1 is damaged"):
        read_log(path)


def test_a_damaged_line_near_the_end_is_counted_from_there(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(line(step) for step in range(500)) + "damaged}\n" + line(501))
    with pytest.raises(UserError, match="line 2 from the end, is damaged"):
        read_log(path, 4096)


def test_the_newest_validation_counts(tmp_path):
    assert read_last(tmp_path) == LastLogged()
    path = tmp_path / "log.jsonl"
    path.write_text('{"stage": "start", "weights": {}}\n')
    assert read_last(tmp_path) == LastLogged()
    path.write_text(line(10, val_psnr=20.0) + line(20, val_psnr=21.5) + line(25, loss=1.0))
    assert read_last(tmp_path) == LastLogged("train", 25, 21.5)
    path.write_text(line(10, val_psnr=float("inf")))
    assert read_last(tmp_path) == LastLogged("train", 10, None)


def test_a_summary_without_pairs_or_with_infinity_has_no_numbers(tmp_path):
    assert read_summary(tmp_path) == {}
    (tmp_path / "summary.json").write_text('{"val_psnr": {"demosaiced": 12.5, "pretrained": null, "final": "inf"}}')
    assert read_summary(tmp_path) == {"demosaiced": 12.5, "pretrained": None, "final": None}


@pytest.mark.parametrize("content", ("", "[]", "{}", '{"val_psnr": [1]}', "\xff", "[" * 100_000))
def test_a_damaged_summary_is_named(tmp_path, content):
    (tmp_path / "summary.json").write_text(content, "latin-1")
    with pytest.raises(UserError, match="summary.json is damaged: remove it"):
        read_summary(tmp_path)


def test_files_are_counted_by_kind(tmp_path):
    for name, size in (("checkpoints/a.pt", 5), ("checkpoints/b.pt", 7), ("last.pt", 11), (".lock", 0), ("a/b/c", 2)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (1000, 1000))
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    usage = read_usage(tmp_path)
    assert usage.counts == {"checkpoints/": 2, "last.pt": 1, "other": 1, "a/": 1, "link": 1}
    assert {kind: usage.sizes[kind] for kind in ("checkpoints/", "last.pt", "a/")} == {
        "checkpoints/": 12,
        "last.pt": 11,
        "a/": 2,
    }
    os.utime(tmp_path / "link", (1000, 1000), follow_symlinks=False)
    os.utime(tmp_path / "a/b/c", (5000, 5000))
    assert read_usage(tmp_path).modified == 5000 and read_usage(tmp_path / "a").total == 2
