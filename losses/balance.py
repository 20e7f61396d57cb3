"""Dynamic Loss Adaptation: section 3.7."""

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-8  # added to each norm, as published


def parameter_gradients(
    generated: Tensor, image_gradients: Sequence[Tensor], parameters: Sequence[Tensor], batched: bool | None = None
) -> Tensor:
    """Carry K gradients at the generated images back to the generator's parameters.

    generated: (N, 3, H, W), attached to the generator's graph. The graph is freed.
    image_gradients: K tensors shaped like `generated`, each the gradient of one loss term.
    batched: carry all K back together, as one batched vector-Jacobian product, or one after the other. By default
        together on a GPU, where launching kernels takes most of a small generator's time. (On a CPU, RMFA-Net takes 1.5
        times as long batched.)

    Returns (K, P), where P is the number of values of all parameters. A parameter on which the images do not depend,
    such as one of a part that another stage trains, has a gradient of 0.
    """
    if generated.is_cuda if batched is None else batched:
        together = torch.stack(list(image_gradients))
        found = torch.autograd.grad(generated, parameters, together, is_grads_batched=True, allow_unused=True)
        missing = (
            p.new_zeros(len(together), p.numel()) if g is None else g for g, p in zip(found, parameters, strict=True)
        )
        return torch.cat([g.flatten(1) for g in missing], dim=1)
    rows = []
    for k, gradient in enumerate(image_gradients):
        last = k == len(image_gradients) - 1
        found = torch.autograd.grad(generated, parameters, gradient, retain_graph=not last, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


def balance(gradients: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each term's gradient so that its norm is the term's weight, and sum.

    gradients: (K, P), one row for each term; weights: (K,).
    Returns the sum (P,), for the optimizer, and the norms before scaling (K,). A zero gradient contributes nothing.
    """
    norms = gradients.norm(dim=1)
    return (weights / (norms + EPSILON)) @ gradients, norms


def assign(parameters: Sequence[Tensor], gradient: Tensor) -> None:
    """Set each parameter's `.grad` from one flat gradient (P,), in the parameter's own memory layout."""
    pieces = gradient.split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(piece.view_as(parameter))
