"""Runs as a whole: the preset that a config is of, and the settings in which configs differ."""

from dataclasses import replace

import pytest

from config import PRESETS, Config
from tasks.modes import planned_steps
from tasks.runs import changed_settings, compare_settings, nearest_preset, settings_table


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_known_again(name):
    config = PRESETS[name]
    moved = replace(config, run="mine", runs="elsewhere", device="cpu", model=config.model or "efficient")
    assert nearest_preset(replace(moved, data=replace(config.data, root="/data", workers=9))) == (name, [])


def test_changes_of_a_preset_are_named():
    config = PRESETS["fujifilm-robust"]
    changed = replace(config, seed=3, train=replace(config.train, tv=0.5))
    assert nearest_preset(changed) == ("fujifilm-robust", ["seed", "train.tv"])
    assert changed_settings(changed, "fujifilm-robust") == {
        "seed": {"value": 3, "fujifilm-robust": 0},
        "train.tv": {"value": 0.5, "fujifilm-robust": 1.0},
    }


def test_a_config_between_two_presets_is_of_none():
    efficient = PRESETS["fujifilm-efficient"]
    between = replace(efficient, train=replace(efficient.train, steps=1))
    robust = replace(between, model="rmfa-medium")
    assert nearest_preset(between)[0] == "fujifilm-efficient"
    assert nearest_preset(robust) == ("", ["model", "train.steps"])
    assert changed_settings(robust, "")["model"] == {"value": "rmfa-medium", "default": ""}


def test_a_config_far_from_all_presets_is_of_none():
    config = PRESETS["quick"]
    weights = {name: 0.3 for name in vars(config.train) if name.startswith("adv_")}
    levels = {"patch": 48, "batch": 3, "val_count": 5, "test_count": 5, "cfa": "bggr"}
    far = {"content": 0.5, "tv": 0.5, "color": 0.5, "lpips": 0.5, "dists": 0.5, "mode": "paired", "steps": 7}
    changed = replace(
        config, train=replace(config.train, **weights, **far), data=replace(config.data, **levels), seed=1
    )
    assert nearest_preset(changed)[0] == ""


def test_settings_of_several_configs_side_by_side():
    first = Config()
    second = replace(first, run="b", train=replace(first.train, texture_critics=(), lr_of={"color": 2e-5}))
    found = compare_settings({"a": first, "b": second, "setting": first})
    assert list(found) == ["train.lr_of", "train.texture_critics"]
    assert settings_table(found) == {
        "columns": [("setting", "text"), ("a", "text"), ("b", "text"), ("setting", "text")],
        "rows": [["train.lr_of", "–", "color 2e-05", "–"], ["train.texture_critics", "lin0 lin3", "–", "lin0 lin3"]],
    }
    assert compare_settings({"a": first, "b": replace(first, run="b")}) == {}
    assert settings_table({})["rows"] == []


def test_steps_are_planned_for_each_stage_and_none_for_pretraining_from_a_checkpoint():
    assert planned_steps(PRESETS["demo"]) == {"pretrain": 1500, "train": 450}
    assert planned_steps(replace(PRESETS["demo"], init="a.pt")) == {"pretrain": 0, "train": 450}
