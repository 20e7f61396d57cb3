"""Batch normalisation of two directions that share all other layers, on one process or on several."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

DIRECTIONS = ("a", "b")  # the camera that is mapped to

Average = Callable[[Tensor], Tensor]  # a tensor -> its mean over all processes, differentiable


class BatchNorms(nn.ModuleDict):
    """One batch normalisation for each direction: (N, `channels`, H, W) and the direction -> the same shape.

    A batch may have equal parts of different directions, "bbaa": each part is normalised on its own, in that order, as
    if it came alone. In one process, this is `nn.BatchNorm2d`. After `synchronise`, it normalises by the statistics of
    all processes' batches, on any device; `nn.SyncBatchNorm` needs CUDA. All processes must have batches of the same
    shape.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__({direction: nn.BatchNorm2d(channels, eps) for direction in DIRECTIONS})
        self.average: Average | None = None
        self.processes = 1

    def synchronise(self, average: Average | None, processes: int) -> None:
        """Train with the statistics of so many processes, which `average` exchanges; None: with this one's alone."""
        self.average, self.processes = average, processes

    def forward(self, x: Tensor, to: str) -> Tensor:
        if len(to) > 1:
            return torch.cat([self(part, one) for part, one in zip(x.chunk(len(to)), to, strict=True)])
        norm = self[to]
        return norm(x) if self.average is None or not norm.training else self._together(norm, x)

    def _together(self, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        values = x.to(norm.weight.dtype)
        mean = self.average(values.mean((0, 2, 3)))
        centred = values - mean[:, None, None]
        # The mean of squares about the mean of all processes: E[x^2] - E[x]^2 may round to less than zero.
        variance = self.average(centred.square().mean((0, 2, 3)))
        with torch.no_grad():
            count = self.processes * values[:, 0].numel()
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        scale = norm.weight * (variance + norm.eps).rsqrt()
        return (centred * scale[:, None, None] + norm.bias[:, None, None]).to(x.dtype)


class ConvNorm(nn.Module):
    """A convolution without bias that both directions share, and their batch normalisations: `Conv2d`'s shapes."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, eps: float = 1e-6):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = BatchNorms(outputs, eps)

    def forward(self, x: Tensor, to: str) -> Tensor:
        return self.norm(self.conv(x), to)
