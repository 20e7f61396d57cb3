"""Files of weights: fetched when asked to, checked by hash; refused within seconds without a network; read safely."""

import hashlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from errors import UserError

TIMEOUT = 8.0  # seconds to reach a host, and that a connection may stay silent


def fetch(url: str, path: Path, sha256: str) -> Path:
    """Download `url` to `path`, whose content must have a SHA-256 that starts with `sha256` (hexadecimal).

    Raises `UserError`, naming the file and where to put it, where the host is out of reach or the content is another.
    """
    advice = f"put a copy of {url} at {path}"
    require_host(url, advice)
    path.parent.mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:  # writes beside and renames, so a kill leaves no half file
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(f"cannot download {path.name} ({error}); {advice}") from None
    except RuntimeError as error:
        raise UserError(f"the download of {path.name} has the wrong SHA-256 ({error}); {advice}") from None
    finally:
        socket.setdefaulttimeout(patience)
    return path


def require_host(url: str, advice: str) -> None:
    """Raise `UserError` with `advice` unless the host of `url` takes a connection within `TIMEOUT` seconds.

    Behind a proxy there is nothing to knock at: the download itself will tell.
    """
    if "https" in urllib.request.getproxies():
        return
    host = urlsplit(url).hostname
    answered = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection((host, 443), timeout=TIMEOUT).close()
            answered.set()
        except OSError:
            pass

    # In a thread, as no timeout bounds a name server that does not answer.
    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(TIMEOUT)
    if not answered.is_set():
        raise UserError(f"no network: {host} is out of reach; {advice}")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path) -> dict[str, Any]:
    """A state dict, or a checkpoint that holds one, onto the CPU; only data, no code.

    Raises `UserError` where the file is missing, broken, or something else.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign or broken file provokes
        raise UserError(f"{path} is no readable weights file: {first_line(error)}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds {type(state).__name__}, not a state dict")
    return state


def first_line(error: Exception) -> str:
    """The gist of a library's error."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2])
