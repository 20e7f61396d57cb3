"""Settings that a camera's own files, or its profile, fill in, and folders that are refused."""

import dataclasses
import shutil

import imageio.v3 as iio
import numpy as np
import pytest

import fit
import storage
from config import Data
from data import camera
from data.camera import to_dict
from errors import UserError
from fit import parse
from tasks.data import open_data

from ..camera_folder import BLACK, GAINS, UNPAIRED, WHITE, folders, quick, seen, smooth, write
from ..dng import sampled
from ..faults.commands import refused

LEVELS = ("--data.black-level", "2050", "2056", "2056", "2056", "--data.white-level", "14900")


# --- settings that the files fill in ---------------------------------------------------------------------------------


def test_camera_files_need_no_options(own, capsys):
    data = parse(folders(own))[0].data
    assert (data.cfa, data.black_level, data.white_level, data.levels) == ("rggb", (2066.0,) * 4, 15000.0, "file")
    assert data.gains == pytest.approx((*GAINS[:1], 1.0, *GAINS[1:]), rel=1e-4)
    assert (
        "note: the camera is Maker Phone 1; CFA rggb, black 2066 2066 2066 2066, white 15000" in capsys.readouterr().err
    )


def test_options_override_what_the_files_say(own):
    data = parse([*folders(own), *LEVELS, "--data.gains", "1", "2", "3"])[0].data
    assert (data.black_level, data.white_level) == ((2050.0, 2056.0, 2056.0, 2056.0), 14900.0)
    assert (data.levels, data.gains) == ("given", (1.0, 2.0, 3.0))
    reader = open_data(parse([*folders(own), *LEVELS])[0])[1]
    assert reader.mosaic(own / "raws" / "0.dng").dtype == np.uint16  # digital numbers as they are


def test_gains_for_mosaics_that_are_balanced_have_no_effect(own):
    with pytest.raises(UserError, match="no effect: normalised mosaics have no gains"):
        parse([*folders(own), "--data.normalise", "white_balance", "--data.gains", "1", "2", "3"])


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (("--data.cfa", "bggr"), "0.dng has the CFA order rggb, not bggr: set --data.cfa rggb"),
        (("--data.white-level", "4095", "--data.black-level", *"0000"), "0.dng has the white level 15000, not 4095"),
        (("--data.black-level", "0", "2056", "2056", "2056"), "0.dng has the black level 2056, not 0"),
    ),
)
def test_options_that_contradict_the_files_end_the_run_before_it_starts(own, options, message, call, monkeypatch):
    monkeypatch.chdir(own)
    assert message in refused(call, fit, *folders(own), *quick(own, *UNPAIRED), *options)


def test_plain_mosaics_have_no_profile_and_their_settings_are_as_before(own):
    root = own / "plain"
    (root / "raws").mkdir(parents=True)
    for i in range(3):
        iio.imwrite(root / "raws" / f"{i}.png", sampled(seen(smooth(i)), black=64, white=1023))
    shutil.copytree(own / "photos", root / "photos")
    given = [*folders(root), "--data.black-level", "64", "64", "64", "64"]
    data = parse(given)[0].data
    assert (data.cfa, data.black_level, data.white_level) == ("rggb", (64.0,) * 4, 1023.0)
    assert data.gains == pytest.approx((2, 1, 1.5), rel=0.5)  # estimated: the scenes are not grey on average
    published = parse([*given, "--data.rendering", "published"])[0].data
    assert published.gains == Data().gains
    for option in (["--data.lens-shading"], ["--data.levels", "given"]):
        with pytest.raises(UserError, match="no effect: --data.lens-shading and --data.levels are for camera files"):
            parse([*given, *option])


def test_a_profile_serves_plain_mosaics(own):
    profile = camera.profile_of(tuple(sorted((own / "raws").iterdir())))
    storage.write_json(own / "camera.json", to_dict(profile))
    (own / "plain").mkdir()
    for i in range(3):
        iio.imwrite(own / "plain" / f"{i}.png", sampled(seen(smooth(i)), black=BLACK, white=WHITE))
    data = parse([*folders(own, raws="plain"), "--data.camera", str(own / "camera.json")])[0].data
    assert (data.black_level, data.white_level, data.gains) == (profile.sensor.black_level, 15000.0, profile.gains)


def rendering(own, *options: str, raws: str = "raws") -> tuple[str, bool]:
    """(the rendering of a run on these folders, whether its gains are the published ones)."""
    folder = ("--data.layout", "folders", "--data.raw", str(own / raws), "--data.photos", str(own / "photos"))
    data = parse([options[0], *folder, *options[1:]])[0].data
    return data.rendering, data.gains == Data().gains


def test_the_rendering_is_the_cameras_where_it_is_only_shown(own):
    assert rendering(own, "quick") == ("camera", False)
    assert rendering(own, "camera", "--data.reference", "transport", "--data.rendering", "camera") == ("camera", False)
    towards = ("--data.reference", "transport", "--pretrain.steps", "9", "--pretrain.mse", "1")
    assert rendering(own, "quick", *towards) == ("camera", False)  # trained towards the fitted map's
    assert rendering(own, "quick", "--data.rendering", "camera", "--data.gains", "1", "2", "3")[0] == "camera"


def test_the_rendering_stays_published_where_it_is_trained_towards_or_no_camera_is_known(own):
    assert rendering(own, "fujifilm-efficient") == ("published", True)
    assert rendering(own, "quick", "--pretrain.steps", "9", "--pretrain.mse", "1") == ("published", True)
    assert rendering(own, "quick", "--train.mode", "unpaired", "--train.content", "1") == ("published", True)
    (own / "plain").mkdir()
    for i in range(3):
        iio.imwrite(own / "plain" / f"{i}.png", sampled(seen(smooth(i)), black=64, white=1023))
    assert rendering(own, "quick", raws="plain") == ("published", True)


@pytest.mark.parametrize("option", (("--data.rendering", "published"), ("--data.rendering=published",)))
def test_the_rendering_that_the_user_sets_is_kept(own, option):
    """Also one that is the default."""
    assert rendering(own, "camera", *option) == rendering(own, "quick", *option) == ("published", True)


def test_a_setting_with_its_default_value_overrides_what_the_files_say(own):
    assert parse([*folders(own), "--data.gains", "1.6", "1.2", "1.4"])[0].data.gains == (1.6, 1.2, 1.4)


@pytest.mark.parametrize(
    ("change", "message"),
    (({"model": "Phone 2"}, "is the profile of Maker Phone 2 rggb, but .*0.dng is of Maker Phone 1 rggb"),),
)
def test_the_profile_of_another_camera_is_refused(own, change, message):
    profile = dataclasses.replace(camera.profile_of(tuple(sorted((own / "raws").iterdir()))), **change)
    storage.write_json(own / "camera.json", to_dict(profile))
    with pytest.raises(UserError, match=message):
        parse([*folders(own), "--data.camera", str(own / "camera.json")])


@pytest.mark.parametrize(
    ("content", "message"),
    ((None, "no file .*camera.json"), (b"{}", "is not a camera profile"), (b"\x00", "is not a camera profile")),
)
def test_a_profile_that_is_none_is_refused(own, content, message):
    if content is not None:
        (own / "camera.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        parse([*folders(own), "--data.camera", str(own / "camera.json")])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    (
        ("9.dng", {"camera": ("Maker", "Phone 2")}, "9.dng has the camera Maker Phone 2"),
        ("9.dng", {"white": 16383}, "9.dng has the white level 16383"),
        ("9.dng", {"cfa": "gbrg"}, "9.dng has the CFA order gbrg"),
        ("9.pgm", None, "9.pgm lie together, but only one of them"),
    ),
)
def test_a_mixed_folder_ends_with_a_sentence(own, call, name, options, message):
    if options is None:
        (own / "raws" / name).write_bytes(b"P5 64 64 1023\n" + bytes(2 * 64 * 64))
    else:
        write(own / "raws" / name, smooth(9), **options)
    assert message in refused(call, fit, *folders(own), *quick(own, *UNPAIRED))
    assert not (own / "runs").exists()


def test_a_profile_that_happens_to_lie_above_the_mosaics_is_not_taken_for_theirs(own, capsys):
    """data.simulate has its camera.json there; python -m data.camera may have written that of another camera."""
    (own / "train").mkdir()
    (own / "raws").rename(own / "train" / "raws")
    given = folders(own, raws="train/raws")
    profile = camera.profile_of(tuple(sorted((own / "train" / "raws").iterdir())))
    other = dataclasses.replace(profile, sensor=dataclasses.replace(profile.sensor, white_level=16383.0))
    storage.write_json(own / "camera.json", to_dict(other))
    assert open_data(parse(given)[0])[1].sensor == profile.sensor
    (own / "camera.json").write_text("{")
    open_data(parse(given)[0])
    assert "camera.json is not read: it is damaged" in capsys.readouterr().err
