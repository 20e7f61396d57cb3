"""The frozen feature networks behind the losses and critics: VGG-19, AlexNet and a Vision Transformer.

Each takes sRGB images (N, 3, H, W) in [0, 1] and normalises them itself, is in eval mode, and has no trainable
parameter. Its attribute `provenance` says where its weights came from, which the weights policy decides
(`pretrained.files`).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import storage
from errors import UserError
from pretrained.files import find_timm_weights, find_weights

TORCHVISION = "https://download.pytorch.org/models"
ALEXNET_URL = f"{TORCHVISION}/alexnet-owt-7be5be79.pth"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_MEAN = (123.68, 116.779, 103.939)  # MatConvNet's, of RGB in 0 to 255
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS v0.1's scaling layer, on [-1, 1]


class Frozen(nn.Module):
    """A network that cannot be trained, behind an input normalisation (x - mean) / std for each colour channel."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], provenance: str):
        super().__init__()
        self.network = network
        self.provenance = provenance
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def normalise(self, image: Tensor) -> Tensor:
        """sRGB (N, 3, H, W) in [0, 1] -> the network's input, of the same shape."""
        return (image - self.mean) / self.std


class VGG19(Frozen):
    """VGG-19 up to relu5_4, for the content loss (section 3.1): (N, 3, H, W) -> (N, 512, H/16, W/16)."""

    def forward(self, image: Tensor) -> Tensor:
        return self.network(self.normalise(image))


class AlexNet(Frozen):
    """AlexNet's features after its ReLUs: (N, 3, H, W) -> {"relu1": (N, 64, ...), ..., "relu5": (N, 256, ...)}.

    Only the requested `layers` are returned, and computation stops after the last of them. The default are the two
    layers of LPIPS+ that the texture critics use (section 3.5).
    """

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
    """A Vision Transformer's patch tokens after the final norm (section 3.4): (N, 3, H, W) -> (N, H/16 * W/16, width).

    The class token is left out. The image is not resized: the position embeddings are interpolated to its size.
    """

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.network.forward_features(self.normalise(image))
        return tokens[:, self.network.num_prefix_tokens :]


def vgg19(policy: str = "pretrained", file: str = "", seed: int = 0) -> VGG19:
    """Build VGG-19 up to relu5_4.

    `file` is a torchvision state dict, or MatConvNet's `.mat` file that the README of the paper's code names, which has
    its own input normalisation; "" means torchvision's published weights. Raises `UserError` as `find_weights`, and for
    a file with other content.
    """
    from torchvision.models import vgg19 as build

    network = build_seeded(lambda: build(weights=None).features[:36], seed)
    url = f"{TORCHVISION}/vgg19-dcbb9e9d.pth"
    path, provenance = find_weights(policy, "VGG-19", url, "checkpoints", file, seed)
    if path and path.suffix == ".mat":
        load_weights(network, _matconvnet_state(path), path)
        return VGG19(network, tuple(m / 255 for m in VGG_MEAN), (1 / 255,) * 3, provenance)
    if path:
        load_weights(network, convolutions_of(storage.load(path)), path)
    return VGG19(network, IMAGENET_MEAN, IMAGENET_STD, provenance)


def alexnet(policy: str = "pretrained", file: str = "", seed: int = 0, normalise: bool = True) -> AlexNet:
    """Build AlexNet's convolutions behind LPIPS's input scaling; `normalise=False` omits it, as the released code.

    `file` is a torchvision state dict; "" means torchvision's published weights. Raises `UserError` as `find_weights`,
    and for a file with other content.
    """
    from torchvision.models import alexnet as build

    network = build_seeded(lambda: build(weights=None).features[:12], seed)
    for module in network:
        if isinstance(module, nn.ReLU):
            module.inplace = False  # the features of several layers are returned
    path, provenance = find_weights(policy, "AlexNet", ALEXNET_URL, "checkpoints", file, seed)
    if path:
        load_weights(network, convolutions_of(storage.load(path)), path)
    if not normalise:
        return AlexNet(network, (0.0,) * 3, (1.0,) * 3, provenance)
    # LPIPS scales 2x - 1: (2x - 1 - shift) / scale = (x - (1 + shift) / 2) / (scale / 2)
    mean, std = tuple((1 + s) / 2 for s in LPIPS_SHIFT), tuple(s / 2 for s in LPIPS_SCALE)
    return AlexNet(network, mean, std, provenance)


def vit(policy: str, name: str, file: str = "", seed: int = 0, normalise: bool = True) -> ViT:
    """Build a timm Vision Transformer by name; the paper's is vit_base_patch16_224.orig_in21k_ft_in1k.

    `file` holds weights of that model; "" means those that timm publishes. `normalise=False` omits the normalisation by
    mean and standard deviation, as the released code. Raises `UserError` for an unknown name, a model that is not a
    Vision Transformer, as `find_timm_weights`, and for a file with other content.
    """
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = ", ".join(timm.list_models(f"{name.split('_')[0]}_*")[:4]) or "vit_base_patch16_224"
        raise UserError(f"timm has no model '{name}'; similar names are: {near}")
    try:
        network = build_seeded(
            lambda: timm.create_model(name, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True), seed
        )
    except TypeError:  # the model does not know these options
        advice = "choose one such as vit_base_patch16_224"
        raise UserError(f"timm's '{name}' is not a plain Vision Transformer; {advice}") from None
    except RuntimeError as error:  # an unknown tag after the dot
        known = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise UserError(f"timm cannot build '{name}': {storage.first_line(error)}; known tags are: {known}") from None
    path, provenance = find_timm_weights(policy, name, network.pretrained_cfg.get("hf_hub_id"), file, seed)
    if path:
        storage.require_intact(path)
        try:
            keys = timm.models.load_checkpoint(
                network, str(path), strict=False, filter_fn=checkpoint_filter_fn, weights_only=True
            )
        except Exception as error:  # foreign and damaged files raise many types
            reason = storage.first_line(error)
            raise UserError(f"{path} does not hold the weights of timm's '{name}': {reason}") from None
        if keys and keys.missing_keys:  # timm returns None for a NumPy file, whose keys it checks itself
            raise UserError(f"{path} does not hold the weights of timm's '{name}': {keys.missing_keys[0]} is missing")
        if deeper := [key for key in (keys.unexpected_keys if keys else ()) if key.startswith("blocks.")]:
            raise UserError(f"{path} holds the weights of another model than timm's '{name}': it also has {deeper[0]}")
        require_finite(network, path)
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    return ViT(network, mean if normalise else (0.0,) * 3, std if normalise else (1.0,) * 3, provenance)


# --- shared with pretrained.perceptual -------------------------------------------------------------------------------


def build_seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Call `build` with torch's random state seeded; the global state is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def convolutions_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions in a torchvision state dict, with the keys that they have in `features`: "0.weight", ..."""
    return {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}


def load_weights(network: nn.Module, state: dict[str, Tensor], source: Path | str) -> None:
    """Load every parameter of `network`, and the buffers that `state` has; other keys of `state` are ignored.

    Raises `UserError`, naming `source`, if a parameter is missing or a shape differs.
    """
    missing = [name for name, _ in network.named_parameters() if name not in state]
    if missing:
        raise UserError(f"{source} does not hold the weights of this network: {missing[0]} is missing")
    try:
        network.load_state_dict({k: state[k] for k in network.state_dict() if k in state}, strict=False)
    except RuntimeError as error:
        raise UserError(f"{source} does not hold the weights of this network: {storage.first_line(error)}") from None
    for name, _ in network.named_parameters():
        if not state[name].is_floating_point():
            raise UserError(
                f"{source} does not hold the weights of this network: {name} is of type {state[name].dtype}"
            )
    require_finite(network, source)


def require_finite(network: nn.Module, source: Path | str) -> None:
    """Raise `UserError` for weights that are not finite: training with them would look as if it diverged."""
    for name, weight in network.named_parameters():
        if not weight.isfinite().all():
            raise UserError(f"{source} is damaged: {name} has values that are not finite")


def _matconvnet_state(path: Path) -> dict[str, Tensor]:
    """The convolutions of a MatConvNet file (filters are H, W, in, out), with the keys of torchvision's `features`."""
    from scipy.io import loadmat

    try:
        layers = loadmat(path, squeeze_me=True, struct_as_record=True)["layers"]
        state = {}
        for index, layer in enumerate(layers):
            if "weights" in (layer.dtype.names or ()):
                filters, bias = layer["weights"].item()
                state[f"{index}.weight"] = torch.from_numpy(filters).permute(3, 2, 0, 1).contiguous()
                state[f"{index}.bias"] = torch.from_numpy(bias)
    except Exception as error:  # foreign and damaged files raise many types
        raise UserError(f"{path} is not a MatConvNet VGG-19: {storage.first_line(error)}") from None
    return state
