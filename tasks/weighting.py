"""Photographs weighted such that their scenes are those of the mosaics: --data.weights semantic."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from config import Config
from data import weights
from data.files import Reader
from data.folders import Split
from data.patches import centre, photo_tensor
from data.photographs import read_photo
from data.reference import Reference
from losses.content import luminance3
from tasks.features import Networks
from tasks.reference import IMAGES, SIDE, camera_image
from training.log import Progress

SIZE = 224  # side of what the ViT sees, pixels


def weight_photographs(
    config: Config, training: Split, reader: Reader, published: Reference, networks: Networks, quiet: bool = False
) -> tuple[Split, dict[str, str]]:
    """(the split, whose photographs occur in proportion to their weights; what was found, for the log).

    The photographs stay as they are if chance explains how far the two sides' scenes are apart. Raises `UserError` if
    no weights bring them together.
    """
    if config.data.weights == "equal":
        return training, {}
    if networks("vit").provenance.startswith("random"):
        return training, {"weights": "equal: a ViT with random weights knows no scenes"}
    photos = tuple(dict.fromkeys(training.photos))
    raws, tokens = training.raws[:: -(-len(training.raws) // IMAGES)], networks.function("vit")
    with Progress("scenes", 0, len(raws) + len(photos), quiet=quiet, unit="image") as progress:
        demosaiced = (camera_image(path, reader, published) for path in progress.over(raws))
        mosaics = _features(demosaiced, tokens, networks.device)
        images = (photo_tensor(centre(read_photo(path), SIDE))[None] for path in progress.over(photos))
        pictures = _features(images, tokens, networks.device)
    mosaics, pictures = weights.components(mosaics, pictures)
    chance = weights.chance_of_gap(mosaics, pictures, config.seed)
    if chance > weights.LEVEL:
        return training, {"weights": f"equal: chance explains how far the sides' scenes are apart (p = {chance:.3f})"}
    chosen = weights.balance(pictures, mosaics.mean(0))
    number = weights.effective_number(chosen)
    fact = f"semantic (p = {chance:.3f}): as good as {number:.0f} of {len(photos)} photographs of equal weight"
    weighted = tuple(photos[i] for i in weights.resample(chosen))
    return dataclasses.replace(training, photos=weighted, coupled=False), {"weights": fact}


@torch.no_grad()
def _features(images: Iterable[Tensor], tokens: Callable[[Tensor], Tensor], device: torch.device) -> np.ndarray:
    """The ViT's mean token for images (1, 3, H, W) in [0, 1], of any sizes: (N, D)."""
    seen = (tokens(rank_equalised(image).to(device)).mean(1) for image in images)
    return torch.cat([features.float().cpu() for features in seen]).double().numpy()


def rank_equalised(image: Tensor) -> Tensor:
    """Luminance whose values are replaced by their ranks: what tone and exposure do not change, (1, 3, SIZE, SIZE)."""
    small = F.interpolate(image, (SIZE, SIZE), mode="area")
    grey = luminance3(small)[:, :1]
    ranks = grey.flatten().argsort().argsort().to(grey.dtype) / (grey.numel() - 1)
    return ranks.view_as(grey).expand(-1, 3, -1, -1)
