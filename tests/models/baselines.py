"""Golden values of the networks by others: weights, inputs, and the outputs of their published code."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn


def golden(name: str) -> np.lib.npyio.NpzFile:
    """The file NAME.npz of the folder that ISP_BASELINES names; the test is skipped without it."""
    if not (folder := os.environ.get("ISP_BASELINES")):
        pytest.skip("ISP_BASELINES is not set: a folder of golden values of published networks")
    return np.load(Path(folder) / f"{name}.npz")


def tensor(array: np.ndarray) -> Tensor:
    """An array of a golden file in double precision."""
    return torch.from_numpy(np.ascontiguousarray(array)).double()


def recipe_state(values: np.lib.npyio.NpzFile) -> dict[str, Tensor]:
    """The state dict that a golden file describes by a recipe: normal numbers of seed 0, scaled and shifted."""
    rng, state = np.random.default_rng(0), {}
    for key, shape, scale, offset in zip(
        values["keys"], values["shapes"], values["scale"], values["offset"], strict=True
    ):
        shape = tuple(shape[shape > 0])
        if scale == 0:  # a constant: nothing is drawn
            known = "weights/" + key in values.files
            state[str(key)] = torch.from_numpy(values["weights/" + key] if known else np.zeros(shape, np.int64))
            continue
        drawn = rng.standard_normal(shape)
        drawn = abs(drawn) if key.endswith("running_var") else drawn
        state[str(key)] = torch.from_numpy((offset + scale * drawn).astype(np.float32))
    return state


def parameters(network: nn.Module) -> int:
    """The count of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
