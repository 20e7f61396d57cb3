"""Files are whole or not there, whatever happens while they are written; and reading one runs no code."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

from errors import UserError
from training import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Kill(BaseException):
    """Nothing catches this by mistake."""


class Evil:
    """What pickle turns into a call."""

    def __init__(self, marker: pathlib.Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    """A checkpoint that is there already."""
    checkpoint.save(tmp_path / "last.pt", {"step": 1})
    return tmp_path / "last.pt"


def test_what_is_saved_is_loaded(tmp_path):
    content = {"step": 3, "psnr": {"final": 20.5}, "weights": torch.arange(3.0), "list": [1, "a", None]}
    checkpoint.save(tmp_path / "new" / "folder" / "a.pt", content)
    loaded = checkpoint.load(tmp_path / "new" / "folder" / "a.pt")
    assert torch.equal(loaded.pop("weights"), content.pop("weights")) and loaded == content
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["a.pt"]


def test_a_new_file_takes_the_place_of_the_old_one(path):
    checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 2}


@pytest.mark.parametrize("error", (ValueError, OSError, KeyboardInterrupt, Kill))
def test_the_old_file_stays_when_the_writer_raises(path, error):
    def write(beside: pathlib.Path) -> None:
        beside.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        checkpoint.replace(path, write)
    assert checkpoint.load(path) == {"step": 1}
    assert os.listdir(path.parent) == ["last.pt"]


@pytest.mark.parametrize("write", ("save", "write_json"))
def test_a_full_disk_leaves_the_old_file_and_nothing_else(path, write, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        getattr(checkpoint, write)(path, {"step": 2})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and os.listdir(path.parent) == ["last.pt"]


def test_content_is_on_disk_before_it_takes_the_place_of_the_old(path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: events.append("fsync") or fsync(d))
    monkeypatch.setattr(os, "replace", lambda a, b: events.append("replace") or replace(a, b))
    checkpoint.save(path, {"step": 2})
    assert events[:2] == ["fsync", "replace"]


def test_a_kill_in_mid_write_leaves_the_old_file(path):
    code = f"""
import os, pathlib, signal
from training import checkpoint
def write(beside):
    beside.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.replace(pathlib.Path({str(path)!r}), write)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment).returncode == -signal.SIGKILL
    assert checkpoint.load(path) == {"step": 1}
    checkpoint.save(path, {"step": 2})  # and what lies about from that kill is in nobody's way
    assert checkpoint.load(path) == {"step": 2} and os.listdir(path.parent) == ["last.pt"]


def test_json_is_indented_and_refuses_what_is_no_number(tmp_path):
    checkpoint.write_json(tmp_path / "a.json", {"b": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError):
        checkpoint.write_json(tmp_path / "a.json", {"b": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1]}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.pt"):
        checkpoint.load(tmp_path / "absent.pt")


@pytest.mark.parametrize("content", (b"", b"garbage" * 100, b"PK\x03\x04 no zip", "half"))
def test_a_broken_file_is_refused(path, content):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(UserError, match="last.pt is no"):
        checkpoint.load(path)


def test_a_file_that_holds_something_else_is_refused(path):
    torch.save(torch.zeros(3), path)
    with pytest.raises(UserError, match="Tensor"):
        checkpoint.load(path)


def test_loading_runs_no_code(path):
    marker = path.parent / "marker"
    torch.save({"step": Evil(marker)}, path)
    with pytest.raises(UserError, match="last.pt"):
        checkpoint.load(path)
    assert not marker.exists()


def test_a_generator_is_saved_with_its_description(tmp_path):
    network = nn.Linear(2, 3)
    checkpoint.save_generator(tmp_path / "a.pt", network, model="efficient", step=10)
    content = checkpoint.load(tmp_path / "a.pt")
    assert content["format"] == checkpoint.FORMAT and content["model"] == "efficient" and content["step"] == 10
    nn.Linear(2, 3).load_state_dict(content["generator"])
    assert torch.equal(content["generator"]["weight"], network.weight)
    assert content.keys() == {"format", "model", "step", "generator"}
