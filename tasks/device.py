"""The device of a command, and the precision of its arithmetic."""

import torch

from config import Compute
from errors import UserError


def choose_device(name: str) -> torch.device:
    """The device by name; "auto" is CUDA if available. Raises `UserError` for a device that cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.zeros(1, device=name)
        device = probe.device
        probe.item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)  # pinned memory belongs to the current device
        set_precision(Compute())  # so that a checkpoint gets the same scores from every command
    return device


def set_precision(compute: Compute) -> None:
    """Set the precision of float32 products on a GPU for the whole process. PyTorch's default allows TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = compute.precision == "tf32"
