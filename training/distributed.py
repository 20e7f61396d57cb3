"""Several processes for one run: `torchrun fit.py` starts them; they hold the same weights and share each batch."""

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

TIMEOUT = timedelta(minutes=30)  # for a process that waits for another, which may be downloading weights


@dataclass(frozen=True)
class Group:
    """This process among those of its run. By default it is the only one, and the methods change nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes on this machine
    device: str = ""  # the device that this process must use; empty if it is the only process

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def mean_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its mean over all processes."""
        return self.sum_(tensor).div_(self.size) if self.size > 1 else tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes; gradients go through it."""
        return _Sum.apply(tensor) / self.size if self.size > 1 else tensor

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes."""
        if self.size > 1:
            _together(lambda: dist.all_reduce(tensor))
        return tensor

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers; exchanged by the CPUs, so that no process waits for its GPU."""
        if self.size == 1:
            return number
        held = torch.tensor(number)
        _together(lambda: dist.all_reduce(held, dist.ReduceOp.MAX))
        return int(held)

    def agree(self, facts: str) -> None:
        """Raise `UserError` unless all processes pass the same `facts`."""
        if self.size > 1:
            held = [torch.zeros(4, dtype=torch.int64) for _ in range(self.size)]
            mine = torch.frombuffer(bytearray(hashlib.sha256(facts.encode()).digest()), dtype=torch.int64)
            _together(lambda: dist.all_gather(held, mine))
            other = [rank for rank, theirs in enumerate(held) if not torch.equal(theirs, held[0])]
            if other:
                raise UserError(
                    f"process {other[0]} has different data, weights or checkpoint than process 0: give all "
                    "machines the same files and the same folder of runs"
                )

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in the first process of each machine, then in the others, which find what it downloaded."""
        if self.local_rank:
            self.largest(0)
        yield
        if not self.local_rank:
            self.largest(0)

    def share(self, batch: int) -> int:
        """The number of samples for each process. Raises `UserError` if the batch cannot be divided evenly."""
        if batch % self.size:
            raise UserError(
                f"a batch of {batch} cannot be divided evenly among {self.size} processes: change --data.batch"
            )
        return batch // self.size


ALONE = Group()


def join(device: str) -> Group:
    """Join the processes that torchrun started, according to its environment variables; `ALONE` without torchrun.

    `device` is the config's. Each process takes the GPU of its local rank. Raises `UserError` if there are too few
    GPUs, or if `device` names a single one.
    """
    if not dist.is_torchelastic_launched() or os.environ.get("WORLD_SIZE") == "1":
        return ALONE
    try:
        rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    except (KeyError, ValueError):
        raise UserError("TORCHELASTIC_RUN_ID is set, but not all else that torchrun sets: unset it") from None
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if device not in ("auto", "cuda", "cpu"):
        raise UserError(f"{size} processes cannot all use the device '{device}': leave --device out, or name cpu")
    if local_rank >= gpus and (gpus or device == "cuda"):
        raise UserError(f"{local_rank + 1} processes, but {gpus} GPUs on this machine: change --nproc-per-node")
    # Numbers such as stop requests are exchanged between hosts (gloo), gradients between GPUs (NCCL).
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    if gpus:
        torch.cuda.set_device(local_rank)
    _together(lambda: dist.init_process_group(backend, timeout=TIMEOUT))
    return Group(rank, size, local_rank, f"cuda:{local_rank}" if gpus else "cpu")


def leave(status: int = 0) -> None:
    """Leave the group. Ends this process with `status` if it is one of several, otherwise does nothing."""
    if dist.is_initialized():
        if status == 0:  # after an error the others may have ended, and this call would wait for them
            dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # gloo sometimes aborts a process that exits normally


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. Its gradient is the sum of theirs, for each of them depends on it."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        _together(lambda: dist.all_reduce(total))
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.forward(None, gradient)


def _together(run: Callable[[], Any]) -> None:
    """Run an operation that all processes take part in. Raises `UserError` if one of them has ended."""
    try:
        run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what gloo and NCCL raise then
        raise UserError(
            f"another process of this run has ended or cannot be reached ({str(error).splitlines()[0]}). If it "
            "printed an error, mend that first. Then start all processes again with --resume"
        ) from None
