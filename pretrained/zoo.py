"""The ISPs that the paper's authors released, and any generator on disk.

python -m pretrained.zoo                 lists them
python -m pretrained.zoo NAME [FOLDER]   downloads one, checked by hash
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from errors import UserError, run_cli
from models import MODELS, build_model
from pretrained.files import fetch, read_state, sha256_of

REPOSITORY = (
    "https://raw.githubusercontent.com/AndreiiArhire/Learned-Lightweight-Smartphone-ISP-with-Unpaired-Data"
    "/main/pretrained/models"
)


@dataclass(frozen=True)
class Released:
    """A file of the authors' repository, and the setting of the paper that it belongs to."""

    sha256: str
    setting: str


def _setting(name: str) -> str:
    data, file = name.split("/")
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
"""

RELEASED = {
    name: Released(sha256, _setting(name)) for sha256, name in (line.split() for line in _SHA256.split("\n")[1:-1])
}


def cache() -> Path:
    """Where downloads go: below `TORCH_HOME`, beside torch's own."""
    return Path(torch.hub.get_dir()) / "released_isp"


def full_name(name: str) -> str:
    """The released model that `name` means, with or without its step; "" where there is none."""
    name = name.removeprefix("released:").removesuffix(".pth")
    return next((known for known in RELEASED if known == name or known.startswith(f"{name}_step_")), "")


def download(given: str, folder: Path | None = None) -> Path:
    """Fetch a released model by name, such as "Fujifilm/Efficient_ISP_unpaired"; kept if it is there."""
    name = full_name(given)
    if not name:
        raise UserError(f"unknown released model '{given}'; `python -m pretrained.zoo` lists them")
    path = (folder or cache()) / f"{name.replace('/', '_')}.pth"
    sha256 = RELEASED[name].sha256
    if path.is_file() and sha256_of(path) == sha256:
        return path
    return fetch(f"{REPOSITORY}/{name}.pth", path, sha256)


def recognise(state: dict[str, Tensor], where: str) -> str:
    """The name of the model whose keys and shapes these are. Raises `UserError` where there is none."""
    shapes = {key: getattr(value, "shape", None) for key, value in state.items()}
    with torch.device("meta"):
        for name in MODELS:
            if {key: value.shape for key, value in build_model(name).state_dict().items()} == shapes:
                return name
    raise UserError(f"{where} fits none of the known models: {', '.join(MODELS)}")


def locate(source: str) -> Path:
    """The file that `source` means: a path, or a released name, with or without "released:" before and its step behind.

    A name is downloaded, unless it was before: whoever writes a name asks for that.
    """
    if Path(source).exists():
        return Path(source)
    if not full_name(source):
        raise UserError(f"no file {source}, and no released model of that name; `python -m pretrained.zoo` lists them")
    return download(source)


def open_checkpoint(source: str) -> tuple[str, dict[str, Tensor], dict]:
    """(model name, state dict, what the file says of itself) of a checkpoint of ours or a released file or name."""
    path = locate(source)
    content = read_state(path)
    state = content.get("generator", content)
    if not isinstance(state, dict):
        raise UserError(f"{path} holds no generator")
    description = {key: value for key, value in content.items() if key != "generator"} if state is not content else {}
    return recognise(state, str(path)), state, description


def open_generator(source: str) -> tuple[str, dict[str, Tensor]]:
    """(model name, state dict) of a generator; `source` as for `open_checkpoint`."""
    return open_checkpoint(source)[:2]


def open_folder(folder: Path) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """{file name without suffix: (model name, state dict)} of all generators (*.pth, *.pt) in a folder."""
    found = folder.glob("[!.]*") if folder.is_dir() else []  # a dot begins what a killed write left
    files = sorted(path for path in found if path.suffix in (".pth", ".pt"))
    if not files:
        raise UserError(f"no .pth or .pt file in {folder}")
    return {path.stem: open_generator(str(path)) for path in files}


def load_generator(source: str) -> nn.Module:
    """A generator ready for use, in eval mode, on the CPU."""
    name, state = open_generator(source)
    generator = build_model(name)
    generator.load_state_dict(state)
    return generator.eval()


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments:
        for name, released in RELEASED.items():
            print(f"{name:<56}{released.setting}")
        return
    if arguments[0].startswith("-") or len(arguments) > 2:
        print(__doc__)
        return
    print(download(arguments[0], Path(arguments[1]) if len(arguments) > 1 else None))


if __name__ == "__main__":
    run_cli(main)
