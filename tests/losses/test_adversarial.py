"""The adversarial losses with critics whose logits, gradients and penalties are known."""

from math import exp, log

import pytest
import torch
from torch import nn

from losses.adversarial import RelativisticLoss, discriminator_loss, generator_loss, least_squares, penalised_logits

GRADIENT = torch.tensor([1.0, -2.0, 3.0])  # of the linear critic; its squared norm is 14


def softplus(x: float) -> float:
    return log(1 + exp(x))


def linear(features: torch.Tensor) -> torch.Tensor:
    return features @ GRADIENT.to(features)


def quadratic(features: torch.Tensor) -> torch.Tensor:
    return features.square().sum(1) / 2


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def critic() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double()


def test_losses_by_hand():
    fake, real = torch.tensor([0.0, 1.0]), torch.tensor([1.0, -1.0])
    assert generator_loss(fake, real).item() == pytest.approx((softplus(1) + softplus(-2)) / 2)
    assert discriminator_loss(fake, real).item() == pytest.approx((softplus(-1) + softplus(2)) / 2)


def test_equal_logits_cost_log_2():
    logits = torch.tensor([3.0, -1.0])
    assert generator_loss(logits, logits).item() == pytest.approx(log(2))
    assert discriminator_loss(logits, logits).item() == pytest.approx(log(2))


def test_losses_stay_finite_for_huge_logits():
    assert generator_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)
    assert discriminator_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == 0


@pytest.mark.parametrize("loss", (generator_loss, discriminator_loss))
def test_gradients_of_the_losses(loss):
    assert torch.autograd.gradcheck(loss, (random(4).requires_grad_(), random(4, seed=1).requires_grad_()))


@pytest.mark.parametrize("batch", (1, 2, 7))
def test_penalty_of_a_linear_critic_is_its_squared_gradient_for_any_batch_size(batch):
    features = random(batch, 3)
    logits, penalty = penalised_logits(linear, features)
    torch.testing.assert_close(logits, linear(features))
    assert logits.shape == (batch,) and penalty.item() == pytest.approx(14)


def test_penalty_is_the_batch_mean_of_each_squared_gradient():
    _, penalty = penalised_logits(quadratic, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert penalty.item() == pytest.approx((5 + 25) / 2)


def test_penalty_sums_over_all_dimensions_of_a_sample():
    features = torch.full((2, 3, 4, 5), 2.0)
    _, penalty = penalised_logits(lambda x: x.square().sum((1, 2, 3)) / 2, features)
    assert penalty.item() == pytest.approx(60 * 4)


def test_features_get_no_gradient_from_the_penalty():
    features = random(2, 4).requires_grad_()
    _, penalty = penalised_logits(quadratic, 2 * features)
    penalty.backward()
    assert features.grad is None


def test_penalty_is_differentiable_with_respect_to_the_critic(critic):
    parameters = dict(critic.named_parameters())
    features = random(3, 4)

    def penalty(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(parameters, values, strict=True))
        return penalised_logits(lambda x: torch.func.functional_call(critic, named, x), features)[1]

    assert torch.autograd.gradcheck(penalty, tuple(parameters.values()))


def test_discriminator_loss_is_differentiable_with_respect_to_the_critic(critic):
    parameters = dict(critic.named_parameters())
    fake, real = random(3, 4), random(3, 4, seed=1)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(parameters, values, strict=True))
        return RelativisticLoss(3).discriminator(lambda x: torch.func.functional_call(critic, named, x), fake, real)[0]

    assert torch.autograd.gradcheck(loss, tuple(parameters.values()))


def test_discriminator_loss_with_penalties_by_hand():
    fake, real = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])  # logits 0.5 and 2, squared gradients 1 and 4
    loss, statistics = RelativisticLoss(gamma=10).discriminator(quadratic, fake, real)
    assert loss.item() == pytest.approx(softplus(0.5 - 2) + 10 / 2 * 4 + 10 / 2 * 1)
    assert {name: value.item() for name, value in statistics.items()} == pytest.approx(
        {"loss": loss.item(), "gap": 1.5, "r1": 20, "r2": 5}
    )


def test_gamma_0_gives_no_penalty():
    fake, real = random(2, 3), random(2, 3, seed=1)
    loss, _ = RelativisticLoss(gamma=0).discriminator(linear, fake, real)
    torch.testing.assert_close(loss, discriminator_loss(linear(fake), linear(real)))


def test_generator_loss_of_a_critic_by_hand():
    fake, real = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert RelativisticLoss(10).generator(quadratic, fake, real).item() == pytest.approx(softplus(1.5))


def test_real_features_are_a_constant_of_the_generator_s_gradient(critic):
    fake, real = random(2, 4).requires_grad_(), random(2, 4, seed=1)
    (actual,) = torch.autograd.grad(RelativisticLoss(10).generator(critic, fake, real), fake)
    (expected,) = torch.autograd.grad(generator_loss(critic(fake), critic(real).detach()), fake)
    assert torch.equal(actual, expected) and actual.any()


def test_statistics_are_detached(critic):
    loss, statistics = RelativisticLoss(10).discriminator(critic, random(2, 4), random(2, 4, seed=1))
    assert loss.requires_grad and not any(value.requires_grad for value in statistics.values())


# --- least squares ---------------------------------------------------------------------------------------------------


def maps(features: torch.Tensor) -> torch.Tensor:
    """A critic that returns its features, as a map of logits (N, h, w)."""
    return features


FAKE, REAL = torch.tensor([[[0.0, 0.5], [2.0, -1.0]]]), torch.tensor([[[1.0, 0.0], [3.0, 1.0]]])


def test_least_squares_by_hand():
    logits = torch.tensor([[1.0, 0.5], [-1.0, 2.0]])
    assert least_squares(logits, 1).item() == pytest.approx((0 + 0.25 + 4 + 1) / 4)
    assert least_squares(logits, 0).item() == pytest.approx((1 + 0.25 + 1 + 4) / 4)


@pytest.mark.parametrize("wanted", (0, 1))
def test_gradient_of_least_squares(wanted):
    logits = random(2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: least_squares(x, wanted), (logits,))
    least_squares(logits, wanted).backward()
    torch.testing.assert_close(logits.grad, 2 * (logits.detach() - wanted) / 18)
