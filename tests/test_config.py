"""Settings: the paper's values, the command line, what a resumed run may change, and that no field is dead."""

import ast
import dataclasses
import json
from pathlib import Path
from typing import get_type_hints

import pytest

import config as settings
from build import CRITICS, TERMS
from config import PRESETS, Config, from_dict, load, parse, to_dict
from errors import UserError

ROOT = Path(settings.__file__).parent
SECTIONS = ("data", "backbones", "pretrain", "train", "log")
# Weights that build.py reads as getattr(weights, name) and getattr(train, f"adv_{name}"), by its tables.
BY_GETATTR = {term for terms in TERMS.values() for term in terms}
BY_GETATTR |= {f"adv_{name}" for critics in CRITICS.values() for name in critics}


def save_run(folder: Path, config: Config) -> None:
    path = folder / config.run / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(to_dict(config)))
    path.with_name("last.pt").touch()


def resume(folder: Path, *arguments: str) -> tuple[Config, bool]:
    return parse([*arguments, "--runs", str(folder), "--run", "one", "--resume"])


# --- the paper's values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preset, model, lr, critic_lr, critic_every",  # section 4.3
    (
        ("fujifilm-efficient", "efficient", 5e-4, 1e-5, 10),
        ("fujifilm-robust", "robust", 5e-4, 1e-5, 10),
        ("fujifilm-rmfa-tiny", "rmfa-tiny", 1e-4, 5e-5, 4),
        ("zrr-efficient", "efficient", 5e-4, 1e-5, 10),
    ),
)
def test_presets_have_the_paper_s_hyperparameters(preset, model, lr, critic_lr, critic_every):
    config = PRESETS[preset]
    train = config.train
    assert config.model == model and config.data.batch == 32 and config.data.patch == 256
    assert (train.lr, train.critic_lr, train.critic_every) == (lr, critic_lr, critic_every)
    assert (train.beta1, train.beta2, train.gamma, train.clip_norm) == (0.5, 0.9, 10.0, 1.0)
    assert config.pretrain.steps == 20_000 and config.data.val_count == config.data.test_count == 1024
    assert config.backbones.weights == "pretrained" and config.backbones.vit.startswith("vit_base_patch16_224")
    assert train.mode == "unpaired" and train.ema == 0 and train.schedule == "constant" and not config.data.flips
    weights = (train.content, train.tv, train.adv_color, train.adv_lin0, train.adv_lin3)
    assert weights == (1.0,) * 5 and not config.as_released


def test_black_levels_are_those_of_the_released_code():
    assert PRESETS["fujifilm-efficient"].data.black_level == (58.0, 60.0, 61.0, 62.0)  # R, Gr, Gb, B
    assert PRESETS["fujifilm-rmfa-tiny"].data.black_level == (63.0,) * 4
    assert PRESETS["ntire26"].data.black_level == (0.0,) * 4


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_by_name_and_names_its_own_run(name):
    config, resumed = parse([name])
    assert config == PRESETS[name] and config.run == name and not resumed


def test_no_arguments_are_the_demo():
    assert parse([]) == (PRESETS["demo"], False) and settings.config is PRESETS["demo"]


# --- to and from a file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name):
    assert from_dict(json.loads(json.dumps(to_dict(PRESETS[name])))) == PRESETS[name]


@pytest.mark.parametrize("values", ({"modle": "efficient"}, {"data": {"pach": 64}}))
def test_an_unknown_key_is_refused_by_name(values):
    with pytest.raises(UserError, match="unknown config key '(modle|pach)'"):
        from_dict(values)


@pytest.mark.parametrize(
    "name, values",
    (
        ("seed", {"seed": "abc"}),
        ("model", {"model": 5}),
        ("as_released", {"as_released": "no"}),
        ("patch", {"data": {"patch": 64.5}}),
        ("patch", {"data": {"patch": "64"}}),
        ("cfa", {"data": {"cfa": "rgbg"}}),
        ("black_level", {"data": {"black_level": [1, 2, 3]}}),
        ("black_level", {"data": {"black_level": 60}}),
        ("mode", {"train": {"mode": "both"}}),
        ("data", {"data": 3}),
    ),
)
def test_a_wrong_type_in_a_file_is_refused_by_name(name, values):
    with pytest.raises(UserError, match=name):
        from_dict(values)


def test_whole_numbers_are_floats_too():
    assert from_dict({"train": {"gamma": 10}}).train.gamma == 10.0


@pytest.mark.parametrize("text", ("{", "[1]", "3", '{"data": null}', '{"seed": "x"}', ""))
def test_a_broken_config_file_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        load(tmp_path / "config.json")


# --- the command line ------------------------------------------------------------------------------------------------


def test_fields_are_set_by_section_and_name():
    arguments = ["--seed", "3", "--data.patch", "128", "--data.no-flips", "--train.lr", "1e-3"]
    config, _ = parse(["demo", *arguments, "--data.black-level", "1", "2", "3", "4", "--as-released"])
    assert (config.seed, config.data.patch, config.data.flips, config.train.lr) == (3, 128, False, 1e-3)
    assert config.data.black_level == (1.0, 2.0, 3.0, 4.0) and config.as_released
    assert config.train.steps == PRESETS["demo"].train.steps  # the rest is the preset's


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(UserError, match="'zrr'.*" + ", ".join(PRESETS)):
        parse(["zrr"])


@pytest.mark.parametrize(
    "arguments",
    (
        ["--data.pach", "64"],
        ["--seed", "abc"],
        ["--data.patch", "64.5"],
        ["--data.cfa", "rgbg"],
        ["--data.black-level", "1", "2"],
        ["--train.mode", "both"],
        ["demo", "zrr-efficient"],
    ),
)
def test_what_is_unknown_or_of_the_wrong_type_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        parse(arguments)
    assert leaving.value.code == 2 and capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, says",
    (
        (["--data.patch", "63"], "data.patch must be even and at least 32, not 63"),
        (["--data.batch", "0"], "data.batch must be at least 1, not 0"),
        (["--data.workers", "-1"], "data.workers must not be negative"),
        (["--data.val-count", "-1"], "data.val_count"),
        (["--pretrain.lr", "0"], "pretrain.lr"),
        (["--pretrain.tv", "-1"], "weights of pretrain must not be negative"),
        (["--train.tv", "-1"], "weights of train must not be negative"),
        (["--train.lr", "-1e-4"], "train.lr"),
        (["--train.lr", "nan"], "train.lr"),
        (["--train.critic-every", "0"], "train.critic_every must be at least 1"),
        (["--train.ema", "1"], "train.ema"),
        (["--train.beta1", "1"], "train.beta1"),
        (["--train.gamma", "-1"], "train.gamma"),
        (["--log.every", "0"], "log.every must be at least 1"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--train.gamma", "inf"], "train.gamma is inf"),
        (["--train.mse", "nan"], "train.mse is nan"),
        (["--data.white-level", "1"], "data.white_level is 1"),
    ),
)
def test_a_value_out_of_range_is_named(arguments, says):
    with pytest.raises(UserError, match=says):
        parse(arguments)


@pytest.mark.parametrize("name", ("a/b", "/tmp/a", "..", ".", "", ".hidden", "a/"))
def test_a_run_s_name_is_one_folder(name):
    with pytest.raises(UserError, match="plain name of a folder"):
        parse(["--run", name])


def test_help_exits_0_and_tells_of_every_section(capsys):
    with pytest.raises(SystemExit) as leaving:
        parse(["--help"])
    told = capsys.readouterr().out
    assert leaving.value.code == 0
    assert all(f"--{section}." in told for section in SECTIONS) and "--resume" in told
    assert all(preset in told for preset in PRESETS)


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_resumed_run_takes_its_own_config(tmp_path):
    before = dataclasses.replace(PRESETS["zrr-efficient"], run="one", runs=str(tmp_path), seed=7)
    save_run(tmp_path, before)
    assert resume(tmp_path) == (before, True)
    assert resume(tmp_path, "demo") == (before, True)


def test_a_run_without_a_saved_state_may_still_change(tmp_path):
    save_run(tmp_path, Config(run="one", runs=str(tmp_path)))
    (tmp_path / "one" / "last.pt").unlink()
    assert resume(tmp_path, "--data.patch", "64")[0].data.patch == 64


def test_resuming_what_was_never_begun_starts_it(tmp_path):
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
    ),
)
def test_a_resumed_run_cannot_change_its_arithmetic(tmp_path, name, value):
    save_run(tmp_path, Config(run="one", runs=str(tmp_path)))
    with pytest.raises(UserError, match=f"cannot change {name}: start another with --run NAME"):
        resume(tmp_path, f"--{name}", value)


def test_all_that_changed_is_named(tmp_path):
    save_run(tmp_path, Config(run="one", runs=str(tmp_path)))
    with pytest.raises(UserError, match="model, train.lr"):
        resume(tmp_path, "--model", "robust", "--train.lr", "1")


def test_a_resumed_run_may_change_where_and_how_long(tmp_path):
    save_run(tmp_path, Config(run="one", runs=str(tmp_path)))
    config, _ = resume(
        tmp_path, "--device", "cpu", "--train.steps", "5", "--data.root", "x", "--data.workers", "0", "--log.every", "7"
    )
    assert (config.device, config.train.steps, config.data.root, config.log.every) == ("cpu", 5, "x", 7)
    assert config.data.workers == 0


def test_a_run_moved_to_another_folder_resumes(tmp_path):
    save_run(tmp_path, Config(run="one", runs="where/it/was"))
    assert resume(tmp_path)[0].runs == str(tmp_path)


# --- every field -----------------------------------------------------------------------------------------------------


def leaves(kind: type) -> set[str]:
    """Names of all fields below a dataclass that are not sections."""
    names = set()
    for name, hint in get_type_hints(kind).items():
        names |= leaves(hint) if dataclasses.is_dataclass(hint) else {name}
    return names


def test_no_field_is_dead():
    """Each is read by a script at the root: as .name, or as ["name"] of a dict made of its section."""
    read = set(BY_GETATTR)
    for script in ROOT.glob("*.py"):
        if script.name != "config.py":
            for node in ast.walk(ast.parse(script.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    read.add(node.attr)
                elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                    read.add(node.slice.value)
    assert leaves(Config) - read == set()


def test_every_field_is_explained():
    """A section by its class, a value by the string below it."""
    classes = [node for node in ast.parse((ROOT / "config.py").read_text()).body if isinstance(node, ast.ClassDef)]
    explained = {node.name for node in classes if ast.get_docstring(node)}
    for node in classes:
        for line, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(line, ast.AnnAssign) and not node.name.startswith("_"):
                text = below.value.value if isinstance(below, ast.Expr) else None
                assert isinstance(text, str) or line.annotation.id in explained, f"{node.name}.{line.target.id}"
