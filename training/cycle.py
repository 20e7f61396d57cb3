"""The training step of two mappers between two cameras, against a critic of each (CycleGAN, Eqs. 8 to 12).

After *Generalizing ISP Model by Unsupervised Raw-to-raw Mapping*, section 3.3. The arithmetic is that of a step which
makes each of its six passes through the mappers on its own; here they are two, and no critic sees an image twice.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from losses.adversarial import least_squares


@dataclass(frozen=True)
class CameraBatch:
    """The input of one step: planes (N, C, h, w) of two cameras, of different scenes, on the device."""

    a: Tensor
    b: Tensor


class Replay:
    """Mapped patches of former steps (released code; Shrivastava et al., CVPR 2017).

    While there are fewer than `size`, a new patch is kept and returned. Then it is returned with probability 1/2, and
    otherwise takes the place of a kept one, which is returned.
    """

    def __init__(self, size: int):
        self.size, self.kept = size, []

    def __call__(self, patches: Tensor) -> Tensor:
        """Patches (N, C, h, w) to train a critic on, in place of these. Draws from torch's global random state."""
        returned = []
        for patch in patches.detach():
            if len(self.kept) < self.size:
                self.kept.append(patch.clone())
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                patch, self.kept[place] = self.kept[place], patch.clone()
            returned.append(patch)
        return torch.stack(returned)

    def state_dict(self) -> dict[str, Tensor]:
        return {str(index): patch for index, patch in enumerate(self.kept)}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        self.kept = [state[str(index)].to(device) for index in range(len(state))]


@dataclass
class CycleTrainer:
    """Everything that a run needs to train two mappers; `step` is the algorithm."""

    mapper: nn.Module  # (planes (N, C, h, w), to: "bbaa" maps equal parts to b, b, a, a) -> planes
    optimizer: torch.optim.Optimizer
    critics: Mapping[str, nn.Module]  # {"a": of mosaics of camera a, "b": of camera b}: planes -> logits
    critic_optimizer: torch.optim.Optimizer
    adversarial: float = 1.0  # weight; 0: the critics are not trained either
    cycle: float = 10.0  # weight
    identity: float = 5.0  # weight
    clip_norm: float = 0.0  # the norm to which the mappers' gradient is clipped; 0: not at all
    critic_scale: float = 1.0  # of the critics' loss (released code: 1/2)
    replay: int = 0  # mapped patches that are kept for the critics; 0: none
    ema_decay: float = 0.0  # of the moving average of the mappers' weights; 0: no average
    precision: Callable[[], AbstractContextManager] = nullcontext  # of the networks' arithmetic
    average_: Callable[[Tensor], Tensor] | None = None  # replaces a gradient by its mean over all processes
    ema: AveragedModel | None = field(init=False, default=None)

    def __post_init__(self):
        self.parameters = list(self.mapper.parameters())
        self.critic_parameters = [p for critic in self.critics.values() for p in critic.parameters()]
        self.replays = {camera: Replay(self.replay) for camera in self.critics} if self.replay else {}
        if self.ema_decay:
            self.ema = AveragedModel(self.mapper, multi_avg_fn=get_ema_multi_avg_fn(self.ema_decay))

    @property
    def result(self) -> nn.Module:
        """The mappers to validate and save: the moving average, once there is one."""
        return self.ema.module if self.ema and self.ema.n_averaged > 0 else self.mapper

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of the next step."""
        optimizers = {"lr/mapper": self.optimizer, "lr/critics": self.critic_optimizer}
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}

    def step(self, batch: CameraBatch, number: int) -> dict[str, Tensor]:
        """Update the mappers, then the critics, on the patches of this step. Returns statistics, detached."""
        real = {"a": batch.a, "b": batch.b}
        with self.precision():
            mapped = self.mapper(torch.cat((batch.a, batch.b, batch.b, batch.a)), "bbaa")
            fake_b, same_b, fake_a, same_a = _full(mapped).chunk(4)
            back = self.mapper(torch.cat((fake_b, fake_a)), "ab")
        again_a, again_b = _full(back).chunk(2)
        cycle = F.l1_loss(again_a, batch.a) + F.l1_loss(again_b, batch.b)  # Eq. 8
        identity = F.l1_loss(same_a, batch.a) + F.l1_loss(same_b, batch.b)  # Eq. 9
        fakes = {"a": fake_a, "b": fake_b}
        judged = {}
        if self.adversarial:
            judged = {camera: _Judged(self.critics[camera], fake, self.precision) for camera, fake in fakes.items()}
        self._update_mappers(self.cycle * cycle + self.identity * identity, fakes, judged)
        statistics = {"loss/cycle": cycle, "loss/identity": identity}
        statistics |= {f"loss/adversarial_{camera}": one.towards_real for camera, one in judged.items()}
        statistics |= self._update_critics(real, judged) if judged else {}
        return {name: value.detach() for name, value in statistics.items()}

    def _update_mappers(self, loss: Tensor, fakes: Mapping[str, Tensor], judged: Mapping[str, "_Judged"]) -> None:
        """One step down the gradient of Eq. 11. The critics' part enters where the mapped patches leave the mappers."""
        gradients = [self.adversarial * one.gradient() for one in judged.values()]
        self.optimizer.zero_grad()
        judged_fakes = [fakes[camera] for camera in judged]
        torch.autograd.backward([loss, *judged_fakes], [torch.ones_like(loss), *gradients])
        self._average_gradients(self.parameters)
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        if self.ema:
            self.ema.update_parameters(self.mapper)

    def _update_critics(self, real: Mapping[str, Tensor], judged: Mapping[str, "_Judged"]) -> dict[str, Tensor]:
        """One step down the gradient of Eq. 12, with the logits of the mapped patches that are known already."""
        statistics, total = {}, 0
        for camera, one in judged.items():
            with self.precision():
                real_logits = _full(one.critic(real[camera]))
                fake_logits = one.logits
                if self.replays:
                    fake_logits = _full(one.critic(self.replays[camera](one.fake)))
            total = total + least_squares(real_logits, 1) + least_squares(fake_logits, 0)
            statistics |= {
                f"critic/{camera}/real": real_logits.mean(),
                f"critic/{camera}/fake": fake_logits.mean(),
            }
        self.critic_optimizer.zero_grad()
        (self.critic_scale * total).backward(inputs=self.critic_parameters)
        self._average_gradients(self.critic_parameters)
        self.critic_optimizer.step()
        return statistics | {"loss/critics": total}

    def _average_gradients(self, parameters: list[nn.Parameter]) -> None:
        if not self.average_:
            return
        rows = self.average_(torch.cat([p.grad.flatten() for p in parameters]))
        for parameter, row in zip(parameters, rows.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(row.view_as(parameter))

    def finite(self) -> bool:
        """Whether all weights are finite. Others must not be saved."""
        networks = [self.mapper, self.result, *self.critics.values()]
        tensors = (tensor for network in networks for tensor in network.state_dict().values())
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def state(self) -> dict[str, dict]:
        """Everything that changes from step to step, as state dicts by name."""
        return {name: part.state_dict() for name, part in self._parts().items()} | {
            f"replay/{camera}": replay.state_dict() for camera, replay in self.replays.items()
        }

    def load_state(self, state: dict[str, dict]) -> None:
        """Continue from a `state`. Raises KeyError or RuntimeError if it belongs to another trainer."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for optimizer in (self.optimizer, self.critic_optimizer):
            _lay_out(optimizer)
        for camera, replay in self.replays.items():
            replay.load_state_dict(state[f"replay/{camera}"], self.parameters[0].device)

    def _parts(self) -> dict:
        parts = {"mapper": self.mapper, "optimizer": self.optimizer, "critic_optimizer": self.critic_optimizer}
        parts |= {f"critic/{camera}": critic for camera, critic in self.critics.items()}
        return parts | ({"ema": self.ema} if self.ema else {})


class _Judged:
    """Mapped patches, cut off from the mappers, and what a critic says of them: computed once, used by both sides."""

    def __init__(self, critic: nn.Module, fake: Tensor, precision: Callable[[], AbstractContextManager]):
        self.critic, self.fake = critic, fake.detach().requires_grad_()
        with precision():
            self.logits = _full(critic(self.fake))
        self.towards_real = least_squares(self.logits, 1)  # Eq. 10

    def gradient(self) -> Tensor:
        """The gradient of `towards_real` at the patches; the graph is kept for the critic's own step."""
        return torch.autograd.grad(self.towards_real, self.fake, retain_graph=True)[0]


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give averages the memory layout of their parameters. Fused kernels pair values by their place in memory."""
    for parameter, averages in optimizer.state.items():
        for name, values in averages.items():
            if values.shape == parameter.shape:
                averages[name] = torch.empty_like(parameter).copy_(values)


def _full(values: Tensor) -> Tensor:
    """At least float32, in which losses are computed."""
    return values.float() if values.itemsize < 4 else values
