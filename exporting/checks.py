"""Every exported file is run at once and compared with PyTorch."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import storage
from errors import UserError
from exporting.scenes import Scene
from exporting.targets import PhoneFile, Source

Measure = Callable[[Tensor, Tensor], float]  # image (3, H, W) in [0, 1], target (3, H, W) uint8 -> dB


@dataclass(frozen=True)
class Bound:
    """How far a file's images may be from PyTorch's; values in [0, 1]."""

    psnr: float  # dB, at least
    largest: float  # difference of a value, at most


# On a simulated camera, the models of docs/phones.md were within 2e-6 in fp32, above 75 dB in fp16, 36 dB in int8.
BOUNDS = {"fp32": Bound(80, 1e-3), "fp16": Bound(50, 0.02), "int8": Bound(30, 0.5)}
ENOUGH, MOST = 3.0, 9  # seconds of timing after which it ends, and runs


class Reference:
    """PyTorch's images of the scenes, each computed once for all files."""

    def __init__(self, source: Source, scenes: Sequence[Scene], tiled: int = 2):
        self.source, self.tiled = source, tiled
        self.scenes: dict[tuple[int, int] | None, list[Scene]] = {None: list(scenes)}
        self.images: dict[tuple[int, int] | None, list[Tensor]] = {}

    def of_size(self, size: tuple[int, int] | None) -> list[tuple[Scene, Tensor]]:
        """(scene, image (1, 3, H, W)) for files of this size: the first few scenes, tiled. None: all as they are."""
        if size not in self.scenes:
            self.scenes[size] = [scene.of_size(size) for scene in self.scenes[None][: self.tiled]]
        if size not in self.images:
            self.images[size] = [self.source.image(scene.mosaic) for scene in self.scenes[size]]
        return list(zip(self.scenes[size], self.images[size], strict=True))


def check(file: PhoneFile, reference: Reference, measure: Measure, threads: int) -> dict[str, Any]:
    """Run the file on all scenes: its largest difference from PyTorch, PSNR against it and against ground truth.

    Raises `UserError` if it differs by more than the bound of its precision.
    """
    model, source = file.open(threads), reference.source
    differences, squares, values, scores, own_scores = [], 0.0, 0, [], []
    for scene, expected in reference.of_size(file.size):
        image = _run(file, model, source, scene)
        if image.shape != expected.shape:
            raise UserError(f"{file.name} gives images of shape {tuple(image.shape)}, not {tuple(expected.shape)}")
        difference = (image - expected).double()
        differences.append(difference.abs().max())
        squares, values = squares + difference.square().sum().item(), values + difference.numel()
        if scene.target is not None:
            scores.append(measure(image[0], scene.target))
            own_scores.append(measure(expected[0], scene.target))
    largest = torch.stack(differences).max().item()
    against = -10 * math.log10(squares / values) if squares else math.inf
    bound = BOUNDS[file.precision]
    if not (against >= bound.psnr and largest <= bound.largest):  # NaN, too
        raise UserError(
            f"{file.name} differs too much from PyTorch: {against:.1f} dB and at most {largest:.2g} of 1, where "
            f"{file.precision} must reach {bound.psnr:g} dB and {bound.largest:g}; nothing was written"
        )
    return {
        "operators": model.operators(),
        "largest_difference": largest,
        "psnr_against_pytorch": round(against, 2) if squares else None,
        "psnr": _mean(scores),
        "psnr_of_pytorch": _mean(own_scores),
    }


def _run(file: PhoneFile, model: Any, source: Source, scene: Scene) -> Tensor:
    inputs = {name: x.numpy() for name, x in source.inputs(scene.mosaic).items()}
    try:
        return torch.from_numpy(model.run(inputs))
    except Exception as error:  # each runtime has types of its own
        size = "x".join(map(str, scene.mosaic.shape[-2:]))
        raise UserError(f"{file.name} fails for a mosaic of {size}: {storage.first_line(error)}") from None


def milliseconds(file: PhoneFile, source: Source, scene: Scene, threads: int) -> float:
    """The median time of the file on a scene, on this machine's CPU, after a first run that is not counted."""
    model = file.open(threads)
    inputs = {name: x.numpy() for name, x in source.inputs(scene.mosaic).items()}
    model.run(inputs)
    times, start = [], time.perf_counter()
    while len(times) < MOST and time.perf_counter() - start < ENOUGH:
        before = time.perf_counter()
        model.run(inputs)
        times.append(time.perf_counter() - before)
    return round(1e3 * statistics.median(times), 2)


def _mean(scores: list[float]) -> float | None:
    return round(statistics.fmean(scores), 4) if scores else None
