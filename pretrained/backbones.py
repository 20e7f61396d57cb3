"""The frozen networks behind the losses and measures: VGG-19, AlexNet, a ViT, and pyiqa's LPIPS, LPIPS+ and DISTS.

Each takes sRGB (N, 3, H, W) in [0, 1], brings its own input normalisation, is in eval mode, and has no parameter that
wants a gradient. Its `provenance` says in words where its weights came from.

Weights follow a policy:
- "pretrained": a local file, the cache of torch (`TORCH_HOME`) or of Hugging Face, or a download;
- "random": seeded initial values;
- "auto": pretrained if they are already on this machine, otherwise random. Nothing is downloaded.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from errors import UserError
from pretrained.files import fetch, first_line, read_state, require_host, sha256_of

POLICIES = ("pretrained", "random", "auto")
TORCHVISION = "https://download.pytorch.org/models"
PYIQA = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_MEAN = (123.68, 116.779, 103.939)  # of 0-255 RGB
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS v0.1's scaling layer, on [-1, 1]


class Frozen(nn.Module):
    """A network behind an affine input normalisation, (x - mean) / std per channel."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], provenance: str):
        super().__init__()
        self.network = network
        self.provenance = provenance
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def normalise(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class VGG19(Frozen):
    """(N, 3, H, W) -> relu5_4, (N, 512, H/16, W/16): the content loss's features (section 3.1)."""

    def forward(self, image: Tensor) -> Tensor:
        return self.network(self.normalise(image))


class AlexNet(Frozen):
    """(N, 3, H, W) -> {"relu1": (N, 64, ...), ..., "relu5": (N, 256, ...)}, as deep as asked, as LPIPS+ has them."""

    def forward(self, image: Tensor, layers: tuple[str, ...] = ("relu1", "relu4")) -> dict[str, Tensor]:
        x, features, count = self.normalise(image), {}, 0
        for module in self.network:
            x = module(x)
            if isinstance(module, nn.ReLU):
                count += 1
                if f"relu{count}" in layers:
                    features[f"relu{count}"] = x
                if len(features) == len(layers):
                    break
        return features


class ViT(Frozen):
    """(N, 3, H, W) -> patch tokens of the last hidden state after the final norm, (N, H/16 W/16, width) (section 3.4).

    Sees the image at its own resolution: position embeddings are interpolated, the image is not.
    """

    @property
    def width(self) -> int:
        return self.network.num_features

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.network.forward_features(self.normalise(image))
        return tokens[:, self.network.num_prefix_tokens :]


class Measure(nn.Module):
    """pyiqa's LPIPS, LPIPS+ or DISTS, with a reference: two (N, 3, H, W) in [0, 1] -> (N,), smaller is better."""

    def __init__(self, network: nn.Module, provenance: str):
        super().__init__()
        self.network = network
        self.provenance = provenance
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return self.network(image, reference).flatten()


def vgg19(policy: str = "pretrained", file: str = "", seed: int = 0) -> VGG19:
    """VGG-19 to relu5_4, from MatConvNet's `.mat` (the file that the paper's README names) or torchvision's weights.

    `file` is a `.mat` or a torchvision state dict; empty means torchvision's from the cache or the network.
    """
    from torchvision.models import vgg19 as build

    network = _seeded(lambda: build(weights=None).features[:36], seed)
    source, provenance = _source(policy, "VGG-19", seed, file, f"{TORCHVISION}/vgg19-dcbb9e9d.pth", "checkpoints")
    if source and source.suffix == ".mat":
        _load(network, _matconvnet_state(source), source)
        return VGG19(network, tuple(m / 255 for m in VGG_MEAN), (1 / 255,) * 3, provenance)
    if source:
        _load(network, _features(read_state(source)), source)
    return VGG19(network, IMAGENET_MEAN, IMAGENET_STD, provenance)


def alexnet(policy: str = "pretrained", file: str = "", seed: int = 0, normalise: bool = True) -> AlexNet:
    """AlexNet's convolutions with LPIPS's scaling of the input; `normalise=False` leaves that out, as released."""
    from torchvision.models import alexnet as build

    network = _seeded(lambda: build(weights=None).features[:12], seed)
    for module in network:
        if isinstance(module, nn.ReLU):
            module.inplace = False  # features are kept
    source, provenance = _source(
        policy, "AlexNet", seed, file, f"{TORCHVISION}/alexnet-owt-7be5be79.pth", "checkpoints"
    )
    if source:
        _load(network, _features(read_state(source)), source)
    if not normalise:
        return AlexNet(network, (0.0,) * 3, (1.0,) * 3, provenance)
    # LPIPS takes 2x - 1 first: (2x - 1 - shift) / scale = (x - (1 + shift) / 2) / (scale / 2)
    mean, std = tuple((1 + s) / 2 for s in LPIPS_SHIFT), tuple(s / 2 for s in LPIPS_SCALE)
    return AlexNet(network, mean, std, provenance)


def vit(policy: str, name: str, file: str = "", seed: int = 0, normalise: bool = True) -> ViT:
    """A timm Vision Transformer by name (the paper's: vit_base_patch16_224.orig_in21k_ft_in1k), or its local `file`.

    `normalise=False` leaves out the input's mean and standard deviation, as the released code.
    """
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = ", ".join(timm.list_models(f"{name.split('_')[0]}_*")[:4]) or "vit_base_patch16_224"
        raise UserError(f"timm knows no model '{name}'; near it are: {near}")
    try:
        network = _seeded(
            lambda: timm.create_model(name, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True), seed
        )
    except TypeError:
        advice = "choose one, such as vit_base_patch16_224"
        raise UserError(f"timm's '{name}' is no plain vision transformer; {advice}") from None
    except RuntimeError as error:  # an unknown tag behind the dot
        known = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise UserError(f"timm cannot build '{name}': {first_line(error)}; known tags are: {known}") from None
    path, provenance = _vit_source(policy, name, network.pretrained_cfg, file, seed)
    if path:
        try:
            found = timm.models.load_checkpoint(network, str(path), strict=False, filter_fn=checkpoint_filter_fn)
        except Exception as error:  # whatever a foreign or broken file provokes
            raise UserError(f"{path} does not hold the weights of timm's '{name}': {first_line(error)}") from None
        if found.missing_keys:
            raise UserError(f"{path} does not hold the weights of timm's '{name}': no {found.missing_keys[0]}")
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    return ViT(network, mean if normalise else (0.0,) * 3, std if normalise else (1.0,) * 3, provenance)


def lpips(policy: str = "pretrained", seed: int = 0) -> Measure:
    """LPIPS v0.1 (Zhang et al. 2018) on AlexNet, pyiqa's definition; it brings its own [-1, 1]."""
    return _lpips("LPIPS", policy, seed)


def lpips_plus(policy: str = "pretrained", seed: int = 0) -> Measure:
    """LPIPS+ (Chen et al. 2024) on AlexNet, pyiqa's definition."""
    return _lpips("LPIPS+", policy, seed, semantic_weight_layer=2)


def _lpips(what: str, policy: str, seed: int, **options: int) -> Measure:
    from pyiqa.archs.lpips_arch import LPIPS

    def build() -> nn.Module:
        with _no_imagenet_weights("alexnet"):
            return LPIPS(net="alex", pretrained=False, **options)

    network = _seeded(build, seed)
    trunk, provenance = _source(policy, what, seed, "", f"{TORCHVISION}/alexnet-owt-7be5be79.pth", "checkpoints")
    heads, heads_provenance = _source(policy, what, seed, "", f"{PYIQA}/LPIPS_v0.1_alex-df73285e.pth", "pyiqa")
    if not (trunk and heads):
        _positive_heads(network)
        return Measure(network, provenance if not trunk else heads_provenance)
    # pyiqa cuts AlexNet into slices but keeps the position of each layer as its name.
    state = _features(read_state(trunk))
    places = {key.split(".")[1]: key.split(".")[0] for key in network.net.state_dict()}
    _load(network.net, {f"{places[k.split('.')[0]]}.{k}": v for k, v in state.items()}, trunk)
    _load(network.lins, {k.removeprefix("lin"): v for k, v in read_state(heads).items()}, heads)
    return Measure(network, f"{provenance}, {heads.name}")


def dists(policy: str = "pretrained", seed: int = 0) -> Measure:
    """DISTS (Ding et al. 2020), pyiqa's definition."""
    from pyiqa.archs.dists_arch import DISTS

    def build() -> nn.Module:
        with _no_imagenet_weights("vgg16"):
            return DISTS(pretrained=False)

    network = _seeded(build, seed)
    trunk, provenance = _source(policy, "DISTS", seed, "", f"{TORCHVISION}/vgg16-397923af.pth", "checkpoints")
    heads, heads_provenance = _source(policy, "DISTS", seed, "", f"{PYIQA}/DISTS_weights-f5e65c96.pth", "pyiqa")
    if not (trunk and heads):
        return Measure(network, provenance if not trunk else heads_provenance)
    state = _features(read_state(trunk))
    places = {key.split(".")[1]: key.split(".")[0] for key in network.state_dict() if key.startswith("stage")}
    state = {f"{places[k.split('.')[0]]}.{k}": v for k, v in state.items() if k.split(".")[0] in places}
    _load(network, state | read_state(heads), f"{trunk} with {heads}")
    return Measure(network, f"{provenance}, {heads.name}")


# --- where weights come from -----------------------------------------------------------------------------------------


def _source(policy: str, what: str, seed: int, file: str, url: str, folder: str) -> tuple[Path | None, str]:
    """The file to load, or None for random weights, and the provenance in words."""
    if policy not in POLICIES:
        raise UserError(f"unknown weights policy '{policy}'; known are: {', '.join(POLICIES)}")
    random = f"random (seed {seed})"
    if policy == "random":
        return None, random
    if file:
        if not Path(file).is_file():
            raise UserError(f"no file {file} for the weights of {what}")
        return Path(file), f"pretrained ({Path(file).name})"
    name = url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir()) / folder / name
    if not path.is_file():
        if policy == "auto":
            return None, random
        fetch(url, path, sha256=name.rsplit("-", 1)[1].split(".")[0])
    return path, f"pretrained ({name})"


def _vit_source(policy: str, name: str, cfg: dict, file: str, seed: int) -> tuple[Path | None, str]:
    """As `_source`, for what timm publishes on the hub of Hugging Face."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if policy == "random" or policy not in POLICIES or file:
        return _source(policy, name, seed, file, "", "")
    repository, weights = cfg.get("hf_hub_id"), "model.safetensors"
    cached = try_to_load_from_cache(repository, weights) if repository else None
    if isinstance(cached, str):
        return Path(cached), f"pretrained ({repository})"
    if policy == "auto":
        return None, f"random (seed {seed})"
    if not repository:
        raise UserError(f"timm has no published weights for '{name}'; name a file or take random weights")
    url = f"https://huggingface.co/{repository}/resolve/main/{weights}"
    advice = f"download {url} elsewhere and name the file with --backbones.vit-file"
    require_host(url, advice)
    try:
        path = Path(hf_hub_download(repository, weights))
    except Exception as error:  # the hub's client has many
        raise UserError(f"cannot download {url} ({first_line(error)}); {advice}") from None
    # The hub's cache names a large file's blob by the SHA-256 that the server announced for it.
    blob = Path(os.path.realpath(path))
    if sha256_of(blob) != blob.name:
        blob.unlink()  # the file itself: a link to it would only be made anew
        path.unlink(missing_ok=True)
        raise UserError(f"the download of {url} has the wrong SHA-256; try again")
    return path, f"pretrained ({repository})"


# --- reading ---------------------------------------------------------------------------------------------------------


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _features(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's convolutions, numbered as in its `features`."""
    return {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}


def _load(network: nn.Module, state: dict[str, Tensor], where: Path | str) -> None:
    """Fill every parameter of `network`; what else is in `state` is left."""
    missing = [name for name, _ in network.named_parameters() if name not in state]
    if missing:
        raise UserError(f"{where} does not hold these weights: no {missing[0]}")
    try:
        network.load_state_dict({k: state[k] for k in network.state_dict() if k in state}, strict=False)
    except RuntimeError as error:
        raise UserError(f"{where} does not hold these weights: {first_line(error)}") from None


def _matconvnet_state(path: Path) -> dict[str, Tensor]:
    """The convolutions of a MatConvNet file, in the order of torchvision's `features`; filters are (H, W, in, out)."""
    from scipy.io import loadmat

    try:
        layers = loadmat(path, squeeze_me=True, struct_as_record=True)["layers"]
        state = {}
        for index, layer in enumerate(layers):
            if "weights" in (layer.dtype.names or ()):
                filters, bias = layer["weights"].item()
                state[f"{index}.weight"] = torch.from_numpy(filters).permute(3, 2, 0, 1).contiguous()
                state[f"{index}.bias"] = torch.from_numpy(bias)
    except Exception as error:
        raise UserError(f"{path} is no MatConvNet VGG-19: {first_line(error)}") from None
    return state


@contextlib.contextmanager
def _no_imagenet_weights(name: str) -> Iterator[None]:
    """pyiqa's constructors insist on ImageNet weights; here they get a bare network, and `_load` fills it, safely."""
    import torchvision

    build = getattr(torchvision.models, name)
    with mock.patch.object(torchvision.models, name, lambda **_: build(weights=None)):
        yield


def _positive_heads(network: nn.Module) -> None:
    """LPIPS's heads weigh squared differences: random ones must not be negative."""
    for head in network.lins:
        for parameter in head.parameters():
            parameter.data.abs_()
