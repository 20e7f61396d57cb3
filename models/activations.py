"""Activations that several networks by others share."""

from torch import Tensor


def wide_tanh(x: Tensor) -> Tensor:
    """0.58 tanh(x) + 0.5, from -0.08 to 1.08: black and white are within reach of a finite x. Any shape.

    The output of Ignatov's networks (DPED, PyNET, MicroISP) and of LAN, and the gate of LAN's attention.
    """
    return x.tanh() * 0.58 + 0.5
