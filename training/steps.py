"""The paper's training step: a generator under balanced losses, against its critics (section 3.7, Eqs. 10 to 12)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from losses.balance import EPSILON, assign, balance, parameter_gradients
from training.averages import moving_average
from training.masks import Aligned
from training.unzeroed import UnzeroedGradients

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """The input of one step: tensors (N, ...) on the device."""

    inputs: Tensor  # the generator's input
    reference: Tensor | None  # the demosaiced rendering of the same mosaics, (N, 3, H, W), if a term compares with it
    target: Tensor  # photographs, (N, 3, H, W); of other scenes in unpaired training
    mask: Tensor | None = None  # (N, 1, H, W) bool: where targets are aligned with inputs; None: everywhere


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
    weight: float  # the norm of its gradient at the generator's parameters; in a plain sum, the loss's factor
    feature: str
    against: str | None  # "reference", "target", or None: the generated image alone
    loss: Callable[..., Tensor]  # (feature) or (feature, other feature) -> scalar


@dataclass(frozen=True)
class Adversary:
    """A critic of one feature, and the weight of its adversarial term in the generator's loss.

    `untrained` are parameters of the critic that its optimizer leaves out, and whose gradients therefore nobody zeroes:
    those of the generator's steps and of the critic's add up, and count in the norm to which the critic's gradient is
    clipped. The released code does so with a layer that it creates after the optimizer.
    """

    name: str
    weight: float
    feature: str
    critic: nn.Module  # feature (N, ...) -> logits (N,)
    every: int = 1  # steps from one update of the critic to the next
    untrained: Sequence[nn.Parameter] = ()


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
    clip_norm: float = 1.0  # the norm to which each critic's gradient is clipped
    warmup: int = 0  # first steps, in which only the critics are trained
    schedule: LRScheduler | None = None  # of the generator's learning rate (tasks.schedules builds it)
    critic_schedule: LRScheduler | None = None  # of the critics'
    ema_decay: float = 0.0  # of the moving average of the generator's weights; 0: no average
    balanced: bool = True  # by Dynamic Loss Adaptation (section 3.7); otherwise the losses' plain sum
    output: Callable[[nn.Module, Tensor], Tensor] | None = None  # (generator, inputs) -> what is trained of it, not all
    target_gradients: bool = False  # build graphs for the features of targets and references, which nothing needs
    average_: Callable[[Tensor], Tensor] | None = None  # replaces a gradient by its mean over all processes
    batched: bool | None = None  # how losses are carried through the generator: see losses.balance
    ema: AveragedModel | None = field(init=False, default=None)

    def __post_init__(self):
        self.parameters = list(self.generator.parameters())
        self.objectives = [*self.terms, *self.adversaries]  # all that the generator's loss consists of
        self.weights = torch.tensor([o.weight for o in self.objectives], device=self.parameters[0].device)
        self.unzeroed = {a.name: UnzeroedGradients(a.untrained) for a in self.adversaries if a.untrained}
        if self.unzeroed and not self.balanced:
            raise ValueError("only balanced losses count the gradients of a critic's untrained parameters")
        if self.ema_decay:
            self.ema = AveragedModel(self.generator, multi_avg_fn=moving_average(self.ema_decay), use_buffers=True)

    @property
    def result(self) -> nn.Module:
        """The generator to validate and save: the moving average, once there is one."""
        return self.ema.module if self.ema and self.ema.n_averaged > 0 else self.generator

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of the next step: {"lr/generator": ..., "lr/NAME": ...} with the name of each critic."""
        rates = {"lr/generator": self.optimizer.param_groups[0]["lr"]}
        if self.critic_optimizer:  # with a group for each critic, or one for all
            groups = self.critic_optimizer.param_groups
            rates |= {f"lr/{a.name}": groups[i % len(groups)]["lr"] for i, a in enumerate(self.adversaries)}
        return rates

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        """Update the generator, and each critic at every `every`-th `number`.

        Returns statistics, detached. They stay on the device: nothing in a step waits for it.
        """
        generated = self.output(self.generator, batch.inputs) if self.output else self.generator(batch.inputs)
        compared = {a.feature for a in self.adversaries} | self.compared_with("target")
        real = self._features_of(batch.target, compared)
        reference = self._features_of(batch.reference, self.compared_with("reference"))
        image = generated.detach().requires_grad_()
        aligned = None if batch.mask is None else Aligned(batch.target, batch.mask, self.average_)
        statistics, gradients, fake = self.image_gradients(image, real, reference, aligned)
        if number > self.warmup:
            statistics |= self._update_generator(generated, gradients)
        if due := [adversary for adversary in self.adversaries if number % adversary.every == 0]:
            statistics |= self._update_critics(due, fake, real)
        return statistics

    def image_gradients(
        self, image: Tensor, real: Features, reference: Features, aligned: Aligned | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Features]:
        """({"loss/NAME": value}, {name: gradient at `image`}) of all objectives, and the detached features of `image`.

        For an adversary with untrained parameters, the gradients at these follow as "NAME/0", "NAME/1", ...

        The objectives of one view are finished before the next view is computed, so that the graph of only one frozen
        network is in memory at a time.
        """
        losses, gradients, features = {}, {}, {}
        for view in (_IMAGE, *self.views):
            for shown, scale, objectives in self._shown(image, view, aligned):
                seen = dict(zip(view.names, view.compute(shown), strict=True))
                for objective in objectives:
                    loss = scale * self._loss(objective, seen[objective.feature], real, reference)
                    more = objective is not objectives[-1]
                    name, untrained = objective.name, getattr(objective, "untrained", ())
                    gradient, *others = torch.autograd.grad(loss, [image, *untrained], retain_graph=more)
                    gradients |= {name: gradient} | {f"{name}/{index}": other for index, other in enumerate(others)}
                    losses[f"loss/{name}"] = loss.detach()
                features |= {name: feature.detach() for name, feature in seen.items()}
        return losses, gradients, features

    def _shown(
        self, image: Tensor, view: View, aligned: Aligned | None
    ) -> Iterator[tuple[Tensor, Tensor | float, list[Term | Adversary]]]:
        """(an image, the factor of their losses, objectives): what a view is computed of, and for whom.

        The last one is `image` itself if a critic sees the view.
        """
        objectives = [objective for objective in self.objectives if objective.feature in view.names]
        parted = [o for o in objectives if aligned and getattr(o, "against", None) == "target"]
        if parted:
            yield aligned.paste(image), aligned.scale, parted
        if rest := [objective for objective in objectives if objective not in parted]:
            yield image, 1.0, rest

    def _loss(self, objective: Term | Adversary, feature: Tensor, real: Features, reference: Features) -> Tensor:
        if isinstance(objective, Adversary):
            return self.adversarial.generator(objective.critic, feature, real[objective.feature])
        others = {None: (), "target": (real,), "reference": (reference,)}[objective.against]
        return objective.loss(feature, *(other[objective.feature] for other in others))

    def _update_generator(self, generated: Tensor, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """A step along the balanced or plain sum of all `gradients`, which are as `image_gradients` returns them.

        Returns the norms of the whole batch's gradients at the parameters, over all processes.
        """
        norms = (self._balanced_gradient if self.balanced else self._plain_gradient)(generated, gradients)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        if self.ema:
            self.ema.update_parameters(self.generator)
        return norms

    def _plain_gradient(self, generated: Tensor, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Set the gradient of the losses' sum, each times its weight: summed at the image, and carried back once."""
        summed = sum(objective.weight * gradients[objective.name] for objective in self.objectives)
        total = parameter_gradients(generated, [summed], self.parameters, batched=False)[0]
        if self.average_:
            total = self.average_(total)
        assign(self.parameters, total)
        return {"norm/sum": total.norm()}

    def _balanced_gradient(self, generated: Tensor, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Set the gradient of Dynamic Loss Adaptation."""
        names = [objective.name for objective in self.objectives]
        rows = parameter_gradients(generated, [gradients[name] for name in names], self.parameters, self.batched)
        if self.average_:
            rows = self.average_(rows)
        total, norms = balance(rows, self.weights)
        assign(self.parameters, total)
        for index, name in enumerate(names):
            if unzeroed := self.unzeroed.get(name):
                others = [gradients[f"{name}/{i}"] for i in range(len(unzeroed.parameters))]
                if self.average_:  # as the state that the main process saves is that of all processes
                    others = [self.average_(other) for other in others]
                unzeroed.add(others, self.weights[index] / (norms[index] + EPSILON))
        return {f"norm/{name}": norm for name, norm in zip(names, norms.unbind(), strict=True)}

    def _update_critics(self, due: Sequence[Adversary], fake: Features, real: Features) -> dict[str, Tensor]:
        """Train critics on the features of the generator's step: no image or feature is computed again."""
        statistics = {}
        self.critic_optimizer.zero_grad()
        for adversary in due:
            feature = adversary.feature
            loss, details = self.adversarial.discriminator(adversary.critic, fake[feature], real[feature])
            loss.backward()
            parameters = list(adversary.critic.parameters())
            self._average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
            statistics |= {f"critic/{adversary.name}/{key}": value for key, value in details.items()}
        self.critic_optimizer.step()
        if self.critic_schedule:
            self.critic_schedule.step()
        return statistics

    def _average_gradients(self, parameters: Sequence[Tensor]) -> None:
        if self.average_:
            assign(parameters, self.average_(torch.cat([p.grad.flatten() for p in parameters])))

    def _features_of(self, image: Tensor | None, names: set[str]) -> Features:
        """The features of a target or reference; None only without names. They need no gradient."""
        if not names:
            return {}
        with torch.set_grad_enabled(self.target_gradients):
            return self.features(image.detach().requires_grad_(self.target_gradients), names)

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
        """Whether all weights and statistics are finite. Others must not be saved."""
        networks = [self.generator, self.result, *(adversary.critic for adversary in self.adversaries)]
        weights = (each for network in networks for each in (*network.parameters(), *network.buffers()))
        return all(bool(weight.isfinite().all()) for weight in weights)

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
        parts |= {f"unzeroed/{name}": gradients for name, gradients in self.unzeroed.items()}
        parts |= {"schedule": self.schedule, "critic_schedule": self.critic_schedule, "ema": self.ema}
        return {name: part for name, part in parts.items() if part is not None}
