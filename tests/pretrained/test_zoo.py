"""The released models: known by their keys alone, fetched only when named, checked by hash."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from errors import UserError
from models import MODELS, build_model
from pretrained import files, zoo
from pretrained.zoo import RELEASED, Released, cache, download, load_generator, open_folder, open_generator, recognise

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
    """Downloads answer with the URL as content; the list holds what was asked for."""
    asked = []

    def answer(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append(url)
        if not hashlib.sha256(url.encode()).hexdigest().startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}")')
        Path(path).write_bytes(url.encode())

    monkeypatch.setattr(files, "require_host", lambda url, advice: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", answer)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    return asked


@pytest.fixture
def one_released(monkeypatch, downloads) -> str:
    """A released name whose hash is that of what `downloads` answers; its URL."""
    url = f"{zoo.REPOSITORY}/{NAME}.pth"
    monkeypatch.setitem(RELEASED, NAME, Released(hashlib.sha256(url.encode()).hexdigest(), "a setting"))
    return url


# --- which model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_each_of_our_models_is_recognised(name):
    with torch.device("meta"):
        state = build_model(name).state_dict()
    assert recognise(state, "here") == name


@pytest.mark.parametrize("file, name", FILES.items())
def test_each_released_file_is_recognised_and_runs(file, name):
    path = released_file(file)
    assert open_generator(str(path))[0] == name
    generator = load_generator(str(path))
    size = (1, 4, 4, 4) if generator.input_format == "packed" else (1, 3, 8, 8)
    with torch.no_grad():
        assert not generator.training and generator(torch.rand(size)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("file", FILES)
def test_released_files_have_the_listed_hashes(file):
    assert files.sha256_of(released_file(file)) == RELEASED[f"Fujifilm/{file.removesuffix('.pth')}"].sha256


def broken(change) -> dict:
    state = dict(build_model("efficient").state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    "state",
    (
        {},
        {"generator_of_something": 3},
        broken(lambda state: state.pop("conv1.bias")),
        broken(lambda state: state.update(extra=torch.ones(1))),
        broken(lambda state: state.update({"conv1.bias": torch.ones(13)})),
    ),
)
def test_other_keys_or_shapes_list_the_known_models(state):
    with pytest.raises(UserError, match="w.pth fits none of the known models: " + ", ".join(MODELS)):
        recognise(state, "w.pth")


def test_a_checkpoint_of_ours_is_opened_too(tmp_path):
    state = build_model("robust").state_dict()
    torch.save({"generator": state, "model": "robust", "step": 10}, tmp_path / "step_0000010.pt")
    name, opened = open_generator(str(tmp_path / "step_0000010.pt"))
    assert name == "robust" and all(torch.equal(opened[key], value) for key, value in state.items())


def test_a_checkpoint_whose_generator_is_none_is_refused(tmp_path):
    torch.save({"generator": torch.ones(3)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="w.pt"):
        open_generator(str(tmp_path / "w.pt"))


def test_a_folder_is_opened_file_by_file(tmp_path):
    for file, name in (("b.pth", "robust"), ("a.pt", "efficient")):
        torch.save(build_model(name).state_dict(), tmp_path / file)
    (tmp_path / "notes.txt").write_text("no weights")
    assert [(stem, name) for stem, (name, _) in open_folder(tmp_path).items()] == [("a", "efficient"), ("b", "robust")]


def test_a_folder_without_models(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=f"no .pth or .pt file in {folder}"):
            open_folder(folder)


# --- the list --------------------------------------------------------------------------------------------------------


def test_the_list_has_every_name_with_its_setting():
    printed = subprocess.run(
        [sys.executable, "-m", "pretrained.zoo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert len(lines) == 12 and lines.keys() == RELEASED.keys()
    assert lines["ZRR/Efficient_ISP_unpaired_step_30750"] == "Table 1: Zurich RAW to RGB, unpaired (Eq. 11)"
    assert lines["Fujifilm/Robust_paired_step_31560"] == "Table 2: Fujifilm UltraISP, paired_gan (Eq. 10)"
    assert lines["Fujifilm/RMFA_TINY_paired_wo_adv_losses_step_36120"] == (
        "Table 2: Fujifilm UltraISP, paired (Eq. 10 without adversarial losses)"
    )


def test_each_dataset_has_its_three_settings():
    settings = [(name.split("/")[0], released.setting.split(", ")[1].split()[0]) for name, released in RELEASED.items()]
    assert sorted(set(settings)) == sorted(
        (data, mode) for data in ("ZRR", "Fujifilm") for mode in ("unpaired", "paired", "paired_gan")
    )
    assert all(settings.count((data, mode)) == {"ZRR": 1, "Fujifilm": 3}[data] for data, mode in settings)
    assert all(len(released.sha256) == 64 for released in RELEASED.values())


# --- downloads -------------------------------------------------------------------------------------------------------


def test_a_name_is_downloaded_once_into_the_cache(one_released, downloads, tmp_path):
    path = download(NAME)
    assert path == cache() / "Fujifilm_Efficient_ISP_unpaired_step_27220.pth"
    assert cache().is_relative_to(tmp_path / "torch_home") and path.read_bytes() == one_released.encode()
    assert download(f"{NAME}.pth") == path and downloads == [one_released]


def test_a_name_is_downloaded_into_a_folder_where_one_is_named(one_released, downloads, tmp_path):
    path = download(NAME, tmp_path / "mine")
    assert path.parent == tmp_path / "mine" and path.is_file() and not cache().exists()


def test_a_cached_file_of_another_content_is_replaced(one_released, downloads):
    path = download(NAME)
    path.write_bytes(b"spoilt")
    assert download(NAME).read_bytes() == one_released.encode() and len(downloads) == 2


def test_a_wrong_hash_is_refused_and_nothing_stays(downloads):
    with pytest.raises(UserError, match="Fujifilm_.*27220.pth has the wrong SHA-256.*put a copy"):
        download(NAME)
    assert list(cache().iterdir()) == []


def test_an_unknown_name_is_not_asked_for(downloads):
    for ask in (download, open_generator):
        with pytest.raises(UserError, match="Fujifilm/nothing.*python -m pretrained.zoo"):
            ask("Fujifilm/nothing")
    assert downloads == []


def test_a_file_that_is_there_is_not_downloaded(downloads, tmp_path):
    torch.save(build_model("efficient").state_dict(), tmp_path / "w.pth")
    open_generator(str(tmp_path / "w.pth"))
    open_folder(tmp_path)
    assert downloads == []


def test_a_name_given_as_a_generator_is_downloaded(one_released, downloads):
    with pytest.raises(UserError, match="27220.pth is no readable weights file"):  # for it holds the URL here
        open_generator(NAME)
    assert downloads == [one_released]


def test_without_a_network_the_file_and_its_place_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(files.socket, "create_connection", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    with pytest.raises(UserError, match=f"no network: .*put a copy of https.*{NAME}.pth at {tmp_path}"):
        download(NAME)


# --- what a name means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
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
def test_a_name_needs_no_step(name, meant):
    assert zoo.full_name(name) == meant


def test_a_file_that_is_there_comes_before_a_name(tmp_path, monkeypatch, one_released, downloads):
    monkeypatch.chdir(tmp_path)
    assert zoo.locate("released:Fujifilm/Efficient_ISP_unpaired").read_text() == one_released
    Path("Fujifilm").mkdir()
    Path(NAME).write_text("mine")
    assert zoo.locate(NAME) == Path(NAME) and len(downloads) == 1
    with pytest.raises(UserError, match="no file elsewhere"):
        zoo.locate("elsewhere")


def test_a_checkpoint_of_ours_describes_itself(tmp_path):
    content = {
        "format": 1,
        "model": "robust",
        "sensor": {"cfa": "grbg"},
        "generator": build_model("robust").state_dict(),
    }
    torch.save(content, tmp_path / "ours.pt")
    name, state, description = zoo.open_checkpoint(str(tmp_path / "ours.pt"))
    assert name == "robust" and description == {"format": 1, "model": "robust", "sensor": {"cfa": "grbg"}}
    torch.save(state, tmp_path / "bare.pth")
    assert zoo.open_checkpoint(str(tmp_path / "bare.pth"))[2] == {}
