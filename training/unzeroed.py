"""Gradients that the released code never zeroes: a part of the state of an adversary in `training.steps`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class UnzeroedGradients:
    """The gradients of an adversary's `untrained` parameters, which add up over the run and belong to its state."""

    def __init__(self, parameters: Sequence[nn.Parameter]):
        self.parameters = parameters
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    def add(self, gradients: Sequence[Tensor], scale: Tensor) -> None:
        """Add a generator's step: the released code backpropagates each loss as it is, for its norm, and then twice
        times `scale`, for the log and in the sum of all losses.
        """
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad += (1 + 2 * scale) * gradient

    def state_dict(self) -> dict[str, Tensor]:
        return {str(index): parameter.grad for index, parameter in enumerate(self.parameters)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.grad.copy_(state[str(index)])
