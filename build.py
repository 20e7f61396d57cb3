"""From a `Config` to the objects of a run: data, generators, frozen networks, losses, critics, trainers, measures."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import config as settings
import metrics
from config import PRESETS, Compute, Config
from data.demosaic import DEMOSAICERS, Reference
from data.files import Files, Reader, keep
from data.folders import Split, centre, open_dataset, read_photo, unpaired
from data.loader import Patches, photo_tensor
from data.sensor import Sensor, prepare
from discriminators import ColorDiscriminator, TextureDiscriminator
from errors import UserError
from judges import Unpaired
from losses import LOSSES
from losses.adversarial import RelativisticLoss
from losses.color import blur
from losses.content import luminance3
from models import build_model
from pretrained import backbones, zoo
from training.distributed import ALONE, Group
from training.steps import Adversary, Term, Trainer, View

# Eqs. 10 to 12: term -> (the feature that it looks at, what it compares it with). Weights are the config's.
_PAIRED = {
    "content": ("vgg_rgb", "target"),
    "lpips": ("image", "target"),
    "dists": ("image", "target"),
    "tv": ("image", None),
    "color": ("image", "target"),
    "mse": ("image", "target"),  # not in Eq. 10; its weight is 0
}
TERMS = {
    "pretrain": {"content": ("vgg_rgb", "reference"), "mse": ("image", "reference"), "tv": ("image", None)},  # Eq. 12
    "unpaired": {"content": ("vgg_luminance", "reference"), "tv": ("image", None)},  # Eq. 11
    "paired": _PAIRED,  # Eq. 10
    "paired_gan": _PAIRED,
}
CRITICS = {"unpaired": ("color", "lin0", "lin3"), "paired": (), "paired_gan": ("lin0", "lin3")}
LAYERS = {"lin0": "relu1", "lin3": "relu4"}  # what LPIPS+ feeds its linear layers with (section 3.5)
PHOTOGRAPHS = 256  # at most so many, evenly drawn, stand for the target set in a ranking without pairs
BAND = 1 << 20  # pixels that a CPU develops at a time
GREY = (0.299, 0.587, 0.114)  # released code


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own losses."""

    name: str
    steps: int
    trainer: Trainer
    patches: Patches


def choose_device(name: str) -> torch.device:
    """The device by name; "auto" is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)  # pinned memory belongs to the current one
        set_precision(Compute())  # of every script: a checkpoint scores the same wherever it is scored
    return device


def set_precision(compute: Compute) -> None:
    """Of float32 on a GPU, for the whole process: PyTorch's own default would take TF32 for convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = compute.precision == "tf32"


def autocast(compute: Compute, device: torch.device) -> Callable[[], AbstractContextManager]:
    """What the frozen networks run under."""
    if compute.precision != "bf16":
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)


def open_run(runs: str, name: str, data_root: str = "") -> tuple[Path, Config]:
    """(folder, config) of a run; `data_root` is where its dataset lies on this machine, if elsewhere than it was."""
    folder = Path(runs) / name
    if not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in Path(runs).glob("*/config.json"))
        raise UserError(f"no run {folder}; the runs there are: {', '.join(known) or 'none'} (--run, --runs)")
    config = settings.load(folder / "config.json")
    return folder, replace(config, data=replace(config.data, root=data_root or config.data.root))


def open_data(config: Config) -> tuple[dict[str, Split], Reader, Reference]:
    """The splits of the dataset, how its files are read, and how its mosaics are rendered as a reference."""
    data = config.data
    if data.demo:
        from data.simulate import make_demo

        make_demo(Path(data.root))
    splits = open_dataset(
        data.layout, data.root, data.raw, data.photos, data.pairs, data.val_count, data.test_count, data.exclude
    )
    if config.train.mode != "unpaired" and not splits["train"].paired:
        raise UserError(f"mode '{config.train.mode}' needs pairs, but the mosaics and photographs are not paired")
    sensor = Sensor(data.cfa, data.black_level, data.white_level)
    reader = Reader(sensor, (data.raw_height, data.raw_width))
    return splits, reader, Reference(sensor, DEMOSAICERS[data.demosaic])


def build_generator(model: str, init: str) -> tuple[str, nn.Module]:
    """(its name, the generator), fresh or from `init`, which also says which model it is."""
    if not init:
        name = model or "efficient"
        return name, build_model(name)
    name, state = zoo.open_generator(init)
    if model not in ("", name):
        raise UserError(f"{init} is a '{name}', not a '{model}': leave --model out")
    generator = build_model(name)
    generator.load_state_dict(state)
    return name, generator


@dataclass(frozen=True)
class Model:
    """A generator for use, and what it knows of itself."""

    source: str
    name: str  # in `models.MODELS`
    generator: nn.Module  # eval mode, on the device
    sensor: Sensor  # the camera that it was trained for
    config: Config | None  # of the run that made it, where it is ours

    def levels(self, data: Sensor) -> Sensor:
        """How mosaics of `data` are brought to this generator: by its own black levels where the range is the same.

        (The released RMFA-Net takes 63 for all blacks of a camera for which the others take 58 to 62.)
        """
        return self.sensor if (self.sensor.cfa, self.sensor.white_level) == (data.cfa, data.white_level) else data

    @torch.inference_mode()
    def develop(self, mosaic: Tensor, sensor: Sensor) -> Tensor:
        """Photographs of mosaics (N, 1, H, W), taken by `sensor`: 8-bit sRGB (N, 3, H, W), laid out channels-last.

        Integers are digital numbers; of floating point, 1 is white. On a CPU a large image is done in bands, which
        overlap by what the generator sees beyond their edges; little memory is touched anew (page faults cost more than
        the arithmetic).
        """
        count, _, height, width = mosaic.shape
        reach, rows = self.generator.reach, height
        if mosaic.device.type == "cpu" and reach is not None:
            rows = max(2, BAND // (count * width) // 2 * 2)
        margin = 2 * (reach or 0)
        image = torch.empty(count, height, width, 3, dtype=torch.uint8, device=mosaic.device)
        for top in range(0, height, rows):
            bottom, first = min(height, top + rows), max(0, top - margin)
            band = mosaic[:, :, first : bottom + margin]
            if not band.is_floating_point():
                band = band.float().div_(sensor.white_level)
            inputs = prepare(band, sensor, self.generator.input_format)
            output = self.generator(inputs.contiguous(memory_format=torch.channels_last))
            shown = output[:, :, top - first : bottom - first].float()
            image[:, top:bottom] = shown.mul_(255).clamp_(0, 255).permute(0, 2, 3, 1)  # as `metrics.to_8_bit`
        return image.permute(0, 3, 1, 2)


def open_model(source: str, device: torch.device) -> Model:
    """A generator from a checkpoint of ours, a released file, or a released name. Raises `UserError`."""
    name, state, description = zoo.open_checkpoint(source)
    if not all(value.isfinite().all() for value in state.values()):
        raise UserError(f"{source} has weights that are not finite: its training diverged")
    generator = build_model(name).eval().requires_grad_(False)
    generator.load_state_dict(state)
    if "sensor" in description:
        try:
            sensor = Sensor(**{key: tuple(v) if isinstance(v, list) else v for key, v in description["sensor"].items()})
        except (AttributeError, TypeError):
            raise UserError(f"{source} is no checkpoint of ours: its sensor is {description['sensor']!r}") from None
    else:  # a released file: the paper's camera, as the released code reads it
        camera = PRESETS["fujifilm-rmfa-tiny" if name.startswith("rmfa") else "fujifilm-efficient"].data
        sensor = Sensor(camera.cfa, camera.black_level, camera.white_level)
    config = settings.from_dict(description["config"]) if "config" in description else None
    return Model(source, name, generator.to(device, memory_format=torch.channels_last), sensor, config)


def build_measures(
    protocol: str, columns: Sequence[str], weights: str, device: torch.device
) -> tuple[dict[str, Callable[[Tensor, Tensor], Tensor]], dict[str, str]]:
    """The measures of a protocol by column, and where the weights of those with a network are from."""
    networks = {}

    def network(column: str) -> nn.Module:
        networks[column] = getattr(backbones, column)(weights).to(device)
        return networks[column]

    functions = metrics.build(protocol, columns, network)
    return functions, {column: network.provenance for column, network in networks.items()}


def build_unpaired_judge(
    config: Config, train: Split, reference: Reference, device: torch.device
) -> tuple[Unpaired, dict[str, str]]:
    """What ranks checkpoints without pairs, by the run's own AlexNet, ViT and photographs; and where those are from."""
    networks = Networks(replace(config, compute=Compute()), device)  # float32: ranks compare from run to run
    photos = unpaired(train, config.data.unpaired, config.seed).photos
    chosen = photos[:: -(-len(photos) // PHOTOGRAPHS)]
    with torch.inference_mode():
        images = (photo_tensor(centre(read_photo(path))).to(device) for path in chosen)
        judge = Unpaired(networks("alexnet"), networks("vit"), reference, images)
    notes = {name: network.provenance for name, network in networks.built.items()}
    return judge, notes | {"photographs": str(len(chosen))}


def build_stages(
    config: Config, train: Split, reader: Reader, reference: Reference, generator: nn.Module, group: Group = ALONE
) -> tuple[list[Stage], dict[str, str]]:
    """Pretraining and training, and where the weights of their frozen networks came from."""
    networks = Networks(config, next(generator.parameters()).device)
    pretrainer, trainer = build_pretrainer(config, generator, networks), build_trainer(config, generator, networks)
    if group.size > 1:
        pretrainer.average_ = trainer.average_ = group.mean_
    data, mode = config.data, config.train.mode
    split = unpaired(train, data.unpaired, config.seed) if mode == "unpaired" else train
    steps = 0 if config.init else config.pretrain.steps, config.train.steps
    folder = Path(data.cache_dir or Path(config.runs) / ".cache")
    files = keep(split, Files(reader, reference), data.cache, folder, sum(steps) * data.batch, group.size)
    patches = [Patches(split, files, data.patch, seed=2 * config.seed + stage, flips=data.flips) for stage in (0, 1)]
    stages = [Stage("pretrain", steps[0], pretrainer, patches[0]), Stage("train", steps[1], trainer, patches[1])]
    return stages, {name: network.provenance for name, network in networks.built.items()}


class Networks:
    """The frozen networks of a run, each built when first asked for."""

    def __init__(self, config: Config, device: torch.device):
        options, normalise = config.backbones, not config.as_released
        self.device, self.compute, self.built = device, config.compute, {}
        self.builders = {
            "vgg": lambda: backbones.vgg19(options.weights, options.vgg_file),
            "alexnet": lambda: backbones.alexnet(options.weights, options.alexnet_file, normalise=normalise),
            "vit": lambda: backbones.vit(options.weights, options.vit, options.vit_file, normalise=normalise),
            "lpips": lambda: backbones.lpips_plus(options.weights),
            "dists": lambda: backbones.dists(options.weights),
        }

    def __call__(self, name: str) -> nn.Module:
        if name not in self.built:
            network = self.builders[name]().to(self.device, memory_format=torch.channels_last)
            if self.compute.precision == "bf16":
                _hold_bf16(network)
            if self.compute.compile:
                network.compile(dynamic=False)
            self.built[name] = network
        return self.built[name]

    def cast(self, name: str) -> Callable[..., Any]:
        """The network as a function, under autocast where that is asked for; features are float32."""
        network, context = self(name), autocast(self.compute, self.device)

        def run(*arguments: Any) -> Any:
            with context():
                features = network(*arguments)
            return {k: v.float() for k, v in features.items()} if isinstance(features, dict) else features.float()

        return run


def _hold_bf16(network: nn.Module) -> None:
    """Keep the weights as autocast would cast them in every step."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)


def build_pretrainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Eq. 12: against the demosaiced reference."""
    terms = build_terms("pretrain", config.pretrain, networks)
    optimizer = torch.optim.Adam(generator.parameters(), config.pretrain.lr, fused=True)
    return Trainer(generator, optimizer, build_views(config, {term.feature for term in terms}, networks), terms)


def build_trainer(config: Config, generator: nn.Module, networks: Networks) -> Trainer:
    """Eq. 10 or 11."""
    train = config.train
    terms = build_terms(train.mode, train, networks)
    adversaries = build_adversaries(config, networks)
    if not (terms or adversaries):
        raise UserError(f"mode '{train.mode}' has no term left: every weight is 0")
    optimizer = torch.optim.Adam(generator.parameters(), train.lr, (train.beta1, train.beta2), fused=True)
    critic_optimizer = None
    if adversaries:
        learning = [p for adversary in adversaries for p in adversary.critic.parameters() if p.requires_grad]
        critic_optimizer = torch.optim.Adam(learning, train.critic_lr, (train.beta1, train.beta2), fused=True)

    def schedule(optimizer: torch.optim.Optimizer | None, steps: int) -> torch.optim.lr_scheduler.LRScheduler | None:
        if optimizer is None or train.schedule == "constant":
            return None
        lowest = 0.01 * optimizer.param_groups[0]["lr"]
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), lowest)

    return Trainer(
        generator,
        optimizer,
        build_views(config, {judge.feature for judge in (*terms, *adversaries)}, networks),
        terms,
        adversaries,
        critic_optimizer=critic_optimizer,
        game=RelativisticLoss(100 * train.gamma if config.as_released else train.gamma),
        critic_every=train.critic_every,
        clip_norm=train.clip_norm,
        schedule=schedule(optimizer, train.steps),
        critic_schedule=schedule(critic_optimizer, train.steps // train.critic_every),
        ema_decay=train.ema,
    )


def build_terms(equation: str, weights: object, networks: Networks) -> list[Term]:
    """The terms of a stage or mode whose weight is not 0."""
    terms = []
    for name, (feature, against) in TERMS[equation].items():
        if weight := getattr(weights, name):
            measure = (networks.cast(name),) if name in ("lpips", "dists") else ()
            terms.append(Term(name, weight, feature, against, LOSSES[name](*measure)))
    return terms


def build_adversaries(config: Config, networks: Networks) -> list[Adversary]:
    """The critics of Fig. 3, or those on images of section 4.2: there, one sees the blurred and one the grey image."""
    train, patch = config.train, config.data.patch
    sees = {"color": "tokens" if train.color_critic == "vit" else "blurred", "lin0": "lin0", "lin3": "lin3"}
    if train.texture_critics == "image":
        sees = {"color": sees["color"], "lin0": "grey"}
    sees = {name: sees[name] for name in CRITICS[train.mode] if name in sees and getattr(train, f"adv_{name}")}
    adversaries, blank = [], torch.zeros(1, 3, patch, patch, device=networks.device)
    features = {}
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # for its shapes: not worth a compilation
        for view in build_views(config, set(sees.values()), networks):
            features |= zip(view.names, view.compute(blank), strict=True)
    for name, feature in sees.items():
        critic = build_critic(features[feature].shape, train_fc1=not config.as_released)
        critic.to(networks.device, memory_format=torch.channels_last)
        weight = getattr(train, f"adv_{name}")
        adversaries.append(Adversary("grey" if feature == "grey" else name, weight, feature, critic))
    return adversaries


def build_critic(shape: torch.Size, train_fc1: bool) -> nn.Module:
    """The critic of Fig. 3 for features of this shape: tokens (N, T, C) or maps (N, C, H, W)."""
    if len(shape) == 3:
        return ColorDiscriminator(shape[2])
    return TextureDiscriminator(shape[1], tuple(shape[2:]), train_fc1)


def build_views(config: Config, wanted: set[str], networks: Networks) -> list[View]:
    """The looks at an image that give the `wanted` features; "image" needs none."""
    views = []
    if "vgg_rgb" in wanted:
        views.append(_view("vgg_rgb", networks.cast("vgg")))
    if "vgg_luminance" in wanted:
        views.append(_view("vgg_luminance", luminance3, networks.cast("vgg")))
    if "tokens" in wanted:
        soften = (blur,) if config.train.blur_color else ()
        views.append(_view("tokens", *soften, networks.cast("vit")))
    if "blurred" in wanted:
        views.append(_view("blurred", blur, lambda image: 2 * image - 1))
    if "grey" in wanted:
        views.append(_view("grey", grey3))
    if names := tuple(name for name in LAYERS if name in wanted):
        alexnet, layers = networks.cast("alexnet"), tuple(LAYERS[name] for name in names)
        views.append(View(names, lambda image: alexnet(grey3(image), layers).values()))
    return views


def _view(name: str, *functions: Callable[[Tensor], Tensor]) -> View:
    def compute(image: Tensor) -> tuple[Tensor]:
        for function in functions:
            image = function(image)
        return (image,)

    return View((name,), compute)


def grey3(image: Tensor) -> Tensor:
    """The texture critics' view of an image: grey in all three channels (section 3.5)."""
    return sum(weight * channel for weight, channel in zip(GREY, image.split(1, dim=1), strict=True)).expand(
        -1, 3, -1, -1
    )
