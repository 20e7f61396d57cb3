"""The weights policy; and downloads: only if needed, only with the right hash, or a message that says what to do."""

import contextlib
import hashlib
import http.server
import os
import socket
import threading
import time
from functools import partial

import pytest

from errors import UserError
from pretrained import files
from pretrained.backbones import alexnet, vgg19, vit
from pretrained.files import POLICIES, fetch, find_timm_weights, require_host
from pretrained.perceptual import PERCEPTUAL

TINY = "vit_tiny_patch16_224"
BUILDERS = {"vgg19": vgg19, "alexnet": alexnet, "vit": partial(vit, name=TINY), **PERCEPTUAL}
CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """The URL of a web server on this machine; it has /weights, which is CONTENT, and nothing else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200 if self.path == "/weights" else 404)
            self.end_headers()
            if self.path == "/weights":
                self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(files, "require_host", lambda url, advice: None)  # it would connect to port 443
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


# --- the weights policy ----------------------------------------------------------------------------------------------


def test_auto_uses_a_local_file(alexnet_file, empty_cache, no_connections):
    assert alexnet("auto", str(alexnet_file)).provenance.startswith("pretrained (my_alexnet.pth, ")


def test_random_ignores_a_local_file(alexnet_file):
    assert alexnet("random", str(alexnet_file)).provenance == "random (seed 0)"


@pytest.mark.parametrize("name", BUILDERS)
def test_auto_without_weights_is_random_and_opens_no_connection(name, empty_cache, no_connections):
    assert BUILDERS[name](policy="auto", seed=2).provenance == "random (seed 2)"


@pytest.mark.parametrize(
    "name, file",
    (
        ("vgg19", "vgg19-dcbb9e9d.pth"),
        ("alexnet", "alexnet-owt-7be5be79.pth"),
        ("vit", "model.safetensors"),
        ("lpips", "alexnet-owt-7be5be79.pth"),
        ("lpips_plus", "alexnet-owt-7be5be79.pth"),
        ("dists", "vgg16-397923af.pth"),
    ),
)
def test_pretrained_without_a_network_says_where_to_put_which_file(name, file, empty_cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", refuse)
    began = time.monotonic()
    with pytest.raises(UserError, match=f"no network: .*{file}") as caught:
        BUILDERS[name](policy="pretrained")
    assert time.monotonic() - began < 15
    assert ("--backbones.vit-file" if name == "vit" else str(empty_cache)) in str(caught.value)


@pytest.mark.parametrize("policy", ("pretrained", "auto"))
@pytest.mark.parametrize("name", ("alexnet", "vit"))
def test_missing_local_file_is_named(name, policy):
    with pytest.raises(UserError, match="no file nowhere/w.pth"):
        BUILDERS[name](policy=policy, file="nowhere/w.pth")


@pytest.mark.parametrize("name", ("alexnet", "vit", "lpips", "lpips_plus"))
def test_unknown_policy_lists_the_known_ones(name):
    assert POLICIES == ("pretrained", "random", "auto")
    with pytest.raises(UserError, match="'trained'.*pretrained, random, auto"):
        BUILDERS[name](policy="trained")


def test_timm_model_without_published_weights_is_refused(empty_cache, no_connections):
    with pytest.raises(UserError, match="no published weights for 'some_vit'.*local file or use random"):
        find_timm_weights("pretrained", "some_vit", None)


def test_corrupt_download_from_hugging_face_is_removed(empty_cache, tmp_path, monkeypatch):
    import huggingface_hub

    content, link = tmp_path / SHA256, tmp_path / "model.safetensors"
    content.write_bytes(b"corrupt")
    link.symlink_to(content)
    monkeypatch.setattr(files, "require_host", lambda url, advice: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name: str(link))
    with pytest.raises(UserError, match="timm/some_vit/.*has the wrong SHA-256; try again"):
        find_timm_weights("pretrained", "some_vit", "timm/some_vit")
    assert not content.exists() and not link.is_symlink()
    content.write_bytes(CONTENT)
    link.symlink_to(content)
    assert find_timm_weights("pretrained", "some_vit", "timm/some_vit") == (
        link,
        f"pretrained (timm/some_vit, sha256 {SHA256[:8]})",
    )


# --- downloads -------------------------------------------------------------------------------------------------------


def test_file_is_downloaded_into_a_new_folder(server, tmp_path):
    path = fetch(f"{server}/weights", tmp_path / "new" / "w.pth", SHA256)
    assert path == tmp_path / "new" / "w.pth" and path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["w.pth"]


def test_start_of_a_hash_is_enough(server, tmp_path):
    assert fetch(f"{server}/weights", tmp_path / "w.pth", SHA256[:8]).exists()


def test_wrong_hash_leaves_no_file(server, tmp_path):
    with pytest.raises(UserError, match=f"w.pth has the wrong SHA-256.*put a copy of .*/weights at {tmp_path}"):
        fetch(f"{server}/weights", tmp_path / "w.pth", "0" * 64)
    assert os.listdir(tmp_path) == []


def test_wrong_hash_leaves_an_existing_file_unchanged(server, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"mine")
    with pytest.raises(UserError):
        fetch(f"{server}/weights", tmp_path / "w.pth", "0" * 64)
    assert (tmp_path / "w.pth").read_bytes() == b"mine"


def test_file_that_the_server_does_not_have(server, tmp_path):
    with pytest.raises(UserError, match="cannot download w.pth .*404.*put a copy"):
        fetch(f"{server}/nothing", tmp_path / "w.pth", SHA256)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("expected", (SHA256, "0" * 64))
def test_default_socket_timeout_is_restored(server, tmp_path, expected):
    before = socket.getdefaulttimeout()
    with contextlib.suppress(UserError):
        fetch(f"{server}/weights", tmp_path / "w.pth", expected)
    assert socket.getdefaulttimeout() == before


def test_host_that_refuses_is_named_with_the_advice(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError, match="no network: cannot connect to example.invalid; copy it by hand"):
        require_host("https://example.invalid/w", "copy it by hand")


def test_host_that_never_answers_is_abandoned(monkeypatch):
    monkeypatch.setattr(files, "TIMEOUT", 0.2)
    released = threading.Event()

    def hang(*_, **__):
        released.wait(5)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    began = time.monotonic()
    with pytest.raises(UserError, match="cannot connect to example.invalid"):
        require_host("https://example.invalid/w", "")
    released.set()
    assert time.monotonic() - began < 2


def test_timeout_is_below_15_seconds():
    assert 0 < files.TIMEOUT < 15
