"""fit.py with planes, mappers and small critics in float64, for test_fit_raw2raw.py: alone or under torchrun."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import fit
from data import two_cameras
from tasks import raw_to_raw
from tests.mapper_runs import SmallCritic

if __name__ == "__main__":
    planes = two_cameras.to_planes
    two_cameras.to_planes = lambda *arguments: planes(*arguments).double()
    raw_to_raw.PatchDiscriminator = SmallCritic
    torch.set_default_dtype(torch.float64)
    fit.cli()
