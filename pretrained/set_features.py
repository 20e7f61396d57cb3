"""What networks see of an image when sets of images are compared: KID and FID (evaluation/distances.py)."""

import warnings
from functools import partial
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import storage
from pretrained.backbones import alexnet, build_seeded, load_weights
from pretrained.files import find_weights
from pretrained.perceptual import PYIQA

INCEPTION_URL = f"{PYIQA}/pt_inception-2015-12-05-6726825d.pth"
SIDE = 299  # of Inception's input, pixels
ALEXNET_LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")


class SetFeatures(nn.Module):
    """A frozen network that describes images: sRGB (N, 3, H, W) in [0, 1] -> (N, D). `provenance` names its weights."""

    def __init__(self, network: nn.Module, provenance: str):
        super().__init__()
        self.network, self.provenance = network, provenance
        self.eval().requires_grad_(False)


class AlexNetStatistics(SetFeatures):
    """The means and deviations of all channels in AlexNet's five layers, (N, 2304)."""

    def forward(self, images: Tensor) -> Tensor:
        layers = self.network(images, ALEXNET_LAYERS).values()
        return torch.cat([f(x, (2, 3)) for x in layers for f in (torch.mean, partial(torch.std, correction=0))], dim=1)


class InceptionPool(SetFeatures):
    """The last pooling of FID's Inception-v3, (N, 2048), of images resized as clean-fid does (Parmar et al. 2022)."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(_resized(images) / 128 - 1, False, False)[0].flatten(1)


def alexnet_statistics(policy: str = "pretrained", seed: int = 0) -> AlexNetStatistics:
    """Raises `UserError` as `find_weights`."""
    network = alexnet(policy, seed=seed)
    return AlexNetStatistics(network, network.provenance)


def inception_pool(policy: str = "pretrained", seed: int = 0) -> InceptionPool:
    """Raises `UserError` as `find_weights`."""
    import pyiqa.archs.inception as published  # takes seconds

    path, provenance = find_weights(policy, "Inception (FID)", INCEPTION_URL, "pyiqa", seed=seed)

    def fill(network: nn.Module, url: str) -> None:  # pyiqa's constructor would download them, unchecked
        if path:
            load_weights(network, storage.load(path), path)

    with mock.patch.object(published, "load_pretrained_network", fill), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torchvision's former options
        return InceptionPool(build_seeded(published.InceptionV3, seed), provenance)


# The name of a column of the score table -> the builder of its network.
SET_FEATURES = {"kid": alexnet_statistics, "fid": inception_pool}


def _resized(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 3, 299, 299) in 0..255: each channel by Pillow's bicubic filter, as floats."""
    from PIL import Image

    def resized(channel: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    channels = (255 * images).float().flatten(0, 1).cpu().numpy()
    planes = np.stack([resized(channel) for channel in channels]).clip(0, 255)
    return torch.from_numpy(planes).unflatten(0, (len(images), 3)).to(images.device)
