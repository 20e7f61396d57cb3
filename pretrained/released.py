"""The ISPs that their authors released, by name: what they are, and downloads checked by their SHA-256."""

from dataclasses import dataclass
from pathlib import Path

import torch

import storage
from errors import UserError
from pretrained.files import fetch
from pretrained.tensorflow_bundle import DATA, INDEX

GITHUB = "https://raw.githubusercontent.com"
REPOSITORY = f"{GITHUB}/AndreiiArhire/Learned-Lightweight-Smartphone-ISP-with-Unpaired-Data/main"


@dataclass(frozen=True)
class Released:
    """A file that authors published; of a TensorFlow checkpoint, its two files."""

    sha256: str  # hexadecimal; of a TensorFlow checkpoint's .index
    setting: str  # of the paper's: its table, dataset and training mode; of others': what it is, and its licence
    url: str = ""  # of a TensorFlow checkpoint, without the endings of its files; "" for a file of `REPOSITORY`
    data_sha256: str = ""  # of a TensorFlow checkpoint's data file


def _setting(name: str) -> str:
    data, file = name.split("/")
    if data == "checkpoint":
        return "Efficient ISP after 20,000 steps of pretraining, from which the released fit.py starts (--init)"
    loss = "paired (Eq. 10 without adversarial losses)" if "wo_adv" in file else "paired_gan (Eq. 10)"
    if "unpaired" in file:
        loss = "unpaired (Eq. 11)"
    table = "Table 1" if data == "ZRR" else "Table 2"
    return f"{table}: {'Zurich RAW to RGB' if data == 'ZRR' else 'Fujifilm UltraISP'}, {loss}"


_SHA256 = """
978bb03eda7e4dba1800b2565da640df2437492162e8762c40c975f8902f1326 Fujifilm/Efficient_ISP_paired_step_37580
32f43a95fe62e8b935208005530e8b48e3cd63c3cc3b36f82a86a21db497e2c3 Fujifilm/Efficient_ISP_paired_wo_adv_losses_step_31190
69bf8ed24aa6eb961e745232959ed71b32803761ee2c15d5ffcf76a57f1d6980 Fujifilm/Efficient_ISP_unpaired_step_27220
3d969480088c517e9388ec7e288977802a4c4486ec3141c4ec9b378778ef90c4 Fujifilm/RMFA_TINY_paired_step_31690
120da8bbdcec5db815c820a18b1ef50b6ae989f70f6b72d632d5d66858397d94 Fujifilm/RMFA_TINY_paired_wo_adv_losses_step_36120
7ca427c8a53dbcfcfcb297baff31f4da80da70fcd99f69054f562fd10e8a8553 Fujifilm/RMFA_TINY_unpaired_step_48270
3b9d4154341354066f9d58750fba51046e7de533c457f54c683bd1ea639a03c5 Fujifilm/Robust_paired_step_31560
a6482b07dc7bbd553434932899c090799d37816b58b9215dac1c8f4deca811f8 Fujifilm/Robust_paired_wo_adv_losses_step_29030
9199ca7f0b26fe4de23c4fb85ea2dc07e20e72ea2aa0d50fbcc21261d3ab8c3c Fujifilm/Robust_unpaired_step_66090
cda901b993398ea0598e31acd14737c44d4609aa0598db00422089170e231e98 ZRR/Efficient_ISP_paired_step_195100
a32580141f90f53b73435ecc6b693e8a4203932c1e2fbf21cddf208634765fc1 ZRR/Efficient_ISP_paired_wo_adv_losses_step_57200
5b8c436fe6590e8aee8f32b4ad9ed117c31c876dd38190afeb582fb353d63c08 ZRR/Efficient_ISP_unpaired_step_30750
e3afd5102c696fb31e1ed7559d69c81d8e409340291b90de2baef56e8ca1a20c checkpoint/pretrained_20000
"""

RELEASED = {
    name: Released(sha256, _setting(name)) for sha256, name in (line.split() for line in _SHA256.split("\n")[1:-1])
}

# Networks by others, each from one commit of its authors' repository. The licences are those of the repositories.
RELEASED["LAN"] = Released(
    "ce090e34b850035b7f7fa675b717e75697ef72ac9c1790248e696d64e0ce5a2b",
    "LAN (Raimundo et al. 2022) for the Sony IMX586, 200,000 steps; licence: Apache-2.0",
    f"{GITHUB}/draimundo/LAN/1d934dedb410392862b182e70453cfc32f17d880/models/LAN_iteration_200000.ckpt",
    "f5f33fc7899b0c744cfc10c494e7471c4a7590cf851ad86bed4bd147f3420bbf",
)
RELEASED["MicroISP"] = Released(
    "51e651b2d2bd6253b9d624b093deed6433b740e876634d4a0d895aed93289629",
    "MicroISP (Ignatov et al. 2022) for the Sony IMX586; licence: CC BY-NC-SA 4.0, academic research only",
    f"{GITHUB}/aiff22/MicroISP/a84401121b2feb665ae1db9c8c85836a202b5540/pretrained_weights/MicroISP.ckpt",
    "c8f45306cd1cdfa9f21e275c6974c343d8d2cca95d3f39a82c8834ffe94edb61",
)


def cache_folder() -> Path:
    """The folder of downloads: below `TORCH_HOME`, beside torch's own."""
    return Path(torch.hub.get_dir()) / "released_isp"


def full_name(name: str) -> str:
    """The key of `RELEASED` for a name with or without "released:", its step and ".pth"; "" if there is none."""
    name = name.removeprefix("released:").removesuffix(".pth")
    return next((known for known in RELEASED if known == name or known.startswith(f"{name}_step_")), "")


def download(name: str, folder: Path | None = None) -> Path:
    """Download a released model by name, such as "Fujifilm/Efficient_ISP_unpaired", unless the folder has it already.

    `folder` is `cache_folder()` by default. Returns the file; of a TensorFlow checkpoint, its .index file. Raises
    `UserError` for an unknown name or a failed download.
    """
    key = full_name(name)
    if not key:
        raise UserError(f"unknown released model '{name}'; list them with `python -m pretrained.zoo`")
    folder, files = folder or cache_folder(), _files(key)
    for url, file, sha256 in files:
        path = folder / file
        if not (path.is_file() and storage.sha256_of(path) == sha256):
            others = [f"{other} at {folder / name}" for other, name, _ in files if name != file]
            fetch(url, path, sha256, *others)
    return path


def _files(key: str) -> list[tuple[str, str, str]]:
    """(URL, name here, SHA-256) of each file of a released model; the last one stands for all."""
    released = RELEASED[key]
    if released.url:
        hashes = {DATA: released.data_sha256, INDEX: released.sha256}
        return [(released.url + ending, key + ending, sha256) for ending, sha256 in hashes.items()]
    folder = "" if key.startswith("checkpoint/") else "pretrained/models/"
    return [(f"{REPOSITORY}/{folder}{key}.pth", f"{key.replace('/', '_')}.pth", released.sha256)]
