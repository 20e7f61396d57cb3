"""How a learning rate changes from step to step, by name: train.schedule and pretrain.schedule in the config."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def _cosine(done: float, least: float = 0.01) -> float:
    return least + (1 - least) * (1 + math.cos(math.pi * min(1, done))) / 2


def _restarts(done: float) -> float:
    """Periods of 1/4, 1/2 and 1 of the steps, of which the last is not finished: 50, 100 and 200 of 200 epochs."""
    first, period = 0.0, 0.25
    while done >= first + period:
        first, period = first + period, 2 * period
    return _cosine((done - first) / period, least=1e-4)


def _halved(done: float) -> float:
    return 1.0 if done < 0.5 else 0.5


# Name -> the factor of the learning rate, by the share of the updates that are done. "constant" needs none.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,  # half a cosine, to 1 %
    "halved": _halved,  # after half of the updates (LiteISPNet: of 80 epochs, after 40)
    "restarts": _restarts,  # cosines to 0.01 % with restarts (SYENet, after Loshchilov and Hutter, ICLR 2017)
}


def build_schedule(name: str, optimizer: Optimizer | None, steps: int) -> LRScheduler | None:
    """The schedule of all parameter groups over `steps` updates; None: constant, or no optimizer."""
    if optimizer is None or name == "constant":
        return None
    factor = SCHEDULES[name]
    return LambdaLR(optimizer, lambda step: factor(step / max(1, steps)))
