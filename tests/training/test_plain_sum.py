"""The plain sum of losses, with which published recipes train instead of Dynamic Loss Adaptation."""

import copy

import pytest
import torch
from torch import nn

from losses.balance import parameter_gradients
from losses.content import ContentLoss
from losses.perceptual import MSELoss
from losses.total_variation import TotalVariation

from .small_trainer import CONTENT, MSE, TV, RecordingView, flat, flat_gradient, make_batch, make_trainer


def test_its_gradient_is_that_of_the_written_out_sum():
    content = RecordingView("content")
    trainer, batch = make_trainer((TV, CONTENT, MSE), views=(content.view,), balanced=False), make_batch()
    generator = copy.deepcopy(trainer.generator)
    image = generator(batch.inputs)
    features = (content.network(each).tanh() for each in (image, batch.reference))
    loss = 1.0 * TotalVariation()(image) + 0.5 * ContentLoss()(*features) + 2.0 * MSELoss()(image, batch.target)
    loss.backward()
    statistics = trainer.step(batch, 1)
    torch.testing.assert_close(flat_gradient(trainer.generator), flat_gradient(generator))
    torch.testing.assert_close(statistics["norm/sum"], flat_gradient(generator).norm())
    torch.testing.assert_close(flat(trainer.generator), flat(generator) - flat_gradient(generator))  # SGD, rate 1
    assert {name for name in statistics if name.startswith("norm/")} == {"norm/sum"}


def test_it_is_carried_back_once(monkeypatch):
    carried = []
    monkeypatch.setattr(
        "training.steps.parameter_gradients",
        lambda *arguments, **options: carried.append(len(arguments[1])) or parameter_gradients(*arguments, **options),
    )
    for balanced in (False, True):
        make_trainer((TV, MSE), balanced=balanced).step(make_batch(), 1)
    assert carried == [1, 2]


def test_processes_share_the_gradient():
    trainers = [make_trainer((TV, MSE), balanced=False) for _ in range(2)]
    trainers[1].average_ = lambda gradient: gradient / 4
    for trainer in trainers:
        trainer.step(make_batch(), 1)
    torch.testing.assert_close(flat_gradient(trainers[1].generator), flat_gradient(trainers[0].generator) / 4)


def test_gradients_that_add_up_need_the_balance():
    with pytest.raises(ValueError, match="only balanced losses"):
        make_trainer((TV,), ("low",), (RecordingView("low").view,), untrained="line", balanced=False)


def test_a_part_of_the_generator_can_be_trained():
    trainer, batch = make_trainer((TV,), optimizer=torch.optim.Adam, balanced=False), make_batch()
    trainer.output = lambda generator, inputs: generator[0](inputs)[:, :3]
    before = copy.deepcopy(trainer.generator)
    trainer.step(batch, 1)
    assert not torch.equal(flat(trainer.generator[0]), flat(before[0]))
    assert torch.equal(flat(trainer.generator[2]), flat(before[2]))


@pytest.mark.parametrize("batched", (False, True))
def test_a_parameter_without_effect_has_a_gradient_of_0(batched):
    used, unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    image = used(torch.rand(1, 3, 4, 4))
    parameters = [*used.parameters(), *unused.parameters()]
    rows = parameter_gradients(image, [torch.rand_like(image) for _ in range(2)], parameters, batched=batched)
    assert rows.shape == (2, 24) and not rows[:, 12:].any() and rows[:, :12].any(dim=1).all()
