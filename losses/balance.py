"""Dynamic Loss Adaptation: section 3.7."""

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-8  # added to each norm, as published


def parameter_gradients(
    generated: Tensor, image_gradients: Sequence[Tensor], parameters: Sequence[Tensor], batched: bool | None = None
) -> Tensor:
    """Carry K gradients at `generated` back to the parameters: (K, P), P the number of all parameters.

    generated: (N, 3, H, W), attached to the generator's graph, which is consumed.
    image_gradients: K tensors shaped like `generated`.
    batched: all K together, as one vector-Jacobian product, or one after another; by default together on a GPU, where a
        small generator's time is that of its launches. (On a CPU, RMFA-Net takes half as long again together.)
    """
    if generated.is_cuda if batched is None else batched:
        together = torch.stack(list(image_gradients))
        per_parameter = torch.autograd.grad(generated, parameters, together, is_grads_batched=True)
        return torch.cat([g.flatten(1) for g in per_parameter], dim=1)
    rows = []
    for k, gradient in enumerate(image_gradients):
        last = k == len(image_gradients) - 1
        per_parameter = torch.autograd.grad(generated, parameters, gradient, retain_graph=not last)
        rows.append(torch.cat([g.flatten() for g in per_parameter]))
    return torch.stack(rows)


def balance(gradients: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each term's gradient to norm `weight`, and sum.

    gradients: (K, P), a term each row; weights: (K,). Returns the optimizer's gradient (P,) and the norms before (K,).
    A term whose gradient is zero contributes nothing.
    """
    norms = gradients.norm(dim=1)
    return (weights / (norms + EPSILON)) @ gradients, norms


def assign(parameters: Sequence[Tensor], gradient: Tensor) -> None:
    """Set the `.grad` of the parameters, laid out in memory as they are, from one flat gradient (P,)."""
    pieces = gradient.split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(piece.view_as(parameter))
