"""Networks that are trained level by level, from coarse to fine."""

from collections.abc import Callable

import torch
from torch import nn

Parts = Callable[[nn.Module, int], list[nn.Module]]


def check_parts(build: Callable[[], nn.Module], parts_of: Parts, sides: tuple[int, int], first: int) -> None:
    """Check what each level of a network needs, without computing it.

    A level's image depends on its own parts and on those of coarser levels, except for their outputs, and never on
    finer parts. `parts_of(network, level)` are the modules that a level adds to those of the coarser ones. The parts of
    all levels are the network, each once. The finest level, `first`, has the mosaic's sides. On the device "meta",
    which knows shapes and what depends on what.
    """
    with torch.device("meta"):
        network = build()
    names, seen, outputs = dict(network.named_parameters()), [], set()
    for level in network.levels:
        network.zero_grad()
        parts = parts_of(network, level)
        assert not {id(part) for part in parts} & {id(part) for part in seen}
        seen += parts
        image = network.at_level(torch.empty(1, 4, sides[0] // 2, sides[1] // 2, device="meta"), level)
        smaller = 2 ** (level - first)
        assert image.shape == (1, 3, sides[0] // smaller, sides[1] // smaller)
        image.sum().backward()
        needed = {id(p) for part in seen for p in part.parameters()} - outputs
        assert {id(p) for p in names.values() if p.grad is not None} <= needed
        trained = {id(p) for part in parts for p in part.parameters()}
        without = {name for name, p in names.items() if id(p) in trained and p.grad is None}
        assert not without, f"level {level} does not train {without}"
        outputs |= {id(p) for part in parts if is_output(part) for p in part.parameters()}
    assert {id(p) for part in seen for p in part.parameters()} == {id(p) for p in names.values()}


def is_output(part: nn.Module) -> bool:
    """Whether a part makes a level's image."""
    last = [module for module in part.modules() if isinstance(module, nn.Conv2d)]
    return len(last) == 1 and last[0].out_channels in (3, 12)
