"""The two cameras of a raw-to-raw run: whose levels they have, by which profile, and by what a run knows its files."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from config import PRESETS, Config
from data import camera
from data.simulate_cameras import BODIES
from errors import UserError
from tasks.cameras import find_profiles, identify_cameras, open_two_cameras, sensor_of, with_cameras

from ..fit_runs import vary
from ..mapper_runs import make_config, write_dataset
from ..two_cameras import CAMERAS, write_folders, write_plain_folders


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cameras") / "data")


def folders(found: dict[str, Path], a: str = "", b: str = "") -> Config:
    """A config of the layout "folders", which still has the preset's levels; `a` and `b` are profiles."""
    base = PRESETS["raw2raw"]
    data = {"layout": "folders", "raw": str(found["a"]), "camera": a}
    return vary(base, data=data, data_b={"raw": str(found["b"]), "camera": b})


# --- levels ----------------------------------------------------------------------------------------------------------


def test_camera_files_say_the_levels_of_both(tmp_path):
    config = with_cameras(folders(write_folders(tmp_path)), [])
    assert {name: sensor_of(config, name) for name in "ab"} == CAMERAS


def test_profiles_say_those_of_plain_mosaics(tmp_path):
    found = write_plain_folders(tmp_path)
    config = with_cameras(folders(found, f"{found['a']}.json", f"{found['b']}.json"), [])
    assert {name: sensor_of(config, name) for name in "ab"} == CAMERAS


def test_the_profiles_in_a_dataset_are_found(root):
    config = with_cameras(make_config(root, root), [])
    assert {name: sensor_of(config, name) for name in "ab"} == {name: body.sensor for name, body in BODIES.items()}
    assert [profile.name for profile in find_profiles(config).values()] == ["Simulated a", "Simulated b"]


def test_a_named_profile_goes_before_that_of_the_dataset(root, tmp_path):
    profile = camera.load(root / "a.json")
    other = dataclasses.replace(profile, model="other", sensor=dataclasses.replace(profile.sensor, white_level=4000.0))
    (tmp_path / "other.json").write_text(json.dumps(camera.to_dict(other)))
    config = with_cameras(make_config(root, root, data={"camera": str(tmp_path / "other.json")}), [])
    assert config.data.white_level == 4000 and config.data_b.white_level == 1023


def test_what_is_given_is_kept(tmp_path):
    found = write_plain_folders(tmp_path)
    levels = {"cfa": "bggr", "black_level": (1.0,) * 4, "white_level": 999.0}
    config = vary(folders(found, a=f"{found['a']}.json"), data_b=levels)
    with pytest.raises(UserError, match="the mosaics of camera b do not note their levels.*--data-b.camera, or give "):
        with_cameras(config, ["data_b.cfa", "data_b.white_level"])
    filled = with_cameras(config, ["data_b.cfa", "data_b.white_level", "data_b.black_level"])
    assert filled.data_b == config.data_b and sensor_of(filled, "a") == CAMERAS["a"]


@pytest.mark.parametrize("section", ("data", "data_b"))
def test_a_run_of_other_levels_than_the_files_is_refused(root, section):
    config = make_config(root, root, **{section: {"white_level": 16383.0}})
    name = "b" if section == "data_b" else "a"
    with pytest.raises(UserError, match=f"the mosaics of camera {name} have the .* but the run has .* white 16383"):
        open_two_cameras(config)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_run_knows_its_files_by_name_and_content(root, tmp_path):
    known = identify_cameras(open_two_cameras(make_config(root, root)))
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    assert identify_cameras(open_two_cameras(make_config(moved, root))) == known
    names = [name for name, _ in known["b"]["train"]]
    assert names == [f"{number}.png" for number in range(8)] and len(known["a"]["pairs"]) == 8
    (moved / "unpaired" / "b" / "3.png").write_bytes((moved / "paired" / "b" / "3.png").read_bytes())
    changed = identify_cameras(open_two_cameras(make_config(moved, root)))
    assert changed["a"] == known["a"] and changed["b"]["pairs"] == known["b"]["pairs"]
    assert [one == other for one, other in zip(changed["b"]["train"], known["b"]["train"], strict=True)].count(
        False
    ) == 1


def test_training_files_that_are_also_in_pairs_are_told(root, tmp_path, capsys):
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    shutil.copy(moved / "paired" / "a" / "0.png", moved / "unpaired" / "a" / "x.png")
    identify_cameras(open_two_cameras(make_config(moved, root)))
    assert "1 of the 8 mosaics of pairs are also in train: scores on them are too good" in capsys.readouterr().err
