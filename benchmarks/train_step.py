"""Times the unpaired training step against the published procedure, and against its frozen networks alone, the floor.

python benchmarks/train_step.py [--device cpu] [--batch 4] [--precision float32|tf32|bf16] [--compile] [--json FILE]

All have the same networks and the same batch, and take turns in one process. This repository's step starts from
mosaics, as in fit.py; the published procedure gets the demosaiced reference, which its data loader renders. Steps with
and without an update of the critics are timed separately, and averaged as often as `train.critic_every` says.
"""

import argparse
import copy
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from common import alternate, label, machine, parser, peak_memory, positive, ratios, report, seconds, spread
from torch import Tensor, nn
from torch.nn import functional as F

from config import PRESETS, Backbones, Config
from data.inputs import prepare
from data.reference import Reference
from data.sensor import Sensor
from errors import run_cli
from losses.color import gaussian_kernel
from losses.content import luminance3
from models import model_spec
from tasks.device import choose_device, set_precision
from tasks.features import Networks, autocast, grey3, resize
from tasks.isp import build_generator
from tasks.modes import build_trainer
from training.steps import Batch, Trainer

WITH_CRITICS = ", critics"  # ends the name of a step that also updates the critics


class Published:
    """The procedure of the released code, reimplemented.

    Each loss is backpropagated to the generator for its norm, again for its logged norm, and once more in the sum of
    all losses. Each frozen network runs again for every term, on the generated image and on the image that it is
    compared with, and again for the critics. Both images are blurred with the 21x21 kernel at once, and resized, before
    the ViT. Features of targets are computed with gradients enabled; so are the critics' features, before they are
    detached. The ViT's parameters get gradients, too; those of VGG-19 and AlexNet do not. With
    `target_gradients=False`, the features of targets and those for the critics have no graph, which nothing needs.
    """

    def __init__(
        self,
        generator: nn.Module,
        trainer: Trainer,
        networks: Networks,
        lr: float,
        target_gradients: bool,
        cast: Callable[[], AbstractContextManager],
    ):
        self.generator = copy.deepcopy(generator)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr, (0.5, 0.9))
        self.critics = {a.name: copy.deepcopy(a.critic) for a in trainer.adversaries}
        self.critic_optimizers = [torch.optim.Adam(c.parameters(), lr, (0.5, 0.9)) for c in self.critics.values()]
        self.adversarial, self.target_gradients, self.cast = trainer.adversarial, target_gradients, cast
        vgg, alexnet, vit = (copy.deepcopy(networks(name)).float() for name in ("vgg", "alexnet", "vit"))
        for network in (vgg, alexnet):
            network.to(memory_format=torch.contiguous_format)
        vit.requires_grad_(True)
        self.content = lambda image: vgg(luminance3(image))
        kernel = gaussian_kernel().float().to(networks.device)
        self.kernel = torch.outer(kernel, kernel).expand(3, 1, -1, -1)
        self.features = {
            "color": lambda image: vit(resize(F.conv2d(image, self.kernel, padding="same", groups=3), 224)),
            "lin0": lambda image: alexnet(grey3(image))["relu1"],
            "lin3": lambda image: alexnet(grey3(image))["relu4"],
        }
        self.networks = (vgg, alexnet, vit)

    def losses(self, generated: Tensor, reference: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The generator's losses by name."""
        with self.cast():
            content = (self.content(generated) - self.content(reference)).float()
        down, across = generated.diff(dim=2), generated.diff(dim=3)
        losses = {"content": 2 * content.square().sum() / content[0].numel()}
        losses["tv"] = down.square().mean() + across.square().mean()
        for name, critic in self.critics.items():
            with self.cast():
                fake = self.features[name](generated).float()
                with torch.set_grad_enabled(self.target_gradients):
                    real = self.features[name](target).float()
            losses[name] = nn.functional.softplus(critic(real) - critic(fake)).mean()
        return losses

    def norm(self, loss: Tensor) -> Tensor:
        """The norm of a loss's gradient at the generator's parameters."""
        self.generator.zero_grad()
        loss.backward(retain_graph=True)
        return torch.cat([p.grad.flatten() for p in self.generator.parameters()]).norm()

    def step(self, inputs: Tensor, reference: Tensor, target: Tensor, critics: bool) -> dict[str, float]:
        """Update the generator and, with `critics`, the critics. Returns the norms of the scaled losses' gradients."""
        generated = self.generator(inputs)
        losses = self.losses(generated, reference, target)
        scaled = {name: loss / (self.norm(loss).item() + 1e-8) for name, loss in losses.items()}
        logged = {name: self.norm(loss).item() for name, loss in scaled.items()}
        self.generator.zero_grad()
        sum(scaled.values()).backward()
        self.optimizer.step()
        if critics:
            self.update_critics(generated, target)
        for module in (*self.networks, *self.critics.values()):
            module.zero_grad()
        return logged

    def update_critics(self, generated: Tensor, target: Tensor) -> None:
        """Train each critic on features that are computed again."""
        for (name, critic), optimizer in zip(self.critics.items(), self.critic_optimizers, strict=True):
            with torch.set_grad_enabled(self.target_gradients), self.cast():
                fake, real = self.features[name](generated).float(), self.features[name](target).float()
            critic.zero_grad()
            self.adversarial.discriminator(critic, fake, real)[0].backward()
            nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
            optimizer.step()


class Floor:
    """The frozen networks alone: each once forward for every image that it is needed for, and once backward.

    The backward pass goes to the generated image.
    """

    def __init__(self, networks: Networks, cast: Callable[[], AbstractContextManager]):
        self.networks, self.cast = [networks(name) for name in ("vgg", "alexnet", "vit")], cast
        self.resized = networks.resized

    def step(self, generated: Tensor, reference: Tensor, target: Tensor) -> None:
        """Run VGG-19 on `generated` and `reference`, and AlexNet and the ViT on `generated` and `target`."""
        vgg, _, vit = self.networks
        for network in self.networks:
            other = reference if network is vgg else target
            image = generated.detach()
            for function in self.resized if network is vit else ():
                image, other = function(image), function(other)
            image.requires_grad_()
            with self.cast():
                outputs = network(image)
                with torch.no_grad():
                    network(other)
            outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
            torch.autograd.grad(outputs, image, [torch.ones_like(output) for output in outputs])


def build_config(given: argparse.Namespace) -> Config:
    """The preset's config, with what the command line changes."""
    base = PRESETS[given.preset]
    return dataclasses.replace(
        base,
        seed=0,
        data=dataclasses.replace(base.data, patch=given.patch, batch=given.batch),
        backbones=Backbones(given.weights, given.vgg_file, vit=given.vit),
        compute=dataclasses.replace(base.compute, precision=given.precision, compile=given.compile),
    )


def build_steps(config: Config, device: torch.device) -> tuple[dict[str, Callable[[], Any]], Networks]:
    """(the steps to time, by name; the frozen networks). All but the floor come with and without the critics' update.

    They have random mosaics and targets.
    """
    name, generator = build_generator(config.model, "")
    generator.to(device, memory_format=torch.channels_last)
    networks, cast = Networks(config, device), autocast(config.compute, device)
    trainer = build_trainer(config, generator, networks)
    data, input_format, random = config.data, model_spec(name).input_format, torch.Generator().manual_seed(0)
    mosaic = torch.rand(data.batch, 1, data.patch, data.patch, generator=random).to(device)
    target = torch.rand(data.batch, 3, data.patch, data.patch, generator=random).to(device)
    sensor = Sensor(data.cfa, data.black_level, data.white_level)
    render = Reference(sensor)
    span, inputs, reference = render.span(mosaic), prepare(mosaic, sensor, input_format), render(mosaic)

    def step(number: int) -> None:
        trainer.step(Batch(prepare(mosaic, sensor, input_format), render(mosaic, span), target), number)

    steps = {"ours": partial(step, 1), f"ours{WITH_CRITICS}": partial(step, config.train.critic_every)}
    steps["floor"] = partial(Floor(networks, cast).step, target, reference, target)
    procedures = {"published": (True, nullcontext), "published, targets without gradients": (False, nullcontext)}
    if config.compute.precision == "bf16":
        procedures["published, bf16"] = (True, cast)
    for name, (target_gradients, context) in procedures.items():
        procedure = Published(generator, trainer, networks, config.train.lr, target_gradients, context)
        steps[name] = partial(procedure.step, inputs, reference, target, critics=False)
        steps[f"{name}{WITH_CRITICS}"] = partial(procedure.step, inputs, reference, target, critics=True)
    return steps, networks


def seconds_an_image(times: dict[str, list[float]], batch: int, critic_every: int) -> dict[str, list[float]]:
    """{step: seconds an image of each measurement}: means over `critic_every` steps, one of which updates the critics.

    `times` are the seconds of each step of `build_steps`.
    """
    means = {}
    for name, plain in times.items():
        if not name.endswith(WITH_CRITICS):
            with_critics = times.get(name + WITH_CRITICS, plain)  # the floor has no critics
            both = zip(plain, with_critics, strict=True)
            means[name] = [((critic_every - 1) * a + b) / critic_every / batch for a, b in both]
    return means


def compare(means: dict[str, list[float]], memory: dict[str, float]) -> tuple[dict[str, Any], list[tuple]]:
    """(figures, rows of the table) from the seconds an image and the memory (MiB) of each step."""
    ours, published = means["ours"], [name for name in means if name not in ("ours", "floor")]
    floor_ratio = ratios(ours, means["floor"])
    figures = {
        "seconds_an_image": {name: spread(values) for name, values in means.items()},
        "peak_memory_mib": memory,
        "ratio_published": ratios(means["published"], ours)["median"],
        "ratio_floor": floor_ratio["median"],
        "ratios": {"ours over floor": floor_ratio}
        | {f"{name} over ours": ratios(means[name], ours) for name in published},
    }
    rows = [("", "seconds an image", "lowest", "highest", "times this repository's", "MiB added")]
    for name, values in figures["seconds_an_image"].items():
        ratio = spread([a / b for a, b in zip(means[name], ours, strict=True)])["median"]
        rows.append((label(name), *values.values(), ratio, float(memory[name])))
    return figures, rows


def parse() -> argparse.Namespace:
    """The command line."""
    presets = [name for name in PRESETS if name != "demo"]
    options = parser(__doc__, repeats=5)
    options.add_argument("--device", default="auto", help="as for fit.py (%(default)s)")
    options.add_argument("--preset", default="fujifilm-efficient", choices=presets, help="config (%(default)s)")
    options.add_argument("--batch", type=positive, default=32, help="patches in a step (%(default)s)")
    options.add_argument("--patch", type=positive, default=256, help="side of a patch in pixels (%(default)s)")
    precisions, weights = ("float32", "tf32", "bf16"), ("auto", "random", "pretrained")
    options.add_argument("--precision", choices=precisions, default="float32", help="this repository's (%(default)s)")
    options.add_argument("--compile", action="store_true", help="compile this repository's frozen networks")
    options.add_argument("--weights", choices=weights, default="auto", help="frozen networks' weights (%(default)s)")
    options.add_argument("--vgg-file", default="", help="backbones.vgg_file: file with the weights of VGG-19")
    options.add_argument("--vit", default="vit_base_patch16_224", help="the ViT's name in timm (%(default)s)")
    given = options.parse_args()
    if given.vgg_file and given.weights == "random":
        options.error("--vgg-file has no effect with --weights random")
    return given


def main() -> None:
    given = parse()
    config, device = build_config(given), choose_device(given.device)
    set_precision(config.compute)
    torch.manual_seed(0)
    steps, networks = build_steps(config, device)
    first = seconds(steps["ours"], device)  # including compilation
    memory = {name: peak_memory(run, device) for name, run in steps.items() if not name.endswith(WITH_CRITICS)}
    times = alternate(steps, given.repeats, device)
    comparison, rows = compare(seconds_an_image(times, given.batch, config.train.critic_every), memory)
    figures = {
        "benchmark": "train_step",
        "machine": machine(device),
        "config": {"preset": given.preset, "batch": given.batch, "patch": given.patch, "vit": given.vit}
        | dataclasses.asdict(config.compute)
        | {"weights": networks.provenance},
        "repeats": given.repeats,
        **comparison,
        "first_step_seconds": round(first, 2),
    }
    title = f"Training step, {given.preset}, {given.batch} x {given.patch}x{given.patch}, {device}, {given.precision}"
    report(title, figures, rows, given.json)
    floor_ratio = comparison["ratio_floor"]
    print(f"  this repository takes {floor_ratio:.3f} times the floor's time; its first step took {first:.1f} s")


if __name__ == "__main__":
    run_cli(main)
