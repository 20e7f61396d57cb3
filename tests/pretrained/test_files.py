"""Weights from elsewhere: only what was asked for, only with the right hash, never code, and a sentence otherwise."""

import contextlib
import hashlib
import http.server
import os
import pickle
import socket
import threading
import time
from pathlib import Path

import pytest
import torch

from errors import UserError
from pretrained import files
from pretrained.files import fetch, first_line, read_state, require_host, sha256_of

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def server(monkeypatch):
    """A web server on the loopback: /weights is CONTENT, anything else is not there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200 if self.path == "/weights" else 404)
            self.end_headers()
            if self.path == "/weights":
                self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    # The host is asked at port 443, where this one does not listen.
    monkeypatch.setattr(files, "require_host", lambda url, advice: None)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_a_file_is_fetched_into_a_new_folder(server, tmp_path):
    path = fetch(f"{server}/weights", tmp_path / "new" / "w.pth", SHA256)
    assert path == tmp_path / "new" / "w.pth" and path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["w.pth"]


def test_the_beginning_of_a_hash_is_enough(server, tmp_path):
    assert fetch(f"{server}/weights", tmp_path / "w.pth", SHA256[:8]).exists()


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match=f"w.pth has the wrong SHA-256.*put a copy of .*/weights at {tmp_path}"):
        fetch(f"{server}/weights", tmp_path / "w.pth", "0" * 64)
    assert os.listdir(tmp_path) == []


def test_a_wrong_hash_leaves_what_was_there(server, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"mine")
    with pytest.raises(UserError):
        fetch(f"{server}/weights", tmp_path / "w.pth", "0" * 64)
    assert (tmp_path / "w.pth").read_bytes() == b"mine"


def test_what_the_server_does_not_have(server, tmp_path):
    with pytest.raises(UserError, match="cannot download w.pth .*404.*put a copy"):
        fetch(f"{server}/nothing", tmp_path / "w.pth", SHA256)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("hash_of", (SHA256, "0" * 64))
def test_the_process_s_own_timeout_is_put_back(server, tmp_path, hash_of):
    before = socket.getdefaulttimeout()
    with contextlib.suppress(UserError):
        fetch(f"{server}/weights", tmp_path / "w.pth", hash_of)
    assert socket.getdefaulttimeout() == before


def test_a_host_that_refuses_is_named_with_the_advice(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError, match="no network: example.invalid is out of reach; carry it"):
        require_host("https://example.invalid/w", "carry it")


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(files, "TIMEOUT", 0.2)
    released = threading.Event()

    def hang(*_, **__):
        released.wait(5)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    began = time.monotonic()
    with pytest.raises(UserError, match="out of reach"):
        require_host("https://example.invalid/w", "")
    released.set()
    assert time.monotonic() - began < 2


def test_patience_is_below_a_quarter_of_a_minute():
    assert 0 < files.TIMEOUT < 15


def test_sha256_by_hand(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert sha256_of(tmp_path / "abc") == expected


def test_a_state_dict_is_read(tmp_path):
    torch.save({"a": torch.ones(2), "step": 3}, tmp_path / "w.pth")
    state = read_state(tmp_path / "w.pth")
    assert torch.equal(state["a"], torch.ones(2)) and state["step"] == 3


@pytest.mark.parametrize("make", (lambda bomb: bomb, lambda bomb: {"a": bomb}))
def test_a_pickle_with_code_is_not_run(tmp_path, make):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(make(Bomb(tmp_path / "ran")), protocol=2))
    with pytest.raises(UserError, match="w.pth is no readable weights file"):
        read_state(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_code_in_torch_s_own_format_is_not_run(tmp_path):
    torch.save({"a": Bomb(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth is no readable weights file"):
        read_state(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", (b"", b"garbage" * 50, b"PK\x03\x04" + bytes(100)))
def test_garbage_is_refused_by_name(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match="w.pth is no readable weights file: ."):
        read_state(tmp_path / "w.pth")


def test_a_truncated_file_is_refused(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="w.pth"):
        read_state(tmp_path / "w.pth")


def test_what_is_no_state_dict_or_not_there(tmp_path):
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="tensor.pth holds Tensor, not a state dict"):
        read_state(tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="no file .*nowhere.pth"):
        read_state(tmp_path / "nowhere.pth")


def test_the_gist_of_an_error_is_one_line():
    assert first_line(ValueError("  a\n  b\nc")) == "a b"
    assert first_line(ValueError()) == "ValueError"
