"""What a stage trains of a network: the whole, the output of one level, or the published warm-up of SYENet.

A part says what of the network's outputs the stage's terms compare, with what they compare it, and which image the
network gives before its later stages are trained.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.steps import Batch


@dataclass(frozen=True)
class Part:
    """The whole network: its image, which is compared with the photograph."""

    def output(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """What the stage's terms compare, with a gradient."""
        return network(inputs)

    def batch(self, batch: Batch) -> Batch:
        """The stage's batch: what `output` gets, and what it is compared with."""
        return batch

    def image(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """The network's sRGB image (N, 3, H, W) at this stage, for validation."""
        return network(inputs)

    def scale(self) -> int:
        """How many times larger the photograph's sides are than the output's."""
        return 1


WHOLE = Part()


@dataclass(frozen=True)
class Level(Part):
    """One level of a network that is trained coarse to fine: `network.at_level(inputs, level)`, (N, 3, h, w).

    Its output is 1 / 2^(level - finest) as large as the photograph, which is reduced to the same size by averaging: the
    photograph's sides must be multiples of 2^(level - finest). A stage trains all that its level uses: other parameters
    get a gradient of 0, which changes nothing in Adam.
    """

    level: int
    finest: int  # the level whose output has the photograph's size

    def output(self, network: nn.Module, inputs: Tensor) -> Tensor:
        return network.at_level(inputs, self.level)

    def batch(self, batch: Batch) -> Batch:
        factor = self.scale()
        if factor == 1:
            return batch
        mask = None if batch.mask is None else ~F.max_pool2d((~batch.mask).float(), factor).bool()  # aligned throughout
        return replace(batch, target=F.avg_pool2d(batch.target, factor), mask=mask)

    def image(self, network: nn.Module, inputs: Tensor) -> Tensor:
        output = self.output(network, inputs)
        height, width = (2 * side for side in inputs.shape[-2:])  # these networks take packed mosaics
        return output if self.scale() == 1 else F.interpolate(output, (height, width), mode="bilinear")

    def scale(self) -> int:
        return 2 ** (self.level - self.finest)


@dataclass(frozen=True)
class WarmUp(Part):
    """SYENet's warm-up: from an input with holes, `network.warm_up(inputs)` gives the image, and the input restored.

    Output and target are (N, 4, H, W): the features "rgb", and "restored", the packed planes as one. A hole has `size`
    packed pixels a side; so many begin that they would cover the share `dropped`, did they not overlap (DropBlock, as
    in the published code). They are drawn on the CPU, whose random state a run saves.
    """

    size: int = 3
    dropped: float = 0.5

    def output(self, network: nn.Module, inputs: Tensor) -> Tensor:
        image, restored = network.warm_up(inputs)
        return torch.cat((image, F.pixel_shuffle(restored, 2)), dim=1)

    def batch(self, batch: Batch) -> Batch:
        count, _, height, width = batch.inputs.shape
        begins = (torch.rand(count, 1, height, width) < self.dropped / self.size**2).float()
        kept = 1 - F.max_pool2d(begins, self.size, stride=1, padding=self.size // 2)
        target = torch.cat((batch.target, F.pixel_shuffle(batch.inputs, 2)), dim=1)
        return replace(batch, inputs=batch.inputs * kept.to(batch.inputs.device, non_blocking=True), target=target)
