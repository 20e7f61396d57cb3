"""Settings: the paper's values, config.json, and a check that every field is explained and read.

The command line is tested in test_fit_options.py.
"""

import ast
import dataclasses
import json
from pathlib import Path
from typing import get_type_hints

import pytest

import config as settings
from config import PRESETS, Config, Released, from_dict, load, open_run, to_dict
from errors import UserError
from tasks.modes import CRITICS, MODES

ROOT = Path(settings.__file__).parent
# Weights that tasks.modes reads as getattr(weights, name) and getattr(train, f"adv_{name}"), by its table.
STAGES = [stage for mode in MODES.values() for stage in mode.stages]
BY_GETATTR = {term for stage in STAGES for term in stage.terms}
BY_GETATTR |= {f"adv_{name}" for name in ("color", *CRITICS["texture"])}

# --- the paper's values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preset, model, lr, critic_lr, critic_every, steps",  # section 4.3
    (
        ("fujifilm-efficient", "efficient", 5e-4, 1e-5, 10, 27_220),
        ("fujifilm-robust", "robust", 5e-4, 1e-5, 10, 66_090),
        ("fujifilm-rmfa-tiny", "rmfa-tiny", 1e-4, 5e-5, 4, 48_270),
        ("zrr-efficient", "efficient", 5e-4, 1e-5, 10, 30_750),
    ),
)
def test_presets_have_the_paper_s_hyperparameters(preset, model, lr, critic_lr, critic_every, steps):
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
    assert train.color_critic == "vit" and train.blur_color and config.backbones.vit_size == 224  # Fig. 2
    assert train.texture_critics == ("lin0", "lin3") and train.critic_beta1 == 0.5 and config.quirks == Released()
    assert train.steps == steps  # of the released models


def test_the_raw_to_raw_preset_has_its_paper_s_hyperparameters():
    config = PRESETS["raw2raw"]
    mapping = config.mapping
    assert (mapping.cycle, mapping.identity, mapping.adversarial) == (10, 5, 1)
    assert (mapping.lr, mapping.critic_lr, mapping.beta1, mapping.beta2) == (1e-5, 2e-5, 0.5, 0.999)
    assert config.data.batch == 4 and config.data.patch == 2 * 256 and config.data.flips and mapping.ema == 0
    assert mapping.start == "identity" and config.mapping_settings == mapping and config.model == "mapper"


def test_black_levels_are_those_of_the_released_code():
    assert PRESETS["fujifilm-efficient"].data.black_level == (58.0, 60.0, 61.0, 62.0)  # R, Gr, Gb, B
    assert PRESETS["fujifilm-rmfa-tiny"].data.black_level == (63.0,) * 4
    assert PRESETS["ntire26"].data.black_level == (0.0,) * 4


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_a_run_of_its_own(name):
    assert PRESETS[name].run == name


def test_the_default_is_the_demo():
    assert settings.config is PRESETS["demo"]


# --- config.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_is_the_same_after_writing_and_reading_it(name):
    assert from_dict(json.loads(json.dumps(to_dict(PRESETS[name])))) == PRESETS[name]


@pytest.mark.parametrize("values", ({"modle": "efficient"}, {"data": {"pach": 64}}))
def test_an_unknown_key_is_named(values):
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
        ("mode", {"train": {"mode": 3}}),
        ("schedule", {"train": {"schedule": "linear"}}),
        ("data", {"data": 3}),
    ),
)
def test_a_field_of_a_wrong_type_is_named(name, values):
    with pytest.raises(UserError, match=name):
        from_dict(values)


def test_whole_numbers_are_accepted_for_floats():
    assert from_dict({"train": {"gamma": 10}}).train.gamma == 10.0


@pytest.mark.parametrize("former, now", (("alexnet", ("lin0", "lin3")), ("image", ("grey",))))
def test_an_earlier_version_named_the_texture_critics_by_what_all_of_them_see(former, now):
    assert from_dict({"train": {"texture_critics": former}}).train.texture_critics == now


@pytest.mark.parametrize("text", ("{", "[1]", "3", '{"data": null}', '{"seed": "x"}', "", 200_000 * "["))
def test_a_damaged_config_file_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json is not a valid config: ."):
        load(tmp_path / "config.json")


# --- an existing run -------------------------------------------------------------------------------------------------


def save_run(folder: Path, config: Config) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(config)))


def test_a_run_is_opened_by_its_name(tmp_path):
    config = Config(run="one", seed=7, data=settings.Data(root="here"))
    save_run(tmp_path / "one", config)
    assert open_run(str(tmp_path), "one") == (tmp_path / "one", config)
    moved = dataclasses.replace(config, data=settings.Data(root="there"))
    assert open_run(str(tmp_path), "one", "there") == (tmp_path / "one", moved)


def test_an_unknown_run_lists_the_existing_ones(tmp_path):
    with pytest.raises(UserError, match="no run .*two; existing runs: none"):
        open_run(str(tmp_path), "two")
    for name in ("one", "an other"):
        save_run(tmp_path / name, Config(run=name))
    with pytest.raises(UserError, match="no run .*two; existing runs: an other, one .see --run and --runs"):
        open_run(str(tmp_path), "two")


# --- every field -----------------------------------------------------------------------------------------------------


def field_names(kind: type) -> set[str]:
    """Names of all fields below a dataclass that are not sections."""
    names = set()
    for name, hint in get_type_hints(kind).items():
        names |= field_names(hint) if dataclasses.is_dataclass(hint) else {name}
    return names


def test_every_field_is_read():
    """By a command or by tasks/: as .name, or as ["name"] of a dict made of its section."""
    read = set(BY_GETATTR)
    for script in (*ROOT.glob("*.py"), *ROOT.glob("tasks/*.py")):
        if script.name != "config.py":
            for node in ast.walk(ast.parse(script.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    read.add(node.attr)
                elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                    read.add(node.slice.value)
    assert field_names(Config) - read == set()


def test_every_field_is_explained():
    """A section by its class's docstring, a value by the string below it."""
    classes = [node for node in ast.parse((ROOT / "config.py").read_text()).body if isinstance(node, ast.ClassDef)]
    explained = {node.name for node in classes if ast.get_docstring(node)}
    for node in classes:
        for line, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(line, ast.AnnAssign) and not node.name.startswith("_"):
                text = below.value.value if isinstance(below, ast.Expr) else None
                assert isinstance(text, str) or line.annotation.id in explained, f"{node.name}.{line.target.id}"
