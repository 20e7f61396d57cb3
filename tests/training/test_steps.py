"""The training step on small made-up networks: who looks at what, who learns from what, and what is kept."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from build import Networks, build_trainer
from config import PRESETS, Backbones
from data.demosaic import Reference
from data.sensor import Sensor, prepare
from losses.adversarial import RelativisticLoss
from losses.content import ContentLoss
from losses.perceptual import MSELoss
from losses.total_variation import TotalVariation
from models import build_model
from training.steps import Adversary, Batch, Term, Trainer, View


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(seed: int = 0) -> Batch:
    return Batch(*(random(2, 3, 8, 8, seed=3 * seed + i) for i in range(3)))


class Critic(nn.Module):
    """Features (N, 4, H, W) -> logits (N,)."""

    def __init__(self):
        super().__init__()
        self.conv, self.line = nn.Conv2d(4, 5, 3), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(self.conv(x).tanh().mean((2, 3))).squeeze(1)


class Counted:
    """A frozen convolution as a view, which remembers the images that it saw."""

    def __init__(self, *names: str, seed: int = 0):
        torch.manual_seed(seed)
        self.network = nn.Conv2d(3, 4 * len(names), 3).double().requires_grad_(False)
        self.seen = []
        self.view = View(names, self.compute)

    def compute(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.seen.append(image.detach().clone())
        return self.network(image).tanh().split(4, dim=1)


class Recorder(RelativisticLoss):
    """The game, which remembers the features that the critics get."""

    def __init__(self, gamma: float):
        super().__init__(gamma)
        self.given = []

    def discriminator(self, critic, fake, real):
        self.given.append((fake, real))
        return super().discriminator(critic, fake, real)


def build(
    terms=(), features=(), views=(), optimizer=torch.optim.SGD, lr=1.0, seed=0, weight=1.0, gamma=10.0, **options
) -> Trainer:
    """A trainer of a two-layer generator against a critic of each of `features`."""
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)).double()
    adversaries = [Adversary(f"adv_{feature}", weight, feature, Critic().double()) for feature in features]
    critics = [p for adversary in adversaries for p in adversary.critic.parameters()]
    critic_optimizer = optimizer(critics, lr) if critics else None
    game = Recorder(gamma)
    return Trainer(
        generator, optimizer(generator.parameters(), lr), views, terms, adversaries, critic_optimizer, game, **options
    )


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def gradient(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


TV = Term("tv", 1.0, "image", None, TotalVariation())
CONTENT = Term("content", 0.5, "content", "reference", ContentLoss())
MSE = Term("mse", 2.0, "image", "target", MSELoss())


def test_each_view_looks_once_at_each_image_that_it_is_wanted_for():
    content, texture, unused = Counted("content"), Counted("low", "high", seed=1), Counted("unused")
    trainer = build((TV, CONTENT, MSE), ("low", "high"), (content.view, texture.view, unused.view))
    data = batch()
    generated = trainer.generator(data.inputs).detach()
    trainer.step(data, 1)
    assert same(content.seen, [data.reference, generated])
    assert same(texture.seen, [data.target, generated])
    assert not unused.seen


def test_target_and_reference_are_looked_at_where_terms_compare_with_both():
    view = Counted("content")
    against_target = Term("paired", 1.0, "content", "target", ContentLoss())
    data = batch()
    build((CONTENT, against_target), views=(view.view,)).step(data, 1)
    assert len(view.seen) == 3


def test_a_term_of_the_image_alone_needs_no_view():
    view = Counted("content")
    build((TV, MSE), views=(view.view,)).step(batch(), 1)
    assert not view.seen


def test_terms_get_what_they_compare():
    seen = {}

    def remember(name):
        return lambda *images: seen.setdefault(name, images)[0].square().mean()

    terms = [Term(a or "none", 1.0, "image", a, remember(a or "none")) for a in ("target", "reference", None)]
    trainer, data = build(terms), batch()
    generated = trainer.generator(data.inputs).detach()
    trainer.step(data, 1)
    assert torch.equal(seen["target"][1], data.target) and torch.equal(seen["reference"][1], data.reference)
    assert len(seen["none"]) == 1 and all(torch.equal(images[0], generated) for images in seen.values())


def test_the_generator_s_gradient_is_that_of_the_plain_path():
    """Each loss alone, through the whole graph, its gradient over its norm, times its weight; the sum."""
    content, texture = Counted("content"), Counted("low", "high", seed=1)
    trainer = build((TV, CONTENT, MSE), ("low", "high"), (content.view, texture.view), weight=0.7)
    data, generator = batch(), copy.deepcopy(trainer.generator)
    critics = {a.feature: copy.deepcopy(a.critic) for a in trainer.adversaries}

    def adversarial(feature, index):
        fake = texture.network(generator(data.inputs)).tanh().split(4, 1)[index]
        real = texture.network(data.target).tanh().split(4, 1)[index]
        return nn.functional.softplus(critics[feature](real) - critics[feature](fake)).mean()

    def look(image):
        return content.network(image).tanh()

    losses = {
        "tv": lambda: TotalVariation()(generator(data.inputs)),
        "content": lambda: ContentLoss()(look(generator(data.inputs)), look(data.reference)),
        "mse": lambda: MSELoss()(generator(data.inputs), data.target),
        "adv_low": lambda: adversarial("low", 0),
        "adv_high": lambda: adversarial("high", 1),
    }
    expected, norms = torch.zeros(flat(generator).numel(), dtype=torch.float64), {}
    for (name, loss), weight in zip(losses.items(), (1.0, 0.5, 2.0, 0.7, 0.7), strict=True):
        alone = torch.cat([g.flatten() for g in torch.autograd.grad(loss(), list(generator.parameters()))])
        norms[name] = alone.norm()
        expected += weight * alone / (norms[name] + 1e-8)

    statistics = trainer.step(data, 1)
    actual = gradient(trainer.generator)
    assert (actual - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(flat(trainer.generator), flat(generator) - actual)  # SGD with a rate of 1
    for name, loss in losses.items():
        torch.testing.assert_close(statistics[f"loss/{name}"], loss().detach())
        torch.testing.assert_close(statistics[f"norm/{name}"], norms[name])


class NoWaiting(TorchDispatchMode):
    """Fails where the host would wait for a GPU: at a number fetched from it, or a constant sent to it."""

    FORBIDDEN = ("aten._local_scalar_dense", "aten.lift_fresh", "aten.nonzero", "aten.is_nonzero", "aten.equal")

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = str(function.overloadpacket)
        if name in self.FORBIDDEN:
            raise AssertionError(f"{name} in a step")
        return function(*arguments, **options or {})


def test_nothing_in_a_step_waits_for_the_device():
    """Frozen networks, the references, the critics' update, schedules; torch's average counts its steps on the host."""
    base = PRESETS["fujifilm-efficient"]
    train = replace(base.train, critic_every=1, schedule="cosine", blur_color=True)
    config = replace(base, data=replace(base.data, patch=32), train=train)
    config = replace(config, backbones=Backbones("random", vit="vit_tiny_patch16_224"))
    generator = build_model("efficient")
    trainer = build_trainer(config, generator, Networks(config, torch.device("cpu")))
    sensor, mosaic, target = Sensor(), torch.rand(2, 1, 32, 32), torch.rand(2, 3, 32, 32)
    span = Reference(sensor).span(mosaic)

    def step(number: int) -> dict:
        inputs = prepare(mosaic, sensor, "packed")
        return trainer.step(Batch(inputs, Reference(sensor)(mosaic, span), target), number)

    step(1)  # what is made once may come from the host
    with NoWaiting():
        statistics = step(2)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        statistics["loss/tv"].item()
    with pytest.raises(AssertionError, match="lift_fresh"), NoWaiting():
        target.new_tensor([1.0])


def test_statistics_are_detached_and_named():
    trainer = build((TV,), ("low",), (Counted("low").view,))
    statistics = trainer.step(batch(), 1)
    critic = [f"critic/adv_low/{key}" for key in ("loss", "gap", "r1", "r2")]
    assert set(statistics) >= {"loss/tv", "norm/tv", "loss/adv_low", "norm/adv_low", *critic}
    assert not any(value.requires_grad for value in statistics.values())


def test_a_weight_of_zero_takes_a_term_out():
    without, zero = build((TV, MSE)), build((TV, Term("zero", 0.0, "image", "reference", MSELoss()), MSE))
    without.step(batch(), 1)
    zero.step(batch(), 1)
    torch.testing.assert_close(flat(zero.generator), flat(without.generator))


def test_the_critics_learn_from_detached_features_of_the_generator_s_step():
    view = Counted("low")
    trainer, data = build((TV,), ("low",), (view.view,)), batch()
    before, critic = copy.deepcopy(trainer.generator), trainer.adversaries[0].critic
    judge = copy.deepcopy(critic)
    trainer.step(data, 1)
    ((fake, real),) = trainer.game.given
    torch.testing.assert_close(fake.detach(), view.network(before(data.inputs)).tanh().detach())  # not made again
    loss, _ = RelativisticLoss(10).discriminator(judge, fake.detach(), real.detach())
    loss.backward()
    nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
    torch.testing.assert_close(gradient(critic), gradient(judge))


def test_the_critics_update_leaves_the_generator_s_gradient_alone():
    view = Counted("low").view
    playing, waiting = build((TV,), ("low",), (view,)), build((TV,), ("low",), (view,), critic_every=100)
    for trainer in (playing, waiting):
        trainer.step(batch(), 1)
    assert torch.equal(gradient(playing.generator), gradient(waiting.generator))


def test_the_generator_s_update_leaves_the_critics_alone():
    trainer = build((TV,), ("low",), (Counted("low").view,), critic_every=100)
    before = flat(trainer.adversaries[0].critic)
    trainer.step(batch(), 1)
    assert torch.equal(flat(trainer.adversaries[0].critic), before)
    assert all(p.grad is None for p in trainer.adversaries[0].critic.parameters())


def test_critics_learn_every_so_many_steps():
    trainer = build((TV,), ("low",), (Counted("low").view,), critic_every=3)
    learned = []
    for number in range(1, 8):
        before = flat(trainer.adversaries[0].critic)
        statistics = trainer.step(batch(number), number)
        learned.append(not torch.equal(flat(trainer.adversaries[0].critic), before))
        assert ("critic/adv_low/loss" in statistics) == learned[-1]
    assert learned == [False, False, True, False, False, True, False]


@pytest.mark.parametrize("clip_norm", (0.01, 1e9))
def test_each_critic_s_gradient_is_clipped_alone(clip_norm):
    trainer = build((TV,), ("low", "high"), (Counted("low", "high").view,), gamma=1e5, clip_norm=clip_norm)
    before = [flat(a.critic) for a in trainer.adversaries]
    trainer.step(batch(), 1)
    norms = [(flat(a.critic) - b).norm().item() for a, b in zip(trainer.adversaries, before, strict=True)]
    if clip_norm == 0.01:
        assert norms == pytest.approx([0.01, 0.01], rel=1e-3)
    else:
        assert min(norms) > 0.01


def test_critics_forget_the_gradient_of_the_step_before():
    trainer = build((TV,), ("low",), (Counted("low").view,), clip_norm=1e9, lr=0.1)
    trainer.step(batch(), 1)
    judge = copy.deepcopy(trainer.adversaries[0].critic)
    judge.zero_grad()
    trainer.step(batch(1), 2)
    fake, real = (features.detach() for features in trainer.game.given[1])
    RelativisticLoss(10).discriminator(judge, fake, real)[0].backward()
    torch.testing.assert_close(gradient(trainer.adversaries[0].critic), gradient(judge))


def test_the_average_is_the_recursion():
    trainer, expected = build((TV, MSE), lr=0.05, ema_decay=0.8), None
    for number in range(1, 5):
        trainer.step(batch(number), number)
        now = flat(trainer.generator)
        expected = now if expected is None else 0.8 * expected + 0.2 * now
    torch.testing.assert_close(flat(trainer.result), expected)
    assert not torch.equal(flat(trainer.result), now)


def test_the_result_is_the_generator_where_there_is_no_average_yet():
    trainer = build((TV,), ema_decay=0.8)
    assert trainer.result is trainer.generator
    trainer.step(batch(), 1)
    assert trainer.result is not trainer.generator
    assert build((TV,)).result is not None and build((TV,)).ema is None


def test_the_schedules_move_with_each_step():
    trainer = build((TV,), ("low",), (Counted("low").view,))
    optimizers = trainer.optimizer, trainer.critic_optimizer
    trainer.schedule, trainer.critic_schedule = (torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in optimizers)
    for number in range(1, 4):
        trainer.step(batch(), number)
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.125, 0.125]


def whole(seed: int) -> Trainer:
    view = Counted("low", "high").view
    trainer = build((TV, MSE), ("low", "high"), (view,), torch.optim.Adam, 1e-2, seed, critic_every=2, ema_decay=0.9)
    optimizers = trainer.optimizer, trainer.critic_optimizer
    schedules = (torch.optim.lr_scheduler.CosineAnnealingLR(o, 10) for o in optimizers)
    trainer.schedule, trainer.critic_schedule = schedules
    return trainer


def test_training_goes_on_from_a_state_as_if_it_had_not_stopped():
    trainer, other = whole(seed=0), whole(seed=1)
    for number in range(1, 4):
        trainer.step(batch(number), number)
    other.load_state(copy.deepcopy(trainer.state()))
    assert same(other.state(), trainer.state())
    for number in range(4, 8):
        one, two = trainer.step(batch(number), number), other.step(batch(number), number)
        assert same(one, two)
    assert same(other.state(), trainer.state())
    assert torch.equal(flat(other.result), flat(trainer.result))


def test_a_state_names_all_that_changes():
    names = {"generator", "optimizer", "critic_optimizer", "critic/adv_low", "critic/adv_high", "schedule"}
    assert whole(0).state().keys() == names | {"critic_schedule", "ema"}


def test_another_trainer_s_state_is_refused():
    with pytest.raises(KeyError):
        whole(0).load_state(build((TV,)).state())


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_where_critics_wait_while_their_schedule_moves():
    whole(0).step(batch(), 1)  # critic_every is 2


def test_no_reference_is_needed_where_no_term_compares_with_it():
    trainer, data = build((TV, MSE), ("low",), (Counted("low").view,)), batch()
    assert not trainer.compares_with("reference") and trainer.compares_with("target") == {"image"}
    trainer.step(Batch(data.inputs, None, data.target), 1)


@pytest.mark.parametrize("part", ("generator", "critic"))
def test_a_weight_that_is_no_number_is_noticed(part):
    trainer = build((TV,), ("low",), (Counted("low").view,))
    assert trainer.finite()
    network = trainer.generator if part == "generator" else trainer.adversaries[0].critic
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    assert not trainer.finite()
