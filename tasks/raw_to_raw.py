"""The raw-to-raw task: train two mappers between the mosaics of two cameras, without pairs, for `training.run`.

*Generalizing ISP Model by Unsupervised Raw-to-raw Mapping*; docs/raw_to_raw.md has its equations beside the functions.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import config as settings
from config import Config
from data import camera
from data.cache import Files, cached_files
from data.camera import Profile
from data.folders import Split
from data.loader import training_batches
from data.notes import note
from data.raw_maps import PROFILES
from data.sizes import refuse_smaller
from data.two_cameras import CAMERAS, OTHER, CameraPatches, TwoCameras, View, find_cameras_layout
from discriminators.patch import SMALLEST, PatchDiscriminator
from errors import UserError
from evaluation.raw_measures import psnr
from evaluation.raw_pictures import row_of_pictures
from models import MAPPERS, build_mapper
from pretrained import zoo
from tasks.camera_maps import Ways, fit_baselines, fit_maps, thumbnails
from tasks.cameras import find_profiles, identify_cameras, open_two_cameras, sensor_of
from tasks.device import set_precision
from training.cycle import CameraBatch, CycleTrainer
from training.distributed import Group
from training.task import Stage, Task
from training.validation import Render, Validation

SHOWN_SIDE = 256  # planes' pixels of the sample images' sides, at most

# The settings that this task reads; all others are refused.
SECTIONS = {"data_b", "mapping", "log"}
FIELDS = {
    *("task", "run", "runs", "model", "init", "seed", "device", "as_released", "compute.precision"),
    *("data.layout", "data.root", "data.raw", "data.demo", "data.cfa", "data.black_level", "data.white_level"),
    *("data.camera", "data.levels", "data.patch", "data.batch", "data.flips", "data.workers", "data.cache"),
    "data.cache_dir",
}


def check_names(config: Config) -> None:
    """Raise `UserError` for the name of a mapper or layout that is in no table, and for patches that no critic sees."""
    find_cameras_layout(config.data.layout)
    if config.model and config.model not in MAPPERS:
        raise UserError(f"unknown mapper '{config.model}'; known are: {', '.join(MAPPERS)}")
    if config.data.patch < 2 * SMALLEST:
        raise UserError(
            f"--data.patch {config.data.patch} is too small: a critic of planes, which are half as large, needs at "
            f"least {2 * SMALLEST}"
        )


def planned_steps(config: Config) -> dict[str, int]:
    """Steps of each stage by name."""
    return {"train": config.mapping.steps}


def refuse_ineffective(config: Config, given: Sequence[str] = ()) -> None:
    """Raise `UserError` for unknown names, and for settings that would have no effect in a new run of this config."""
    check_names(config)
    data, mapping = config.data, config.mapping
    unused = [name for name in given if name not in FIELDS and name.split(".")[0] not in SECTIONS]
    named = (data.raw or config.data_b.raw) and data.layout not in ("folders", "lsmi")
    critics = ("critic_norm", "critic_lr", "averaged_logits", "halved", "replay")
    of_critics = [
        f"--mapping.{name.replace('_', '-')} {getattr(mapping, name)}" for name in critics if f"mapping.{name}" in given
    ]
    released = {"mapping.clip_norm", "mapping.averaged_logits", "mapping.halved", "mapping.replay"}
    for ineffective, sentence in (
        (unused, f"task raw2raw does not use {', '.join(unused)}"),
        (named, "--data.raw and --data-b.raw need --data.layout folders or lsmi"),
        (data.layout == "folders" and data.root, "layout folders takes --data.raw and --data-b.raw, not --data.root"),
        (
            data.demo and data.layout != "cameras",
            f"layout {data.layout} does not use the demo dataset: add --data.no-demo",
        ),
        (data.cache_dir and data.cache in ("memory", "off"), "--data.cache-dir is for a cache on disk"),
        (config.init and "mapping.start" in given, "--init replaces --mapping.start"),
        (not mapping.adversarial and of_critics, f"no critic has {', '.join(of_critics)}: the adversarial weight is 0"),
        (config.as_released and released.intersection(given), "--as-released sets what the released code does"),
    ):
        if ineffective:
            raise UserError(f"a setting has no effect: {sentence}")


# --- building --------------------------------------------------------------------------------------------------------


def build_task(config: Config, device: torch.device, group: Group, resume: bool) -> Task:
    """Everything that a run of this config trains and validates. A resumed run does not load `config.init` again.

    Raises `UserError` for data, weights or settings that do not fit.
    """
    torch.manual_seed(config.seed)
    set_precision(config.compute)
    mapping = config.mapping_settings
    if mapping.replay and group.size > 1:
        option = "--as-released" if config.as_released else "--mapping.replay"
        raise UserError(f"the patches that {option} keeps cannot be shared by several processes: train with one")
    with group.in_turn():
        cameras = open_two_cameras(config)
        profiles = find_profiles(config)
        _refuse_unfit(cameras, profiles, config.data.patch, mapping.start)
        identity = identify_cameras(cameras)
        name, mapper = build_generator(config.model, "" if resume else config.init, cameras)
        small = thumbnails(cameras)
        start = {} if config.init else fit_maps(mapping.start, cameras, profiles, small)
        for to, fitted in start.items():
            mapper.start_from(to, fitted.of_planes(cameras.channels))
        maps = fit_baselines(["transport"] * bool(cameras.pairs), cameras, profiles, small)
        maps |= {mapping.start: start} if start else {}
        mapper.to(device, memory_format=torch.channels_last)
        config = dataclasses.replace(config, model=name)
        trainer = build_trainer(config, mapper, group)
    known = {each: camera.to_dict(profile) for each, profile in profiles.items() if profile}
    mosaics = " and ".join(f"{len(cameras.unpaired[each])} of {each}" for each in CAMERAS)
    return Task(
        summary=f"{name} on {device}, mosaics of two cameras to train on, {mosaics}; {len(cameras.pairs)} pairs to "
        "validate on",
        generator=mapper,
        stages=[_build_stage(config, cameras, trainer, device, group)],
        validation=_build_validation(cameras, maps, config.log.samples, device, group),
        provenance={},
        config=settings.to_dict(config),
        description={
            "model": name,
            "channels": cameras.channels,
            "sensors": {each: dataclasses.asdict(sensor_of(config, each)) for each in CAMERAS},
            "cameras": known,
        },
        identity=identity | {"cameras": known},
    )


def _refuse_unfit(cameras: TwoCameras, profiles: Mapping[str, Profile | None], patch: int, start: str) -> None:
    """Raise `UserError`, before all files are read, for small ones, and for a start that needs what nobody noted."""
    for each in CAMERAS:
        refuse_smaller(cameras.unpaired[each], patch, cameras.readers[each].headless_size)
        if start == PROFILES and not (profiles[each] and profiles[each].color_matrix):
            raise UserError(f"camera {each} notes no colour matrix for --mapping.start {start}: try statistics")


def build_generator(model: str, init: str, cameras: TwoCameras) -> tuple[str, nn.Module]:
    """(name, mapper): with fresh weights, or from the checkpoint `init`, which says which mapper it is."""
    if not init:
        name = model or "mapper"
        return name, build_mapper(name, cameras.channels)
    name, state, description = zoo.open_mapper_checkpoint(init)
    if model not in ("", name):
        raise UserError(f"{init} holds the mapper '{name}', not '{model}': set --model {name}")
    if (channels := description.get("channels", 4)) != cameras.channels:
        raise UserError(
            f"{init} maps planes of {channels} channels, and the run has {cameras.channels}: set --mapping.channels "
            f"{channels}, or leave --init out"
        )
    if description.get("sensors") != {each: dataclasses.asdict(cameras.readers[each].sensor) for each in CAMERAS}:
        note(f"{init} was trained on cameras of other levels or CFA orders: it must learn new ones")
    mapper = build_mapper(name, cameras.channels)
    mapper.load_state_dict(state)
    return name, mapper


def build_trainer(config: Config, mapper: nn.Module, group: Group) -> CycleTrainer:
    """The networks' optimizers, and the weights of Eq. 11."""
    mapping, device = config.mapping_settings, next(mapper.parameters()).device
    critics = {
        each: PatchDiscriminator(mapper.channels, mapping.critic_norm, averaged=mapping.averaged_logits).to(device)
        for each in CAMERAS
    }
    if group.size > 1:
        mapper.synchronise(group.mean, group.size)
    betas = (mapping.beta1, mapping.beta2)
    judging = [parameter for critic in critics.values() for parameter in critic.parameters()]
    precision: Callable[[], AbstractContextManager] = nullcontext
    if config.compute.precision == "bf16":
        precision = partial(torch.autocast, device.type, torch.bfloat16)
    return CycleTrainer(
        mapper,
        torch.optim.Adam(mapper.parameters(), mapping.lr, betas, fused=True),
        critics,
        torch.optim.Adam(judging, mapping.critic_lr, betas, fused=True),
        adversarial=mapping.adversarial,
        cycle=mapping.cycle,
        identity=mapping.identity,
        clip_norm=mapping.clip_norm,
        critic_scale=0.5 if mapping.halved else 1.0,
        replay=mapping.replay,
        ema_decay=mapping.ema,
        precision=precision,
        average_=group.mean_ if group.size > 1 else None,
    )


def _build_stage(
    config: Config, cameras: TwoCameras, trainer: CycleTrainer, device: torch.device, group: Group
) -> Stage:
    data, steps = config.data, config.mapping.steps
    folder = Path(data.cache_dir or Path(config.runs) / ".cache")
    files = {}
    for each in CAMERAS:
        split = Split(cameras.unpaired[each], (), paired=False)
        files[each] = cached_files(
            split, Files(cameras.readers[each]), data.cache, folder, steps * data.batch, group.size
        )
    patches = CameraPatches(cameras, files, data.patch, config.seed, data.flips)

    def load(step: int) -> Generator[dict[str, Tensor], None, None]:
        return training_batches(patches, data.batch, step, data.workers, device, group.rank, group.size)

    return Stage("train", "final", steps, trainer, load, lambda loaded: CameraBatch(loaded["a"], loaded["b"]))


# --- validation ------------------------------------------------------------------------------------------------------


def _build_validation(
    cameras: TwoCameras, maps: Mapping[str, Ways], scenes: int, device: torch.device, group: Group
) -> Validation:
    """PSNR of the pairs of both directions, of charts if pixels do not agree; sample rows: mosaic, mapped, truth.

    Without pairs, the samples are training files, and the last image is another scene by the other camera.
    """
    pairs = cameras.pairs

    def load(indices: Sequence[int]) -> Iterable[tuple[tuple[Tensor, str, View], Tensor]]:
        for index in indices:
            source, truth = cameras.pair(pairs[index])
            of_mapped, of_truth = cameras.views(pairs[index])
            yield (source.to(device), OTHER[pairs[index].camera], of_mapped), of_truth(truth).to(device)

    def render(mapper: nn.Module) -> Render:
        return _render(mapper.map_planes)

    def samples(mapper: nn.Module) -> list[list[Tensor]]:
        rows = []
        for number in range(scenes):
            source, truth, to = _shown(cameras, number, scenes)
            mapped = mapper.map_planes(source.to(device), to).cpu()
            rows.append(row_of_pictures([source[0], mapped[0], truth[0]]))
        return rows

    return Validation(
        name="val_psnr",
        title=f"PSNR on {len(pairs)} pairs of mosaics (floats, {'R, Gr, Gb, B' if cameras.channels == 4 else 'R, G, B'}"
        f"{'' if cameras.aligned else ', patches of colour charts'}; mean over files and both directions)",
        unit="dB",
        count=len(pairs),
        pairs=load,
        score=psnr,
        render=render,
        samples=samples,
        baselines={
            "identity": _render(lambda planes, to: planes),
            **{method: _render(partial(_apply, fitted)) for method, fitted in maps.items()},
        },
        group=group,
    )


def _render(mapping: Callable[[Tensor, str], Tensor]) -> Render:
    """Of inputs (planes, camera to map to, view): what is compared of the mapped planes."""
    return lambda inputs: inputs[2](mapping(*inputs[:2]))


def _apply(fitted: Ways, planes: Tensor, to: str) -> Tensor:
    return fitted[to](planes)


def _shown(cameras: TwoCameras, number: int, scenes: int) -> tuple[Tensor, Tensor, str]:
    """Sample `number`: the centres of a mosaic and its truth, as planes (1, C, S, S), and the camera to map to."""
    if cameras.pairs:
        pair = cameras.pairs[number * len(cameras.pairs) // scenes]
        source, truth = cameras.pair(pair)
        return _centre(source), _centre(truth), OTHER[pair.camera]
    to = CAMERAS[number % 2]
    paths = [cameras.unpaired[each][number * len(cameras.unpaired[each]) // scenes] for each in (OTHER[to], to)]
    source, truth = cameras.planes(paths[0], OTHER[to]), cameras.planes(paths[1], to)
    return _centre(source), _centre(truth), to


def _centre(planes: Tensor) -> Tensor:
    side = min(SHOWN_SIDE, *planes.shape[2:])
    top, left = ((length - side) // 2 for length in planes.shape[2:])
    return planes[:, :, top : top + side, left : left + side]
