"""Adversarial losses: relativistic ones with zero-centred gradient penalties (section 3.4, after R3GAN, Huang et al.),
and least squares (raw-to-raw mapping).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Critic = Callable[[Tensor], Tensor]  # features (N, ...) -> logits (N,); PatchGAN: (N, h, w), for least squares


def generator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Eq. 8, f = softplus: E[f(-(D(x_f) - D(x_r)))]. Both (N,)."""
    return F.softplus(real_logits - fake_logits).mean()


def discriminator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Eq. 7 without its penalties: E[f(-(D(x_r) - D(x_f)))]. Both (N,)."""
    return F.softplus(fake_logits - real_logits).mean()


def penalised_logits(critic: Critic, features: Tensor) -> tuple[Tensor, Tensor]:
    """A critic's logits, and its gradient penalty without the factor gamma/2 (Eqs. 5, 6).

    features: (N, ...); they get no gradient.
    Returns the logits (N,) and the batch mean of ||grad D||^2 with respect to the features, a scalar. Both are
    differentiable with respect to the critic's parameters.
    """
    features = features.detach().requires_grad_()
    logits = critic(features)
    (gradient,) = torch.autograd.grad(logits.sum(), features, create_graph=True)
    return logits, gradient.square().flatten(1).sum(1).mean()


class RelativisticLoss:
    """The losses of the generator and of a critic, Eqs. 5 to 8.

    `gamma` is the weight of the penalties R1 and R2 (Eqs. 5, 6). The released code multiplies both by another 100, not
    mentioned in the paper: pass 100 gamma to reproduce it.
    """

    def __init__(self, gamma: float):
        self.gamma = gamma

    def generator(self, critic: Critic, fake: Tensor, real: Tensor) -> Tensor:
        """The generator's loss, Eq. 8, on features (N, ...)."""
        return generator_loss(critic(fake), critic(real))

    def discriminator(self, critic: Critic, fake: Tensor, real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss, Eq. 7 with its penalties, on features (N, ...), and detached statistics.

        The statistics are the loss, the logit gap E[D(x_r) - D(x_f)], and the penalties r1 and r2 with their factor
        gamma/2.
        """
        real_logits, real_penalty = penalised_logits(critic, real)
        fake_logits, fake_penalty = penalised_logits(critic, fake)
        r1, r2 = self.gamma / 2 * real_penalty, self.gamma / 2 * fake_penalty
        loss = discriminator_loss(fake_logits, real_logits) + r1 + r2
        gap = (real_logits - fake_logits).mean()
        return loss, {"loss": loss.detach(), "gap": gap.detach(), "r1": r1.detach(), "r2": r2.detach()}


def least_squares(logits: Tensor, wanted: float) -> Tensor:
    """E[(D(x) - wanted)^2] of logits of any shape, such as a map of patches (LSGAN, Mao et al., ICCV 2017).

    A critic learns 1 for real and 0 for fake, raw-to-raw mapping, Eq. 12; a generator aims at 1, Eq. 10.
    """
    return (logits - wanted).square().mean()
