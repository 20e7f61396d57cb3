"""Evaluators score a model's outputs: `PairedEvaluator` with ground truth, `UnpairedEvaluator` without.

Both work in three steps: `prepare` once for each batch of mosaics, `evaluate` for each model's outputs of the batch,
and `summarize` for all values that `evaluate` returned for one model, concatenated over the batches.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.transport import sliced_distance
from errors import UserError
from evaluation.distances import kernel_distance
from evaluation.kept_features import Features
from evaluation.metrics import MEASURES, Function, Measure, to_8_bit
from losses.content import luminance3

Scores = dict[str, float]  # column -> value

# Weight of the content in `unpaired`; the other three have weight 1. Change `UnpairedEvaluator.summary` with it.
CONTENT_WEIGHT = 2
UNITS = ("texture", "semantics", "color")  # distances that are divided by those of the demosaiced references
COLOR_PIXELS = 512  # of each image, evenly spaced, for the distribution of colours
LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")  # of AlexNet
DIRECTIONS = 64  # of the sliced Wasserstein distance


class PairedEvaluator:
    """Full-reference measures of each image, and their means over the images; measures of a set have no other value."""

    def __init__(self, functions: dict[str, Function]):
        self.functions = functions  # by column, as `protocols.build` returns them

    def prepare(self, mosaic: Tensor, target: Tensor) -> Tensor:
        """What all models' outputs for these mosaics are compared with: their targets (N, 3, H, W), uint8."""
        return target

    def evaluate(self, outputs: Tensor, prepared: Tensor) -> dict[str, Tensor]:
        """Outputs (N, 3, H, W), in [0, 1] or uint8 -> {column: scores (N,), or the features (N, 2, D) of a set}."""
        images, scores = to_8_bit(outputs), {}
        for column, function in self.functions.items():
            scores[column] = function(outputs if MEASURES[column].of_floats else images, prepared)
        if outputs.is_floating_point() and not outputs.sum().isfinite():  # 8 bits have no NaN: it would become black
            failed = ~outputs.isfinite().flatten(1).all(1)
            for values in scores.values():
                values[failed] = torch.nan
        return scores

    def summarize(self, names: list[str], values: dict[str, Tensor]) -> tuple[dict[str, Scores], Scores]:
        """What `evaluate` returned for the images `names` -> (file name -> column -> score, column -> mean)."""
        sets = {column: MEASURES[column].of_set for column in values}
        rows = {
            name: {column: float(scores[i]) for column, scores in values.items() if not sets[column]}
            for i, name in enumerate(names)
        }
        means = {
            column: distance(*scores.unbind(1)) if (distance := sets[column]) else float(scores.mean())
            for column, scores in values.items()
        }
        return rows, means


class UnpairedEvaluator:
    """How far a set of outputs is from photographs of other scenes, and each output from its own mosaic's content.

    - texture: KID (Binkowski et al. 2018: unbiased, cubic kernel) of the channel means and deviations in AlexNet
    - semantics: KID of the ViT's mean token
    - color: sliced Wasserstein distance between the colours in CIE Lab
    - content: 1 - cosine similarity between AlexNet's relu5 of the luminance of the output and of the demosaiced
      reference

    For KID, features are standardised by mean and deviation over the photographs. `unpaired`, which ranks checkpoints,
    is texture + semantics + color, each divided by the score of the demosaiced references, plus `CONTENT_WEIGHT` times
    the content.
    docs/results.md shows how well it ranks.
    """

    columns = ("unpaired", "texture", "semantics", "color", "content")
    measure = Measure("unpaired distance", "", False, 4, None)  # of `unpaired`, the first column
    # Stored scores are valid only while this text stays the same: change it with the scores.
    summary = "unpaired: distance to photographs of other scenes plus content lost; smaller is better"

    def __init__(
        self,
        alexnet: nn.Module,
        vit: nn.Module,
        reference: Callable[[Tensor], Tensor],
        photographs: Iterable[Tensor],
        keep: Callable[[str, Callable[[], Features]], Features] = lambda name, compute: compute(),
    ):
        """`photographs` are images (3, H, W) in [0, 1] of any sizes.

        `reference` renders mosaics (N, 1, H, W) as demosaiced references (N, 3, H, W) in [0, 1]. `keep` returns the
        features of the "photographs", and of the "references", from where they are kept (see `KeptFeatures`): most of
        the time of scoring is the ViT's. The photographs are not read then.
        """
        self.alexnet, self.vit, self.reference, self.keep = alexnet, vit, reference, keep
        generator = torch.Generator().manual_seed(0)
        self.directions = F.normalize(torch.randn(DIRECTIONS, 3, generator=generator), dim=1)
        target = keep("photographs", lambda: _concatenate([self._features(photo[None]) for photo in photographs]))
        self.moments = {key: (target[key].mean(0), target[key].std(0) + 1e-6) for key in ("texture", "semantics")}
        self.target = self._standardise(target)
        self.unit = None  # the distances of the demosaiced references, once `calibrate` has measured them

    def calibrate(self, mosaics: Iterable[Tensor]) -> None:
        """Measure the distances of the demosaiced references, the unit of `unpaired`.

        Call it once, before `summarize`, with the batches (N, 1, H, W) of all mosaics that are to be evaluated. Raises
        `UserError` if a distance is not positive (KID can be negative): it cannot be a unit.
        """

        def features() -> Features:
            return _concatenate([self.evaluate(self.reference(m), self.prepare(m, None)) for m in mosaics])

        self.unit = self._distances(self.keep("references", features))
        for key in UNITS:
            if not self.unit[key] > 0:
                raise UserError(
                    f"checkpoints cannot be ranked without pairs here: in {key}, the demosaiced mosaics are as near to "
                    f"the photographs as these are to each other ({self.unit[key]:.4f})"
                )

    def prepare(self, mosaic: Tensor, target: Tensor | None) -> Tensor:
        """What all models' outputs for these mosaics are compared with: the content of the demosaiced references.

        (N, 1, H, W) -> (N, D). `target` is not used.
        """
        return self._content(self.reference(mosaic))

    def evaluate(self, outputs: Tensor, prepared: Tensor) -> dict[str, Tensor]:
        """Outputs (N, 3, H, W), in [0, 1] or uint8 -> features and content, (N, ...) each, on the CPU."""
        image = to_8_bit(outputs).float() / 255
        content = 1 - F.cosine_similarity(self._content(image), prepared)
        return self._features(image) | {"content": content.cpu()}

    def summarize(self, names: list[str], values: dict[str, Tensor]) -> tuple[dict[str, Scores], Scores]:
        """Values of the images `names` -> (file name -> its content, column -> value of the whole set)."""
        distances = self._distances(values)
        rows = {name: {"content": float(value)} for name, value in zip(names, values["content"], strict=True)}
        return rows, {"unpaired": self.combine(distances)} | distances

    def combine(self, distances: Scores) -> float:
        """The value of the column `unpaired`, from those of the other columns."""
        relative = sum(distances[key] / self.unit[key] for key in UNITS)
        return relative + CONTENT_WEIGHT * distances["content"]

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) in [0, 1] -> texture (N, D), semantics (N, D) and color (N, P, 3)."""
        layers = self.alexnet(image, LAYERS).values()
        texture = [f(layer, (2, 3)) for layer in layers for f in (torch.mean, partial(torch.std, correction=0))]
        pixels = image.flatten(2)
        chosen = torch.linspace(0, pixels.shape[2] - 1, COLOR_PIXELS).long()
        return {
            "texture": torch.cat(texture, dim=1).cpu(),
            "semantics": self.vit(image).mean(1).cpu(),
            "color": lab(pixels[..., chosen.to(image.device)]).transpose(1, 2).cpu(),
        }

    def _content(self, image: Tensor) -> Tensor:
        return self.alexnet(luminance3(image), LAYERS[-1:])[LAYERS[-1]].flatten(1)

    def _standardise(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return values | {key: (values[key] - mean) / std for key, (mean, std) in self.moments.items()}

    def _distances(self, values: dict[str, Tensor]) -> Scores:
        """What `evaluate` returned for a set of images -> the set's distance from the photographs, and its content."""
        values = self._standardise(values)
        colours, target_colours = values["color"].flatten(0, 1), self.target["color"].flatten(0, 1)
        return {
            "texture": kernel_distance(values["texture"], self.target["texture"]),
            "semantics": kernel_distance(values["semantics"], self.target["semantics"]),
            "color": sliced_distance(colours, target_colours, self.directions),
            "content": float(values["content"].mean()),
        }


def lab(rgb: Tensor) -> Tensor:
    """sRGB (N, 3, P) in [0, 1] -> CIE Lab (D65), by scikit-image."""
    from skimage.color import rgb2lab

    return torch.from_numpy(rgb2lab(rgb.cpu().numpy(), channel_axis=1)).to(rgb)


def _concatenate(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
