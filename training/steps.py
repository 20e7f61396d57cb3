"""The training step: a generator under several losses, balanced, against its critics (section 3.7, Eqs. 10 to 12)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from losses.balance import assign, balance, parameter_gradients

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What one step sees. All (N, ...), on the device."""

    inputs: Tensor  # the generator's input
    reference: Tensor | None  # the demosaiced rendering of the same mosaics, (N, 3, H, W), where a term needs it
    target: Tensor  # photographs, of other scenes if training is unpaired, (N, 3, H, W)


@dataclass(frozen=True)
class View:
    """A frozen network's look at an image: `compute(image)` gives the features called `names`."""

    names: tuple[str, ...]
    compute: Callable[[Tensor], Iterable[Tensor]]


_PLAIN = View(("image",), lambda image: (image,))


@dataclass(frozen=True)
class Term:
    """A loss on one feature of the generated image, alone or with that of `against`: "reference" or "target"."""

    name: str
    weight: float
    feature: str
    against: str | None
    loss: Callable[..., Tensor]


@dataclass(frozen=True)
class Adversary:
    """A critic of one feature: an adversarial term for the generator, and what judges it."""

    name: str
    weight: float
    feature: str
    critic: nn.Module


class Game(Protocol):
    """What generator and critics play for, on features (N, ...): `losses.adversarial.RelativisticLoss`."""

    def generator(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor: ...

    def discriminator(self, critic: nn.Module, fake: Tensor, real: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass
class Trainer:
    """All that one stage of training needs; `step` is the algorithm.

    `views` are run once on the generated image and once on each image that a term compares it with. Where several
    processes share a batch, `average_` replaces a gradient by its mean over all of them.
    """

    generator: nn.Module
    optimizer: torch.optim.Optimizer
    views: Sequence[View]
    terms: Sequence[Term]
    adversaries: Sequence[Adversary] = ()
    critic_optimizer: torch.optim.Optimizer | None = None
    game: Game | None = None
    critic_every: int = 1  # the critics learn every so many steps
    clip_norm: float = 1.0  # of each critic's gradient
    schedule: LRScheduler | None = None  # steps with the generator
    critic_schedule: LRScheduler | None = None  # steps with the critics
    ema_decay: float = 0.0  # 0 is no average
    average_: Callable[[Tensor], Tensor] | None = None
    ema: AveragedModel | None = field(init=False, default=None)

    def __post_init__(self):
        self.parameters = list(self.generator.parameters())
        self.judges = [*self.terms, *self.adversaries]
        self.weights = torch.tensor([judge.weight for judge in self.judges], device=self.parameters[0].device)
        if self.ema_decay:
            self.ema = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(self.ema_decay))

    @property
    def result(self) -> nn.Module:
        """The generator to keep: the average, once there is one."""
        return self.ema.module if self.ema and self.ema.n_averaged > 0 else self.generator

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        """One update of the generator and, every `critic_every`-th `number`, of the critics.

        Returns statistics, which stay on the device: nothing here waits for it.
        """
        generated = self.generator(batch.inputs)
        with torch.no_grad():
            real = self.look(batch.target, {a.feature for a in self.adversaries} | self.compares_with("target"))
            reference = self.look(batch.reference, self.compares_with("reference"))
        statistics, at_image, fake = self._judge(generated.detach().requires_grad_(), real, reference)
        statistics |= self._update_generator(generated, at_image)
        if self.adversaries and number % self.critic_every == 0:
            statistics |= self._update_critics(fake, real)
        return statistics

    def _judge(self, image: Tensor, real: Features, reference: Features) -> tuple[dict, dict[str, Tensor], Features]:
        """What each judge says of the generated `image`: its loss, its gradient there; and what was seen, detached.

        A view is judged before the next one looks: so no more than one frozen network's graph is alive.
        """
        losses, gradients, fake = {}, {}, {}
        for view in (_PLAIN, *self.views):
            judges = [judge for judge in self.judges if judge.feature in view.names]
            features = dict(zip(view.names, view.compute(image), strict=True)) if judges else {}
            for judge in judges:
                loss = self._loss(judge, features[judge.feature], real, reference)
                more = judge is not judges[-1]
                (gradients[judge.name],) = torch.autograd.grad(loss, image, retain_graph=more)
                losses[f"loss/{judge.name}"] = loss.detach()
            fake |= {name: feature.detach() for name, feature in features.items()}
        return losses, gradients, fake

    def _loss(self, judge: Term | Adversary, feature: Tensor, real: Features, reference: Features) -> Tensor:
        if isinstance(judge, Adversary):
            return self.game.generator(judge.critic, feature, real[judge.feature])
        compared = {None: (), "target": (real,), "reference": (reference,)}[judge.against]
        return judge.loss(feature, *(other[judge.feature] for other in compared))

    def _update_generator(self, generated: Tensor, at_image: dict[str, Tensor]) -> dict[str, Tensor]:
        """Dynamic Loss Adaptation: the norms are those of the whole batch's gradients."""
        names = [judge.name for judge in self.judges]
        gradients = parameter_gradients(generated, [at_image[name] for name in names], self.parameters)
        if self.average_:
            gradients = self.average_(gradients)
        total, norms = balance(gradients, self.weights)
        assign(self.parameters, total)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        if self.ema:
            self.ema.update_parameters(self.generator)
        return {f"norm/{name}": norm for name, norm in zip(names, norms.unbind(), strict=True)}

    def _update_critics(self, fake: Features, real: Features) -> dict[str, Tensor]:
        """The critics judge what the generator's step has made: nothing is generated or looked at again."""
        statistics = {}
        self.critic_optimizer.zero_grad()
        for adversary in self.adversaries:
            feature = adversary.feature
            loss, details = self.game.discriminator(adversary.critic, fake[feature], real[feature])
            loss.backward()
            trained = [p for p in adversary.critic.parameters() if p.requires_grad]
            self._average_gradients(trained)
            nn.utils.clip_grad_norm_(trained, self.clip_norm)
            statistics |= {f"critic/{adversary.name}/{key}": value for key, value in details.items()}
        self.critic_optimizer.step()
        if self.critic_schedule:
            self.critic_schedule.step()
        return statistics

    def _average_gradients(self, parameters: Sequence[Tensor]) -> None:
        if self.average_:
            assign(parameters, self.average_(torch.cat([p.grad.flatten() for p in parameters])))

    def look(self, image: Tensor, wanted: set[str]) -> Features:
        """The `wanted` features of an image; "image" is the image itself."""
        features = {}
        for view in (_PLAIN, *self.views):
            if wanted.intersection(view.names):
                features |= zip(view.names, view.compute(image), strict=True)
        return features

    def compares_with(self, what: str) -> set[str]:
        """The features that terms compare with those of `what` ("reference" or "target")."""
        return {term.feature for term in self.terms if term.against == what}

    def finite(self) -> bool:
        """Whether every weight is a number: what is not must not be saved."""
        networks = [self.generator, self.result, *(adversary.critic for adversary in self.adversaries)]
        return all(bool(p.isfinite().all()) for network in networks for p in network.parameters())

    def state(self) -> dict[str, dict]:
        """Everything between two steps, as state dicts by name."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state(self, state: dict[str, dict]) -> None:
        """Take up a `state`; raises KeyError or RuntimeError where it is another trainer's."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict:
        parts = {"generator": self.generator, "optimizer": self.optimizer, "critic_optimizer": self.critic_optimizer}
        parts |= {f"critic/{a.name}": a.critic for a in self.adversaries}
        parts |= {"schedule": self.schedule, "critic_schedule": self.critic_schedule, "ema": self.ema}
        return {name: part for name, part in parts.items() if part is not None}
