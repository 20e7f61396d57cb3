"""A small trainer for tests: a two-layer generator, frozen convolutions as views, and small critics, in float64."""

import torch
from torch import nn

from losses.adversarial import RelativisticLoss
from losses.content import ContentLoss
from losses.perceptual import MSELoss
from losses.total_variation import TotalVariation
from training.steps import Adversary, Batch, Term, Trainer, View

TV = Term("tv", 1.0, "image", None, TotalVariation())
CONTENT = Term("content", 0.5, "content", "reference", ContentLoss())
MSE = Term("mse", 2.0, "image", "target", MSELoss())


def make_batch(seed: int = 0) -> Batch:
    """Inputs, reference and target, (2, 3, 8, 8) each, random."""
    generators = (torch.Generator().manual_seed(3 * seed + i) for i in range(3))
    return Batch(*(torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64) for generator in generators))


class Critic(nn.Module):
    """Features (N, 4, H, W) -> logits (N,)."""

    def __init__(self):
        super().__init__()
        self.conv, self.line = nn.Conv2d(4, 5, 3), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(self.conv(x).tanh().mean((2, 3))).squeeze(1)


class RecordingView:
    """A view of a frozen convolution with 4 channels for each of the `names`; `images` lists its inputs."""

    def __init__(self, *names: str, seed: int = 0):
        torch.manual_seed(seed)
        self.network = nn.Conv2d(3, 4 * len(names), 3).double().requires_grad_(False)
        self.images = []
        self.view = View(names, self.compute)

    def compute(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.images.append(image.detach().clone())
        return self.network(image).tanh().split(4, dim=1)


class RecordingLoss(RelativisticLoss):
    """The adversarial loss; `features` lists the features that the critics were trained on."""

    def __init__(self, gamma: float):
        super().__init__(gamma)
        self.features = []

    def discriminator(self, critic, fake, real):
        self.features.append((fake, real))
        return super().discriminator(critic, fake, real)


def make_trainer(
    terms=(),
    features=(),
    views=(),
    optimizer=torch.optim.SGD,
    lr=1.0,
    seed=0,
    weight=1.0,
    gamma=10.0,
    every=(1,),
    untrained="",
    **options,
) -> Trainer:
    """A trainer with a critic "adv_NAME" of each of `features`, whose adversarial terms have this `weight`.

    `every` holds the steps between updates, of one critic after another, or for all; `untrained` names a layer of the
    critics that their optimizer leaves out.
    """
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)).double()
    adversaries, parameters = [], []
    for index, feature in enumerate(features):
        critic = Critic().double()
        left_out = tuple(getattr(critic, untrained).parameters()) if untrained else ()
        adversaries.append(Adversary(f"adv_{feature}", weight, feature, critic, every[index % len(every)], left_out))
        parameters += [p for p in critic.parameters() if not any(p is other for other in left_out)]
    critic_optimizer = optimizer(parameters, lr) if parameters else None
    generator_optimizer = optimizer(generator.parameters(), lr)
    loss = RecordingLoss(gamma)
    return Trainer(generator, generator_optimizer, views, terms, adversaries, critic_optimizer, loss, **options)


def flat(module: nn.Module) -> torch.Tensor:
    """A copy of all parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def flat_gradient(module: nn.Module) -> torch.Tensor:
    """The gradients of all parameters as one vector."""
    return torch.cat([p.grad.flatten() for p in module.parameters()])
