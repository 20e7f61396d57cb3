"""The step of two mappers: equal to the plain one of six passes, whose equations are written out here; its state."""

import copy

import pytest
import torch
from torch import nn

from training.cycle import CameraBatch, CycleTrainer, Replay


class SmallMapper(nn.Module):
    """A convolution that both directions share, and one of their own, with a statistic of the batch in between."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(4, 6, 3, padding=1)
        self.norms = nn.ModuleDict({to: nn.BatchNorm2d(6) for to in "ab"})
        self.heads = nn.ModuleDict({to: nn.Conv2d(6, 4, 1) for to in "ab"})

    def forward(self, planes, to):
        parts = zip(self.shared(planes).chunk(len(to)), to, strict=True)
        return planes + torch.cat([self.heads[way](self.norms[way](part).tanh()) for part, way in parts])


def small_critic():
    return nn.Sequential(nn.Conv2d(4, 5, 4, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(5, 1, 3))


def make_trainer(**options):
    torch.manual_seed(0)
    mapper = SmallMapper().double()
    critics = {camera: small_critic().double() for camera in "ab"}
    judging = [p for critic in critics.values() for p in critic.parameters()]
    # Plain descent keeps an error in a gradient visible, which Adam's first steps would reduce to a sign.
    optimizer, critic_optimizer = torch.optim.SGD(mapper.parameters(), 0.05), torch.optim.SGD(judging, 0.05)
    return CycleTrainer(mapper, optimizer, critics, critic_optimizer, **options)


def make_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 3, 4, 12, 12, dtype=torch.float64, generator=generator)
    return CameraBatch(a, b)


def plain_step(mapper, critics, optimizer, critic_optimizer, batch, halved=False):
    """One step in the published order: each pass on its own, all graphs alive, each critic asked anew."""
    a, b = batch.a, batch.b
    d_a, d_b = critics["a"], critics["b"]
    l1, one = nn.functional.l1_loss, lambda logits: (logits - 1).square().mean()
    fake_b, same_b = mapper(a, ("b",)), mapper(b, ("b",))
    fake_a, same_a = mapper(b, ("a",)), mapper(a, ("a",))
    again_a, again_b = mapper(fake_b, ("a",)), mapper(fake_a, ("b",))
    cycle, identity = l1(again_a, a) + l1(again_b, b), l1(same_a, a) + l1(same_b, b)
    loss = one(d_b(fake_b)) + one(d_a(fake_a)) + 10 * cycle + 5 * identity
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    critic_optimizer.zero_grad()
    total = one(d_a(a)) + d_a(fake_a.detach()).square().mean() + one(d_b(b)) + d_b(fake_b.detach()).square().mean()
    (total / 2 if halved else total).backward()
    critic_optimizer.step()
    return cycle, identity, total


@pytest.mark.parametrize("halved", (False, True))
def test_steps_equal_those_of_six_passes(halved):
    fast, plain = make_trainer(critic_scale=0.5 if halved else 1.0), make_trainer()
    for seed in range(4):
        statistics = fast.step(make_batch(seed), seed + 1)
        expected = plain_step(
            plain.mapper, plain.critics, plain.optimizer, plain.critic_optimizer, make_batch(seed), halved
        )
        for name, value in zip(("cycle", "identity", "critics"), expected, strict=True):
            torch.testing.assert_close(statistics[f"loss/{name}"], value.detach(), rtol=1e-10, atol=1e-12)
    for one, other in ((fast.mapper, plain.mapper), *((fast.critics[c], plain.critics[c]) for c in "ab")):
        for name, value in one.state_dict().items():  # running statistics of the normalisation, too
            torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-9, atol=1e-11, msg=name)


def test_statistics_are_detached_and_named():
    statistics = make_trainer().step(make_batch(0), 1)
    assert not any(value.requires_grad for value in statistics.values())
    assert {"loss/cycle", "loss/identity", "loss/adversarial_a", "loss/adversarial_b", "loss/critics"} < set(statistics)


@pytest.mark.parametrize("weights", ({"adversarial": 0.0}, {"cycle": 0.0}, {"identity": 0.0}))
def test_a_weight_of_zero_takes_its_loss_out(weights):
    trainers = make_trainer(**weights), make_trainer()
    for trainer in trainers:
        trainer.step(make_batch(0), 1)
    gradients = [torch.cat([p.grad.flatten() for p in trainer.parameters]) for trainer in trainers]
    assert not torch.allclose(*gradients)


def test_without_an_adversarial_loss_the_critics_rest():
    trainer = make_trainer(adversarial=0.0)
    before = copy.deepcopy(trainer.critics["a"].state_dict())
    statistics = trainer.step(make_batch(0), 1)
    assert all(torch.equal(value, before[name]) for name, value in trainer.critics["a"].state_dict().items())
    assert set(statistics) == {"loss/cycle", "loss/identity"}


def test_the_mappers_gradient_is_clipped():
    trainer = make_trainer(clip_norm=1e-3)
    trainer.step(make_batch(0), 1)
    norm = torch.cat([p.grad.flatten() for p in trainer.parameters]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


# --- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ({}, {"ema_decay": 0.9}, {"replay": 2}))
def test_a_resumed_trainer_goes_on_bit_for_bit(options):
    whole, first, second = (make_trainer(**options) for _ in range(3))
    torch.manual_seed(1)
    for number in range(1, 7):
        whole.step(make_batch(number), number)
    torch.manual_seed(1)
    for number in range(1, 4):
        first.step(make_batch(number), number)
    state, random = copy.deepcopy(first.state()), torch.get_rng_state()
    second.load_state(state)
    torch.set_rng_state(random)
    for number in range(4, 7):
        second.step(make_batch(number), number)
    for name, values in whole.state().items():
        flat, other = (torch.utils._pytree.tree_leaves(s) for s in (values, second.state()[name]))
        for x, y in zip(flat, other, strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, name


def test_averages_of_another_memory_layout_go_on_as_they_were():
    contiguous, laid_out = make_trainer(), make_trainer()
    laid_out.mapper.to(memory_format=torch.channels_last)
    for trainer in (contiguous, laid_out):
        trainer.optimizer = torch.optim.Adam(trainer.mapper.parameters(), 0.05, fused=True)
    for number in range(3):
        contiguous.step(make_batch(number), number)
    laid_out.load_state(copy.deepcopy(contiguous.state()))
    for trainer in (contiguous, laid_out):
        trainer.step(make_batch(3), 3)
    assert laid_out.mapper.shared.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(laid_out.mapper.shared.weight, contiguous.mapper.shared.weight)


def test_the_average_is_saved_once_there_is_one():
    trainer = make_trainer(ema_decay=0.5)
    before = copy.deepcopy(trainer.mapper.state_dict())
    assert trainer.result is trainer.mapper
    trainer.step(make_batch(0), 1)
    trainer.step(make_batch(1), 2)
    weight = trainer.result.shared.weight
    assert not torch.equal(weight, trainer.mapper.shared.weight) and not torch.equal(weight, before["shared.weight"])
    assert torch.equal(trainer.result.norms["a"].running_mean, trainer.mapper.norms["a"].running_mean)


@pytest.mark.parametrize("spoil", (lambda t: t.mapper.shared.weight, lambda t: t.critics["b"][0].bias))
def test_a_weight_that_is_not_finite_is_noticed(spoil):
    trainer = make_trainer()
    assert trainer.finite()
    with torch.no_grad():
        spoil(trainer).view(-1)[0] = float("nan")
    assert not trainer.finite()


def test_a_spoiled_running_statistic_is_noticed():
    trainer = make_trainer()
    trainer.mapper.norms["a"].running_var[0] = float("inf")
    assert not trainer.finite()


# --- patches of former steps -----------------------------------------------------------------------------------------


def test_replay_keeps_the_first_patches_and_exchanges_later_ones():
    torch.manual_seed(0)
    replay = Replay(2)
    first = torch.arange(2.0).view(2, 1, 1, 1)
    assert torch.equal(replay(first), first)
    returned = [replay(torch.full((1, 1, 1, 1), float(n))).item() for n in range(2, 200)]
    fresh = sum(value == n for n, value in enumerate(returned, 2))
    assert 70 < fresh < 130  # half of them
    former = [(n, value) for n, value in enumerate(returned, 2) if value != n]
    assert all(value < n for n, value in former) and len({value for _, value in former}) == len(former)  # each once
    assert len(replay.kept) == 2
