"""Batch normalisation on one process or on several; of two directions that share all other layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from errors import UserError

DIRECTIONS = ("a", "b")  # the camera that is mapped to

Average = Callable[[Tensor], Tensor]  # a tensor -> its mean over all processes, differentiable


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation, (N, C, H, W) -> the same shape: in one process, `nn.BatchNorm2d`.

    After `synchronise`, it normalises by the statistics of all processes' batches, on any device; `nn.SyncBatchNorm`
    needs CUDA. All processes must have batches of the same shape. In training, raises `UserError` for a batch with a
    single value of each channel.
    """

    average: Average | None = None
    processes = 1

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.processes * x[:, 0].numel() == 1:
            raise UserError("batch normalisation cannot train on a single image: raise --data.batch")
        return super().forward(x) if self.average is None or not self.training else self._together(x)

    def _together(self, x: Tensor) -> Tensor:
        values = x.to(self.weight.dtype)
        mean = self.average(values.mean((0, 2, 3)))
        centred = values - mean[:, None, None]
        # The mean of squares about the mean of all processes: E[x^2] - E[x]^2 may round to less than zero.
        variance = self.average(centred.square().mean((0, 2, 3)))
        with torch.no_grad():
            count = self.processes * values[:, 0].numel()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronise(network: nn.Module, average: Average | None, processes: int) -> bool:
    """Train with the statistics of so many processes, which `average` exchanges; None: with this one's alone.

    Returns whether the network has any `BatchNorm`; otherwise it stays as it is.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.average, norm.processes = average, processes
    return bool(norms)


class BatchNorms(nn.ModuleDict):
    """One batch normalisation for each direction: (N, `channels`, H, W) and the direction -> the same shape.

    A batch may have equal parts of different directions, "bbaa": each part is normalised on its own, in that order, as
    if it came alone.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__({direction: BatchNorm(channels, eps) for direction in DIRECTIONS})

    def synchronise(self, average: Average | None, processes: int) -> None:
        """As the function of that name."""
        synchronise(self, average, processes)

    def forward(self, x: Tensor, to: str) -> Tensor:
        if len(to) > 1:
            return torch.cat([self(part, one) for part, one in zip(x.chunk(len(to)), to, strict=True)])
        return self[to](x)


class ConvNorm(nn.Module):
    """A convolution without bias that both directions share, and their batch normalisations: `Conv2d`'s shapes."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, eps: float = 1e-6):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = BatchNorms(outputs, eps)

    def forward(self, x: Tensor, to: str) -> Tensor:
        return self.norm(self.conv(x), to)
