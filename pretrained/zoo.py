"""The ISPs that the paper's authors released, and reading any generator's file.

python -m pretrained.zoo                 lists the released ISPs
python -m pretrained.zoo NAME [FOLDER]   downloads one, checks its SHA-256, and prints its path
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import storage
from errors import UserError, run_cli
from models import MAPPERS, MODELS, build_mapper, build_model
from pretrained.files import fetch

FORMAT = 1  # of the checkpoints that fit.py writes (training.checkpoint)
PARALLEL = "module."  # before each key of a file that nn.DataParallel wrote, such as the released ones of PyNET
REPOSITORY = (
    "https://raw.githubusercontent.com/AndreiiArhire/Learned-Lightweight-Smartphone-ISP-with-Unpaired-Data/main"
)


@dataclass(frozen=True)
class Released:
    """A file of the authors' repository."""

    sha256: str  # hexadecimal
    setting: str  # the table, dataset and training mode of the paper that it belongs to


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


def cache_folder() -> Path:
    """The folder of downloads: below `TORCH_HOME`, beside torch's own."""
    return Path(torch.hub.get_dir()) / "released_isp"


def full_name(name: str) -> str:
    """The key of `RELEASED` for a name with or without "released:", its step and ".pth"; "" if there is none."""
    name = name.removeprefix("released:").removesuffix(".pth")
    return next((known for known in RELEASED if known == name or known.startswith(f"{name}_step_")), "")


def download(name: str, folder: Path | None = None) -> Path:
    """Download a released model by name, such as "Fujifilm/Efficient_ISP_unpaired", unless the folder has it already.

    `folder` is `cache_folder()` by default. Returns the file. Raises `UserError` for an unknown name or a failed
    download.
    """
    key = full_name(name)
    if not key:
        raise UserError(f"unknown released model '{name}'; list them with `python -m pretrained.zoo`")
    path = (folder or cache_folder()) / f"{key.replace('/', '_')}.pth"
    sha256 = RELEASED[key].sha256
    if path.is_file() and storage.sha256_of(path) == sha256:
        return path
    folder_there = "" if key.startswith("checkpoint/") else "pretrained/models/"
    return fetch(f"{REPOSITORY}/{folder_there}{key}.pth", path, sha256)


def locate(source: str) -> Path:
    """The file of a `source`, which is a path or a released name as `full_name` takes it.

    A released model is downloaded if it is not in the cache. Raises `UserError` if there is neither file nor name.
    """
    if Path(source).is_dir():
        raise UserError(f"{source} is a folder: name one of its files, such as a run's checkpoints/step_....pt")
    if Path(source).exists():
        return Path(source)
    if not full_name(source):
        advice = "list the released models with `python -m pretrained.zoo`"
        raise UserError(f"no file {source}, and no released model of that name; {advice}")
    return download(source)


def open_checkpoint(source: str) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Read a generator: (its name in `models.MODELS`, its state dict, its description).

    `source` is as for `locate`. A checkpoint written by fit.py names its model; its description is all else that it
    holds. A released file holds only a state dict, whose keys and shapes identify the model; its description is empty.

    Raises `UserError`, naming the file, if it holds no generator, an unknown model, or weights that do not fit.
    """
    path = locate(source)
    content = _load(path)
    if "generator" not in content:
        content = {str(key).removeprefix(PARALLEL): value for key, value in content.items()}
        name = recognise(content, str(path))
        _require_usable(content, name, path)
        return name, content, {}
    return _open_written(content, path, MODELS, "a raw-to-raw mapper, not an ISP: see map_raw.py")


def open_mapper_checkpoint(source: str) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Read the mappers of a raw-to-raw run: (their name in `models.MAPPERS`, their state dict, their description).

    Raises `UserError` as `open_checkpoint` does.
    """
    path = locate(source)
    content = _load(path)
    if "generator" not in content:
        raise UserError(f"{path} is not a checkpoint of fit.py")
    return _open_written(content, path, MAPPERS, "an ISP, not a raw-to-raw mapper: train one with fit.py raw2raw")


def is_mapper(source: str) -> bool:
    """Whether a file or released name is a raw-to-raw mapper. Raises `UserError` if it is missing or damaged."""
    name = _load(locate(source)).get("model")
    return isinstance(name, str) and name in MAPPERS


def _load(path: Path) -> dict[str, Any]:
    content = storage.load(path)
    if {"trainer", "stage"} <= content.keys():
        raise UserError(f"{path} is the training state of a run, not a generator: name a file in its checkpoints/")
    return content


def _open_written(
    content: dict[str, Any], path: Path, table: Mapping[str, Any], otherwise: str
) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """The parts of a file that fit.py wrote, if its model is in this `table`; `otherwise` says what it is if not."""
    if type(content.get("format", FORMAT)) is not int or content.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"{path} has the format {content['format']!r}, and this version of the framework reads {FORMAT}: use the "
            "version that wrote it"
        )
    state, name = content["generator"], content.get("model")
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint of fit.py: its 'generator' is a {type(state).__name__}")
    if not isinstance(name, str):
        raise UserError(f"{path} is not a checkpoint of fit.py: it does not name its model")
    if name not in table:
        if name in MODELS or name in MAPPERS:
            raise UserError(f"{path} is {otherwise}")
        raise UserError(f"{path} holds an unknown model '{name}'; known are: {', '.join(table)}")
    if difference := _difference(state, name):
        raise UserError(f"{path} holds weights that do not fit its model '{name}': {difference}")
    _require_usable(state, name, path)
    return name, state, {key: value for key, value in content.items() if key != "generator"}


def open_generator(source: str) -> tuple[str, dict[str, Tensor]]:
    """Read a generator, as `open_checkpoint` does: (its name in `models.MODELS`, its state dict)."""
    return open_checkpoint(source)[:2]


def recognise(state: dict[str, Any], source: str) -> str:
    """The name of the model in `models.MODELS` that has the keys and shapes of a released file's state dict.

    Raises `UserError`, naming `source`, if there is none.
    """
    for name in MODELS:
        if not _difference(state, name):
            return name
    raise UserError(f"{source} does not hold a generator: it fits none of the known models {', '.join(MODELS)}")


def _difference(state: dict[str, Any], name: str) -> str:
    """The first difference in keys and shapes between a state dict and the model `name`; "" if there is none."""
    expected = _empty_state(name)
    for key, value in expected.items():
        if key not in state:
            return f"{key} is missing"
        if not isinstance(state[key], Tensor) or state[key].is_nested:
            return f"{key} is not a tensor"
        if state[key].shape != value.shape:
            return f"{key} has the shape {tuple(state[key].shape)}, not {tuple(value.shape)}"
    return next((f"{key} is not part of the model" for key in state if key not in expected), "")


def _empty_state(name: str) -> dict[str, Tensor]:
    """The state dict of the model `name`: shapes and types, without values."""
    with torch.device("meta"):
        return (build_mapper if name in MAPPERS else build_model)(name).state_dict()


def _require_usable(state: dict[str, Tensor], name: str, path: Path) -> None:
    """Raise `UserError` for a weight that is no dense tensor of finite numbers. Any float precision will do."""
    for key, expected in _empty_state(name).items():
        weight = state[key]
        small = weight.is_floating_point() and weight.itemsize < 2  # 8 bits and less: torch computes little with them
        same_kind = weight.is_floating_point() == expected.is_floating_point() and not (weight.is_complex() or small)
        if weight.is_meta or weight.layout != torch.strided or weight.is_quantized or not same_kind:
            kind = f"{weight.dtype}, {weight.layout}, on {weight.device}".replace("torch.", "")
            raise UserError(f"{path} has weights that cannot be used: {key} is no tensor of real numbers ({kind})")
        if not weight.to(expected.dtype).isfinite().all():
            raise UserError(f"{path} has weights that are not finite: its training diverged")


def main() -> None:
    options = argparse.ArgumentParser("python -m pretrained.zoo", description="List or download the released ISPs.")
    options.add_argument("name", nargs="?", help="the ISP to download; without it, all are listed")
    options.add_argument("folder", nargs="?", type=Path, help="where to put it (default: torch's cache)")
    given = options.parse_args()
    if given.name:
        print(download(given.name, given.folder))
        return
    for name, released in RELEASED.items():
        print(f"{name:<56}{released.setting}")


if __name__ == "__main__":
    run_cli(main)
