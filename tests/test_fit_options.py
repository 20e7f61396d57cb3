"""The command line of fit.py: presets, fields, values that are refused, and what a resumed run may change."""

import dataclasses
import json
from pathlib import Path

import pytest

from config import PRESETS, Config, to_dict
from errors import UserError
from fit import parse

SECTIONS = ("data", "backbones", "pretrain", "train", "compute", "log")

# --- presets and fields ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_by_name(name):
    config, resume = parse([name])
    assert config == PRESETS[name] and not resume


def test_without_arguments_the_preset_is_the_demo():
    assert parse([]) == (PRESETS["demo"], False)


def test_fields_are_set_by_section_and_name():
    arguments = ["--seed", "3", "--data.patch", "128", "--data.no-flips", "--train.lr", "1e-3"]
    config, _ = parse(["demo", *arguments, "--data.black-level", "1", "2", "3", "4", "--as-released"])
    assert (config.seed, config.data.patch, config.data.flips, config.train.lr) == (3, 128, False, 1e-3)
    assert config.data.black_level == (1.0, 2.0, 3.0, 4.0) and config.as_released
    assert config.train.steps == PRESETS["demo"].train.steps  # the rest is the preset's


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown preset 'zrr'.*" + ", ".join(PRESETS)):
        parse(["zrr"])


def test_help_exits_0_and_lists_every_section_and_preset(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"--{section}." in text for section in SECTIONS) and "--resume" in text
    assert all(preset in text for preset in PRESETS)


# --- values that are refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    (
        ["--data.pach", "64"],
        ["--seed", "abc"],
        ["--data.patch", "64.5"],
        ["--data.cfa", "rgbg"],
        ["--data.black-level", "1", "2"],
        ["--train.schedule", "linear"],
        ["demo", "zrr-efficient"],
    ),
)
def test_an_unknown_option_or_a_value_of_a_wrong_type_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    assert end.value.code == 2 and capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    (
        (["--data.patch", "63"], "data.patch must be even and at least 32, not 63"),
        (["--data.batch", "0"], "data.batch must be at least 1, not 0"),
        (["--data.workers", "-1"], "data.workers must not be negative"),
        (["--data.val-count", "-1"], "data.val_count"),
        (["--data.raw-height", "-1"], "data.raw_height and data.raw_width must not be negative"),
        (["--pretrain.lr", "0"], "pretrain.lr"),
        (["--pretrain.tv", "-1"], "weights of pretrain must not be negative"),
        (["--pretrain.mse", "0", "--pretrain.tv", "0"], "every weight of pretrain is 0; set pretrain.steps to 0"),
        (["--train.tv", "-1"], "weights of train must not be negative"),
        (["--train.steps", "-1"], "train.steps must not be negative, but is -1"),
        (["--train.lr", "-1e-4"], "train.lr"),
        (["--train.lr", "nan"], "train.lr"),
        (["--train.critic-every", "0"], "train.critic_every must be at least 1"),
        (["--train.ema", "1"], "train.ema"),
        (["--train.beta1", "1"], "train.beta1"),
        (["--train.gamma", "-1"], "train.gamma"),
        (["--train.gamma", "inf"], "train.gamma is inf"),
        (["--train.mse", "nan"], "train.mse is nan"),
        (["--log.every", "0"], "log.every must be at least 1"),
        (["--seed", "-1"], r"seed must lie in \[0, 2\^63\)"),
        (["--seed", str(1 << 64)], r"seed must lie in \[0, 2\^63\)"),
        (["--backbones.vit-size", "16"], "backbones.vit_size must be 0 or between 32 and 1024, not 16"),
        (["--train.lr-of", "color", "0"], "the rates of train.lr_of must be positive"),
        (["--train.every-of", "color", "0"], "the steps of train.every_of must be at least 1"),
        (["--train.critic-beta1", "1"], "train.critic_beta1"),
        (["--train.texture-critics", "lin0", "lin0"], "train.texture_critics names one critic twice"),
        (["--train.texture-critics", "lin5"], "unknown texture critic 'lin5'; known are: lin0, lin1"),
        (["--train.lr-of", "lin1", "1e-5"], "train.lr_of names 'lin1'; the critics here are: color, lin0, lin3"),
        (["--data.white-level", "1"], "data.white_level is 1"),
    ),
)
def test_a_value_out_of_range_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        parse(arguments)


@pytest.mark.parametrize("name", ("a/b", "/tmp/a", "..", ".", "", ".hidden", "a/"))
def test_the_name_of_a_run_is_that_of_one_folder(name):
    with pytest.raises(UserError, match="plain name of a folder"):
        parse(["--run", name])


@pytest.mark.parametrize(
    "arguments, message",
    (
        (["--train.mode", "both"], "unknown mode 'both'; known are: unpaired, paired, paired_gan"),
        (["--model", "resnet"], "unknown model 'resnet'; known are: efficient"),
        (["--data.layout", "sony"], "unknown dataset layout 'sony'; known are: zrr, fujifilm"),
        (["--data.demosaic", "malvar"], "unknown demosaicing 'malvar'; known are: menon2007, bilinear"),
    ),
)
def test_an_unknown_name_lists_the_known_ones(arguments, message):
    with pytest.raises(UserError, match=message):
        parse(arguments)


# --- settings without effect -----------------------------------------------------------------------------------------

FOLDERS = ["--data.layout", "folders", "--data.raw", "x", "--data.photos", "y"]


@pytest.mark.parametrize(
    "arguments, message",
    (
        (["--data.raw", "x"], "--data.raw and --data.photos need --data.layout folders"),
        (["--data.photos", "x"], "--data.raw and --data.photos need --data.layout folders"),
        (FOLDERS, "layout folders does not use the demo dataset: add --data.no-demo"),
        (["--data.cache-dir", "x", "--data.cache", "memory"], "--data.cache-dir is for a cache on disk"),
        (["--data.cache-dir", "x", "--data.cache", "off"], "--data.cache-dir is for a cache on disk"),
        (["--data.raw-height", "8"], "give both --data.raw-height and --data.raw-width, or neither"),
        (["--data.raw-width", "8"], "give both --data.raw-height and --data.raw-width, or neither"),
        *(
            (["--backbones.weights", "random", f"--backbones.{name}-file", "x"], "random weights use no file")
            for name in ("vgg", "alexnet", "vit")
        ),
        (
            ["--train.no-blur-color", "--train.color-critic", "image"],
            "--train.blur-color is for a colour critic of feat",
        ),
        (["--train.no-blur-color", "--train.mode", "paired_gan"], "--train.blur-color is for a colour critic of feat"),
        (
            ["--backbones.vit-size", "64", "--train.color-critic", "vgg"],
            "--backbones.vit-size is for --train.color-crit",
        ),
        (["--train.adv-lin1", "2"], "mode unpaired has no term of the weight train.adv_lin1"),
        (["--released.swapped-lpips"], "mode unpaired does not train with LPIPS+"),
        (["--released.luminance-content"], "mode unpaired compares luminance already"),
        (["--released.penalty-times-100", "--train.mode", "paired"], "mode paired has no critics"),
        (["--released.untrained-fc1", "--train.mode", "paired"], "--released.untrained-fc1: no critic has it"),
        (
            ["--backbones.vit-normalise", "--train.mode", "paired"],
            "--backbones.vit-normalise is for --train.color-",
        ),
        (
            ["--released.permutation", "--data.unpaired", "disjoint"],
            "--released.permutation is for --data.unpaired shuff",
        ),
        (["--as-released", "--train.no-blur-color"], "with --as-released the ViT sees what the released one sees"),
        (["--as-released", "--backbones.vit-size", "64"], "with --as-released the ViT sees what the released one sees"),
        (["--as-released", "--backbones.vit-normalise"], "with --as-released the ViT sees what the released one sees"),
        (["--train.color-critic", "image", "--train.mode", "paired"], "mode paired has no colour critic"),
        (["--train.texture-critics", "grey", "--train.mode", "paired"], "mode paired has no texture critics"),
        ([*FOLDERS, "--data.no-demo", "--data.root", "x"], "layout folders takes --data.raw and --data.photos, not"),
        (["--train.mse", "1"], "mode unpaired has no term of the weight train.mse"),
        (["--train.mode", "paired", "--train.adv-lin0", "2"], "mode paired has no term of the weight train.adv_lin0"),
    ),
)
def test_a_setting_without_effect_is_refused(arguments, message):
    with pytest.raises(UserError, match=f"a setting has no effect: .*{message}"):
        parse(arguments)


@pytest.mark.parametrize(
    "arguments",
    (
        [*FOLDERS, "--data.no-demo"],
        ["--data.cache-dir", "x", "--data.cache", "disk"],
        ["--data.raw-height", "8", "--data.raw-width", "8"],
        ["--backbones.weights", "auto", "--backbones.vgg-file", "x"],
        ["--train.no-blur-color"],
        ["--train.no-blur-color", "--train.color-critic", "alexnet"],
        ["--train.texture-critics", "grey", "--train.mode", "paired_gan"],
        ["--train.texture-critics", "lin1", "lin4", "--train.adv-lin1", "2"],
        ["--train.lr-of", "color", "2e-5", "lin0", "1e-5", "--train.every-of", "color", "4"],
        ["--released.swapped-lpips", "--train.mode", "paired"],
        ["--released.permutation"],
        ["--train.mse", "1", "--train.mode", "paired"],
        ["--train.dists", "0"],  # no effect, but what the user wants
    ),
)
def test_the_same_settings_are_accepted_where_they_have_an_effect(arguments):
    parse(arguments)


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.fixture
def save_run(tmp_path):
    """save_run(config): the files of a run "one" that `parse` reads, with a saved state."""

    def save(config: Config) -> None:
        path = tmp_path / config.run / "config.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(to_dict(config)))
        path.with_name("last.pt").touch()

    return save


def resume(runs: Path, *arguments: str) -> tuple[Config, bool]:
    return parse([*arguments, "--runs", str(runs), "--run", "one", "--resume"])


def test_a_resumed_run_uses_its_own_config(tmp_path, save_run):
    before = dataclasses.replace(PRESETS["zrr-efficient"], run="one", runs=str(tmp_path), seed=7)
    save_run(before)
    assert resume(tmp_path) == (before, True)
    assert resume(tmp_path, "demo") == (before, True)


def test_a_run_without_a_saved_state_may_change_everything(tmp_path, save_run):
    save_run(Config(run="one", runs=str(tmp_path)))
    (tmp_path / "one" / "last.pt").unlink()
    assert resume(tmp_path, "--data.patch", "64")[0].data.patch == 64


def test_resuming_a_run_that_does_not_exist_starts_it(tmp_path):
    config, resumed = resume(tmp_path, "fujifilm-robust")
    assert resumed and config == dataclasses.replace(PRESETS["fujifilm-robust"], run="one", runs=str(tmp_path))


@pytest.mark.parametrize(
    "name, value",
    (
        ("model", "robust"),
        ("seed", "1"),
        ("data.patch", "128"),
        ("data.cfa", "bggr"),
        ("pretrain.steps", "5"),
        ("train.lr", "1"),
        ("train.ema", "0.5"),
        ("train.mode", "paired"),
    ),
)
def test_a_resumed_run_cannot_change_its_arithmetic(tmp_path, save_run, name, value):
    save_run(Config(run="one", runs=str(tmp_path)))
    with pytest.raises(UserError, match=f"cannot change {name}: start another run with --run NAME"):
        resume(tmp_path, f"--{name}", value)


def test_all_changes_are_named(tmp_path, save_run):
    save_run(Config(run="one", runs=str(tmp_path)))
    with pytest.raises(UserError, match="model, train.lr"):
        resume(tmp_path, "--model", "robust", "--train.lr", "1")


def test_a_resumed_run_may_change_files_device_length_and_intervals(tmp_path, save_run):
    save_run(Config(run="one", runs=str(tmp_path)))
    changes = ["--device", "cpu", "--train.steps", "5", "--data.root", "x", "--data.workers", "0", "--log.every", "7"]
    config, _ = resume(tmp_path, *changes)
    assert (config.device, config.train.steps, config.data.root, config.log.every) == ("cpu", 5, "x", 7)
    assert config.data.workers == 0


def test_a_cosine_schedule_fixes_the_number_of_steps(tmp_path, save_run):
    train = dataclasses.replace(Config().train, schedule="cosine")
    save_run(Config(run="one", runs=str(tmp_path), train=train))
    with pytest.raises(UserError, match="cannot change train.steps"):
        resume(tmp_path, "--train.steps", "5")


def test_a_run_moved_to_another_folder_can_be_resumed(tmp_path, save_run):
    save_run(Config(run="one", runs="former/folder"))
    assert resume(tmp_path)[0].runs == str(tmp_path)
