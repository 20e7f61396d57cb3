"""The paper's training step: a generator under balanced losses, against its critics (section 3.7, Eqs. 10 to 12)."""

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
    """The input of one step: tensors (N, ...) on the device."""

    inputs: Tensor  # the generator's input
    reference: Tensor | None  # the demosaiced rendering of the same mosaics, (N, 3, H, W), if a term compares with it
    target: Tensor  # photographs, (N, 3, H, W); of other scenes in unpaired training


@dataclass(frozen=True)
class View:
    """Features of an image: `compute(image)` gives those in `names`, in that order, usually by a frozen network."""

    names: tuple[str, ...]
    compute: Callable[[Tensor], Iterable[Tensor]]


_IMAGE = View(("image",), lambda image: (image,))  # the image itself is a feature, too


@dataclass(frozen=True)
class Term:
    """A loss on one feature of the generated image, alone or compared with the same feature of another image."""

    name: str
    weight: float  # the norm of its gradient at the generator's parameters
    feature: str
    against: str | None  # "reference", "target", or None: the generated image alone
    loss: Callable[..., Tensor]  # (feature) or (feature, other feature) -> scalar


@dataclass(frozen=True)
class Adversary:
    """A critic of one feature, and the weight of its adversarial term in the generator's loss."""

    name: str
    weight: float
    feature: str
    critic: nn.Module  # feature (N, ...) -> logits (N,)


class AdversarialLoss(Protocol):
    """The losses of generator and critics on features (N, ...), such as `losses.adversarial.RelativisticLoss`."""

    def generator(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor: ...

    def discriminator(self, critic: nn.Module, fake: Tensor, real: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass
class Trainer:
    """Everything that one stage of training needs; `step` is the algorithm.

    Each of the `views` is computed once for the generated image and once for each image that it is compared with.
    """

    generator: nn.Module
    optimizer: torch.optim.Optimizer
    views: Sequence[View]
    terms: Sequence[Term]
    adversaries: Sequence[Adversary] = ()
    critic_optimizer: torch.optim.Optimizer | None = None
    adversarial: AdversarialLoss | None = None
    critic_every: int = 1  # steps from one update of the critics to the next
    clip_norm: float = 1.0  # the norm to which each critic's gradient is clipped
    schedule: LRScheduler | None = None  # of the generator's learning rate (tasks.modes builds it)
    critic_schedule: LRScheduler | None = None  # of the critics'
    ema_decay: float = 0.0  # of the moving average of the generator's weights; 0: no average
    average_: Callable[[Tensor], Tensor] | None = None  # replaces a gradient by its mean over all processes
    ema: AveragedModel | None = field(init=False, default=None)

    def __post_init__(self):
        self.parameters = list(self.generator.parameters())
        self.objectives = [*self.terms, *self.adversaries]  # all that the generator's loss consists of
        self.weights = torch.tensor([o.weight for o in self.objectives], device=self.parameters[0].device)
        if self.ema_decay:
            self.ema = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(self.ema_decay))

    @property
    def result(self) -> nn.Module:
        """The generator to validate and save: the moving average, once there is one."""
        return self.ema.module if self.ema and self.ema.n_averaged > 0 else self.generator

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        """Update the generator and, at every `critic_every`-th `number`, the critics.

        Returns statistics, detached. They stay on the device: nothing in a step waits for it.
        """
        generated = self.generator(batch.inputs)
        with torch.no_grad():
            real = self.features(batch.target, {a.feature for a in self.adversaries} | self.compared_with("target"))
            reference = self.features(batch.reference, self.compared_with("reference"))
        image = generated.detach().requires_grad_()
        statistics, image_gradients, fake = self.image_gradients(image, real, reference)
        statistics |= self._update_generator(generated, image_gradients)
        if self.adversaries and number % self.critic_every == 0:
            statistics |= self._update_critics(fake, real)
        return statistics

    def image_gradients(
        self, image: Tensor, real: Features, reference: Features
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Features]:
        """({"loss/NAME": value}, {name: gradient at `image`}) of all objectives, and the detached features of `image`.

        The objectives of one view are finished before the next view is computed, so that the graph of only one frozen
        network is in memory at a time.
        """
        losses, gradients, features = {}, {}, {}
        for view in (_IMAGE, *self.views):
            objectives = [objective for objective in self.objectives if objective.feature in view.names]
            seen = dict(zip(view.names, view.compute(image), strict=True)) if objectives else {}
            for objective in objectives:
                loss = self._loss(objective, seen[objective.feature], real, reference)
                more = objective is not objectives[-1]
                (gradients[objective.name],) = torch.autograd.grad(loss, image, retain_graph=more)
                losses[f"loss/{objective.name}"] = loss.detach()
            features |= {name: feature.detach() for name, feature in seen.items()}
        return losses, gradients, features

    def _loss(self, objective: Term | Adversary, feature: Tensor, real: Features, reference: Features) -> Tensor:
        if isinstance(objective, Adversary):
            return self.adversarial.generator(objective.critic, feature, real[objective.feature])
        others = {None: (), "target": (real,), "reference": (reference,)}[objective.against]
        return objective.loss(feature, *(other[objective.feature] for other in others))

    def _update_generator(self, generated: Tensor, image_gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Dynamic Loss Adaptation; the norms are those of the whole batch's gradients, over all processes."""
        names = [objective.name for objective in self.objectives]
        gradients = parameter_gradients(generated, [image_gradients[name] for name in names], self.parameters)
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
        """Train the critics on the features of the generator's step: no image or feature is computed again."""
        statistics = {}
        self.critic_optimizer.zero_grad()
        for adversary in self.adversaries:
            feature = adversary.feature
            loss, details = self.adversarial.discriminator(adversary.critic, fake[feature], real[feature])
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

    def features(self, image: Tensor, names: set[str]) -> Features:
        """The features of an image in `names`, and others that the same views give."""
        found = {}
        for view in (_IMAGE, *self.views):
            if names.intersection(view.names):
                found |= zip(view.names, view.compute(image), strict=True)
        return found

    def compared_with(self, other: str) -> set[str]:
        """The features that terms compare with those of `other`: "reference" or "target"."""
        return {term.feature for term in self.terms if term.against == other}

    def finite(self) -> bool:
        """Whether all weights are finite. Others must not be saved."""
        networks = [self.generator, self.result, *(adversary.critic for adversary in self.adversaries)]
        return all(bool(p.isfinite().all()) for network in networks for p in network.parameters())

    def state(self) -> dict[str, dict]:
        """Everything that changes from step to step, as state dicts by name."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state(self, state: dict[str, dict]) -> None:
        """Continue from a `state`. Raises KeyError or RuntimeError if it belongs to another trainer."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict:
        parts = {"generator": self.generator, "optimizer": self.optimizer, "critic_optimizer": self.critic_optimizer}
        parts |= {f"critic/{a.name}": a.critic for a in self.adversaries}
        parts |= {"schedule": self.schedule, "critic_schedule": self.critic_schedule, "ema": self.ema}
        return {name: part for name, part in parts.items() if part is not None}
