"""Times the step of two raw-to-raw mappers against a plain CycleGAN step, and against its convolutions, the floor.

python benchmarks/cycle_step.py [--device cpu] [--batch 4] [--side 64] [--precision float32|tf32|bf16] [--json FILE]

All have the same networks and the same batch, and take turns in one process. The plain step is that of the published
order: each of the six passes through the mappers and of the six through the critics on its own, all graphs alive until
one backward pass, whose gradients of the critics are thrown away, as CycleGAN's code does that freezes nothing. The
floor are the convolutions, matrix products and attentions of the same passes, forward and backward, each once as often
as our step needs it, without normalisation, activations, polynomials, losses and optimizers.
"""

import argparse
import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import alternate, label, machine, parser, peak_memory, positive, ratios, report, spread
from torch import Tensor, nn
from torch.nn import functional as F

from config import PRESETS, Compute, Config
from data.two_cameras import CAMERAS
from errors import run_cli
from losses.adversarial import least_squares
from models import MAPPERS, build_mapper
from tasks.device import choose_device, set_precision
from tasks.raw_to_raw import build_trainer
from training.cycle import CameraBatch, CycleTrainer
from training.distributed import ALONE


class Plain:
    """A plain CycleGAN step, with the networks and rates of a trainer."""

    def __init__(self, trainer: CycleTrainer):
        self.mapper, self.critics = copy.deepcopy((trainer.mapper, dict(trainer.critics)))
        self.mapper.to(memory_format=torch.contiguous_format)  # PyTorch's usual one
        self.precision, self.weights = trainer.precision, (trainer.adversarial, trainer.cycle, trainer.identity)
        judging = [p for critic in self.critics.values() for p in critic.parameters()]
        groups = (trainer.optimizer, self.mapper.parameters()), (trainer.critic_optimizer, judging)
        self.optimizer, self.critic_optimizer = (
            torch.optim.Adam(parameters, old.param_groups[0]["lr"], old.param_groups[0]["betas"])
            for old, parameters in groups
        )

    def step(self, a: Tensor, b: Tensor) -> None:
        """Update the mappers, then the critics."""
        adversarial, cycle, identity = self.weights
        with self.precision():
            fake_b, fake_a = self.mapper(a, "b"), self.mapper(b, "a")
            again_a, again_b = self.mapper(fake_b, "a"), self.mapper(fake_a, "b")
            same_a, same_b = self.mapper(a, "a"), self.mapper(b, "b")
            judged = self.critics["a"](fake_a).float(), self.critics["b"](fake_b).float()
        loss = adversarial * sum(least_squares(logits, 1) for logits in judged)
        loss = loss + cycle * (F.l1_loss(again_a, a) + F.l1_loss(again_b, b))
        loss = loss + identity * (F.l1_loss(same_a, a) + F.l1_loss(same_b, b))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.critic_optimizer.zero_grad()
        for camera, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
            with self.precision():
                logits = self.critics[camera](real).float(), self.critics[camera](fake.detach()).float()
            (least_squares(logits[0], 1) + least_squares(logits[1], 0)).backward()
        self.critic_optimizer.step()


class Floor:
    """The convolutions and matrix products of a step, forward and backward, on inputs of the shapes that they had."""

    def __init__(self, trainer: CycleTrainer, a: Tensor, b: Tensor):
        self.calls, self.precision = [], trainer.precision
        networks = [trainer.mapper, *trainer.critics.values()]
        layers = [m for network in networks for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        attention = F.scaled_dot_product_attention

        def recorded(*inputs: Tensor, **options: Any) -> Tensor:
            self._add(partial(attention, **options), inputs)
            return attention(*inputs, **options)

        hooks = [layer.register_forward_pre_hook(lambda m, inputs: self._add(m, inputs)) for layer in layers]
        F.scaled_dot_product_attention = recorded
        try:
            trainer.step(CameraBatch(a, b), 1)
        finally:
            F.scaled_dot_product_attention = attention
            for hook in hooks:
                hook.remove()

    def _add(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self.calls.append((function, [torch.randn_like(x).requires_grad_() for x in inputs]))

    def step(self) -> None:
        """Compute each of them and its gradients."""
        for function, inputs in self.calls:
            with self.precision():
                output = function(*inputs)
            parameters = list(function.parameters()) if isinstance(function, nn.Module) else []
            torch.autograd.grad(output, [*inputs, *parameters], torch.ones_like(output))


def build_steps(config: Config, model: str, side: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """The steps to time, by name, on random planes."""
    torch.manual_seed(0)
    mapper = build_mapper(model).to(device, memory_format=torch.channels_last)  # as tasks.raw_to_raw does
    trainer = build_trainer(config, mapper, ALONE)
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, config.data.batch, mapper.channels, side, side, generator=random).to(device)
    plain = Plain(trainer)
    floor = Floor(copy.deepcopy(trainer), a, b)
    return {
        "ours": lambda: trainer.step(CameraBatch(a, b), 1),
        "plain": lambda: plain.step(a, b),
        "floor": floor.step,
    }


def parse() -> argparse.Namespace:
    """The command line."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--device", default="auto")
    options.add_argument("--model", default="mapper", choices=MAPPERS)
    options.add_argument("--batch", type=positive, default=4, help="patches of each camera (%(default)s)")
    options.add_argument("--side", type=positive, default=64, help="of the planes, in pixels (%(default)s; paper: 256)")
    options.add_argument("--precision", default="float32", choices=("float32", "tf32", "bf16"))
    return options.parse_args()


def main() -> None:
    given = parse()
    device, compute = choose_device(given.device), Compute(precision=given.precision)
    set_precision(compute)
    base = PRESETS["raw2raw"]
    config = dataclasses.replace(base, compute=compute, data=dataclasses.replace(base.data, batch=given.batch))
    steps = build_steps(config, given.model, given.side, device)
    times = alternate(steps, given.repeats, device)
    memory = {name: peak_memory(step, device) for name, step in steps.items()}
    figures = {
        "machine": machine(device),
        "model": given.model,
        "batch": given.batch,
        "side": given.side,
        "precision": given.precision,
        "seconds": {name: spread(values) for name, values in times.items()},
        "peak_memory_mib": memory,
        "ratio_plain": ratios(times["plain"], times["ours"]),
        "ratio_floor": ratios(times["ours"], times["floor"]),
    }
    rows = [("", "seconds a step", "lowest", "highest", "times this repository's", "MiB added")]
    for name, values in figures["seconds"].items():
        ratio = ratios(times[name], times["ours"])["median"]
        rows.append((label(name), *values.values(), ratio, float(memory[name])))
    title = f"{given.model}, {given.batch} patches of {given.side}x{given.side} planes of {len(CAMERAS)} cameras"
    report(title, figures, rows, given.json)


if __name__ == "__main__":
    run_cli(main)
