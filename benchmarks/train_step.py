"""The unpaired training step beside the published procedure, and beside the bare frozen networks: the floor.

python benchmarks/train_step.py [--device cpu] [--batch 4] [--precision float32|tf32|bf16] [--compile] [--json FILE]

All three have the same networks and the same batch, and alternate in one process. Ours starts from mosaics, as fit.py
does; the published procedure is given the demosaiced reference, which its loader makes. A step with the critics' update
and one without are measured apart, and weighed as `train.critic_every` says.
"""

import copy
import dataclasses
from contextlib import nullcontext

import torch
from common import alternate, machine, parser, peak_memory, ratios, report, seconds, spread  # noqa: I001 - finds ours
from torch import Tensor, nn

from build import Networks, autocast, build_generator, build_trainer, choose_device, grey3, set_precision
from config import PRESETS, Backbones, Config
from data.demosaic import Reference
from data.sensor import Sensor, prepare
from errors import run_cli
from losses.content import luminance3
from training.steps import Batch, Trainer


class Published:
    """The released procedure, in our own words.

    Each loss is backpropagated to the generator for its norm, again for its logged norm, and all again in the sum. Each
    frozen network is run anew for every term, on the generated image and on what it is compared with, and again for the
    discriminators. The ViT's parameters get gradients too. `lean` does not look at the targets with gradients.
    """

    def __init__(self, generator: nn.Module, trainer: Trainer, networks: Networks, lr: float, lean: bool, cast):
        self.generator = copy.deepcopy(generator)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr, (0.5, 0.9))
        self.critics = {a.name: copy.deepcopy(a.critic) for a in trainer.adversaries}
        self.critic_optimizers = [torch.optim.Adam(c.parameters(), lr, (0.5, 0.9)) for c in self.critics.values()]
        self.game, self.lean, self.cast = trainer.game, lean, cast
        vgg, alexnet, vit = (copy.deepcopy(networks(name)).float() for name in ("vgg", "alexnet", "vit"))
        for network in (vgg, alexnet):
            network.to(memory_format=torch.contiguous_format)
        vit.requires_grad_(True)
        self.content = lambda image: vgg(luminance3(image))
        self.looks = {
            "color": vit,
            "lin0": lambda image: alexnet(grey3(image))["relu1"],
            "lin3": lambda image: alexnet(grey3(image))["relu4"],
        }
        self.networks = (vgg, alexnet, vit)

    def losses(self, generated: Tensor, reference: Tensor, target: Tensor) -> dict[str, Tensor]:
        with self.cast():
            content = (self.content(generated) - self.content(reference)).float()
        down, across = generated.diff(dim=2), generated.diff(dim=3)
        losses = {"content": 2 * content.square().sum() / content[0].numel()}
        losses["tv"] = down.square().mean() + across.square().mean()
        for name, critic in self.critics.items():
            with self.cast():
                fake = self.looks[name](generated).float()
                with torch.set_grad_enabled(not self.lean):
                    real = self.looks[name](target).float()
            losses[name] = nn.functional.softplus(critic(real) - critic(fake)).mean()
        return losses

    def norm(self, loss: Tensor) -> Tensor:
        self.generator.zero_grad()
        loss.backward(retain_graph=True)
        return torch.cat([p.grad.flatten() for p in self.generator.parameters()]).norm()

    def step(self, inputs: Tensor, reference: Tensor, target: Tensor, critics: bool) -> dict[str, float]:
        generated = self.generator(inputs)
        losses = self.losses(generated, reference, target)
        scaled = {name: loss / (self.norm(loss).item() + 1e-8) for name, loss in losses.items()}
        logged = {name: self.norm(loss).item() for name, loss in scaled.items()}
        self.generator.zero_grad()
        sum(scaled.values()).backward()
        self.optimizer.step()
        if critics:
            self.update_critics(generated.detach(), target)
        for module in (*self.networks, *self.critics.values()):
            module.zero_grad()
        return logged

    def update_critics(self, generated: Tensor, target: Tensor) -> None:
        for (name, critic), optimizer in zip(self.critics.items(), self.critic_optimizers, strict=True):
            with torch.no_grad(), self.cast():
                fake, real = self.looks[name](generated).float(), self.looks[name](target).float()
            critic.zero_grad()
            self.game.discriminator(critic, fake, real)[0].backward()
            nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
            optimizer.step()


class Floor:
    """The frozen networks, once forward for each image that has to be looked at, and once backward to the generated."""

    def __init__(self, networks: Networks, cast):
        self.networks, self.cast = [networks(name) for name in ("vgg", "alexnet", "vit")], cast

    def step(self, generated: Tensor, others: dict[str, Tensor]) -> None:
        for network in self.networks:
            image = generated.detach().requires_grad_()
            with self.cast():
                outputs = network(image)
                with torch.no_grad():
                    network(others["reference"] if network is self.networks[0] else others["target"])
            outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
            torch.autograd.grad(outputs, image, [torch.ones_like(output) for output in outputs])


def configure(asked) -> Config:
    """The paper's setting, as far as the command line leaves it."""
    base = PRESETS[asked.preset]
    backbones = Backbones(asked.weights, asked.vgg_file, vit=asked.vit)
    return dataclasses.replace(
        base,
        seed=0,
        data=dataclasses.replace(base.data, patch=asked.patch, batch=asked.batch),
        backbones=backbones,
        compute=dataclasses.replace(base.compute, precision=asked.precision, compile=asked.compile),
    )


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--device", default="auto")
    options.add_argument("--preset", default="fujifilm-efficient", choices=[name for name in PRESETS if name != "demo"])
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--patch", type=int, default=256)
    options.add_argument("--precision", choices=("float32", "tf32", "bf16"), default="float32", help="of ours")
    options.add_argument("--compile", action="store_true", help="torch.compile the frozen networks of ours")
    options.add_argument("--weights", default="auto", choices=("auto", "random", "pretrained"), help="frozen networks'")
    options.add_argument("--vgg-file", default="", help="VGG-19, as for fit.py")
    options.add_argument("--vit", default="vit_base_patch16_224", help="timm's name (%(default)s)")
    asked = options.parse_args()
    config, device = configure(asked), choose_device(asked.device)
    set_precision(config.compute)
    torch.manual_seed(0)
    cast = autocast(config.compute, device)

    generator = build_generator(config.model, "")[1].to(device, memory_format=torch.channels_last)
    networks = Networks(config, device)
    trainer = build_trainer(config, generator, networks)
    sensor = Sensor(config.data.cfa, config.data.black_level, config.data.white_level)
    render = Reference(sensor)
    random = torch.Generator().manual_seed(0)
    mosaic = torch.rand(asked.batch, 1, asked.patch, asked.patch, generator=random).to(device)
    target = torch.rand(asked.batch, 3, asked.patch, asked.patch, generator=random).to(device)
    span, inputs, reference = render.span(mosaic), prepare(mosaic, sensor, generator.input_format), render(mosaic)

    def ours(number: int) -> None:
        made = Batch(prepare(mosaic, sensor, generator.input_format), render(mosaic, span), target)
        trainer.step(made, number)

    every = config.train.critic_every
    contestants = {"ours": lambda: ours(1), "ours, critics": lambda: ours(every)}
    floor, others = Floor(networks, cast), {"reference": reference, "target": target}
    contestants["floor"] = lambda: floor.step(target, others)
    theirs = {"published": (False, nullcontext), "published, targets without gradients": (True, nullcontext)}
    if config.compute.precision == "bf16":
        theirs["published, bf16"] = (False, cast)
    for name, (lean, its_cast) in theirs.items():
        procedure = Published(generator, trainer, networks, config.train.lr, lean, its_cast)
        contestants[name] = lambda p=procedure: p.step(inputs, reference, target, critics=False)
        contestants[f"{name}, critics"] = lambda p=procedure: p.step(inputs, reference, target, critics=True)
    first = seconds(contestants["ours"], device)  # with the compiling
    memory = {name: peak_memory(run, device) for name, run in contestants.items() if not name.endswith("critics")}
    times = alternate(contestants, asked.repeats, device)

    def image(name: str) -> list[float]:
        if name == "floor":
            return [t / asked.batch for t in times[name]]
        both = zip(times[name], times[f"{name}, critics"], strict=True)
        return [((every - 1) * plain + critics) / every / asked.batch for plain, critics in both]

    names = ["ours", "floor", *theirs]
    ratio = {name: ratios(image(name), image("ours")) for name in theirs}
    above = ratios(image("ours"), image("floor"))
    figures = {
        "benchmark": "train_step",
        "machine": machine(device),
        "config": {"preset": asked.preset, "batch": asked.batch, "patch": asked.patch, "vit": asked.vit}
        | dataclasses.asdict(config.compute)
        | {"weights": {name: network.provenance for name, network in networks.built.items()}},
        "repeats": asked.repeats,
        "seconds_an_image": {name: spread(image(name)) for name in names},
        "peak_memory_mib": memory,
        "ratio_published": ratio["published"]["median"],
        "ratio_floor": above["median"],
        "ratios": {"ours over floor": above} | {f"{name} over ours": ratio[name] for name in theirs},
        "first_step_seconds": round(first, 2),
    }
    rows = [("", "seconds an image", "lowest", "highest", "against ours", "MiB")]
    for name in names:
        against = spread([a / b for a, b in zip(image(name), image("ours"), strict=True)])["median"]
        rows.append((name, *figures["seconds_an_image"][name].values(), against, float(memory[name])))
    title = f"Training step, {config.model}, {asked.batch} x {asked.patch}x{asked.patch}, {device}, {asked.precision}"
    report(title, figures, rows, asked.json)
    print(f"  ours is {above['median']:.3f} times the floor; its first step took {first:.1f} s")


if __name__ == "__main__":
    run_cli(main)
