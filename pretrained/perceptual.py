"""Perceptual measures with a reference image: LPIPS, LPIPS+ and DISTS as pyiqa defines them.

They compute the paired texture loss (section 3.3) and columns of the score tables. Their weights follow the weights
policy (`pretrained.files`).
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

from torch import Tensor, nn

import storage
from pretrained.backbones import ALEXNET_URL, TORCHVISION, build_seeded, convolutions_of, load_weights
from pretrained.files import find_weights

PYIQA = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main"


class PerceptualMeasure(nn.Module):
    """A frozen network that compares images: two batches of sRGB (N, 3, H, W) in [0, 1] -> (N,); 0 means equal.

    It is in eval mode and has no trainable parameter. `provenance` says where its weights came from.
    """

    def __init__(self, network: nn.Module, provenance: str):
        super().__init__()
        self.network = network
        self.provenance = provenance
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return self.network(image, reference).flatten()


def lpips(policy: str = "pretrained", seed: int = 0) -> PerceptualMeasure:
    """LPIPS v0.1 (Zhang et al. 2018) on AlexNet. Raises `UserError` as `find_weights`."""
    return _lpips("LPIPS", policy, seed)


def lpips_plus(policy: str = "pretrained", seed: int = 0) -> PerceptualMeasure:
    """LPIPS+ (Chen et al. 2024) on AlexNet. Raises `UserError` as `find_weights`."""
    return _lpips("LPIPS+", policy, seed, semantic_weight_layer=2)


def dists(policy: str = "pretrained", seed: int = 0) -> PerceptualMeasure:
    """DISTS (Ding et al. 2020) on VGG-16. Raises `UserError` as `find_weights`."""
    from pyiqa.archs.dists_arch import DISTS

    def build() -> nn.Module:
        with _without_imagenet_weights("vgg16"):
            return DISTS(pretrained=False)

    network = build_seeded(build, seed)
    trunk_url, head_url = f"{TORCHVISION}/vgg16-397923af.pth", f"{PYIQA}/DISTS_weights-f5e65c96.pth"
    trunk, trunk_provenance = find_weights(policy, "DISTS", trunk_url, "checkpoints", seed=seed)
    head, head_provenance = find_weights(policy, "DISTS", head_url, "pyiqa", seed=seed)
    if not (trunk and head):
        return PerceptualMeasure(network, trunk_provenance if not trunk else head_provenance)
    # pyiqa splits VGG-16 into stages and keeps each layer's number: features.5 becomes stage2.5.
    stages = {key.split(".")[1]: key.split(".")[0] for key in network.state_dict() if key.startswith("stage")}
    state = convolutions_of(storage.load(trunk))
    state = {f"{stages[k.split('.')[0]]}.{k}": v for k, v in state.items() if k.split(".")[0] in stages}
    load_weights(network, state | storage.load(head), f"{trunk} with {head}")
    return PerceptualMeasure(network, f"{trunk_provenance}, {head_provenance}")


# The name of a column of the score table -> the builder of its network.
PERCEPTUAL = {"lpips": lpips, "lpips_plus": lpips_plus, "dists": dists}


def _lpips(name: str, policy: str, seed: int, **options: int) -> PerceptualMeasure:
    from pyiqa.archs.lpips_arch import LPIPS

    def build() -> nn.Module:
        with _without_imagenet_weights("alexnet"):
            return LPIPS(net="alex", pretrained=False, **options)

    network = build_seeded(build, seed)
    trunk, trunk_provenance = find_weights(policy, name, ALEXNET_URL, "checkpoints", seed=seed)
    heads, heads_provenance = find_weights(policy, name, f"{PYIQA}/LPIPS_v0.1_alex-df73285e.pth", "pyiqa", seed=seed)
    if not (trunk and heads):
        _make_heads_positive(network)
        return PerceptualMeasure(network, trunk_provenance if not trunk else heads_provenance)
    # pyiqa splits AlexNet into slices and keeps each layer's number: features.3 becomes slice2.3.
    slices = {key.split(".")[1]: key.split(".")[0] for key in network.net.state_dict()}
    state = convolutions_of(storage.load(trunk))
    load_weights(network.net, {f"{slices[k.split('.')[0]]}.{k}": v for k, v in state.items()}, trunk)
    load_weights(network.lins, {k.removeprefix("lin"): v for k, v in storage.load(heads).items()}, heads)
    return PerceptualMeasure(network, f"{trunk_provenance}, {heads_provenance}")


@contextlib.contextmanager
def _without_imagenet_weights(name: str) -> Iterator[None]:
    """Make torchvision's builder `name` return random weights, without a download.

    pyiqa's constructors always request ImageNet weights; here `load_weights` fills them in afterwards.
    """
    import torchvision

    build = getattr(torchvision.models, name)
    with mock.patch.object(torchvision.models, name, lambda **_: build(weights=None)):
        yield


def _make_heads_positive(network: nn.Module) -> None:
    """Make LPIPS's random heads non-negative: they weight squared differences, so the measure must not be negative."""
    for head in network.lins:
        for parameter in head.parameters():
            parameter.data.abs_()
