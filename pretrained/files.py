"""Where the weights of a frozen network come from: the weights policy, and downloads checked by their SHA-256.

The weights policy is one of
- "pretrained": a local file, the cache of torch (below `TORCH_HOME`) or of Hugging Face, or a download;
- "random": seeded initial values;
- "auto": pretrained if the file is already on this machine, otherwise random. Nothing is downloaded.
"""

import http.client
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import torch

import storage
from errors import UserError

POLICIES = ("pretrained", "random", "auto")
TIMEOUT = 8.0  # seconds to connect to a host, and that a connection may stay silent


# --- the weights policy ----------------------------------------------------------------------------------------------


def find_weights(
    policy: str, network: str, url: str, folder: str, file: str = "", seed: int = 0
) -> tuple[Path | None, str]:
    """Find the weights of a network by the policy, downloading them if needed.

    policy: a name in `POLICIES`.
    network: the network's name, for messages.
    url: the published file. Its name carries the start of its SHA-256: vgg19-dcbb9e9d.pth.
    folder: the subfolder of torch's hub folder where that file is cached.
    file: a local file to use instead; "" for the published one.
    seed: of the random values, for the description.

    Returns the file to load, or None for random values, and the provenance: a description of their origin, with the
    start of the file's SHA-256 unless its name has it.
    Raises `UserError` for an unknown policy, a missing `file`, or a failed download.
    """
    found = _find_local(policy, network, file, seed)
    if found:
        return found
    name = url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir()) / folder / name
    if not path.is_file():
        if policy == "auto":
            return _random(seed)
        fetch(url, path, sha256=name.rsplit("-", 1)[1].split(".")[0])
    return _pretrained(path, name)


def find_timm_weights(
    policy: str, network: str, repository: str | None, file: str = "", seed: int = 0
) -> tuple[Path | None, str]:
    """As `find_weights`, for a timm model. `repository` is where Hugging Face publishes it; None if it does not."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    found = _find_local(policy, network, file, seed)
    if found:
        return found
    name = "model.safetensors"
    cached = try_to_load_from_cache(repository, name) if repository else None
    if isinstance(cached, str):
        return _pretrained(Path(cached), repository)
    if policy == "auto":
        return _random(seed)
    if not repository:
        raise UserError(f"timm has no published weights for '{network}'; give a local file or use random weights")
    url = f"https://huggingface.co/{repository}/resolve/main/{name}"
    advice = f"download {url} elsewhere and pass the file with --backbones.vit-file"
    require_host(url, advice)
    try:
        path = Path(hf_hub_download(repository, name))
    except Exception as error:  # the client raises many types
        raise UserError(f"cannot download {url} ({storage.first_line(error)}); {advice}") from None
    # The cache holds a link to the content, whose name there is the SHA-256 that the server announced.
    content = Path(os.path.realpath(path))
    if storage.sha256_of(content) != content.name:
        content.unlink()  # not only the link, which the next download would make again
        path.unlink(missing_ok=True)
        raise UserError(f"the download of {url} has the wrong SHA-256; try again")
    return _pretrained(path, repository)


def _find_local(policy: str, network: str, file: str, seed: int) -> tuple[Path | None, str] | None:
    """The result of `find_weights` if it needs no published file, otherwise None."""
    if policy not in POLICIES:
        raise UserError(f"unknown weights policy '{policy}'; known are: {', '.join(POLICIES)}")
    if policy == "random":
        return _random(seed)
    if not file:
        return None
    if not Path(file).is_file():
        raise UserError(f"no file {file} for the weights of {network}")
    return _pretrained(Path(file), Path(file).name)


def _pretrained(path: Path, name: str) -> tuple[Path, str]:
    sha256, content = storage.sha256_of(path), Path(os.path.realpath(path)).name
    if re.fullmatch(r"[0-9a-f]{64}", content) and content != sha256:  # Hugging Face's cache names a file so
        raise UserError(f"{path} is damaged, its SHA-256 is not its name: remove {os.path.realpath(path)}")
    known = f"-{sha256[:8]}." in name
    return path, f"pretrained ({name})" if known else f"pretrained ({name}, sha256 {sha256[:8]})"


def _random(seed: int) -> tuple[None, str]:
    return None, f"random (seed {seed})"


# --- downloads -------------------------------------------------------------------------------------------------------


def fetch(url: str, path: Path, sha256: str, *others: str) -> Path:
    """Download `url` to `path` and check that its SHA-256 starts with `sha256` (hexadecimal). Returns `path`.

    `others` are the files that belong to it, "URL at PATH", for the message without a network.

    Raises `UserError`, saying where to put a copy of the file, if the host cannot be reached or the hash is wrong; an
    existing file is then unchanged.
    """
    advice = " and ".join((f"put a copy of {url} at {path}", *others))
    path.parent.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is reported before any waiting
    require_host(url, advice)
    default = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:  # torch writes a temporary file, checks its hash, and renames it
        with storage.naming(path):
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        raise UserError(f"cannot download {path.name} ({error}); {advice}") from None
    except RuntimeError as error:
        raise UserError(f"the download of {path.name} has the wrong SHA-256 ({error}); {advice}") from None
    finally:
        socket.setdefaulttimeout(default)
    return path


def require_host(url: str, advice: str) -> None:
    """Raise `UserError` with `advice` unless the host of `url` accepts a connection within `TIMEOUT` seconds.

    Behind a proxy there is no direct connection to try: the download itself then fails if the host cannot be reached.
    """
    if "https" in urllib.request.getproxies():
        return
    host = urlsplit(url).hostname
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, 443), timeout=TIMEOUT).close()
            connected.set()
        except OSError:
            pass

    # In a thread, because the timeout does not cover a name server that never answers.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(TIMEOUT)
    if not connected.is_set():
        raise UserError(f"no network: cannot connect to {host}; {advice}")
