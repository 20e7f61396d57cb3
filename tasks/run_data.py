"""The data of an ISP's run as its generator takes them, and the validation with them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from data.files import Reader
from data.folders import Split
from data.inputs import WITH_CONTEXT, context_of, prepare
from data.loader import evaluation_pairs
from data.patches import centre, photo_tensor
from data.photographs import read_photo
from data.reference import Reference
from evaluation.health import measure
from evaluation.metrics import psnr, psnr_float
from tasks.reference import Fitted
from training.distributed import Group
from training.validation import Render, Validation

WATCHED, WATCHED_SIDE = 32, 256  # at most so many images, evenly spaced, and pixels of their sides, are watched
SHOWN_SIDE = 512  # pixels of the sample images' sides, at most


@dataclass(frozen=True)
class RunData:
    """The data of a run, and how it is fed to the generator."""

    training: Split  # the training files, separated as the mode and data.unpaired say
    splits: dict[str, Split]  # "train", "val", "test": the files as the dataset has them
    reader: Reader
    reference: Reference  # the published rendering, with which scores are compared
    fitted: Fitted  # what the content loss compares with, and the camera of synthetic pairs
    input_format: str  # of the generator
    device: torch.device
    group: Group

    def central(self, path: Path, side: int) -> tuple[Tensor, Tensor]:
        """The central square of a file, at most `side` pixels: (mosaic (1, 1, H, W), the generator's input)."""
        whole = self.reader.mosaic(path)
        mosaic = self.reader.mosaic_tensor(centre(whole, side))[None].to(self.device)
        context = None
        if self.input_format in WITH_CONTEXT:
            context = context_of(self.reader.mosaic_tensor(whole)[None], self.reader.sensor).to(self.device)
        return mosaic, self.inputs(mosaic, context)

    def inputs(self, mosaic: Tensor, context: Tensor | None = None) -> Tensor:
        """The generator's input from mosaics (N, 1, H, W), 1 is white; from patches with the context of their files."""
        return prepare(mosaic, self.reader.sensor, self.input_format, context)


def build_validation(run_data: RunData, scenes: int, floats: bool) -> Validation:
    """PSNR of the validation pairs, of `floats` or of 8 bits, and sample rows of demosaiced reference, output, target.

    Without validation pairs, the samples are training files, and the last image is a photograph of another scene.
    """
    val, reader, reference, device = run_data.splits["val"], run_data.reader, run_data.reference, run_data.device
    shown = val or run_data.splits["train"]
    available = min(len(shown.raws), len(shown.photos))
    count = min(scenes, available)

    def render(generator: nn.Module) -> Render:
        return lambda mosaic: generator(run_data.inputs(mosaic))

    def samples(generator: nn.Module) -> list[list[Tensor]]:
        rows = []
        for index in range(0, count * (available // count), available // count):
            mosaic, inputs = run_data.central(shown.raws[index], SHOWN_SIDE)
            photo = photo_tensor(centre(reader.aligned(read_photo(shown.photos[index])), SHOWN_SIDE))
            rows.append([reference(mosaic)[0], generator(inputs)[0], photo])
        return rows

    return Validation(
        name="val_psnr",
        title=f"PSNR on the {len(val)} validation pairs ({'floats' if floats else '8 bits'}, RGB, mean over images)",
        unit="dB",
        count=len(val),
        pairs=lambda indices: evaluation_pairs(val.take(indices), reader, device),
        score=psnr_float if floats else psnr,
        render=render,
        samples=samples,
        baselines={"demosaiced": reference},
        group=run_data.group,
        health=_build_health(run_data),
    )


def _build_health(run_data: RunData) -> Callable[[nn.Module], dict[str, float]]:
    """The signs that training goes wrong, in the centres of a few mosaics, whose photographs need not be known."""
    raws, photos = run_data.training.raws, run_data.training.photos  # validation scenes may have other colours

    @cache
    def images() -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        chosen = [run_data.central(path, WATCHED_SIDE) for path in raws[:: -(-len(raws) // WATCHED)]]
        demosaiced = [run_data.reference(mosaic)[0] for mosaic, _ in chosen]
        shown = (photo_tensor(centre(read_photo(path), WATCHED_SIDE)) for path in photos[:: -(-len(photos) // WATCHED)])
        return [inputs for _, inputs in chosen], demosaiced, [image.to(run_data.device) for image in shown]

    def health(generator: nn.Module) -> dict[str, float]:
        inputs, demosaiced, photographs = images()
        with torch.no_grad():
            outputs = [generator(each)[0].float().clamp(0, 1) for each in inputs]
        return measure(outputs, demosaiced, photographs)

    return health
