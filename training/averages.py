"""Moving averages of networks, whose buffers may be statistics of batch normalisations."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """How `AveragedModel` averages weights, and the statistics of batch normalisations with them.

    Integers, such as counts, are copied.
    """
    average = get_ema_multi_avg_fn(decay)

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, count)
        else:
            for ours, theirs in zip(averaged, current, strict=True):
                ours.copy_(theirs)

    return update
