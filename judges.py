"""What looks at a model's outputs: beside their ground truth, or, without any, beside a set of photographs.

A judge looks at batches, `look`, and says in the end what it saw of a model, `conclude`.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.content import luminance3
from metrics import Measure, to_8_bit

Scores = dict[str, float]
PIXELS = 512  # of each image, for the distribution of colours
LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")


class Paired:
    """Full-reference measures of each image, and their means."""

    def __init__(self, functions: dict[str, Callable[[Tensor, Tensor], Tensor]]):
        self.functions = functions

    def context(self, mosaic: Tensor, target: Tensor) -> Tensor:
        """What all models' outputs for these mosaics are compared with: their targets (N, 3, H, W), uint8."""
        return target

    def look(self, outputs: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Outputs (N, 3, H, W), [0, 1] or uint8 -> {column: (N,)}."""
        images = to_8_bit(outputs)
        return {column: function(images, target) for column, function in self.functions.items()}

    def conclude(self, names: list[str], seen: dict[str, Tensor]) -> tuple[dict[str, Scores], Scores]:
        """All that was seen of one model -> (file -> column -> value, column -> mean)."""
        rows = {name: {column: float(values[i]) for column, values in seen.items()} for i, name in enumerate(names)}
        return rows, {column: float(values.mean()) for column, values in seen.items()}


class Unpaired:
    """How far a set of outputs is from a set of photographs of other scenes, and each output from its own mosaic.

    - texture: KID (Binkowski et al. 2018: unbiased, cubic kernel) on AlexNet's channel means and deviations
    - semantics: KID on the ViT's mean token
    - color: sliced Wasserstein distance of the colours in CIE Lab
    - content: 1 - cosine of AlexNet's relu5 of the luminance of the output and of the demosaiced reference

    Features are standardised by the photographs' own. `unpaired`, by which checkpoints are ranked, adds the first three
    in units of what the demosaiced references score, and twice the content; docs/results.md has the evidence for that.
    """

    columns = ("unpaired", "texture", "semantics", "color", "content")
    measure = Measure("unpaired distance", "", False, 4)
    summary = "unpaired: distance to photographs of other scenes plus content lost; smaller is better (judges.Unpaired)"

    def __init__(
        self, alexnet: nn.Module, vit: nn.Module, reference: Callable[[Tensor], Tensor], photographs: Iterable[Tensor]
    ):
        """`photographs` are images (3, H, W) in [0, 1], of any sizes; `reference` renders mosaics (N, 1, H, W)."""
        self.alexnet, self.vit, self.reference = alexnet, vit, reference
        self.directions = F.normalize(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), dim=1)
        target = _join([self._features(photo[None]) for photo in photographs])
        self.scale = {key: (target[key].mean(0), target[key].std(0) + 1e-6) for key in ("texture", "semantics")}
        self.target = self._standardise(target)
        self.unit = None

    def calibrate(self, mosaics: Iterable[Tensor]) -> None:
        """Measure the demosaiced reference itself, on the files to come: the unit of `unpaired`."""
        seen = _join([self.look(self.reference(mosaic), self.context(mosaic, None)) for mosaic in mosaics])
        self.unit = self._distances(seen)

    def context(self, mosaic: Tensor, target: Tensor | None) -> Tensor:
        """What all models' outputs for these mosaics are compared with: the content of their demosaiced reference."""
        return self._content(self.reference(mosaic))

    def look(self, outputs: Tensor, context: Tensor) -> dict[str, Tensor]:
        """Outputs (N, 3, H, W) in [0, 1] -> features, (N, ...) each, on the CPU."""
        image = to_8_bit(outputs).float() / 255
        content = 1 - F.cosine_similarity(self._content(image), context)
        return self._features(image) | {"content": content.cpu()}

    def conclude(self, names: list[str], seen: dict[str, Tensor]) -> tuple[dict[str, Scores], Scores]:
        """All that was seen of one model -> (file -> its content, column -> value of the set)."""
        distances = self._distances(seen)
        rows = {name: {"content": float(value)} for name, value in zip(names, seen["content"], strict=True)}
        return rows, {"unpaired": self.combine(distances)} | distances

    def combine(self, distances: Scores) -> float:
        """One number for the ranking."""
        far = sum(distances[key] / self.unit[key] for key in ("texture", "semantics", "color"))
        return far + 2 * distances["content"]

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        layers = self.alexnet(image, LAYERS).values()
        texture = [f(layer, (2, 3)) for layer in layers for f in (torch.mean, partial(torch.std, correction=0))]
        pixels = image.flatten(2)
        chosen = torch.linspace(0, pixels.shape[2] - 1, PIXELS).long()
        return {
            "texture": torch.cat(texture, dim=1).cpu(),
            "semantics": self.vit(image).mean(1).cpu(),
            "color": lab(pixels[..., chosen.to(image.device)]).transpose(1, 2).cpu(),
        }

    def _content(self, image: Tensor) -> Tensor:
        return self.alexnet(luminance3(image), LAYERS[-1:])[LAYERS[-1]].flatten(1)

    def _standardise(self, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        return seen | {key: (seen[key] - mean) / std for key, (mean, std) in self.scale.items()}

    def _distances(self, seen: dict[str, Tensor]) -> Scores:
        seen = self._standardise(seen)
        return {
            "texture": kernel_distance(seen["texture"], self.target["texture"]),
            "semantics": kernel_distance(seen["semantics"], self.target["semantics"]),
            "color": sliced_distance(seen["color"].flatten(0, 1), self.target["color"].flatten(0, 1), self.directions),
            "content": float(seen["content"].mean()),
        }


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """KID: the unbiased squared maximum mean discrepancy of features (N, D) and (M, D), kernel (x.y / D + 1)^3.

    Binkowski, Sutherland, Arbel and Gretton, Demystifying MMD GANs, 2018. About 0 for sets of one distribution.
    """
    x, y = x.double(), y.double()
    within = [((a @ a.T / a.shape[1] + 1) ** 3).fill_diagonal_(0).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(sum(within) - 2 * ((x @ y.T / x.shape[1] + 1) ** 3).mean())


def sliced_distance(x: Tensor, y: Tensor, directions: Tensor, quantiles: int = 200) -> float:
    """Sliced Wasserstein-1 distance of points (N, C) and (M, C) along unit `directions` (K, C)."""
    at = (torch.arange(quantiles) + 0.5) / quantiles
    spread = [(points @ directions.T).sort(0).values for points in (x, y)]
    first, second = (line[(at * len(line)).long()] for line in spread)
    return float((first - second).abs().mean())


def lab(rgb: Tensor) -> Tensor:
    """sRGB (N, 3, P) in [0, 1] -> CIE Lab (D65), by scikit-image."""
    from skimage.color import rgb2lab

    return torch.from_numpy(rgb2lab(rgb.cpu().numpy(), channel_axis=1)).to(rgb)


def _join(looks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([look[key] for look in looks]) for key in looks[0]}
