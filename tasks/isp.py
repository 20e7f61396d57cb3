"""The paper's task: train an ISP from unpaired or paired photographs, as the stages that `training.run` runs."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

import config as settings
from config import Config
from data.cache import Files, cached_files
from data.camera import to_dict
from data.files import Reader
from data.folders import Split, find_layout, unpaired
from data.inputs import WITH_CONTEXT, context_of, prepare
from data.loader import evaluation_pairs, training_batches
from data.notes import note
from data.patches import OfWhole, Patches, centre, photo_tensor
from data.photographs import read_photo
from data.reference import Reference, find_demosaicer
from data.sizes import refuse_smaller
from data.synthetic import SyntheticContexts, SyntheticPatches
from errors import UserError
from evaluation.health import Watch, measure
from evaluation.metrics import psnr, psnr_float
from models import build_model, model_spec
from pretrained import zoo
from tasks.camera import profile_for
from tasks.data import identify, note_darkness, open_data, open_reference
from tasks.device import set_precision
from tasks.features import Networks
from tasks.model import sensor_of
from tasks.modes import build_trainers, chosen_critics, drawn_files, is_synthetic, mode_of, planned_steps
from tasks.parts import WHOLE, Part
from tasks.recipes import find_recipe, in_words, with_steps
from tasks.reference import Fitted, fit_reference
from tasks.weighting import weight_photographs
from training.distributed import Group
from training.steps import Batch, Trainer
from training.task import Stage, Task
from training.validation import Render, Validation

WATCHED, WATCHED_SIDE = 32, 256  # at most so many images, evenly spaced, and pixels of their sides, are watched
SHOWN_SIDE = 512  # pixels of the sample images' sides, at most
CHUNK = 100  # batches in a chunk (released code)
RANDOM = "some frozen networks have random weights (see log.jsonl): do not compare these figures with the paper's"


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


def build_task(config: Config, device: torch.device, group: Group, resume: bool) -> Task:
    """Everything that a run of this config trains and validates. A resumed run does not load `config.init` again.

    Raises `UserError` for data, weights or settings that do not fit.
    """
    torch.manual_seed(config.seed)
    set_precision(config.compute)
    with group.in_turn():
        splits, reader, _ = open_data(config)
        reader = reader.for_training()
        reference = open_reference(reader, config.data)
        config = with_steps(config, len(splits["train"]))
        mode, training = mode_of(config), _training_files(config, splits["train"], reader)
        name, generator = build_generator(
            config.model, "" if resume else config.init, reader.sensor.cfa, config.data.normalise
        )
        generator.to(device, memory_format=torch.channels_last)
        config = dataclasses.replace(config, model=name)
        _require_sides(name, config.data.patch, splits["val"], reader)
        networks, weighted, profile = Networks(config, device), {}, profile_for(config.data, reader)
        if not mode.needs_pairs:
            training, weighted = weight_photographs(config, training, reader, reference, networks, quiet=not group.main)
        synthetic = mode.synthetic or config.pretrain.data == "synthetic"
        fitted = fit_reference(config, training, reader, reference, synthetic, quiet=not group.main)
        run_data = RunData(training, splits, reader, reference, fitted, model_spec(name).input_format, device, group)
        trainers = build_trainers(config, generator, networks)
        stages = _build_stages(config, run_data, trainers)
        camera = {"camera": to_dict(profile)} if profile else {}
    return Task(
        summary=f"{name} on {device}, {len(training.raws)} mosaics and {len(set(training.photos))} photographs "
        f"to train on, {len(splits['val'])} pairs to validate on{in_words(config, planned_steps(config))}",
        generator=generator,
        stages=stages,
        validation=_build_validation(run_data, config.log.samples, config.quirks.float_psnr),
        provenance=networks.provenance | weighted | fitted.facts,
        config=settings.to_dict(config),
        description={
            "model": name,
            "input_format": run_data.input_format,
            "sensor": dataclasses.asdict(reader.sensor),
            "normalise": reader.normalisation,
            "lens_shading": reader.lens_shading,
            **fitted.description,
            **camera,
        },
        identity=identify(splits, reader) | camera,
        watch=Watch().look,
        warning=RANDOM if any(source.startswith("random") for source in networks.provenance.values()) else "",
    )


def _training_files(config: Config, split: Split, reader: Reader) -> Split:
    """The files to train on, separated as the mode and data.unpaired say.

    Raises `UserError` if the mode needs pairs and there are none, or a patch is larger than the files: here, before
    what takes minutes, and before the run has any file.
    """
    note_darkness(split, reader)
    mode = mode_of(config)
    if not mode.needs_pairs:
        split = unpaired(split, config.data.unpaired, config.seed, config.quirks.permutation)
    elif not split.paired:
        name = f"mode '{config.train.mode}'" if config.recipe == "paper" else "a published recipe"
        raise UserError(f"{name} needs pairs, but these mosaics and photographs are not paired")
    for paths in drawn_files(config, split):
        refuse_smaller(paths, config.data.patch, reader.headless_size)
    return split


def _require_sides(name: str, patch: int, validation: Split, reader: Reader) -> None:
    """Raise `UserError` for patches and validation files that are smaller than the model takes."""
    least = model_spec(name).minimum
    if patch < least:
        raise UserError(
            f"model '{name}' needs mosaics of at least {least} pixels a side: raise --data.patch from {patch}"
        )
    if least:
        refuse_smaller(validation.raws, least, reader.headless_size, f"the {least} pixels that model '{name}' needs")


def check_names(config: Config) -> None:
    """Raise `UserError` for the name of a mode, critic, model, layout or demosaicing that is in no table."""
    chosen_critics(config.train)
    find_layout(config.data.layout)
    find_demosaicer(config.data.demosaic)
    if config.model:
        model_spec(config.model)
    if config.recipe == "published":
        find_recipe(config.model)


def build_generator(model: str, init: str, cfa: str = "", normalise: str = "") -> tuple[str, nn.Module]:
    """(model name, generator): with fresh weights, or from the checkpoint `init`, which says which model it is.

    A note is printed if the checkpoint is of another CFA order than `cfa`, or of another normalisation.
    """
    if not init:
        name = model or "efficient"
        return name, build_model(name)
    name, state, description = zoo.open_checkpoint(init)
    if model not in ("", name):
        raise UserError(f"{init} holds the model '{name}', not '{model}': set --model {name}")
    before = sensor_of(init, name, description).cfa
    if cfa not in ("", before):
        note(f"{init} was trained on mosaics of order {before}, these are {cfa}: it must learn anew where colours lie")
    former = description.get("normalise", "off")
    if normalise not in ("", former):
        note(
            f"{init} was trained with --data.normalise {former}, this run has {normalise}: it must learn other colours"
        )
    generator = build_model(name)
    generator.load_state_dict(state)
    return name, generator


def _build_stages(config: Config, run_data: RunData, trainers: Sequence[Trainer]) -> list[Stage]:
    """The stages of the mode, each with its own stream of patches. A run from `config.init` skips pretraining."""
    data, group, mode = config.data, run_data.group, mode_of(config)
    split = run_data.training
    steps = planned_steps(config)
    folder = Path(data.cache_dir or Path(config.runs) / ".cache")
    draws = sum(steps.values()) * data.batch
    files = cached_files(split, Files(run_data.reader), data.cache, folder, draws, group.size)
    fitted, chunk = run_data.fitted, CHUNK * data.batch if config.quirks.chunks else 0
    sensor, published = run_data.reader.sensor, fitted.reference is run_data.reference
    spans = OfWhole(run_data.reference.span, sensor) if published else None

    def to_batch(part: Part, render: bool, loaded: dict[str, Tensor]) -> Batch:
        mosaic = loaded["mosaic"]
        rendered = fitted.reference(mosaic, loaded.get("span")) if render else None
        return part.batch(Batch(run_data.inputs(mosaic, loaded.get("context")), rendered, loaded["target"]))

    def to_synthetic_batch(loaded: dict[str, Tensor]) -> Batch:
        inputs = run_data.inputs(loaded["mosaic"], loaded.get("context"))
        return Batch(inputs, loaded["target"], loaded["target"])

    def load(patches: Patches, step: int) -> Generator[dict[str, Tensor], None, None]:
        return training_batches(patches, data.batch, step, data.workers, run_data.device, group.rank, group.size)

    stages, contextual = [], run_data.input_format in WITH_CONTEXT
    for number, (plan, trainer) in enumerate(zip(mode.stages, trainers, strict=True)):
        trainer.average_ = group.mean_ if group.size > 1 else None
        render, drawn = bool(trainer.compared_with("reference")), (data.patch, config.seed, number)
        if is_synthetic(config, plan.name):
            contexts = SyntheticContexts(fitted.camera) if contextual else None
            own = {"flips": data.flips, "chunk": chunk, "contexts": contexts}
            patches = SyntheticPatches(split, files, fitted.camera, *drawn, **own)
            feed = partial(load, patches), to_synthetic_batch
        else:
            contexts = OfWhole(partial(context_of, sensor=sensor), sensor) if contextual else None
            patches = Patches(
                split, files, *drawn, data.flips, spans if render else None, chunk=chunk, contexts=contexts
            )
            feed = partial(load, patches), partial(to_batch, plan.part, render)
        image = None if plan.part is WHOLE else plan.part.image
        stages.append(Stage(plan.name, plan.result, steps[plan.name], trainer, *feed, plan.save_steps, image))
    return stages


def _build_validation(run_data: RunData, scenes: int, floats: bool) -> Validation:
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
