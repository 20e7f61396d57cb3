"""The processes of one run: `torchrun fit.py` starts several, which hold the same weights and share each batch."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from errors import UserError

PATIENCE = timedelta(minutes=30)  # for the others, such as while the first of them downloads weights


@dataclass(frozen=True)
class Group:
    """Where this process stands among those of its run; by default it is the only one, and all of this does nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    device: str = ""  # what this process has to use, where there are several

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def mean_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its mean over all processes."""
        return self.sum_(tensor).div_(self.size) if self.size > 1 else tensor

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes."""
        if self.size > 1:
            _together(lambda: dist.all_reduce(tensor))
        return tensor

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers; asks the other hosts, not the device."""
        if self.size == 1:
            return number
        held = torch.tensor(number)
        _together(lambda: dist.all_reduce(held, dist.ReduceOp.MAX))
        return int(held)

    def agree(self, what: str) -> None:
        """Raises `UserError` where processes do not hold the same: `what` says in words what this one holds."""
        if self.size > 1:
            held = [torch.zeros(4, dtype=torch.int64) for _ in range(self.size)]
            mine = torch.frombuffer(bytearray(hashlib.sha256(what.encode()).digest()), dtype=torch.int64)
            _together(lambda: dist.all_gather(held, mine))
            other = [rank for rank, theirs in enumerate(held) if not torch.equal(theirs, held[0])]
            if other:
                raise UserError(
                    f"process {other[0]} does not start from what process 0 does: give all machines the same data, "
                    "weights and folder of runs"
                )

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process of each machine runs the block, then its others: what one downloads, the others find."""
        if self.local_rank:
            self.largest(0)
        yield
        if not self.local_rank:
            self.largest(0)

    def share(self, batch: int) -> int:
        """How many of a batch's samples each process takes. Raises `UserError` where they cannot be shared evenly."""
        if batch % self.size:
            raise UserError(f"a batch of {batch} cannot be shared evenly by {self.size} processes: change --data.batch")
        return batch // self.size


ALONE = Group()


def join(device: str) -> Group:
    """The processes that torchrun started, as its environment says; or this one alone.

    `device` is the config's. Each process takes the GPU of its local rank. Raises `UserError` where there are too few,
    or one is named.
    """
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        return ALONE
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if device not in ("auto", "cuda", "cpu"):
        raise UserError(f"{size} processes cannot all use the device '{device}': leave --device out, or name cpu")
    if local_rank >= gpus and (gpus or device == "cuda"):
        raise UserError(f"{local_rank + 1} processes, but {gpus} GPUs on this machine: change --nproc-per-node")
    # Counts go through the hosts, gradients through the GPUs.
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    if gpus:
        torch.cuda.set_device(local_rank)
    _together(lambda: dist.init_process_group(backend, timeout=PATIENCE))
    return Group(rank, size, local_rank, f"cuda:{local_rank}" if gpus else "cpu")


def leave(status: int = 0) -> None:
    """Take leave of the others, at the end of a run or before it: ends this process where it is one of several."""
    if dist.is_initialized():
        if status == 0:  # otherwise the others may be gone, and this would wait for them
            dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # gloo sometimes aborts a process that ends in Python's own way


def _together(run: Callable[[], Any]) -> None:
    """Do what all processes do at once; fails where one of them has ended."""
    try:
        run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo's and NCCL's ways of saying so
        raise UserError(
            f"another process of this run has ended, or cannot be reached ({str(error).splitlines()[0]}); "
            "start all of them again with --resume"
        ) from None
