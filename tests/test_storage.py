"""Files are written whole or not at all; reading one runs no code; locks end with the process that holds them."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import storage
from errors import UserError

ROOT = Path(storage.__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


class Kill(BaseException):
    """An exception that no `except Exception` catches."""


@pytest.fixture
def path(tmp_path) -> Path:
    """An existing checkpoint."""
    storage.save(tmp_path / "last.pt", {"step": 1})
    return tmp_path / "last.pt"


# --- writing ---------------------------------------------------------------------------------------------------------


def test_saved_content_is_loaded(tmp_path):
    content = {"step": 3, "psnr": {"final": 20.5}, "weights": torch.arange(3.0), "list": [1, "a", None]}
    storage.save(tmp_path / "new" / "folder" / "a.pt", content)
    loaded = storage.load(tmp_path / "new" / "folder" / "a.pt")
    assert torch.equal(loaded.pop("weights"), content.pop("weights")) and loaded == content
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["a.pt"]


def test_new_file_replaces_the_old_one(path):
    storage.save(path, {"step": 2})
    assert storage.load(path) == {"step": 2}


@pytest.mark.parametrize("error", (ValueError, OSError, KeyboardInterrupt, Kill))
def test_error_during_writing_preserves_the_old_file(path, error):
    with pytest.raises(error), storage.writing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert storage.load(path) == {"step": 1}
    assert os.listdir(path.parent) == ["last.pt"]


@pytest.mark.parametrize("write", (storage.save, storage.write_json))
def test_full_disk_leaves_the_old_file_and_nothing_else(path, write, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        write(path, {"step": 2})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == before and os.listdir(path.parent) == ["last.pt"]


def test_an_error_that_names_a_file_or_is_of_no_file_system_is_not_renamed(path):
    for error, name in ((OSError(errno.EACCES, "refused", "other"), "other"), (OSError("no number"), None)):
        with pytest.raises(OSError) as caught, storage.naming(path):
            raise error
        assert caught.value.filename == name


def test_content_is_on_disk_before_it_replaces_the_old_file(path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: events.append("fsync") or fsync(d))
    monkeypatch.setattr(os, "replace", lambda a, b: events.append("replace") or replace(a, b))
    storage.save(path, {"step": 2})
    assert events[:2] == ["fsync", "replace"]


def test_kill_during_writing_preserves_the_old_file(path):
    code = f"""
import os, pathlib, signal
import storage
with storage.writing(pathlib.Path({str(path)!r})) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT).returncode == -signal.SIGKILL
    assert storage.load(path) == {"step": 1}
    storage.save(path, {"step": 2})  # replaces the partial file, too
    assert storage.load(path) == {"step": 2} and os.listdir(path.parent) == ["last.pt"]


def test_partial_file_is_hidden_and_keeps_its_suffix(path):
    with storage.writing(path) as temporary:
        assert temporary.name.startswith(".") and temporary.suffix == ".pt" and temporary.parent == path.parent
        temporary.write_bytes(b"new")


def test_json_is_indented_and_refuses_nan(tmp_path):
    storage.write_json(tmp_path / "a.json", {"b": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "a.json", {"b": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1]}


# --- reading ---------------------------------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no file .*absent.pt"):
        storage.load(tmp_path / "absent.pt")


@pytest.mark.parametrize("content", (b"", b"garbage" * 100, b"PK\x03\x04 no zip", b"PK\x03\x04" + bytes(100), "half"))
def test_damaged_file_is_refused_by_name(path, content):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(UserError, match="last.pt is not a readable checkpoint or weights file: ."):
        storage.load(path)


def test_file_that_holds_no_dictionary_is_refused(path):
    torch.save(torch.zeros(3), path)
    with pytest.raises(UserError, match="last.pt holds a Tensor, not a checkpoint or state dict"):
        storage.load(path)


def save_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", (torch.save, save_pickle))
@pytest.mark.parametrize("wrap", (lambda bomb: bomb, lambda bomb: {"step": bomb}))
def test_code_in_a_file_is_refused_and_not_run(path, bomb, save, wrap):
    save(wrap(bomb), path)
    with pytest.raises(UserError, match="last.pt is not a readable checkpoint or weights file"):
        storage.load(path)


@pytest.mark.filterwarnings("error")
def test_loading_prints_no_warning_of_a_library(path):
    torch.save({"weight": torch.ones(2, 2).to_sparse()}, path)
    storage.load(path)


def test_sha256_by_hand(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert storage.sha256_of(tmp_path / "abc") == expected


def test_first_line_of_an_error_is_short_and_never_empty():
    assert storage.first_line(ValueError("  a\n  b\nc")) == "a b"
    assert storage.first_line(ValueError()) == "ValueError"


# --- locking ---------------------------------------------------------------------------------------------------------


@contextmanager
def other_process(statement: str):
    """Another process enters `with STATEMENT as result`, prints the result, and stays there until the block ends."""
    code = f"import sys, pathlib, storage\nwith {statement} as result:\n    print(result, flush=True); sys.stdin.read()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, **pipes) as process:
        yield process, process.stdout.readline().strip()
        process.stdin.close()


def test_asking_for_a_lock_changes_nothing(tmp_path):
    path = tmp_path / "new" / ".lock"
    assert not storage.is_locked(path) and not path.parent.exists()
    with other_process(f"storage.lock(pathlib.Path({str(path)!r}))"):
        assert storage.is_locked(path) and storage.is_locked(path)
    before = path.stat().st_mtime_ns
    assert not storage.is_locked(path) and path.stat().st_mtime_ns == before
    with storage.lock(path, wait=False) as locked:
        assert locked


def test_lock_is_held_by_one_process_until_it_ends(tmp_path):
    path = tmp_path / "new" / ".lock"
    with other_process(f"storage.lock(pathlib.Path({str(path)!r}))") as (process, result):
        assert result == "True"
        with storage.lock(path, wait=False) as locked:
            assert not locked
        process.kill()
        with storage.lock(path) as locked:  # waits for the end of the other process
            assert locked
    with storage.lock(path, wait=False) as locked:
        assert locked


def test_each_name_is_claimed_by_one_process_until_it_ends(tmp_path):
    path = tmp_path / "new" / ".claims"
    with other_process(f"storage.claim(pathlib.Path({str(path)!r}), ['a', 'b'])") as (process, result):
        assert result == "['a', 'b']"
        with storage.claim(path, ["b", "c", "a", "d"]) as claimed:
            assert claimed == ["c", "d"]
        process.kill()
        with storage.claim(path, ["a", "d"], wait=True) as claimed:  # waits for the end of the other process
            assert claimed == ["a", "d"]
    with other_process(f"storage.claim(pathlib.Path({str(path)!r}), ['a', 'd'])") as (_, result):
        assert result == "['a', 'd']"  # a claim ends with its block
