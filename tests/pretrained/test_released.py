"""Released ISPs: the list of their names, and downloads only by name, checked by SHA-256."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from errors import UserError
from models import build_model
from pretrained import files, zoo
from pretrained.released import RELEASED, cache_folder, download
from pretrained.tensorflow_bundle import DATA, INDEX
from pretrained.zoo import open_generator

ROOT = Path(zoo.__file__).parents[1]
NAME = "Fujifilm/Efficient_ISP_unpaired_step_27220"

# --- the list --------------------------------------------------------------------------------------------------------


def test_list_shows_every_name_with_its_setting():
    printed = subprocess.run(
        [sys.executable, "-m", "pretrained.zoo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert len(lines) == 15 and lines.keys() == RELEASED.keys()
    assert lines["ZRR/Efficient_ISP_unpaired_step_30750"] == "Table 1: Zurich RAW to RGB, unpaired (Eq. 11)"
    assert lines["Fujifilm/Robust_paired_step_31560"] == "Table 2: Fujifilm UltraISP, paired_gan (Eq. 10)"
    assert lines["Fujifilm/RMFA_TINY_paired_wo_adv_losses_step_36120"] == (
        "Table 2: Fujifilm UltraISP, paired (Eq. 10 without adversarial losses)"
    )


def test_list_tells_the_licences_of_networks_by_others():
    assert "Apache-2.0" in RELEASED["LAN"].setting and "CC BY-NC-SA 4.0" in RELEASED["MicroISP"].setting
    assert all(len(RELEASED[name].data_sha256) == 64 for name in ("LAN", "MicroISP"))


def test_every_dataset_has_three_settings():
    paper = {name: released for name, released in RELEASED.items() if not released.url}
    trained = {name: released for name, released in paper.items() if not name.startswith("checkpoint/")}
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


def test_message_names_both_files_of_a_tensorflow_checkpoint(downloads, tmp_path):
    with pytest.raises(UserError) as caught:
        download("LAN", tmp_path)
    for ending in (DATA, INDEX):
        assert f"{RELEASED['LAN'].url}{ending} at {tmp_path / 'LAN'}{ending}" in str(caught.value)


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
