"""The paper's task: train an ISP from unpaired or paired photographs, as the stages that `training.run` runs."""

import dataclasses
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import config as settings
from config import Config
from data.cache import Files, cached_files
from data.camera import to_dict
from data.files import Reader
from data.folders import Split, find_layout, unpaired
from data.inputs import WITH_CONTEXT, context_of
from data.loader import training_batches
from data.masks import with_masks
from data.notes import note
from data.patches import OfWhole, Patches
from data.reference import find_demosaicer
from data.sizes import refuse_smaller
from data.synthetic import SyntheticContexts, SyntheticPatches
from errors import UserError
from evaluation.health import Watch
from models import build_model, model_spec
from models.batch_norms import synchronise
from pretrained import zoo
from tasks.camera import profile_for
from tasks.data import identify, note_darkness, open_data, open_reference
from tasks.device import set_precision
from tasks.features import Networks
from tasks.model import sensor_of
from tasks.modes import build_trainers, chosen_critics, drawn_files, is_synthetic, mode_of, planned_steps, stages_of
from tasks.parts import WHOLE, Part
from tasks.recipes import find_recipe, in_words, with_steps
from tasks.reference import fit_reference
from tasks.run_data import RunData, build_validation
from tasks.weighting import weight_photographs
from training.distributed import Group
from training.steps import Batch, Trainer
from training.task import Stage, Task

CHUNK = 100  # batches in a chunk (released code)
RANDOM = "some frozen networks have random weights (see log.jsonl): do not compare these figures with the paper's"


def build_task(config: Config, device: torch.device, group: Group, resume: bool) -> Task:
    """Everything that a run of this config trains and validates. A resumed run does not load `config.init` again.

    Raises `UserError` for data, weights or settings that do not fit.
    """
    torch.manual_seed(config.seed)
    set_precision(config.compute)
    with group.in_turn():
        splits, reader = _open_masked(config)
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
        validation=build_validation(run_data, config.log.samples, config.quirks.float_psnr),
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


def _open_masked(config: Config) -> tuple[dict[str, Split], Reader]:
    """The dataset, with the masks of its training pairs, if there are any, and the reader of its files."""
    splits, reader, _ = open_data(config)
    if config.data.masks:
        splits["train"] = with_masks(splits["train"], Path(config.data.masks))
    return splits, reader.for_training()


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
        refuse_smaller(paths, config.data.patch, reader.headless_size, _too_small(config))
    return split


def _too_small(config: Config) -> str:
    """What files are smaller than, if their model takes no smaller patches."""
    least = model_spec(config.model).minimum if config.model else 0
    return f"the {least} pixels that model '{config.model}' needs" if config.data.patch <= least else ""


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
    """The `stages_of` the run, each with its own stream of patches. A run from `config.init` skips pretraining."""
    data, group = config.data, run_data.group
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
        inputs = run_data.inputs(mosaic, loaded.get("context"))
        return part.batch(Batch(inputs, rendered, loaded["target"], loaded.get("mask")))

    def to_synthetic_batch(loaded: dict[str, Tensor]) -> Batch:
        inputs = run_data.inputs(loaded["mosaic"], loaded.get("context"))
        return Batch(inputs, loaded["target"], loaded["target"])

    def load(patches: Patches, step: int) -> Generator[dict[str, Tensor], None, None]:
        return training_batches(patches, data.batch, step, data.workers, run_data.device, group.rank, group.size)

    stages, contextual = [], run_data.input_format in WITH_CONTEXT
    for number, (plan, trainer) in enumerate(zip(stages_of(config), trainers, strict=True)):
        _share(trainer, group)
        render, drawn = bool(trainer.compared_with("reference")), (data.patch, config.seed, number)
        if is_synthetic(config, plan.name):
            contexts = SyntheticContexts(fitted.camera) if contextual else None
            own = {"flips": data.flips, "chunk": chunk, "contexts": contexts}
            patches = SyntheticPatches(split, files, fitted.camera, *drawn, **own)
            feed = partial(load, patches), to_synthetic_batch
        else:
            contexts = OfWhole(partial(context_of, sensor=sensor), sensor) if contextual else None
            drawn_from = split if trainer.compared_with("target") else dataclasses.replace(split, masks=())
            patches = Patches(
                drawn_from, files, *drawn, data.flips, spans if render else None, chunk=chunk, contexts=contexts
            )
            feed = partial(load, patches), partial(to_batch, plan.part, render)
        image = None if plan.part is WHOLE else plan.part.image
        stages.append(Stage(plan.name, plan.result, steps[plan.name], trainer, *feed, plan.save_steps, image))
    return stages


def _share(trainer: Trainer, group: Group) -> None:
    """Average gradients and the statistics of batch normalisations over all processes."""
    if group.size > 1:
        trainer.average_ = group.mean_
        if synchronise(trainer.generator, group.mean, group.size):
            trainer.batched = False  # what processes exchange in a backward pass cannot be batched
