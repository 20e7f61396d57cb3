"""Train an ISP: pretrain it on demosaicing, then train it unpaired, paired, or paired with critics.

python fit.py [PRESET] [--section.field value ...] [--run NAME] [--resume]
"""

import dataclasses
import fcntl
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import config as settings
from config import Config
from data.demosaic import DEMOSAICERS, render_reference
from data.folders import Split, open_dataset, unpaired
from data.loader import Patches, Reader, evaluation_pairs, training_batches
from data.sensor import Sensor, prepare
from discriminators import ColorDiscriminator, TextureDiscriminator
from errors import UserError, run_cli
from losses.adversarial import RelativisticLoss
from losses.color import BlurredColorLoss, blur
from losses.content import ContentLoss, luminance3
from losses.perceptual import MSELoss, PerceptualLoss
from losses.total_variation import TotalVariation
from metrics import psnr
from models import build_model
from pretrained import backbones, zoo
from training import checkpoint
from training.log import Progress, RunLog, to_floats
from training.steps import Adversary, Batch, Term, Trainer, View

GREY = (0.299, 0.587, 0.114)  # what the texture critics see (section 3.5; weights of the released code)


# --- building --------------------------------------------------------------------------------------------------------


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

    def __getattr__(self, name: str) -> nn.Module:
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
        vgg = networks.vgg
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
    schedules = []
    if train.schedule == "cosine" and train.steps:
        schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(o, train.steps, 0.01 * o.param_groups[0]["lr"])
            for o in (optimizer, critic_optimizer)
            if o
        ]
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
        schedules,
        train.ema,
    )


def unpaired_terms(config: Config, networks: Networks) -> tuple[list[Term], list[View]]:
    """Eq. 11 without its adversarial terms: content on luminance against the demosaiced reference, and TV."""
    train, views = config.train, []
    terms = [Term("tv", train.tv, "image", "", TotalVariation())]
    if train.content:
        vgg = networks.vgg
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
        vgg = networks.vgg
        views = [View(("rgb",), lambda image: (vgg(image),))]
        terms += [Term("content", train.content, "rgb", "target", ContentLoss())]
    for name in ("lpips", "dists"):
        if weight := getattr(train, name):
            terms += [Term(name, weight, "image", "target", PerceptualLoss(getattr(networks, name)))]
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
            vit = networks.vit
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
        alexnet = networks.alexnet
        views += [View(tuple(layers), lambda image: alexnet(grey3(image), tuple(layers.values())).values())]
        seen = alexnet(torch.zeros(1, 3, patch, patch, device=device), tuple(layers.values()))
        for name, layer in layers.items():
            _, channels, *size = seen[layer].shape
            adversaries += [Adversary(name, getattr(train, f"adv_{name}"), name, texture(channels, tuple(size)))]
    for adversary in adversaries:
        adversary.critic.to(device)
    return adversaries, views


# --- running ---------------------------------------------------------------------------------------------------------


class Stop:
    """Turns Ctrl-C or a TERM into a request that is met between two steps, with the state saved. Again: at once."""

    def __init__(self):
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _frame) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        print("\nfinishing this step and saving; once more stops at once", file=sys.stderr, flush=True)


class Fit:
    """One run: its folder, its stages, and where it stands."""

    def __init__(self, config: Config, resume: bool):
        self.config = config
        self.device = choose_device(config.device)
        self.folder = Path(config.runs) / config.run
        torch.manual_seed(config.seed)
        self.splits, reader = open_data(config)
        generator = build_generator(config).to(self.device)
        data = config.data
        self.camera = Camera(reader.sensor, generator.input_format, DEMOSAICERS[data.demosaic])
        self.reader = reader
        self.stages, self.weights = build_stages(config, self.splits["train"], reader, generator)
        self.random = any(source.startswith("random") for source in self.weights.values())
        self.stage, self.step, self.psnr = 0, 0, {}
        self.lock = claim(self.folder, resume)
        self.log = self._restore() if resume and (self.folder / "last.pt").exists() else self._begin()

    def _begin(self) -> RunLog:
        checkpoint.write_json(self.folder / "config.json", settings.to_dict(self.config))
        return RunLog(self.folder)

    def _restore(self) -> RunLog:
        state = checkpoint.load(self.folder / "last.pt")
        if state["weights"] != self.weights:
            raise UserError(f"the frozen networks were {state['weights']} and are now {self.weights}; cannot resume")
        self.stage, self.step, self.psnr = state["stage"], state["step"], state["psnr"]
        try:
            self.stages[self.stage].trainer.load_state(state["trainer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{self.folder / 'last.pt'} is not of this config: {error}") from None
        torch.set_rng_state(state["rng"])
        return RunLog(self.folder, state["log_position"], self._total())

    def run(self) -> None:
        """From where the run stands to its end."""
        self._announce()
        if "demosaiced" not in self.psnr and self.splits["val"]:
            self.psnr["demosaiced"] = self.validate(self.camera.reference)
        stop = Stop()
        while self.stage < len(self.stages):
            stage = self.stages[self.stage]
            self._run_stage(stage, stop)
            self.stage, self.step = self.stage + 1, 0
            if self.stage == 1:
                self._save_generator("pretrained", stage.trainer)
                self._log_validation(self.stages[1], 0, "pretrained")
        self.log.close()
        self.finish()

    def _run_stage(self, stage: Stage, stop: Stop) -> None:
        if self.step >= stage.steps:
            return
        every, data = self.config.log, self.config.data
        batches = training_batches(stage.patches, data.batch, self.step, data.workers, self.device)
        progress = Progress(stage.name, self.step, stage.steps)
        for mosaic, target in batches:
            batch = Batch(self.camera.inputs(mosaic), self.camera.reference(mosaic), target)
            statistics = stage.trainer.step(batch, self.step + 1)
            self.step += 1
            last = self.step == stage.steps or stop.signal
            if self.step % every.every == 0 or last:
                values = to_floats(statistics, f"step {self.step} of {stage.name}")
                self.log.write(stage.name, self.step, self._total(), values)
            notes = {}
            if self.step % every.val_every == 0 or self.step == stage.steps:
                notes = self._log_validation(stage, self.step, "final")
            if stage.name == "train" and (self.step % every.save_every == 0 or self.step == stage.steps):
                self._save_generator(f"step_{self.step:07d}", stage.trainer)
            if self.step % every.state_every == 0 or last:
                self._save_state(stage)
            progress.update(self.step, **notes)
            if last:
                break
        progress.close()
        if stop.signal:
            self.log.close()
            print(f"stopped at step {self.step} of {stage.name}; --resume goes on from there", file=sys.stderr)
            sys.exit(128 + stop.signal)

    @torch.no_grad()
    def validate(self, render: Callable[[Tensor], Tensor]) -> float:
        """Mean PSNR (dB, protocol `paper`) over the validation split of what `render` makes of a mosaic."""
        pairs = evaluation_pairs(self.splits["val"], self.reader, self.device)
        return float(torch.stack([psnr(render(mosaic), target)[0] for mosaic, target in pairs]).mean())

    def _log_validation(self, stage: Stage, step: int, key: str) -> dict[str, float]:
        generator = stage.trainer.result
        self._save_samples(f"{stage.name}_{step:07d}.png", generator)
        if not self.splits["val"]:
            return {}
        self.psnr[key] = self.validate(lambda mosaic: generator(self.camera.inputs(mosaic)))
        self.log.write(stage.name, step, self._total(), {"val_psnr": self.psnr[key]})
        return {"val_psnr": self.psnr[key]}

    @torch.no_grad()
    def _save_samples(self, name: str, generator: nn.Module) -> None:
        """Rows of scenes: demosaiced reference, output, target (or some photograph, where there are no pairs)."""
        from torchvision.utils import save_image

        split = self.splits["val"] or self.splits["train"]
        count = min(self.config.log.samples, len(split.raws), len(split.photos))
        tiles = []
        for i in range(count):
            chosen = split.take([i * (min(len(split.raws), len(split.photos)) // count)])
            mosaic = self.reader.mosaic_tensor(self.reader.mosaic(chosen.raws[0]))[None].to(self.device)
            row = [self.camera.reference(mosaic), generator(self.camera.inputs(mosaic))]
            tiles += [tile[0].clamp(0, 1).cpu() for tile in row] + [photo(chosen.photos[0])]
        side = min(min(tile.shape[1:]) for tile in tiles)
        grid = [nn.functional.interpolate(centre(t)[None], (side, side), mode="area")[0] for t in tiles]
        path = self.folder / "samples" / name
        checkpoint.replace(path, lambda beside: save_image(grid, beside, nrow=3))

    def describe(self) -> dict:
        """What a generator's checkpoint says of itself."""
        sensor = dataclasses.asdict(self.camera.sensor)
        return {
            "model": self.config.model,
            "input_format": self.camera.input_format,
            "sensor": json.loads(json.dumps(sensor)),
            "config": settings.to_dict(self.config),
            "weights": self.weights,
        }

    def _save_generator(self, name: str, trainer: Trainer) -> None:
        path = self.folder / "checkpoints" / f"{name}.pt"
        checkpoint.save_generator(path, trainer.result, step=self.step, **self.describe())

    def _save_state(self, stage: Stage) -> None:
        state = {
            "stage": self.stage,
            "step": self.step,
            "psnr": self.psnr,
            "weights": self.weights,
            "log_position": self.log.position,
            "rng": torch.get_rng_state(),
            "config": settings.to_dict(self.config),
            "trainer": stage.trainer.state(),
        }
        checkpoint.save(self.folder / "last.pt", state)

    def _total(self) -> int:
        """Steps done over all stages."""
        return sum(stage.steps for stage in self.stages[: self.stage]) + self.step

    def _announce(self) -> None:
        split = self.splits["train"]
        print(
            f"{self.folder}: {self.config.model} on {self.device}, {len(split.raws)} mosaics and {len(split.photos)} "
            f"photographs to train on, {len(self.splits['val'])} pairs to validate on",
            file=sys.stderr,
        )
        for name, source in self.weights.items():
            print(f"  {name}: {source}", file=sys.stderr)
        if self.random:
            print(f"warning: {RANDOM}", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """The table, and the same in summary.json."""
        figures = {key: self.psnr.get(key) for key in ("demosaiced", "pretrained", "final")}
        checkpoint.write_json(self.folder / "summary.json", {"val_psnr": figures, "weights": self.weights})
        print(
            f"\nPSNR on the {len(self.splits['val'])} validation pairs (8 bits, RGB, mean over images), {self.folder}"
        )
        for key, value in figures.items():
            print(f"  {key:<12}" + ("no pairs" if value is None else f"{value:6.2f} dB"))
        if self.random:
            print(f"  ({RANDOM})")


RANDOM = "some frozen networks have random weights (see summary.json): no figure of this run compares with the paper's"


def photo(path: Path) -> Tensor:
    from data.loader import photo_tensor, read_photo

    return photo_tensor(read_photo(path))


def centre(image: Tensor) -> Tensor:
    """The middle square of (C, H, W)."""
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]


def choose_device(name: str) -> torch.device:
    """The device by name; "auto" is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from None


def claim(folder: Path, resume: bool):
    """Make the run's folder, or take it up again; the returned file holds its lock for as long as it is open."""
    if (folder / "config.json").exists() and not resume:
        raise UserError(f"{folder} exists: continue it with --resume, or name another with --run")
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "w")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is training {folder}") from None
    return lock


def main() -> None:
    config, resume = settings.parse(sys.argv[1:])
    Fit(config, resume).run()


if __name__ == "__main__":
    run_cli(main)
