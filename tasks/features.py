"""What terms and critics see of an image: features of frozen networks, in the precision of the run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import Compute, Config
from losses.color import blur
from losses.content import luminance3
from pretrained import backbones, perceptual
from training.steps import View

GREY = (0.299, 0.587, 0.114)  # weights of R, G, B (released code)
VIT_SIZE = 224  # side of the released ViT's input, pixels
LAYERS = {f"lin{k}": f"relu{k + 1}" for k in range(5)}  # the AlexNet features that LPIPS+ weights with lin0 to lin4


class Networks:
    """The frozen networks of a run: "vgg", "alexnet", "vit", "lpips" (LPIPS+), "lpips_alex" (LPIPS) and "dists".

    Each is built on first use.
    """

    def __init__(self, config: Config, device: torch.device):
        options, scaled, released = config.backbones, not config.quirks.unscaled_alexnet, config.as_released
        size, normalise = (VIT_SIZE, False) if released else (options.vit_size, options.vit_normalise)
        self.device, self.compute, self.built = device, config.compute, {}
        self.blurred = (blur,) if config.train.blur_color or released else ()  # before the colour critic's network
        self.resized = (partial(resize, size=size),) if size else ()  # before its ViT
        self.builders = {
            "vgg": lambda: backbones.vgg19(options.weights, options.vgg_file),
            "alexnet": lambda: backbones.alexnet(options.weights, options.alexnet_file, normalise=scaled),
            "vit": lambda: backbones.vit(options.weights, options.vit, options.vit_file, normalise=normalise),
            "lpips": lambda: perceptual.lpips_plus(options.weights),
            "lpips_alex": lambda: perceptual.lpips(options.weights),
            "dists": lambda: perceptual.dists(options.weights),
        }

    def __call__(self, name: str) -> nn.Module:
        """The network by name, on the device, in the run's precision."""
        if name not in self.built:
            network = self.builders[name]().to(self.device, memory_format=torch.channels_last)
            if self.compute.precision == "bf16":
                _store_in_bf16(network)
            if self.compute.compile:
                network.compile(dynamic=False)
            self.built[name] = network
        return self.built[name]

    def function(self, name: str) -> Callable[..., Any]:
        """The network as a function, under autocast if the config says so; it returns float32."""
        network, context = self(name), autocast(self.compute, self.device)

        def run(*arguments: Any, **options: Any) -> Any:
            with context():
                features = network(*arguments, **options)
            return {k: v.float() for k, v in features.items()} if isinstance(features, dict) else features.float()

        return run

    @property
    def provenance(self) -> dict[str, str]:
        """Where the weights of each network that was built are from."""
        return {name: network.provenance for name, network in self.built.items()}


def autocast(compute: Compute, device: torch.device) -> Callable[[], AbstractContextManager]:
    """The context in which the frozen networks run."""
    if compute.precision != "bf16":
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)


def _store_in_bf16(network: nn.Module) -> None:
    """Convert the weights once to what autocast would convert them to in every step."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)


# --- views -----------------------------------------------------------------------------------------------------------


def build_views(features: set[str], networks: Networks) -> list[View]:
    """The views that give the wanted `features` of an image (N, 3, H, W); the feature "image" needs none.

    Features: "vgg_rgb", "vgg_luminance" (section 3.1); "vit_tokens" of the blurred image (section 3.4, Fig. 2), and
    "vgg_tokens", "alexnet_tokens" in their place (section 4.2); "lin0" to "lin4", AlexNet's of the grey image
    (section 3.5, Table 4); "blurred" (N, 3, H, W) and "grey" (N, 1, H, W) images (section 4.2).
    Of published recipes: "vgg_half", VGG-19's of the image at half the size; "rgb" and "restored", the parts of what
    SYENet's warm-up gives (tasks/parts.py).
    """
    vgg, blurred = partial(networks.function, "vgg"), networks.blurred
    chains = {
        "vgg_rgb": lambda: (vgg(),),
        "vgg_luminance": lambda: (luminance3, vgg()),
        "vit_tokens": lambda: (*blurred, *networks.resized, networks.function("vit")),
        "vgg_tokens": lambda: (*blurred, vgg(), tokens_of),
        "alexnet_tokens": lambda: (*blurred, partial(networks.function("alexnet"), layers=("relu5",)), tokens_of),
        "blurred": lambda: (blur,),
        "grey": lambda: (grey,),
        "vgg_half": lambda: (partial(F.avg_pool2d, kernel_size=2), vgg()),
        "rgb": lambda: (lambda image: image[:, :3],),
        "restored": lambda: (lambda image: image[:, 3:],),
    }
    views = [_chain(name, *build()) for name, build in chains.items() if name in features]
    if names := tuple(name for name in LAYERS if name in features):
        alexnet, layers = networks.function("alexnet"), tuple(LAYERS[name] for name in names)
        views.append(View(names, lambda image: alexnet(grey3(image), layers).values()))
    return views


def _chain(name: str, *functions: Callable[[Tensor], Tensor]) -> View:
    """A view of one feature: the functions applied one after another."""

    def compute(image: Tensor) -> tuple[Tensor]:
        for function in functions:
            image = function(image)
        return (image,)

    return View((name,), compute)


def grey(image: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    channels = image.split(1, dim=1)
    return sum(weight * channel for weight, channel in zip(GREY, channels, strict=True))


def grey3(image: Tensor) -> Tensor:
    """What AlexNet sees: grey in three equal channels (section 3.5), (N, 3, H, W) -> (N, 3, H, W)."""
    return grey(image).expand(-1, 3, -1, -1)


def resize(image: Tensor, size: int) -> Tensor:
    """The ViT's input as released: bilinear without antialiasing, (N, 3, H, W) -> (N, 3, size, size)."""
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=False)


def tokens_of(features: Tensor | dict[str, Tensor]) -> Tensor:
    """Feature maps (N, C, H, W), alone or as the only value of a dict, as one token a position: (N, H W, C)."""
    (maps,) = features.values() if isinstance(features, dict) else (features,)
    return maps.flatten(2).transpose(1, 2)
