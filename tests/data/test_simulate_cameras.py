"""Datasets of two simulated cameras: `python -m data.simulate PHOTOS OUT --cameras two`."""

import dataclasses
import filecmp
import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data import camera, simulate, simulate_cameras
from data.demo import DEMO, demo_photographs
from data.files import read_mosaic
from data.planes import to_planes
from data.sensor import Sensor, mosaic_tensor
from data.simulate_cameras import BODIES, DEMO_SIDES, SIDES, Settings, make_demo_cameras, numbered, split
from data.spectra import Lighting, load_transform, to_linear
from errors import UserError

PAIRED = ("paired/a", "paired/b", "truth/a", "truth/b")
QUIET = {  # no noise, and the finest levels
    name: dataclasses.replace(body, white=65535, shot=0.0, read=0.0) for name, body in BODIES.items()
}


@pytest.fixture
def photos(tmp_path) -> Path:
    """Seven small photographs, each a gradient with texture."""
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    folder.mkdir()
    for name in range(7):
        ramp = np.linspace(20, 200, 48)[None, :, None] * np.ones((32, 1, 3))
        iio.imwrite(folder / f"p{name}.png", (ramp + rng.uniform(0, 50, (32, 48, 3))).astype(np.uint8))
    return folder


@pytest.fixture
def grey(tmp_path) -> Path:
    """Six large photographs of one grey, which is half of white in linear light."""
    folder = tmp_path / "grey"
    folder.mkdir()
    for name in range(6):
        iio.imwrite(folder / f"{name}.png", np.full((128, 128, 3), 188, np.uint8))
    return folder


def make(photos: Path, out: Path, **options) -> Path:
    simulate.simulate(str(photos), out, cameras="two", **{"patch": 16, **options})
    return out


def files(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


def scenes(root: Path) -> dict[str, dict[str, dict]]:
    return json.loads((root / "simulation.json").read_text())["scenes"]


def planes(root: Path, name: str, stem: str, side: str = "paired") -> np.ndarray:
    """(H/2, W/2, 4) of a mosaic, with the levels that its profile tells."""
    sensor = camera.load(root / f"{name}.json").sensor
    mosaic = read_mosaic(root / side / name / f"{stem}.png", sensor)
    return to_planes(mosaic_tensor(mosaic, sensor)[None], sensor)[0].permute(1, 2, 0).numpy()


def mapped(root: Path, stem: str) -> np.ndarray:
    """The planes of a pair's a (H/2, W/2, 4) in the colours of b, by the stored transform."""
    a = planes(root, "a", stem)
    return np.einsum("hwij,hwj->hwi", load_transform(root / "paired" / "transforms" / f"{stem}.npz"), a[..., [0, 1, 3]])


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_folder_has_the_layout_of_two_cameras(photos, tmp_path):
    root = make(photos, tmp_path / "new" / "set")
    count = {side: 6 * photographs for side, photographs in zip(SIDES, (3, 2, 2), strict=True)}  # 6 patches each
    for side in SIDES[:2]:
        assert names(root / side) == sorted(map(str, range(count[side])))
    for folder in ("a", "b", "transforms"):
        assert names(root / "paired" / folder) == sorted(map(str, range(count["paired"])))
    for path in root.rglob("*.png"):
        mosaic = iio.imread(path)
        if path.parent.parent.name == "photographs":
            continue
        assert mosaic.shape == (16, 16) and mosaic.dtype == np.uint16 and mosaic.max() <= BODIES[path.parent.name].white
    levels = json.loads((root / "cameras.json").read_text())
    assert levels["a"] == {"cfa": "rggb", "black": [252, 256, 255, 259], "white": 4095}
    assert levels["b"] == {"cfa": "grbg", "black": [62, 64, 63, 66], "white": 1023}
    assert not list(root.parent.glob("*.partial"))


def test_no_photograph_is_on_two_sides(photos, tmp_path):
    root = make(photos, tmp_path / "out")
    found = {side: {scene["photograph"] for scene in scenes(root)[side].values()} for side in SIDES}
    assert [len(found[side]) for side in SIDES] == [3, 2, 2] and len(set.union(*found.values())) == 7
    rows = [line.split("\t")[:2] for line in (root / "sources.txt").read_text().splitlines()]
    assert {(side, name) for side, name in rows} == {(side, name) for side in SIDES for name in found[side]}


@pytest.mark.parametrize("count, parts", ((6, [2, 2, 2]), (10, [4, 4, 2]), (25, [10, 10, 5]), (121, [49, 48, 24])))
def test_four_tenths_of_the_photographs_go_to_each_unpaired_side(count, parts):
    cuts = split({f"{i}.png": (20, 20) for i in range(count)}, 16, 16, (1.0,), 0)
    assert [len({cut[1] for cut in cuts if cut[0] == side}) for side in SIDES] == parts


def test_profiles_say_what_is_known_of_the_cameras(photos, tmp_path):
    root = make(photos, tmp_path / "out")
    for name, body in BODIES.items():
        profile = camera.load(root / f"{name}.json")
        assert profile.name == f"Simulated {name}" and profile.size == (16, 16)
        assert profile.sensor == Sensor(body.cfa, body.black, body.white)
        assert profile.noise == (body.shot, body.read) and profile.count == len(names(root / "unpaired" / name))


# --- truth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", (dict(), dict(lights="single"), dict(exposure="auto"), dict(scales=(0.6,))))
def test_the_transform_of_a_is_the_truth_of_b(photos, tmp_path, monkeypatch, options):
    """Also where the CFA orders differ: both see the same place."""
    monkeypatch.setattr(simulate_cameras, "BODIES", QUIET)
    root = make(photos, tmp_path / "out", **options)
    for stem in names(root / "paired" / "a"):
        truth = planes(root, "b", stem, "truth")
        assert truth.std() > 0.01
        inside = (planes(root, "a", stem).max(axis=2) < 1) & (truth.max(axis=2) < 1)  # exact where nothing saturates
        assert inside.mean() > 0.9
        np.testing.assert_allclose(mapped(root, stem)[inside], truth[..., [0, 1, 3]][inside], atol=1e-4)
        np.testing.assert_allclose(truth[..., 1], truth[..., 2], atol=2e-5)  # but for rounding


@pytest.mark.parametrize("camera", BODIES)
def test_truth_has_no_noise_but_that_of_whole_numbers(grey, tmp_path, camera):
    root = make(grey, tmp_path / "out", patch=128, lights="single")
    for stem in names(root / "truth" / camera):
        mosaic = iio.imread(root / "truth" / camera / f"{stem}.png")
        assert all(np.ptp(mosaic[row::2, column::2]) == 0 for row in (0, 1) for column in (0, 1))
        noisy, truth = (planes(root, camera, stem, side) for side in ("paired", "truth"))
        assert noisy.std(axis=(0, 1)).min() > 1e-4
        assert np.abs(noisy.mean(axis=(0, 1)) - truth[0, 0]).max() < 1e-3
    for stem in names(root / "truth" / "b"):
        error = mapped(root, stem).mean(axis=(0, 1)) - planes(root, "b", stem, "truth")[0, 0, [0, 1, 3]]
        assert np.abs(error).max() < 1e-3


def test_photographs_show_what_the_mosaics_do(photos, tmp_path):
    """Without light, levels and noise: each mosaic's own 2x2 blocks, in sRGB."""
    root = make(photos, tmp_path / "out")
    for side, folder in simulate_cameras.PHOTOGRAPHS.items():
        for name, scene in scenes(root)[side].items():
            top, left = scene["top"], scene["left"]
            patch = to_linear(iio.imread(photos / scene["photograph"])[top : top + 16, left : left + 16])
            shown = iio.imread(root / folder / name)
            expected = simulate_cameras.blocks(patch).repeat(2, axis=0).repeat(2, axis=1)
            assert shown.dtype == np.uint8 and shown.shape == (16, 16, 3)
            np.testing.assert_allclose(to_linear(shown), expected, atol=0.006)
        assert len(names(root / folder)) == len(scenes(root)[side])


@pytest.mark.parametrize("name", BODIES)
def test_noise_has_the_variance_of_the_camera(grey, tmp_path, name):
    root, body = make(grey, tmp_path / "out", patch=128, lights="single"), BODIES[name]
    for stem in names(root / "unpaired" / name):
        found = planes(root, name, stem, "unpaired")
        level = (body.white - np.array(body.black)) ** -2.0 / 12  # of rounding
        np.testing.assert_allclose(
            found.var(axis=(0, 1)), body.shot * found.mean(axis=(0, 1)) + body.read + level, rtol=0.1
        )


def test_a_scene_is_recorded_under_the_lights_that_simulation_json_names(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate_cameras, "BODIES", QUIET)
    root = make(photos, tmp_path / "out", lights="single")
    for name, scene in scenes(root)["unpaired/b"].items():
        patch = iio.imread(photos / scene["photograph"])[scene["top"] :][:16, scene["left"] :][:, :16]
        blocks = to_linear(patch).reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
        raw = Lighting(tuple(scene["lights"]), np.zeros((3, 3))).record(blocks)[1]
        found = planes(root, "b", Path(name).stem, "unpaired")
        np.testing.assert_allclose(found, raw[..., [0, 1, 1, 2]], atol=2e-5)


def test_highlights_of_a_photograph_are_white(tmp_path, monkeypatch):
    """A clipped highlight is a white surface: the brightest of the six values is 1, and nothing is above."""
    monkeypatch.setattr(simulate_cameras, "BODIES", QUIET)
    (tmp_path / "white").mkdir()
    for name in range(6):
        iio.imwrite(tmp_path / "white" / f"{name}.png", np.full((16, 16, 3), 255, np.uint8))
    root = make(tmp_path / "white", tmp_path / "out", lights="single")
    for stem in names(root / "paired" / "a"):
        assert max(planes(root, name, stem).max() for name in "ab") == pytest.approx(1, abs=1e-4)


def test_means_of_blocks_and_automatic_exposure_by_hand():
    image = np.arange(16.0).reshape(2, 8, 1)
    assert simulate_cameras.blocks(image)[..., 0].tolist() == [[4.5, 6.5, 8.5, 10.5]]
    assert simulate_cameras.meter(np.full((4, 4, 3), 0.3)) == pytest.approx(3)
    assert simulate_cameras.meter(np.full((4, 4, 3), 1e-4)) == 16


def test_automatic_exposure_makes_the_bright_parts_of_every_mosaic_nearly_white(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate_cameras, "BODIES", QUIET)
    root = make(photos, tmp_path / "out", exposure="auto")
    for side, name in (("unpaired", "a"), ("unpaired", "b"), ("paired", "a"), ("paired", "b")):
        for stem in names(root / side / name):
            found = planes(root, name, stem, side)[..., [0, 1, 3]]
            assert np.percentile(found, 99) == pytest.approx(0.9, abs=1e-3)


# --- reproducible ----------------------------------------------------------------------------------------------------


def test_equal_seeds_write_equal_files_and_other_seeds_other_scenes(photos, tmp_path):
    one, same, other = (make(photos, tmp_path / n, seed=s) for n, s in (("one", 1), ("same", 1), ("other", 2)))
    assert files(one) == files(same)
    assert filecmp.cmpfiles(one, same, files(one), shallow=False)[0] == files(one)
    common = [path for path in files(one) if path.suffix == ".png" and (other / path).is_file()]
    common = [path for path in common if path.parts[0] != "photographs"]  # they have neither light nor noise
    assert common and filecmp.cmpfiles(one, other, common, shallow=False)[0] == []


def test_a_scenes_lights_depend_on_seed_photograph_and_place_alone():
    settings, place = Settings(3, 16), ("p1.png", 1.0, 0, 16)
    here, paired = (settings.lighting((side, *place)) for side in ("unpaired/a", "paired"))
    assert here.lights == paired.lights and (here.nodes == paired.nodes).all()
    for changed in (("p2.png", 1.0, 0, 16), ("p1.png", 0.5, 0, 16), ("p1.png", 1.0, 16, 16), ("p1.png", 1.0, 0, 0)):
        assert (settings.lighting(("paired", *changed)).nodes != here.nodes).all()
    assert (Settings(4, 16).lighting(("paired", *place)).nodes != here.nodes).all()


def test_files_are_numbered_on_each_side():
    cuts = [("paired", "b", 1.0, 0, 0), ("unpaired/a", "c", 1.0, 0, 0), ("paired", "a", 1.0, 2, 0)]
    assert numbered(cuts) == [("0", cuts[2]), ("1", cuts[0]), ("0", cuts[1])]


def test_other_settings_make_other_scenes(photos, tmp_path):
    mixed, single = make(photos, tmp_path / "mixed"), make(photos, tmp_path / "single", lights="single")
    for root, count in ((mixed, 2), (single, 1)):
        assert {len(scene["lights"]) for side in SIDES for scene in scenes(root)[side].values()} == {count}
    transform = load_transform(single / "paired" / "transforms" / "0.npz")
    assert transform.shape == (8, 8, 3, 3) and np.ptp(transform, axis=(0, 1)).max() < 1e-12
    assert np.ptp(load_transform(mixed / "paired" / "transforms" / "0.npz"), axis=(0, 1)).max() > 1e-3


# --- the demo --------------------------------------------------------------------------------------------------------


def test_the_demo_takes_whole_photographs_for_each_side(tmp_path):
    root = tmp_path / "demo"
    make_demo_cameras(root, Settings(0, 128))
    counts = [len(names(root / side)) for side in ("unpaired/a", "unpaired/b", *PAIRED)]
    assert counts == [96, 96, 48, 48, 48, 48]
    rows = [line.split("\t") for line in (root / "sources.txt").read_text().splitlines()]
    assert {name: side for side, name, _ in rows} == {name: side for name, (side, _) in DEMO_SIDES.items()}
    assert {name: licence for _, name, licence in rows} == {name: row[2] for name, row in DEMO.items()}
    sides = {side for side, name, _ in rows if name.startswith("motorcycle")}
    assert len(sides) == 1  # both show the same scene


def test_a_complete_demo_is_kept_and_any_other_folder_refused(tmp_path, monkeypatch):
    small = {name: np.ascontiguousarray(photo[::4, ::4]) for name, photo in demo_photographs().items()}
    monkeypatch.setattr(simulate_cameras, "demo_photographs", lambda: small)
    root, settings = tmp_path / "demo", Settings(0, 32)
    make_demo_cameras(root, settings)
    before = (root / "simulation.json").stat().st_mtime_ns
    make_demo_cameras(root, settings)
    assert (root / "simulation.json").stat().st_mtime_ns == before
    for changed in (Settings(1, 32), Settings(0, 32, lights="single"), Settings(0, 32, exposure="auto")):
        with pytest.raises(UserError, match="exists"):
            make_demo_cameras(root, changed)
    (root / "paired" / "a" / "0.png").unlink()
    with pytest.raises(UserError, match="exists"):
        make_demo_cameras(root, settings)
    with pytest.raises(UserError, match="patch 512 is too large"):
        make_demo_cameras(tmp_path / "large", Settings(0, 512))


def test_the_word_demo_makes_the_demo_of_two_cameras(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(simulate, "make_demo_cameras", lambda *arguments: calls.append(arguments))
    simulate.simulate("demo", tmp_path / "out", seed=3, cameras="two", lights="single")
    assert calls == [(tmp_path / "out", Settings(3, 128, "single", "fixed"))]


def test_planes_of_torch_and_of_the_files_agree(photos, tmp_path):
    """The planes of both cameras have R, Gr, Gb, B in this order: green and blue are not exchanged by the other CFA."""
    root = make(photos, tmp_path / "out")
    mosaic = torch.from_numpy(iio.imread(root / "paired" / "b" / "0.png").astype(np.float32))
    found = torch.from_numpy(planes(root, "b", "0"))
    torch.testing.assert_close(found[..., 0], (mosaic[0::2, 1::2] - 62) / (1023 - 62))  # grbg: red on the top right
    torch.testing.assert_close(found[..., 3], (mosaic[1::2, 0::2] - 66) / (1023 - 66))
