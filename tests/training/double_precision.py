"""A short unpaired training in float64 for test_distributed.py: in this process, or as a script under torchrun."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import fit
from data.cache import Files
from data.inputs import prepare
from data.loader import training_batches
from data.patches import OfWhole, Patches
from tasks.data import open_data
from tasks.features import Networks
from tasks.isp import build_generator
from tasks.modes import build_trainer
from training.distributed import Group, join, leave
from training.steps import Batch

CPU = torch.device("cpu")


class SmallNetworks(Networks):
    """Random convolutions in float64 instead of VGG-19, AlexNet and the ViT, which take seconds to import and build."""

    def function(self, name: str) -> Callable[..., Any]:
        torch.manual_seed(len(name))
        conv, other = nn.Conv2d(3, 16, 8, stride=4), nn.Conv2d(3, 8, 8, stride=8)

        def run(image: Tensor, layers: Sequence[str] = ()) -> Tensor | dict[str, Tensor]:
            features = conv(image).tanh()
            if name == "alexnet":
                return dict(zip(layers, (features, other(image).tanh()), strict=True))
            return features.flatten(2).transpose(1, 2) if name == "vit" else features

        return run


def train(arguments: Sequence[str], group: Group) -> dict:
    """The trainer's state after `train.steps` steps, and "norms": the last gradient norms of the objectives."""
    config, _ = fit.parse(arguments)
    torch.manual_seed(0)
    splits, reader, reference = open_data(config)
    generator = build_generator("efficient", "")[1].double()
    torch.set_default_dtype(torch.float64)
    trainer = build_trainer(config, generator, SmallNetworks(config, CPU))
    torch.set_default_dtype(torch.float32)
    trainer.average_ = group.mean_ if group.size > 1 else None
    data = config.data
    patches = Patches(
        splits["train"], Files(reader), data.patch, seed=0, flips=True, spans=OfWhole(reference.span, reader.sensor)
    )
    batches = training_batches(patches, data.batch, 0, 0, CPU, group.rank, group.size)
    for number in range(1, config.train.steps + 1):
        loaded = next(batches)
        inputs = prepare(loaded["mosaic"].double(), reader.sensor, "packed")
        rendered = reference(loaded["mosaic"], loaded["span"]).double()
        statistics = trainer.step(Batch(inputs, rendered, loaded["target"].double()), number)
    return trainer.state() | {"norms": {k: v for k, v in statistics.items() if k.startswith("norm/")}}


if __name__ == "__main__":
    group = join("cpu")
    result = train(sys.argv[2:], group)
    if group.main:
        torch.save(result, sys.argv[1])
    leave()
