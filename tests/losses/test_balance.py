"""Dynamic Loss Adaptation: the norm of each term's gradient becomes its weight, whatever the size of the loss."""

import pytest
import torch
from torch import nn

from losses.balance import assign, balance, parameter_gradients
from losses.color import BlurredColorLoss
from losses.total_variation import TotalVariation
from models import build_model


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_norm_of_each_contribution_is_its_weight():
    gradients, weights = random(3, 50) * torch.tensor([[1e-3], [1.0], [1e4]]), torch.tensor([1.0, 0.5, 2.0])
    for k in range(3):
        only = torch.zeros(3)
        only[k] = weights[k]
        assert balance(gradients, only)[0].norm().item() == pytest.approx(weights[k].item(), rel=1e-4)


def test_balance_by_hand():
    gradients = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    total, norms = balance(gradients, torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(norms, torch.tensor([5.0, 2.0]))
    torch.testing.assert_close(total, torch.tensor([0.6, 0.8 + 10]))


def test_zero_gradient_contributes_nothing():
    gradients = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    total, norms = balance(gradients, torch.ones(2))
    torch.testing.assert_close(total, torch.tensor([0.6, 0.8]))
    assert norms[1] == 0


def test_weight_0_removes_a_term():
    gradients = random(2, 5)
    total, _ = balance(gradients, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(total, gradients[0] / gradients[0].norm())


def test_constant_factor_of_a_loss_cancels():
    gradients, weights = random(2, 50), torch.tensor([1.0, 0.5])
    scaled = gradients * torch.tensor([[1000.0], [1.0]])
    torch.testing.assert_close(balance(scaled, weights)[0], balance(gradients, weights)[0])


def test_optimizer_uses_the_assigned_gradient():
    network = nn.Linear(3, 2)
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    gradient = torch.arange(8.0)
    assign(list(network.parameters()), gradient)
    assert torch.equal(network.weight.grad, gradient[:6].view(2, 3)) and torch.equal(network.bias.grad, gradient[6:])
    optimizer.step()
    torch.testing.assert_close(network.weight.detach(), before[0] - gradient[:6].view(2, 3))
    torch.testing.assert_close(network.bias.detach(), before[1] - gradient[6:])


def test_assigned_gradient_has_the_memory_layout_of_its_parameter():
    network = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    gradient = torch.arange(57.0)
    assign(list(network.parameters()), gradient)
    assert network.weight.grad.stride() == network.weight.stride()
    assert torch.equal(network.weight.grad, gradient[:54].view(3, 2, 3, 3))


def test_assigned_gradient_replaces_the_previous_one():
    network = nn.Linear(1, 1)
    for value in (1.0, 2.0):
        assign(list(network.parameters()), torch.full((2,), value))
    assert network.weight.grad.item() == 2


@pytest.mark.parametrize("batched", (False, True, None))
@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("name, shape", (("efficient", (2, 4, 8, 8)), ("rmfa-tiny", (2, 3, 16, 16))))
def test_parameter_gradients_equal_those_of_the_whole_graph(name, shape, layout, batched):
    torch.manual_seed(0)
    generator, inputs, target = build_model(name), random(*shape), random(2, 3, 16, 16, seed=1)
    generator.to(memory_format=layout)
    parameters = list(generator.parameters())
    losses = (TotalVariation(), lambda x: BlurredColorLoss()(x, target), lambda x: x.abs().mean())

    generated = generator(inputs)
    image = generated.detach().requires_grad_()
    at_image = [torch.autograd.grad(loss(image), image)[0] for loss in losses]
    actual = parameter_gradients(generated, at_image, parameters, batched)

    assert actual.shape == (3, sum(p.numel() for p in parameters))
    for row, loss in zip(actual, losses, strict=True):
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss(generator(inputs)), parameters)])
        assert (row - expected).norm() < 1e-5 * expected.norm()
