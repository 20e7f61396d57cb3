"""The settings of a run: every value that can vary, the paper's settings as presets, and the config.json of a run.

Only the commands at the root and `tasks/` read a `Config`; all other packages receive plain values or built objects.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from data.sensor import SENSORS, Cfa, Levels, Normalisation
from errors import UserError

_FUJIFILM = SENSORS["fujifilm"]


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise UserError(sentence)


def _finite(values: dict[str, Any], prefix: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _finite(value, f"{prefix}{name}.")
        for number in value if isinstance(value, tuple) else (value,):
            _require(not isinstance(number, float) or math.isfinite(number), f"{prefix}{name} is {number}")


@dataclass(frozen=True)
class Data:
    """The dataset, the camera that took its mosaics, and how training patches are drawn from it."""

    layout: str = "fujifilm"
    """Arrangement of the files: zrr, fujifilm, ntire26 (section 4.1); folders: one of mosaics, one of photographs.
    Task raw2raw: raw2raw, lsmi, cameras (data.simulate --cameras two), folders: one of each camera's mosaics."""
    root: str = ""
    """The dataset's folder, which contains train/, or unpaired/ in task raw2raw (all layouts but "folders")."""
    raw: str = ""
    """Layout "folders": the folder of RAW mosaics, in task raw2raw of camera a's. Layout "lsmi": camera a, if it is not
    sony: galaxy or nikon."""
    photos: str = ""
    """Layout "folders": the folder of photographs."""
    pairs: Literal["auto", "yes", "no"] = "auto"
    """Do files of one name show one scene? auto: as the layout says ("folders", "ntire26": if all names match)."""
    demo: bool = False
    """If there is nothing at `root`, make the demo dataset there from the photographs inside scikit-image."""
    raw_height: int = 0
    """Height of headless .raw files (16-bit little-endian), pixels."""
    raw_width: int = 0
    """Width of headless .raw files, pixels."""
    cfa: Cfa = _FUJIFILM.cfa
    """The mosaic's colour order: top left 2x2 pixels, row by row."""
    black_level: tuple[float, float, float, float] = _FUJIFILM.black_level
    """Black level of R, Gr, Gb, B, in digital numbers (released code; its RMFA-Net takes 63 for each)."""
    white_level: float = _FUJIFILM.white_level
    """White level in digital numbers: 1023 for 10 bits."""
    camera: str = ""
    """A camera's profile (python -m data.camera), instead of its order and levels; camera files need none."""
    levels: Levels = "file"
    """Levels of camera files: each file's own, brought to black_level and white_level; or those two, as given."""
    lens_shading: bool = False
    """Undo the lens shading that camera files note (DNG's gain maps)."""
    normalise: Normalisation = "off"
    """What light and exposure are undone by, file by file: as_shot (noted by the camera, otherwise estimated), exposure
    (alone), gray_world (estimated from the image), white_balance (as shot, without the exposure, clipped at white), off
    (paper). docs/beyond.md has the table of notes."""
    rendering: Literal["published", "camera"] = "published"
    """The demosaiced reference's black and white balance: as published, or black at 0 and the camera's own gains."""
    gains: tuple[float, float, float] = (1.6, 1.2, 1.4)
    """White balance of that rendering: R, G, B (released code); rendering camera takes the profile's, unless given."""
    demosaic: str = "menon2007"
    """Demosaicing of the content reference (Table 3): menon2007, or bilinear (OpenCV's)."""
    reference: Literal["published", "transport"] = "published"
    """What the content loss and Eq. 12 compare with: section 3.1's rendering, or that of a fitted colour map."""
    color_map: Literal["transport", "statistics"] = "transport"
    """How the map of data.reference transport and of synthetic pairs is fitted: by optimal transport of all colours, or
    by few parameters, to what varies little from scene to scene (docs/beyond.md)."""
    weights: Literal["equal", "semantic"] = "equal"
    """Weights of the photographs, mode unpaired; semantic: such that their scenes are those of the mosaics."""
    val_count: int = 1024
    """Validation pairs to draw from train/ if there is no val/ (section 4.1); a quarter, if they are over half."""
    test_count: int = 1024
    """Test pairs to draw from train/ if there is no test/ (section 4.1); a quarter, if they are over half."""
    exclude: str = ""
    """A text file of names, one a line, to leave out of train/, such as misaligned pairs (section 4.1: 17.6 %)."""
    masks: str = ""
    """Paired modes: a folder of masks, NAME.png for each training pair: 8-bit grey, of the photograph's size, 255 where
    it is aligned with its mosaic, 0 elsewhere; terms compare aligned pixels alone (docs/masks.md). Empty: all."""
    unpaired: Literal["shuffled", "disjoint"] = "shuffled"
    """How mode "unpaired" separates pairs: photographs exchanged among scenes, or half the scenes for each side."""
    patch: int = 256
    """Side of the training patches, in pixels (even)."""
    batch: int = 32
    """Patches per step, over all processes (section 4.3)."""
    flips: bool = False
    """Mirror patches at random, keeping the CFA order; task raw2raw also turns them. The ISP's paper does not."""
    workers: int = 4
    """Processes that read patches; 0: the training process reads them itself."""
    map: str = ""
    """Train on mosaics that are mapped to another camera's: a checkpoint of task raw2raw, or of map_raw.py --save."""
    map_to: Literal["", "a", "b"] = ""
    """To which camera of the map; empty: away from the one whose name or levels the mosaics have."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where decoded files are kept; auto: memory, else disk, if they fit into half of the free space, else nowhere."""
    cache_dir: str = ""
    """Folder of the cache on disk, which later runs use again; empty: RUNS/.cache."""

    def __post_init__(self):
        _require(self.patch >= 32 and self.patch % 2 == 0, f"data.patch must be even and at least 32, not {self.patch}")
        _require(self.batch >= 1, f"data.batch must be at least 1, not {self.batch}")
        _require(min(self.gains) > 0, f"data.gains must be positive, not {self.gains}")
        _require(min(self.val_count, self.test_count) >= 0, "data.val_count and data.test_count must not be negative")
        _require(self.white_level >= 255, f"data.white_level is {self.white_level:g}; give the largest digital number")
        _require(self.workers >= 0, f"data.workers must not be negative, but is {self.workers}")
        _require(min(self.raw_height, self.raw_width) >= 0, "data.raw_height and data.raw_width must not be negative")


@dataclass(frozen=True)
class Backbones:
    """The frozen networks whose features the losses and critics compare, and where their weights come from."""

    weights: Literal["pretrained", "random", "auto"] = "pretrained"
    """pretrained: file, cache or download; random: seeded; auto: pretrained if on this machine, otherwise random."""
    vgg_file: str = ""
    """VGG-19: MatConvNet's imagenet-vgg-verydeep-19.mat or a torchvision state dict; empty: torchvision's weights."""
    alexnet_file: str = ""
    """AlexNet: a torchvision state dict; empty: torchvision's weights."""
    vit: str = "vit_base_patch16_224.orig_in21k_ft_in1k"
    """The colour critic's ViT, by its name in timm (section 3.4: google/vit-base-patch16-224)."""
    vit_file: str = ""
    """The ViT's weights as a local file; empty: timm's weights, from the cache or the network."""
    vit_size: int = 224
    """Side to which the colour critic's ViT gets its input resized, pixels (released code); 0: as large as it is."""
    vit_normalise: bool = False
    """Normalise the ViT's input by the model's mean and deviation; otherwise it gets [0, 1] (released code)."""

    def __post_init__(self):
        _require(
            self.vit_size == 0 or 32 <= self.vit_size <= 1024,
            f"backbones.vit_size must be 0 or between 32 and 1024, not {self.vit_size}",
        )


@dataclass(frozen=True)
class Pretrain:
    """Pretraining on demosaicing (Eq. 12). A weight is the norm of the term's gradient at the generator; 0: no term."""

    steps: int = 20_000
    """Steps of pretraining; 0 skips it."""
    data: Literal["mosaics", "synthetic"] = "mosaics"
    """mosaics, towards data.reference (Eq. 12), or synthetic: photographs, and mosaics that are made of them."""
    lr: float = 5e-4
    """Adam's learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The learning rate: constant, or falling to 1 % along half a cosine."""
    content: float = 1.0
    """Weight of the content loss on RGB."""
    mse: float = 1.0
    """Weight of the mean squared error."""
    tv: float = 1.0
    """Weight of the total variation."""

    def __post_init__(self):
        _require(self.steps >= 0 and self.lr > 0, "pretrain.steps must not be negative, pretrain.lr must be positive")
        weights = (self.content, self.mse, self.tv)
        _require(min(weights) >= 0, "the weights of pretrain must not be negative")
        _require(
            not self.steps or max(weights) > 0, "every weight of pretrain is 0; set pretrain.steps to 0 to skip it"
        )


@dataclass(frozen=True)
class Train:
    """Training (Eq. 10 or 11). A weight is the norm of the term's gradient at the generator; 0 removes the term."""

    mode: str = "unpaired"
    """unpaired: Eq. 11; paired: Eq. 10 without critics; paired_gan: Eq. 10; synthetic and synthetic_gan: paired and
    paired_gan, with pairs made of the photographs. The table is in tasks/modes.py."""
    steps: int = 30_000
    """Steps of training. The released models come from steps 27,220 to 195,100 (docs/fidelity.md)."""
    lr: float = 5e-4
    """The generator's learning rate (section 4.3)."""
    critic_lr: float = 1e-5
    """The discriminators' learning rate (section 4.3)."""
    critic_every: int = 10
    """Steps from one update of the discriminators to the next (section 4.3)."""
    critic_warmup: int = 0
    """First steps, in which only the discriminators are trained: for a generator that is good already (--init)."""
    lr_of: dict[str, float] = field(default_factory=dict)
    """Learning rates of single discriminators, instead of critic_lr: color 2e-5 lin0 1e-5."""
    every_of: dict[str, int] = field(default_factory=dict)
    """Steps between the updates of single discriminators, instead of critic_every: color 4."""
    beta1: float = 0.5
    """The generator's momentum: Adam's decay of the gradient's average (Table 3)."""
    critic_beta1: float = 0.5
    """The discriminators' momentum (released code)."""
    beta2: float = 0.9
    """Adam's decay of the squared gradient's average (released code)."""
    gamma: float = 10.0
    """Weight of the gradient penalties R1 and R2: gamma / 2 each (Eqs. 5, 6)."""
    clip_norm: float = 1.0
    """The norm to which each discriminator's gradient is clipped (released code)."""
    ema: float = 0.0
    """Decay of the moving average of the generator's weights, which is then validated and saved; 0: none (paper)."""
    schedule: Literal["constant", "cosine", "halved", "restarts"] = "constant"
    """Learning rates: constant (paper), falling to 1 % along half a cosine, halved after half of the steps, or cosines
    to 0.01 % with restarts after 1/4 and 3/4 of the steps."""
    color_critic: str = "vit"
    """What the colour critic sees of the image: features of vit, vgg or alexnet, or the image itself (section 4.2)."""
    texture_critics: tuple[str, ...] = ("lin0", "lin3")
    """The texture critics: lin0 to lin4 see features of AlexNet (Table 4), grey sees the grey image (section 4.2)."""
    blur_color: bool = True
    """Blur what the colour critic's network sees (Fig. 2, section 4.2)."""
    content: float = 1.0
    """Weight of the content loss (section 3.1)."""
    tv: float = 1.0
    """Weight of the total variation (section 3.6)."""
    color: float = 1.0
    """Weight of the blurred colour loss; paired modes (section 3.2)."""
    lpips: float = 1.0
    """Weight of LPIPS+; paired modes (section 3.3)."""
    dists: float = 1.0
    """Weight of DISTS; paired modes (section 3.3)."""
    mse: float = 0.0
    """Weight of the mean squared error; paired modes. Not in Eq. 10; alone it gives the highest PSNR."""
    adv_color: float = 1.0
    """Weight of the adversarial colour loss; mode unpaired (section 3.4)."""
    adv_lin0: float = 1.0
    """Weight of the adversarial texture loss on lin0, if a critic sees it; unpaired, paired_gan (section 3.5)."""
    adv_lin1: float = 1.0
    """Weight of the same on lin1 (Table 4)."""
    adv_lin2: float = 1.0
    """Weight of the same on lin2 (Table 4)."""
    adv_lin3: float = 1.0
    """Weight of the same on lin3 (section 3.5)."""
    adv_lin4: float = 1.0
    """Weight of the same on lin4 (Table 4)."""
    adv_grey: float = 1.0
    """Weight of the same on the grey image (section 4.2)."""

    def __post_init__(self):
        weights = [self.content, self.tv, self.color, self.lpips, self.dists, self.mse]
        weights += [weight for name, weight in vars(self).items() if name.startswith("adv_")]
        _require(min(weights) >= 0, "the weights of train must not be negative")
        _require(
            len(set(self.texture_critics)) == len(self.texture_critics), "train.texture_critics names one critic twice"
        )
        _require(self.steps >= 0, f"train.steps must not be negative, but is {self.steps}")
        _require(self.lr > 0 and self.critic_lr > 0, "train.lr and train.critic_lr must be positive")
        _require(
            0 <= self.critic_warmup < max(1, self.steps),
            f"train.critic_warmup must lie in [0, train.steps), but is {self.critic_warmup}",
        )
        _require(self.critic_every >= 1, f"train.critic_every must be at least 1, not {self.critic_every}")
        _require(all(lr > 0 for lr in self.lr_of.values()), "the rates of train.lr_of must be positive")
        _require(all(n >= 1 for n in self.every_of.values()), "the steps of train.every_of must be at least 1")
        betas = self.beta1, self.critic_beta1, self.beta2
        _require(
            all(0 <= beta < 1 for beta in betas),
            "train.beta1, train.critic_beta1 and train.beta2 must lie in [0, 1)",
        )
        _require(0 <= self.ema < 1, f"train.ema must lie in [0, 1), not {self.ema}")
        _require(
            self.gamma >= 0 and self.clip_norm > 0, "train.gamma must not be negative, train.clip_norm must be positive"
        )


@dataclass(frozen=True)
class Published:
    """Training by a network's own published recipe (--recipe published): its stages, beside what `train` has of them.

    What is not given, tasks/recipes.py fills in when the run begins; its stages and losses are listed there. Of `train`
    steps and lr are the last stage's, and beta1, beta2 and ema hold for all stages, schedule for the last.
    """

    optimizer: Literal["adam", "radam"] = "adam"
    """The generator's optimizer, in all stages."""
    steps: dict[str, int] = field(default_factory=dict)
    """Steps of single stages before the last: level5 1000 level4 0."""
    epochs: dict[str, int] = field(default_factory=dict)
    """Epochs of single stages instead of steps; when the data are known, they become steps: epochs x pairs / batch."""
    lr: dict[str, float] = field(default_factory=dict)
    """Learning rates of single stages before the last: level5 1e-4."""
    weights: dict[str, float] = field(default_factory=dict)
    """Factors of single losses in the stages' plain sums, by stage and loss: train.mse 10 train.ssim 0. 0: no loss."""

    def __post_init__(self):
        for name in ("steps", "epochs", "weights"):
            _require(
                all(value >= 0 for value in getattr(self, name).values()),
                f"published.{name} must not be negative or NaN",
            )
        _require(all(lr > 0 for lr in self.lr.values()), "the rates of published.lr must be positive")


@dataclass(frozen=True)
class Released:
    """What the released code does otherwise than the paper's text, a switch each; `as_released` turns all of them on.

    docs/fidelity.md has the list, and what each does to the result.
    """

    penalty_times_100: bool = False
    """Multiply the gradient penalties R1 and R2 by a hidden 100."""
    unscaled_alexnet: bool = False
    """Give AlexNet grey in [0, 1], without LPIPS's scaling layer."""
    untrained_fc1: bool = False
    """Never train the convolutional critics' first linear layer, and let its gradient add up in the clipped norm."""
    permutation: bool = False
    """data.unpaired "shuffled": allow a photograph to stay with its own scene."""
    swapped_lpips: bool = False
    """LPIPS+ weights by the features of the generated image instead of the target's; paired modes."""
    luminance_content: bool = False
    """The paired content loss compares luminance instead of RGB; paired modes."""
    target_gradients: bool = False
    """Build a graph for the features of targets and references: time and memory, with the same result."""
    float_psnr: bool = False
    """Validate and rank by the PSNR of floating point images instead of 8-bit ones."""
    chunks: bool = False
    """Draw pairs in chunks of 100 batches, each a fresh sample of the files, instead of whole epochs."""


@dataclass(frozen=True)
class SecondCamera:
    """Task raw2raw: the camera b, to and from which the mosaics of `data`'s camera, a, are mapped."""

    raw: str = ""
    """Layout "folders": the folder of camera b's mosaics; data.raw is that of camera a's. Layout "lsmi": camera b,
    if it is not galaxy."""
    camera: str = ""
    """Camera b's profile (python -m data.camera); camera files need none."""
    cfa: Cfa = _FUJIFILM.cfa
    """Its colour order: top left 2x2 pixels, row by row."""
    black_level: tuple[float, float, float, float] = _FUJIFILM.black_level
    """Its black level of R, Gr, Gb, B, in digital numbers."""
    white_level: float = _FUJIFILM.white_level
    """Its white level in digital numbers."""


@dataclass(frozen=True)
class Mapping:
    """Task raw2raw: training two mappers against two critics (*Unsupervised Raw-to-raw Mapping*, Eqs. 8 to 12)."""

    steps: int = 85_750
    """Steps of training: 50 epochs (section 4.1) of 6,860 patches a camera (docs/raw_to_raw.md)."""
    channels: int = 4
    """Planes of a mosaic: 4, R, Gr, Gb, B; or 3, R, the mean of the greens, B, as the paper has for LSMI."""
    start: Literal["identity", "gains", "transport", "statistics", "profiles"] = "identity"
    """What the mappers start from, and correct: nothing, or a linear map that is fitted without pairs before the first
    step (data/raw_maps.py). The paper has none."""
    lr: float = 1e-5
    """The mappers' learning rate (section 4.1)."""
    critic_lr: float = 2e-5
    """The critics' learning rate (section 4.1)."""
    beta1: float = 0.5
    """Adam's decay of the gradient's average (section 4.1)."""
    beta2: float = 0.999
    """Adam's decay of the squared gradient's average (section 4.1)."""
    adversarial: float = 1.0
    """Weight of the adversarial loss (Eq. 11)."""
    cycle: float = 10.0
    """Weight of the cycle consistency loss (Eq. 11)."""
    identity: float = 5.0
    """Weight of the identity loss (Eq. 11)."""
    critic_norm: Literal["instance", "none"] = "instance"
    """Normalisation in the critics: instance as in CycleGAN; none, because instance hides an image's mean colour."""
    clip_norm: float = 0.0
    """The norm to which the mappers' gradient is clipped; 0: not at all (released code: 2)."""
    averaged_logits: bool = False
    """Average a critic's logits over an image before its loss (released code)."""
    halved: bool = False
    """Halve the critics' loss (released code)."""
    replay: int = 0
    """Mapped patches of former steps from which the critics' are drawn; 0: those of this step (released code: 50)."""
    ema: float = 0.0
    """Decay of the moving average of the mappers' weights, which is then validated and saved; 0: none (paper)."""

    def __post_init__(self):
        _require(self.steps >= 0, f"mapping.steps must not be negative, but is {self.steps}")
        _require(self.channels in (3, 4), f"mapping.channels must be 4 or 3, not {self.channels}")
        _require(self.lr > 0 and self.critic_lr > 0, "mapping.lr and mapping.critic_lr must be positive")
        _require(
            all(0 <= beta < 1 for beta in (self.beta1, self.beta2)), "mapping.beta1, mapping.beta2 must lie in [0, 1)"
        )
        weights = (self.adversarial, self.cycle, self.identity)
        _require(min(weights) >= 0, "the weights of mapping must not be negative")
        _require(max(weights) > 0, "every weight of mapping is 0: nothing would be trained")
        _require(0 <= self.ema < 1, f"mapping.ema must lie in [0, 1), not {self.ema}")
        _require(min(self.clip_norm, self.replay) >= 0, "mapping.clip_norm and mapping.replay must not be negative")


@dataclass(frozen=True)
class Compute:
    """Faster arithmetic with more rounding error: lower precision, or compiled networks."""

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """tf32: GPU matrix products with 10-bit mantissas; bf16: the frozen networks, in task raw2raw those that are
    trained, under bfloat16 autocast."""
    compile: bool = False
    """Compile the frozen networks with torch.compile; the end of each stage reports how long that took."""


@dataclass(frozen=True)
class Log:
    """How often a run writes what, in steps."""

    every: int = 10
    """Steps between lines of statistics in log.jsonl and TensorBoard."""
    val_every: int = 500
    """Steps between validations, each with its PSNR and a grid of sample images."""
    save_every: int = 10
    """Steps between checkpoints of the generator in checkpoints/ (paper: 10)."""
    state_every: int = 500
    """Steps between saves of the full training state, last.pt, from which --resume continues."""
    samples: int = 4
    """Scenes in a grid of sample images."""

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            _require(value >= 1, f"log.{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class Config:
    """A training run."""

    task: Literal["isp", "raw2raw"] = "isp"
    """What is trained: isp, mosaics to photographs; raw2raw, one camera's mosaics to another's (mapping, data_b)."""
    run: str = "demo"
    """The run's name: everything is written to RUNS/NAME."""
    runs: str = "runs"
    """The folder of all runs."""
    model: str = ""
    """efficient, robust, rmfa-tiny, ... (section 4.2), lan, microisp, syenet, ... (docs/networks.md), mapper, ... (task
    raw2raw); empty: that of `init`, or efficient."""
    init: str = ""
    """Start from this generator and skip pretraining: a checkpoint of fit.py, a released file, or a released name; task
    raw2raw, instead of mapping.start: a checkpoint of that task."""
    recipe: Literal["paper", "published"] = "paper"
    """How the ISP is trained: paper, as `train` and `pretrain` say; published, as the network's own publication
    (docs/networks_recipes.md): stages, losses and their plain sum, optimizer, rates, batch and patch, unless given."""
    seed: int = 0
    """Seed of all random numbers."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: cuda if available."""
    as_released: bool = False
    """Follow the released code: all switches of `released`, and the ViT's input as published, whatever the preset; task
    raw2raw: clip_norm 2, averaged_logits, halved and replay 50 of `mapping`."""
    data: Data = field(default_factory=Data)
    data_b: SecondCamera = field(default_factory=SecondCamera)
    backbones: Backbones = field(default_factory=Backbones)
    pretrain: Pretrain = field(default_factory=Pretrain)
    train: Train = field(default_factory=Train)
    published: Published = field(default_factory=Published)
    mapping: Mapping = field(default_factory=Mapping)
    released: Released = field(default_factory=Released)
    compute: Compute = field(default_factory=Compute)
    log: Log = field(default_factory=Log)

    @property
    def quirks(self) -> Released:
        """The switches of `released`, all on with `as_released`."""
        return Released(*[True] * len(dataclasses.fields(Released))) if self.as_released else self.released

    @property
    def mapping_settings(self) -> Mapping:
        """`mapping`, with `as_released` as the released code trains."""
        released = {"clip_norm": 2.0, "averaged_logits": True, "halved": True, "replay": 50}
        return dataclasses.replace(self.mapping, **released) if self.as_released else self.mapping

    def __post_init__(self):
        bad = not self.run or self.run != Path(self.run).name or self.run.startswith(".")
        _finite(dataclasses.asdict(self))
        _require(not bad, f"run must be the plain name of a folder, not '{self.run}'")
        _require(0 <= self.seed < 1 << 63, f"seed must lie in [0, 2^63), but is {self.seed}")


# The presets named after a released model last as long as it was trained: its file's name has the step.
_rmfa = Train(steps=48_270, lr=1e-4, critic_lr=5e-5, critic_every=4)


def _data_of(sensor: str, **fields: Any) -> Data:
    """Data of a camera in `SENSORS`."""
    camera = SENSORS[sensor]
    return Data(cfa=camera.cfa, black_level=camera.black_level, white_level=camera.white_level, **fields)


def _second(sensor: str) -> SecondCamera:
    """Camera b of `SENSORS`."""
    camera = SENSORS[sensor]
    return SecondCamera(cfa=camera.cfa, black_level=camera.black_level, white_level=camera.white_level)


PRESETS: dict[str, Config] = {
    "demo": Config(
        data=Data(root="datasets/demo", demo=True, patch=64, batch=8, workers=0, flips=True, val_count=0, test_count=0),
        backbones=Backbones("auto", vit="vit_tiny_patch16_224", vit_size=0),  # 16 tokens of a patch instead of 196
        # A short run on random features, which respond little to fine detail: a high, falling rate, little smoothing.
        pretrain=Pretrain(steps=1500, lr=1e-3, content=0.0, tv=0.01),
        train=Train(
            steps=450, lr=1e-3, critic_lr=5e-4, critic_every=1, ema=0.99, schedule="cosine", content=1.0, tv=0.1
        ),
        log=Log(val_every=150, save_every=50, state_every=150),
    ),
    # Not the paper's method: colours fitted without pairs, and pairs made of the photographs (docs/beyond.md).
    "quick": Config(
        run="quick",
        data=Data(patch=64, batch=8, workers=0, flips=True, val_count=64, test_count=0, color_map="statistics"),
        backbones=Backbones("auto"),
        pretrain=Pretrain(steps=0, content=0),
        train=Train(
            mode="synthetic", steps=4000, lr=4e-3, schedule="cosine", content=0, tv=0, color=0, lpips=0, dists=0, mse=1
        ),
        log=Log(val_every=500, save_every=500, state_every=500),
    ),
    # The paper's method for files of one's own camera.
    "camera": Config(
        run="camera", model="efficient", data=Data(layout="folders", rendering="camera"), train=Train(steps=27_220)
    ),
    "fujifilm-efficient": Config(run="fujifilm-efficient", model="efficient", train=Train(steps=27_220)),
    "fujifilm-robust": Config(run="fujifilm-robust", model="robust", train=Train(steps=66_090)),
    "fujifilm-rmfa-tiny": Config(
        run="fujifilm-rmfa-tiny",
        model="rmfa-tiny",
        data=_data_of("fujifilm-rmfa"),
        pretrain=Pretrain(lr=1e-4),
        train=_rmfa,
    ),
    "zrr-efficient": Config(run="zrr-efficient", model="efficient", data=Data(layout="zrr"), train=Train(steps=30_750)),
    "zrr-efficient-paired": Config(
        run="zrr-efficient-paired",
        model="efficient",
        data=Data(layout="zrr"),
        train=Train(mode="paired_gan", steps=195_100),
    ),
    "ntire26": Config(run="ntire26", data=_data_of("ntire26", layout="ntire26", pairs="no")),
    # Another paper: one camera's mosaics as another would have taken them (docs/raw_to_raw.md).
    "raw2raw": Config(
        task="raw2raw",
        run="raw2raw",
        model="mapper",
        data=Data(layout="raw2raw", patch=512, batch=4, flips=True),
        log=Log(val_every=1715, save_every=1715, state_every=1715),
    ),
    # The same on two simulated cameras, in a few minutes: little training, which begins at a fitted map.
    "raw2raw-demo": Config(
        task="raw2raw",
        run="raw2raw-demo",
        model="mapper",
        data=_data_of(
            "simulated-a",
            layout="cameras",
            root="datasets/raw2raw-demo",
            demo=True,
            patch=128,
            batch=4,
            workers=0,
            flips=True,
        ),
        data_b=_second("simulated-b"),
        mapping=Mapping(
            steps=300, start="transport", lr=3e-5, critic_lr=2e-4, identity=0.0, critic_norm="none", ema=0.99
        ),
        log=Log(val_every=100, save_every=100, state_every=100),
    ),
}

config = PRESETS["demo"]  # the global config: what `python fit.py` runs if no preset is named


# --- config.json -----------------------------------------------------------------------------------------------------


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain dicts, lists, strings and numbers, as config.json holds it."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flat(section: Any, prefix: str = "") -> dict[str, Any]:
    """{"seed": 0, "train.lr": 5e-4, ...} of a config or one of its sections."""
    found = {}
    for name, value in vars(section).items():
        found |= flat(value, f"{prefix}{name}.") if dataclasses.is_dataclass(value) else {prefix + name: value}
    return found


def differences(before: Config, *others: Config) -> list[str]:
    """Names of the fields in which one of the `others` differs from `before`, such as "train.lr"."""
    first, rest = flat(before), [flat(other) for other in others]
    return [name for name in first if any(first[name] != other[name] for other in rest)]


def from_dict(values: dict[str, Any], kind: type = Config) -> Any:
    """The config of `to_dict`. Raises `UserError` for unknown keys and wrong types."""
    _require(isinstance(values, dict), f"section {kind.__name__.lower()} of the config is {values!r}")
    values = _renamed(values) if kind is Config else values
    hints = get_type_hints(kind)
    unknown = sorted(map(str, values.keys() - hints.keys()))
    _require(not unknown, f"unknown config key '{', '.join(unknown)}' in {kind.__name__}")
    return kind(**{name: _typed(f"{kind.__name__}.{name}", value, hints[name]) for name, value in values.items()})


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """The same values with today's names of texture critics; a former version named them by what all of them see."""
    train, former = values.get("train"), {"alexnet": ["lin0", "lin3"], "image": ["grey"]}
    if isinstance(train, dict) and train.get("texture_critics") in ("alexnet", "image"):
        return values | {"train": train | {"texture_critics": former[train["texture_critics"]]}}
    return values


def _typed(name: str, value: Any, hint: Any) -> Any:
    """A value from JSON as the type `hint` of the field `name`."""
    if dataclasses.is_dataclass(hint):
        return from_dict(value, hint)
    if get_origin(hint) is dict:
        _require(isinstance(value, dict), f"{name} is {value!r}, but must be an object of names and numbers")
        return {key: _typed(f"{name}.{key}", item, get_args(hint)[1]) for key, item in value.items()}
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value) if isinstance(value, list) else kinds
        _require(isinstance(value, list) and len(value) == len(kinds), f"{name} needs {len(kinds)} values, not {value}")
        return tuple(_typed(name, item, item_kind) for item, item_kind in zip(value, kinds, strict=True))
    if get_origin(hint) is Literal:
        _require(value in get_args(hint), f"{name} is {value!r}, but must be one of {', '.join(get_args(hint))}")
        return value
    fits = type(value) is hint or (hint is float and type(value) is int)
    _require(fits, f"{name} is {value!r}, but must be of type {hint.__name__}")
    return hint(value)


def load(path: Path) -> Config:
    """Read a run's config.json. Raises `UserError` if it is not one."""
    _require(path.is_file(), f"{path} is not a file")  # reading a pipe could wait for ever
    try:
        return from_dict(json.loads(path.read_text()))
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"{path} is not a valid config: {error}") from None


def open_run(runs: str, name: str, data_root: str = "") -> tuple[Path, Config]:
    """The folder and the config of an existing run; `data_root` replaces its data.root, if the dataset has moved.

    Raises `UserError`, with the names of the existing runs, if there is no such run.
    """
    folder = Path(runs) / name
    if not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in Path(runs).glob("*/config.json"))
        raise UserError(f"no run {folder}; existing runs: {', '.join(known) or 'none'} (see --run and --runs)")
    config = load(folder / "config.json")
    if not data_root:
        return folder, config
    _require(
        not config.data.raw or config.data.root,
        f"the dataset of {folder} has no root: edit data.raw and data.photos in its config.json, if it has moved",
    )
    return folder, dataclasses.replace(config, data=dataclasses.replace(config.data, root=data_root, demo=False))
