"""Validation during training: the mean score of the validation pairs, and a grid of sample images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import storage
from training.distributed import ALONE, Group

Render = Callable[[Tensor], Tensor]  # inputs (1, C, H, W) -> images (1, 3, H, W)


@contextmanager
def in_use(network: nn.Module) -> Iterator[None]:
    """Run the block with the network in evaluation mode, in which batch normalisation learns nothing of the images."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@dataclass(frozen=True)
class Validation:
    """What a task is validated on, and how."""

    name: str  # of the score in the log, such as "val_psnr"
    title: str  # of the table at the end of a run
    unit: str
    count: int  # number of validation pairs; 0: nothing can be measured
    pairs: Callable[[Sequence[int]], Iterable[tuple[Tensor, Tensor]]]  # indices -> input and target of each, in order
    score: Callable[[Tensor, Tensor], Tensor]  # images and targets -> (1,), such as PSNR
    render: Callable[[nn.Module], Render]  # a generator -> how it renders an input of `pairs`
    samples: Callable[[nn.Module], list[list[Tensor]]]  # a generator -> rows of images (3, H, W) in [0, 1] to look at
    baselines: Mapping[str, Render] = field(default_factory=dict)  # by name, measured once, before training
    group: Group = ALONE  # the processes that share the pairs
    health: Callable[[nn.Module], dict[str, float]] = lambda generator: {}  # more statistics for the log, by name

    @torch.no_grad()
    def measure(self, render: Render) -> float | None:
        """The mean score over all validation pairs, or None if there are none."""
        if not self.count:
            return None
        mine = range(self.group.rank, self.count, self.group.size)
        scores = torch.zeros(self.count, dtype=torch.float64)
        for index, (inputs, target) in zip(mine, self.pairs(mine), strict=True):
            scores[index] = self.score(render(inputs), target)[0]
        return float(self.group.sum_(scores).mean())

    @torch.no_grad()
    def save_samples(self, path: Path, generator: nn.Module) -> Tensor:
        """Write the sample images as one picture, a scene in each row, all scaled to the size of the smallest.

        Returns the picture, (3, H, W) in [0, 1].
        """
        from torchvision.utils import make_grid, save_image

        rows = self.samples(generator)
        images = [image.clamp(0, 1).cpu() for row in rows for image in row]
        side = min(image.shape[1] for image in images)
        grid = [F.interpolate(image[None], (side, side), mode="area")[0] for image in images]
        picture = make_grid(grid, nrow=len(rows[0]))
        with storage.writing(path) as temporary:
            save_image(picture, temporary)
        return picture
