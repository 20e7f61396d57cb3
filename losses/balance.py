"""Dynamic Loss Adaptation: section 3.7."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

EPSILON = 1e-8  # added to each norm, as published
SMALL = 1_000_000  # values: a larger generator keeps a GPU busy, and its memory full, with one gradient at a time


def parameter_gradients(
    generated: Tensor, image_gradients: Sequence[Tensor], parameters: Sequence[Tensor], batched: bool | None = None
) -> Tensor:
    """Carry K gradients at the generated images back to the generator's parameters.

    generated: (N, 3, H, W), attached to the generator's graph. The graph is freed.
    image_gradients: K tensors shaped like `generated`, each the gradient of one loss term.
    batched: carry all K back together, as one batched vector-Jacobian product, or one after the other. By default
        together on a GPU, where launching kernels takes most of a small generator's time, if there are no more than
        `SMALL` values. (On a CPU, RMFA-Net takes 1.5 times as long batched.)

    Returns (K, P), where P is the number of values of all parameters: 0 for parameters that the images do not depend
    on, such as those of an output that only another stage trains.
    """
    small = sum(parameter.numel() for parameter in parameters) <= SMALL
    if generated.is_cuda and small if batched is None else batched:
        together = torch.stack(list(image_gradients))
        return _flat(_gradients(generated, parameters, together, is_grads_batched=True), parameters, len(together))
    rows = []
    for k, gradient in enumerate(image_gradients):
        last = k == len(image_gradients) - 1
        rows.append(_flat(_gradients(generated, parameters, gradient, retain_graph=not last), parameters, 1))
    return torch.cat(rows)


_gradients = partial(torch.autograd.grad, allow_unused=True)


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], rows: int) -> Tensor:
    """(`rows`, P): the gradients of all parameters beside each other, 0 where there is none."""
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([p.new_zeros(rows, p.numel()) if g is None else g.reshape(rows, -1) for g, p in pairs], dim=1)


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
