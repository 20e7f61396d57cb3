"""From a `Config` to the objects of a run: data, camera, generator, frozen networks, losses, critics, trainers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from config import Config
from data.demosaic import render_reference
from data.folders import Split, open_dataset, unpaired
from data.loader import Patches, Reader
from data.sensor import Sensor, prepare
from discriminators import ColorDiscriminator, TextureDiscriminator
from errors import UserError
from losses.adversarial import RelativisticLoss
from losses.color import BlurredColorLoss, blur
from losses.content import ContentLoss, luminance3
from losses.perceptual import MSELoss, PerceptualLoss
from losses.total_variation import TotalVariation
from models import build_model
from pretrained import backbones, zoo
from training.steps import Adversary, Term, Trainer, View

GREY = (0.299, 0.587, 0.114)  # what the texture critics see (section 3.5; weights of the released code)


@dataclass(frozen=True)
class Camera:
    """The way from a mosaic to what generator and content loss take."""

    sensor: Sensor
    input_format: str
    demosaic: Callable[[Tensor, str], Tensor]

    def inputs(self, mosaic: Tensor) -> Tensor:
        return prepare(mosaic, self.sensor, self.input_format)

    @torch.no_grad()
    def reference(self, mosaic: Tensor) -> Tensor:
        """The demosaiced rendering, (N, 3, H, W), of mosaics (N, 1, H, W).

        Demosaiced as whole digital numbers, for Menon's method decides by comparing, and only exact sums tie alike on
        every machine; then scaled far below 1, as in the released code, so that the white balance clips nothing.
        """
        digital = (mosaic * self.sensor.white_level).round()
        return render_reference(self.demosaic(digital, self.sensor.cfa) / 65535)


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own losses."""

    name: str
    steps: int
    trainer: Trainer
    patches: Patches


def open_data(config: Config) -> tuple[dict[str, Split], Reader]:
    """The splits of the dataset, and how its files are read."""
    data = config.data
    if data.demo:
        from data.simulate import make_demo

        make_demo(Path(data.root))
    splits = open_dataset(data.layout, data.root, data.raw, data.photos, data.val_count, data.test_count, data.exclude)
    if config.train.mode != "unpaired" and not splits["train"].paired:
        raise UserError(f"mode '{config.train.mode}' needs pairs, but the two folders do not hold the same names")
    sensor = Sensor(data.cfa, data.black_level, data.white_level)
    return splits, Reader(sensor, (data.raw_height, data.raw_width))


def build_generator(config: Config) -> nn.Module:
    """The generator, fresh or from `config.init`."""
    generator = build_model(config.model)
    if config.init:
        name, state = zoo.open_generator(config.init)
        if name != config.model:
            raise UserError(f"{config.init} is a '{name}', not a '{config.model}': set --model {name}")
        generator.load_state_dict(state)
    return generator


def build_stages(config: Config, train: Split, reader: Reader, generator: nn.Module) -> tuple[list[Stage], dict]:
    """Pretraining and training, and where the weights of their frozen networks came from."""
    device = next(generator.parameters()).device
    networks = Networks(config, device)
    data, seed = config.data, config.seed
    side = train if config.train.mode != "unpaired" else unpaired(train, data.unpaired, seed)
    patches = [Patches(side, reader, data.patch, seed=2 * seed + stage, flips=data.flips) for stage in (0, 1)]
    pretrainer, trainer = build_pretrainer(config, generator, networks), build_trainer(config, generator, networks)
    stages = [Stage("pretrain", 0 if config.init else config.pretrain.steps, pretrainer, patches[0])]
    stages += [Stage("train", config.train.steps, trainer, patches[1])]
    return stages, networks.provenance


class Networks:
    """The frozen networks of a run, each built when first asked for."""

    def __init__(self, config: Config, device: torch.device):
        self.config, self.device, self.built = config, device, {}

    def __call__(self, name: str) -> nn.Module:
        if name not in self.built:
            settings, normalise = self.config.backbones, not self.config.as_released
            build = {
                "vgg": lambda: backbones.vgg19(settings.weights, settings.vgg_file),
                "alexnet": lambda: backbones.alexnet(settings.weights, settings.alexnet_file, normalise=normalise),
                "vit": lambda: backbones.vit(settings.weights, settings.vit, settings.vit_file, normalise=normalise),
                "lpips": lambda: backbones.lpips_plus(settings.weights),
                "dists": lambda: backbones.dists(settings.weights),
            }[name]
            self.built[name] = build().to(self.device)
        return self.built[name]

    @property
    def provenance(self) -> dict[str, str]:
        return {name: network.provenance for name, network in self.built.items()}


def build_pretrainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Eq. 12: content on RGB, MSE and TV against the demosaiced reference."""
    weights, views = config.pretrain, []
    terms = [Term("mse", weights.mse, "image", "reference", MSELoss())]
    terms += [Term("tv", weights.tv, "image", "", TotalVariation())]
    if weights.content:
        vgg = networks("vgg")
        views = [View(("rgb",), lambda image: (vgg(image),))]
        terms += [Term("content", weights.content, "rgb", "reference", ContentLoss())]
    optimizer = torch.optim.Adam(generator.parameters(), weights.lr)
    return Trainer(generator, optimizer, views, [term for term in terms if term.weight])


def build_trainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Eq. 10 or 11."""
    train = config.train
    terms, views = (unpaired_terms if train.mode == "unpaired" else paired_terms)(config, networks)
    adversaries, critic_views = ([], []) if train.mode == "paired" else build_adversaries(config, networks)
    if not (terms or adversaries):
        raise UserError(f"mode '{train.mode}' has no term left: every weight is 0")
    optimizer = torch.optim.Adam(generator.parameters(), train.lr, (train.beta1, train.beta2))
    critic_optimizer = None
    if adversaries:
        critics = [p for adversary in adversaries for p in adversary.critic.parameters() if p.requires_grad]
        critic_optimizer = torch.optim.Adam(critics, train.critic_lr, (train.beta1, train.beta2))

    def schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler | None:
        if train.schedule == "constant" or not steps:
            return None
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 0.01 * optimizer.param_groups[0]["lr"])

    return Trainer(
        generator,
        optimizer,
        views + critic_views,
        terms,
        adversaries,
        critic_optimizer,
        RelativisticLoss(100 * train.gamma if config.as_released else train.gamma),
        train.critic_every,
        train.clip_norm,
        schedule(optimizer, train.steps),
        schedule(critic_optimizer, -(-train.steps // train.critic_every)) if adversaries else None,
        train.ema,
    )


def unpaired_terms(config: Config, networks: Networks) -> tuple[list[Term], list[View]]:
    """Eq. 11 without its adversarial terms: content on luminance against the demosaiced reference, and TV."""
    train, views = config.train, []
    terms = [Term("tv", train.tv, "image", "", TotalVariation())]
    if train.content:
        vgg = networks("vgg")
        views = [View(("luminance",), lambda image: (vgg(luminance3(image)),))]
        terms += [Term("content", train.content, "luminance", "reference", ContentLoss())]
    return [term for term in terms if term.weight], views


def paired_terms(config: Config, networks: Networks) -> tuple[list[Term], list[View]]:
    """Eq. 10 without its adversarial terms, all against the photograph of the same scene."""
    train, views = config.train, []
    terms = [Term("tv", train.tv, "image", "", TotalVariation())]
    terms += [Term("color", train.color, "image", "target", BlurredColorLoss())]
    terms += [Term("mse", train.mse, "image", "target", MSELoss())]
    if train.content:
        vgg = networks("vgg")
        views = [View(("rgb",), lambda image: (vgg(image),))]
        terms += [Term("content", train.content, "rgb", "target", ContentLoss())]
    for name in ("lpips", "dists"):
        if weight := getattr(train, name):
            terms += [Term(name, weight, "image", "target", PerceptualLoss(networks(name)))]
    return [term for term in terms if term.weight], views


def grey3(image: Tensor) -> Tensor:
    """The texture critics' view of an image: grey in all three channels (section 3.5)."""
    return (image * image.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def build_adversaries(config: Config, networks: Networks) -> tuple[list[Adversary], list[View]]:
    """The critics of Fig. 3, or those on images of section 4.2, and what they look at."""
    train, patch, device = config.train, config.data.patch, networks.device
    texture = partial(TextureDiscriminator, train_fc1=not config.as_released)
    soften = blur if train.blur_color else lambda image: image
    adversaries, views = [], []
    if train.mode == "unpaired" and train.adv_color:
        if train.color_critic == "vit":
            vit = networks("vit")
            views += [View(("tokens",), lambda image: (vit(soften(image)),))]
            adversaries += [Adversary("color", train.adv_color, "tokens", ColorDiscriminator(vit.width))]
        else:
            views += [View(("blurred",), lambda image: (blur(image),))]
            adversaries += [Adversary("color", train.adv_color, "blurred", texture(3, (patch, patch)))]
    if train.texture_critics == "image" and train.adv_lin0:
        views += [View(("grey",), lambda image: (grey3(image),))]
        adversaries += [Adversary("grey", train.adv_lin0, "grey", texture(3, (patch, patch)))]
    elif train.texture_critics == "alexnet" and (train.adv_lin0 or train.adv_lin3):
        layers = {"lin0": ("relu1", train.adv_lin0), "lin3": ("relu4", train.adv_lin3)}
        layers = {name: layer for name, (layer, weight) in layers.items() if weight}
        alexnet = networks("alexnet")
        views += [View(tuple(layers), lambda image: alexnet(grey3(image), tuple(layers.values())).values())]
        seen = alexnet(torch.zeros(1, 3, patch, patch, device=device), tuple(layers.values()))
        for name, layer in layers.items():
            _, channels, *size = seen[layer].shape
            adversaries += [Adversary(name, getattr(train, f"adv_{name}"), name, texture(channels, tuple(size)))]
    for adversary in adversaries:
        adversary.critic.to(device)
    return adversaries, views


def choose_device(name: str) -> torch.device:
    """The device by name; "auto" is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from None
