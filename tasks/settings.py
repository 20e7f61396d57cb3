"""Settings that would have no effect, or that this machine cannot bear: refused before any work."""

import os
from collections.abc import Sequence

import torch

from config import Config
from data.cache import free_memory
from data.conditions import BALANCED
from data.folders import find_layout
from errors import UserError
from losses import LOSSES
from tasks import isp
from tasks.modes import chosen_critics, compares_with, find_mode, mode_of, planned_steps
from training.distributed import Group


def refuse_ineffective(config: Config, given: Sequence[str] = ()) -> None:
    """Raise `UserError` for unknown names, and for settings that would have no effect in a new run of this config.

    `given` are the fields that the user has set, such as "train.mse": a preset's own values are not refused.
    """
    isp.check_names(config)
    _refuse_other_tasks(given)
    _refuse_other_recipe(config, given)
    _refuse_unused_fits(config, "data.color_map" in given)
    _refuse_unused_switches(config, given)
    data, backbones, train = config.data, config.backbones, config.train
    rootless, critics = find_layout(data.layout).rootless, chosen_critics(train)
    files, root = backbones.vgg_file or backbones.alexnet_file or backbones.vit_file, "data.root" in given and data.root
    unused = sorted(set(given).intersection(_unused_weights(config)))
    textures, tokens = critics.keys() - {"color"}, "color" in critics and train.color_critic != "image"
    vit = "color" in critics and train.color_critic == "vit"
    for ineffective, sentence in (
        (not rootless and (data.raw or data.photos), "--data.raw and --data.photos need --data.layout folders"),
        (rootless and root, f"layout {data.layout} takes --data.raw and --data.photos, not --data.root"),
        (rootless and data.demo, f"layout {data.layout} does not use the demo dataset: add --data.no-demo"),
        (data.map_to and not data.map, "--data.map-to is for --data.map"),
        (data.cache_dir and data.cache in ("memory", "off"), "--data.cache-dir is for a cache on disk"),
        (
            "data.gains" in given and data.normalise in BALANCED,
            "normalised mosaics have no gains: leave out --data.gains",
        ),
        (bool(data.raw_height) != bool(data.raw_width), "give both --data.raw-height and --data.raw-width, or neither"),
        (backbones.weights == "random" and files, "random weights use no file: leave out the --backbones file"),
        ("train.color_critic" in given and "color" not in critics, f"mode {train.mode} has no colour critic"),
        ("train.texture_critics" in given and not textures, f"mode {train.mode} has no texture critics"),
        ("train.blur_color" in given and not tokens, "--train.blur-color is for a colour critic of features"),
        ("backbones.vit_size" in given and not vit, "--backbones.vit-size is for --train.color-critic vit"),
        ("backbones.vit_normalise" in given and not vit, "--backbones.vit-normalise is for --train.color-critic vit"),
        (train.critic_warmup and not critics, f"mode {train.mode} has no critics to warm up"),
        (unused, f"mode {train.mode} has no term of the weight {', '.join(unused)}"),
    ):
        if ineffective:
            raise UserError(f"a setting has no effect: {sentence}")


def _refuse_other_tasks(given: Sequence[str]) -> None:
    if names := [name for name in given if name.split(".")[0] in ("data_b", "mapping")]:
        raise UserError(f"a setting has no effect: {', '.join(names)} is of the task raw2raw: name its preset")


def _refuse_other_recipe(config: Config, given: Sequence[str]) -> None:
    """Raise `UserError` for settings of the paper's method in a published recipe, or of such a recipe elsewhere."""
    if config.recipe == "paper":
        names, sentence = [name for name in given if name.startswith("published.")], "is for --recipe published"
    else:
        used = {f"train.{name}" for name in ("steps", "lr", "beta1", "beta2", "schedule", "ema")}
        used |= {"released.chunks", "released.float_psnr"}
        sections = ("train", "pretrain", "released", "as_released")
        others = {
            "data.unpaired",
            "backbones.vit",
            "backbones.vit_file",
            "backbones.vit_size",
            "backbones.vit_normalise",
        }
        names = [name for name in given if name in others or (name.split(".")[0] in sections and name not in used)]
        sentence = "is not for --recipe published, whose losses are --published.weights"
    if names:
        option = names[0].replace("_", "-")
        raise UserError(f"a setting has no effect: --{option} {sentence}")


def _refuse_unused_switches(config: Config, given: Sequence[str]) -> None:
    """Raise `UserError` for switches of the released code that change nothing here."""
    train, critics, mode = config.train, chosen_critics(config.train), find_mode(config.train.mode)
    convolutional = critics.keys() - {"color"} or ("color" in critics and train.color_critic == "image")
    with_lpips = "lpips" in mode.stage("train").terms
    seen = {"train.blur_color", "backbones.vit_size", "backbones.vit_normalise"}
    for ineffective, sentence in (
        ("released.penalty_times_100" in given and not critics, f"mode {train.mode} has no critics"),
        ("released.untrained_fc1" in given and not convolutional, "--released.untrained-fc1: no critic has it"),
        ("released.swapped_lpips" in given and not with_lpips, f"mode {train.mode} does not train with LPIPS+"),
        ("released.luminance_content" in given and not with_lpips, f"mode {train.mode} compares luminance already"),
        (
            "released.permutation" in given and (mode.needs_pairs or config.data.unpaired != "shuffled"),
            "--released.permutation is for --data.unpaired shuffled in mode unpaired",
        ),
        (
            config.as_released and seen.intersection(given),
            "with --as-released the ViT sees what the released one sees: leave out --train.no-blur-color, "
            "--backbones.vit-size and --backbones.vit-normalise",
        ),
    ):
        if ineffective:
            raise UserError(f"a setting has no effect: {sentence}")


def _unused_weights(config: Config) -> list[str]:
    """The fields with a positive weight of a term or critic that the run does not have, such as "train.mse"."""
    unused, critics = [], {f"adv_{name}" for name in chosen_critics(config.train)}
    for plan in find_mode(config.train.mode).stages:
        used = {*plan.terms, *critics}
        for name, value in vars(getattr(config, plan.name)).items():
            if (name in LOSSES or name.startswith("adv_")) and value > 0 and name not in used:
                unused.append(f"{plan.name}.{name}")
    return unused


def _refuse_unused_fits(config: Config, given_map: bool) -> None:
    """Raise `UserError` if the fitted colour map, synthetic pretraining or weights would have no effect.

    `given_map` says that the user has set data.color_map, which a preset may have for modes that fit none.
    """
    mode, pretrain = mode_of(config), config.pretrain
    named = f"mode {config.train.mode}" if config.recipe == "paper" else "a published recipe"
    pretrains = "pretrain" in planned_steps(config) and pretrain.steps > 0 and not config.init
    compared = compares_with(config, "reference")
    masked, aligned = config.data.masks, mode.needs_pairs and compares_with(config, "target")
    synthetic = (pretrain.data, pretrain.schedule) != ("mosaics", "constant")
    fits = config.data.reference != "published" or mode.synthetic or (pretrains and pretrain.data == "synthetic")
    for unused, sentence in (
        (config.data.reference != "published" and not compared, "no stage compares with --data.reference"),
        (given_map and not fits, "there is no colour map for --data.color-map to fit"),
        (masked and not aligned, f"{named} has no term that compares pairs, for --data.masks"),
        (config.data.weights != "equal" and mode.needs_pairs, f"{named} draws pairs, without --data.weights"),
        (synthetic and not pretrains, "there is no pretraining for --pretrain.data and --pretrain.schedule"),
    ):
        if unused:
            raise UserError(f"a setting has no effect: {sentence}")


def refuse_oversized(config: Config, device: torch.device, group: Group) -> None:
    """Raise `UserError` for numbers with which this machine would hang, or fill its memory, before the first step."""
    data, cores = config.data, os.cpu_count() or 1
    most = max(64, 4 * cores)
    if data.workers > most:
        raise UserError(f"--data.workers {data.workers} starts too many processes for {cores} cores: {most} at most")
    # At least, in float32: mosaic, input, reference, target, generated image and its gradient, with 1 or 3 channels.
    need = data.batch // group.size * data.patch**2 * 4 * (1 + 1 + 3 + 3 + 3 + 3)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else free_memory()
    if need > memory:
        raise UserError(
            f"a batch of {data.batch} patches of {data.patch} pixels needs {need / 2**30:,.0f} GiB for its images "
            f"alone, and {device} has {memory / 2**30:,.0f} GiB free: lower --data.batch or --data.patch"
        )
