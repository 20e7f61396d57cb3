"""For all tests of pretrained networks: real weights where they are on this machine, and machines without any."""

import hashlib
import os
import socket
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision

from pretrained import files
from pretrained.released import RELEASED, REPOSITORY, Released

ALEXNET = "checkpoints/alexnet-owt-7be5be79.pth"  # below torch's hub folder
NAME = "Fujifilm/Efficient_ISP_unpaired_step_27220"  # a released ISP


@pytest.fixture(scope="session")
def from_environment():
    """from_environment(variable, content): the path in an environment variable; skips the test if it is not set."""

    def get(variable: str, content: str) -> Path:
        if not os.environ.get(variable):
            pytest.skip(f"{variable} is not set: {content}")
        return Path(os.environ[variable])

    return get


@pytest.fixture(scope="session")
def require_cached():
    """require_cached(*names): skips the test unless torch's hub folder has these files."""

    def require(*names: str) -> None:
        hub = Path(torch.hub.get_dir())
        missing = [name for name in names if not (hub / name).is_file()]
        if missing:
            pytest.skip(f"not in the cache of TORCH_HOME: {', '.join(missing)}")

    return require


@pytest.fixture
def empty_cache(monkeypatch, tmp_path) -> Path:
    """A machine without any cached weights; the path of torch's hub folder, which does not exist yet."""
    import huggingface_hub.constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))  # HF_HOME was read at import
    return tmp_path / "torch" / "hub"


@pytest.fixture
def no_connections(monkeypatch) -> None:
    """Fails the test if it opens a network connection."""

    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module", autouse=True)
def uninitialised_classifiers():
    """Saves a second for each VGG: torchvision initialises up to 120 million weights of classifiers that we discard."""

    def quick(build, options: dict, **given) -> torch.nn.Module:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)
            return build(**options, **given)

    with pytest.MonkeyPatch.context() as patch:
        for name, options in (("alexnet", {}), ("vgg16", {"init_weights": False}), ("vgg19", {"init_weights": False})):
            patch.setattr(torchvision.models, name, partial(quick, getattr(torchvision.models, name), options))
        yield


@pytest.fixture
def alexnet_file(tmp_path) -> Path:
    """A state dict as torchvision writes it for AlexNet, with weights of another seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        features = torchvision.models.alexnet(weights=None).features
    path = tmp_path / "my_alexnet.pth"
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(state | {"classifier.6.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture
def cached_alexnet(alexnet_file, empty_cache) -> Path:
    """A machine whose only cached weights are those of AlexNet; the path of torch's hub folder."""
    (empty_cache / ALEXNET).parent.mkdir(parents=True)
    alexnet_file.rename(empty_cache / ALEXNET)
    return empty_cache


# --- released ISPs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def downloads(monkeypatch, tmp_path) -> list[str]:
    """Replaces downloads: each file contains its URL. The list holds the requested URLs."""
    requested = []

    def answer(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        requested.append(url)
        if not hashlib.sha256(url.encode()).hexdigest().startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}")')
        Path(path).write_bytes(url.encode())

    monkeypatch.setattr(files, "require_host", lambda url, advice: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", answer)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    return requested


@pytest.fixture
def one_released(monkeypatch, downloads) -> str:
    """Gives the released model NAME the hash of what `downloads` writes for it; returns its URL."""
    url = f"{REPOSITORY}/pretrained/models/{NAME}.pth"
    monkeypatch.setitem(RELEASED, NAME, Released(hashlib.sha256(url.encode()).hexdigest(), "a setting"))
    return url
