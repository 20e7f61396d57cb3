"""Generators' files: checkpoints name their model, released files are recognised and downloaded only by name."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import storage
from errors import UserError
from models import MODELS, build_model
from pretrained import files, zoo
from pretrained.zoo import RELEASED, Released, cache_folder, download, open_checkpoint, open_generator, recognise

ROOT = Path(zoo.__file__).parents[1]
NAME = "Fujifilm/Efficient_ISP_unpaired_step_27220"
FILES = {
    "Efficient_ISP_unpaired_step_27220.pth": "efficient",
    "Robust_unpaired_step_66090.pth": "robust",
    "RMFA_TINY_unpaired_step_48270.pth": "rmfa-tiny",
}


def released_file(file: str) -> Path:
    folder = os.environ.get("ISP_RELEASED")
    if not folder:
        pytest.skip("ISP_RELEASED is not set: a folder with the released .pth files")
    return Path(folder) / file


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
    url = f"{zoo.REPOSITORY}/pretrained/models/{NAME}.pth"
    monkeypatch.setitem(RELEASED, NAME, Released(hashlib.sha256(url.encode()).hexdigest(), "a setting"))
    return url


# --- reading generators ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_recognised_by_keys_and_shapes(name):
    with torch.device("meta"):
        state = build_model(name).state_dict()
    assert recognise(state, "here") == name


@pytest.mark.parametrize("file, name", FILES.items())
def test_released_file_is_recognised_and_runs(file, name):
    recognised, state, description = open_checkpoint(str(released_file(file)))
    assert recognised == name and description == {}
    generator = build_model(name)
    generator.load_state_dict(state)
    size = (1, 4, 4, 4) if MODELS[name].input_format == "packed" else (1, 3, 8, 8)
    with torch.no_grad():
        assert generator(torch.rand(size)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("file", FILES)
def test_released_files_have_the_listed_hashes(file):
    assert storage.sha256_of(released_file(file)) == RELEASED[f"Fujifilm/{file.removesuffix('.pth')}"].sha256


def changed(change) -> dict:
    """The state dict of an Efficient ISP after `change`."""
    state = dict(build_model("efficient").state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    "state",
    (
        {},
        {"generator_of_something": 3},
        changed(lambda state: state.pop("conv1.bias")),
        changed(lambda state: state.update(extra=torch.ones(1))),
        changed(lambda state: state.update({"conv1.bias": torch.ones(13)})),
    ),
)
def test_state_dict_that_fits_no_model_is_refused_and_lists_the_known_ones(state):
    with pytest.raises(UserError, match="w.pth does not hold a generator.*none of.*" + ", ".join(MODELS)):
        recognise(state, "w.pth")


def test_bare_state_dict_is_opened_by_its_shapes(tmp_path):
    state = build_model("robust").state_dict()
    torch.save(state, tmp_path / "w.pth")
    name, opened, description = open_checkpoint(str(tmp_path / "w.pth"))
    assert name == "robust" and description == {}
    assert opened.keys() == state.keys() and all(torch.equal(opened[key], value) for key, value in state.items())


def test_checkpoint_of_fit_is_opened_with_its_model_and_description(tmp_path):
    state = build_model("robust").state_dict()
    description = {"format": 1, "model": "robust", "step": 10, "sensor": {"cfa": "grbg"}}
    torch.save(description | {"generator": state}, tmp_path / "step_0000010.pt")
    name, opened, found = open_checkpoint(str(tmp_path / "step_0000010.pt"))
    assert name == "robust" and found == description
    assert opened.keys() == state.keys() and all(torch.equal(opened[key], value) for key, value in state.items())
    assert open_generator(str(tmp_path / "step_0000010.pt"))[0] == "robust"


def test_checkpoint_names_its_model_where_shapes_would_not(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "twin", MODELS["efficient"])
    torch.save({"model": "twin", "generator": build_model("twin").state_dict()}, tmp_path / "w.pt")
    assert open_generator(str(tmp_path / "w.pt"))[0] == "twin"


@pytest.mark.parametrize(
    ("content", "message"),
    (
        ({"model": "efficient", "generator": torch.ones(3)}, "'generator' is a Tensor"),
        ({"generator": changed(lambda state: None)}, "does not name its model"),
        ({"model": 3, "generator": changed(lambda state: None)}, "does not name its model"),
        (
            {"model": "huge", "generator": changed(lambda state: None)},
            "unknown model 'huge'; known are: " + ", ".join(MODELS),
        ),
    ),
)
def test_checkpoint_without_a_known_model_is_refused_by_name(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"w.pt .*{message}"):
        open_checkpoint(str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda state: state.pop("conv1.bias"), "conv1.bias is missing"),
        (lambda state: state.update({"conv1.bias": torch.ones(13)}), r"conv1.bias has the shape \(13,\), not \(12,\)"),
        (lambda state: state.update({"conv1.bias": 1}), "conv1.bias is not a tensor"),
        (lambda state: state.update(extra=torch.ones(1)), "extra is not part of the model"),
    ),
)
def test_checkpoint_whose_weights_do_not_fit_its_model_is_refused_by_name(change, message, tmp_path):
    torch.save({"model": "efficient", "generator": changed(change)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"w.pt holds weights that do not fit its model 'efficient': {message}"):
        open_checkpoint(str(tmp_path / "w.pt"))


# --- the list --------------------------------------------------------------------------------------------------------


def test_list_shows_every_name_with_its_setting():
    printed = subprocess.run(
        [sys.executable, "-m", "pretrained.zoo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert len(lines) == 13 and lines.keys() == RELEASED.keys()
    assert lines["ZRR/Efficient_ISP_unpaired_step_30750"] == "Table 1: Zurich RAW to RGB, unpaired (Eq. 11)"
    assert lines["Fujifilm/Robust_paired_step_31560"] == "Table 2: Fujifilm UltraISP, paired_gan (Eq. 10)"
    assert lines["Fujifilm/RMFA_TINY_paired_wo_adv_losses_step_36120"] == (
        "Table 2: Fujifilm UltraISP, paired (Eq. 10 without adversarial losses)"
    )


def test_every_dataset_has_three_settings():
    trained = {name: released for name, released in RELEASED.items() if not name.startswith("checkpoint/")}
    settings = [(name.split("/")[0], released.setting.split(", ")[1].split()[0]) for name, released in trained.items()]
    assert sorted(set(settings)) == sorted(
        (data, mode) for data in ("ZRR", "Fujifilm") for mode in ("unpaired", "paired", "paired_gan")
    )
    assert all(settings.count((data, mode)) == {"ZRR": 1, "Fujifilm": 3}[data] for data, mode in settings)
    assert all(len(released.sha256) == 64 for released in RELEASED.values())


# --- downloads -------------------------------------------------------------------------------------------------------


def test_released_model_is_downloaded_once_into_the_cache(one_released, downloads, tmp_path):
    path = download(NAME)
    assert path == cache_folder() / "Fujifilm_Efficient_ISP_unpaired_step_27220.pth"
    assert cache_folder().is_relative_to(tmp_path / "torch_home") and path.read_bytes() == one_released.encode()
    assert download(f"{NAME}.pth") == path and downloads == [one_released]


def test_released_model_is_downloaded_into_a_given_folder(one_released, downloads, tmp_path):
    path = download(NAME, tmp_path / "mine")
    assert path.parent == tmp_path / "mine" and path.is_file() and not cache_folder().exists()


def test_cached_file_with_other_content_is_replaced(one_released, downloads):
    path = download(NAME)
    path.write_bytes(b"damaged")
    assert download(NAME).read_bytes() == one_released.encode() and len(downloads) == 2


def test_download_with_a_wrong_hash_is_refused_and_removed(downloads):
    with pytest.raises(UserError, match="Fujifilm_.*27220.pth has the wrong SHA-256.*put a copy"):
        download(NAME)
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize("function", (download, open_generator))
def test_unknown_name_is_refused_without_a_download(function, downloads):
    with pytest.raises(UserError, match="Fujifilm/nothing.*python -m pretrained.zoo"):
        function("Fujifilm/nothing")
    assert downloads == []


def test_local_file_is_opened_without_a_download(downloads, tmp_path):
    torch.save(build_model("efficient").state_dict(), tmp_path / "w.pth")
    open_generator(str(tmp_path / "w.pth"))
    assert downloads == []


def test_a_folder_that_cannot_be_made_is_named_before_any_download(call, downloads, tmp_path):
    (tmp_path / "file").touch()
    status, output = call(zoo, NAME, tmp_path / "file" / "cache")
    assert status == 2 and downloads == []
    assert output.startswith(f"error: cannot read or write {tmp_path / 'file'}") and len(output.splitlines()) == 1


def test_a_full_disk_names_the_file(call, one_released, monkeypatch):
    def full(*_, **__) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch.hub, "download_url_to_file", full)
    status, output = call(zoo, NAME)
    path = cache_folder() / "Fujifilm_Efficient_ISP_unpaired_step_27220.pth"
    assert status == 2 and output.startswith(f"error: cannot read or write {path}: No space left on device")


def test_more_arguments_than_a_name_and_a_folder_are_refused(call, downloads):
    status, output = call(zoo, "a", "b", "c")
    assert status == 2 and "unrecognized arguments: c" in output and downloads == []


def test_opening_a_released_name_downloads_it(one_released, downloads):
    with pytest.raises(UserError, match="27220.pth is not a readable checkpoint"):  # its content here is the URL
        open_generator(NAME)
    assert downloads == [one_released]


def test_download_without_a_network_says_where_to_put_which_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(files.socket, "create_connection", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    with pytest.raises(UserError, match=f"no network: .*put a copy of https.*/{NAME}.pth at {tmp_path}"):
        download(NAME)


# --- names and paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    (
        (NAME, NAME),
        (f"{NAME}.pth", NAME),
        ("released:Fujifilm/Efficient_ISP_unpaired", NAME),
        ("Fujifilm/Efficient_ISP_paired", "Fujifilm/Efficient_ISP_paired_step_37580"),
        ("Fujifilm/Efficient_ISP_paired_wo_adv_losses", "Fujifilm/Efficient_ISP_paired_wo_adv_losses_step_31190"),
        ("Fujifilm/Efficient", ""),
        ("Efficient_ISP_unpaired", ""),
    ),
)
def test_full_name_needs_no_step(name, key):
    assert zoo.full_name(name) == key


def test_local_file_takes_precedence_over_a_released_name(tmp_path, monkeypatch, one_released, downloads):
    monkeypatch.chdir(tmp_path)
    assert zoo.locate("released:Fujifilm/Efficient_ISP_unpaired").read_text() == one_released
    Path("Fujifilm").mkdir()
    Path(NAME).write_text("mine")
    assert zoo.locate(NAME) == Path(NAME) and len(downloads) == 1
    with pytest.raises(UserError, match="no file elsewhere, and no released model.*python -m pretrained.zoo"):
        zoo.locate("elsewhere")


def test_a_training_state_is_not_a_generator(tmp_path):
    torch.save({"stage": "train", "step": 3, "trainer": {}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="last.pt is the training state of a run, not a generator: name a file in its"):
        open_checkpoint(str(tmp_path / "last.pt"))
