"""Raw-to-raw runs end to end: fit.py on folders of camera files, and map_raw.py with what it trained."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import fit
import map_raw
from config import load
from data.camera import camera_notes
from data.files import Reader
from data.planes import to_planes
from data.sensor import mosaic_tensor
from data.two_cameras import OTHER
from tasks.camera_maps import fit_maps
from tasks.cameras import open_two_cameras
from tasks.conversion import moved
from tasks.mapping import open_mapper

from .conftest import one_thread
from .raw2raw_runs import QUICK, train
from .two_cameras import CAMERAS, NAMES, SIZE, names, write_folders, write_plain_folders

CPU = torch.device("cpu")
FOLDERS = ("--data.layout", "folders", "--data.patch", "48")


def raws(found: dict[str, Path]) -> list[str]:
    return ["--data.raw", str(found["a"]), "--data-b.raw", str(found["b"])]


@pytest.fixture(scope="module")
def dngs(tmp_path_factory) -> dict[str, Path]:
    """Ten camera files of each camera. Tests do not change them."""
    return write_folders(tmp_path_factory.mktemp("dngs"))


@pytest.fixture(scope="module")
def run(dngs, tmp_path_factory) -> Path:
    """A run of two steps on them, in which the mapper has learnt something."""
    with one_thread():
        return train(tmp_path_factory.mktemp("runs"), "phones", *FOLDERS, *raws(dngs), "--mapping.lr", "1e-3")


# --- fit.py ----------------------------------------------------------------------------------------------------------


def test_camera_files_need_no_levels(run):
    config = load(run / "config.json")
    for section, sensor in ((config.data, CAMERAS["a"]), (config.data_b, CAMERAS["b"])):
        assert (section.cfa, section.black_level, section.white_level) == (
            *(sensor.cfa, sensor.black_level, sensor.white_level),
        )
    opened = open_mapper(str(run / "checkpoints" / "step_0000002.pt"), CPU)
    assert opened.sensors == CAMERAS
    assert {each: (profile.make, profile.model) for each, profile in opened.cameras.items()} == NAMES
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_0000001.pt", "step_0000002.pt"]


def test_plain_mosaics_without_profiles_are_refused(call, tmp_path):
    plain, runs = write_plain_folders(tmp_path), ("--runs", str(tmp_path / "runs"))
    start = ("raw2raw", *QUICK, *FOLDERS, *raws(plain), *runs)
    status, output = call(fit, *start)
    assert status == 2 and "the mosaics of camera a do not note their levels: write a profile" in output
    assert "--data.camera" in output and not (tmp_path / "runs").exists()
    status, output = call(fit, *start, "--data.camera", f"{plain['a']}.json")
    assert status == 2 and "the mosaics of camera b do not note their levels" in output and "--data-b.camera" in output


def test_plain_mosaics_with_profiles_are_trained_on(tmp_path, restored):
    plain = write_plain_folders(tmp_path)
    profiles = ("--data.camera", f"{plain['a']}.json", "--data-b.camera", f"{plain['b']}.json")
    folder = train(tmp_path / "runs", "plain", *FOLDERS, *raws(plain), *profiles)
    assert load(folder / "config.json").data_b.cfa == CAMERAS["b"].cfa
    opened = open_mapper(str(folder / "checkpoints" / "step_0000002.pt"), CPU)
    assert opened.sensors == CAMERAS


# --- map_raw.py ------------------------------------------------------------------------------------------------------


def planes_of(mosaic: np.ndarray, camera: str, cfa: str) -> torch.Tensor:
    sensor = CAMERAS[camera]
    return to_planes(mosaic_tensor(mosaic, sensor)[None], sensor.__class__(cfa, sensor.black_level, sensor.white_level))


@pytest.mark.parametrize("to", ("a", "b"))
def test_a_run_maps_camera_files_to_files_of_the_other_camera(run, dngs, call, tmp_path, to):
    """The mapper's own output, in whole digital numbers, with levels and name of the other camera."""
    source, out = dngs[OTHER[to]], tmp_path / "out"
    status, output = call(
        map_raw, "--input", source, "--output", out, "--to", to, "--run=phones", f"--runs={run.parent}", "--device=cpu"
    )
    assert status == 0 and f"mapped 10 of 10 files to camera {to} with mapper-plain: {out}" in output
    assert names(out) == [f"{number}.dng" for number in range(10)]
    notes = camera_notes(out / "3.dng")
    assert notes.sensor == CAMERAS[to] and (notes.make, notes.model) == NAMES[to] and notes.size == SIZE
    opened = open_mapper(str(run / "checkpoints" / "step_0000002.pt"), CPU)
    cfa, other = CAMERAS[to].cfa, CAMERAS[OTHER[to]]
    recorded = moved(Reader(other).mosaic(source / "3.dng"), other.cfa, cfa)
    planes = planes_of(recorded, OTHER[to], cfa)
    expected = opened.map(planes, to).clamp(0, 1)
    written = planes_of(Reader(CAMERAS[to]).mosaic(out / "3.dng"), to, cfa)
    step = 1 / (CAMERAS[to].white_level - max(CAMERAS[to].black_level))
    assert (written - expected).abs().max() <= 0.51 * step
    assert (expected - planes.clamp(0, 1)).abs().max() > 5 * step  # the mapper is not the identity


@pytest.mark.parametrize(("kind", "suffix"), (("png", ".png"), ("npy", ".npy")))
def test_a_checkpoint_maps_to_other_formats(run, dngs, call, tmp_path, kind, suffix):
    checkpoint = run / "checkpoints" / "step_0000001.pt"
    where = ("--input", dngs["a"] / "0.dng", "--to", "b", "--checkpoint", checkpoint, "--device=cpu")
    for out in (tmp_path / "dng", tmp_path / kind):
        assert call(map_raw, *where, "--output", out, "--format", out.name)[0] == 0
    found = tmp_path / kind / f"0{suffix}"
    pixels = np.load(found) if kind == "npy" else iio.imread(found)
    assert np.array_equal(pixels, Reader(CAMERAS["b"]).mosaic(tmp_path / "dng" / "0.dng"))


def test_a_mapper_trained_on_plain_mosaics_maps_them(raw2raw_trained, raw2raw_cameras, call, tmp_path):
    """In planes of the simulated dataset, a run that starts from transport maps nearly as transport does."""
    out, runs = tmp_path / "out", raw2raw_trained.parent
    where = ("--input", raw2raw_cameras / "paired" / "a", "--output", out, "--to", "b", "--device=cpu")
    assert call(map_raw, *where, "--run=raw", f"--runs={runs}", "--step", "1")[0] == 0
    assert names(out) == ["0.png", "1.png"]
    config = load(raw2raw_trained / "config.json")
    cameras = open_two_cameras(config)
    fitted = fit_maps("transport", cameras, {"a": None, "b": None})["b"]
    source, target = (cameras.readers[each].sensor for each in ("a", "b"))
    recorded = moved(cameras.readers["a"].mosaic(raw2raw_cameras / "paired" / "a" / "0.png"), source.cfa, target.cfa)
    aligned = to_planes(mosaic_tensor(recorded, source)[None], source.__class__(target.cfa, *levels(source)))
    expected, written = fitted(aligned).clamp(0, 1), cameras.planes(out / "0.png", "b")
    assert (written - expected).abs().mean() < 0.02 < (written - aligned).abs().mean()


def levels(sensor) -> tuple:
    return sensor.black_level, sensor.white_level


def test_the_encoder_of_a_run_can_see_smaller_mosaics(run, dngs, call, tmp_path):
    pixels = []
    for downsample in ("1", "2"):
        out = tmp_path / downsample
        where = ("--input", dngs["a"] / "0.dng", "--output", out, "--to", "b", "--device=cpu")
        done = call(map_raw, *where, "--run=phones", f"--runs={run.parent}", "--downsample", downsample)
        assert done[0] == 0, done[1]
        pixels.append(Reader(CAMERAS["b"]).mosaic(out / "0.dng").astype(int))
    assert 0 < np.abs(pixels[0] - pixels[1]).mean() < 100
    out = tmp_path / "16"
    where = ("--input", dngs["a"] / "0.dng", "--output", out, "--to", "b", "--device=cpu")
    status, output = call(map_raw, *where, "--run=phones", f"--runs={run.parent}", "--downsample", "16")
    assert status == 1 and "when it downsamples them by 16" in output and "Traceback" not in output


def test_an_isp_is_no_map(make_run, dngs, call, tmp_path):
    isp = make_run(count=1)
    where = ("--input", dngs["a"], "--output", tmp_path / "out", "--to", "b", "--device=cpu")
    status, output = call(map_raw, *where, "--run=tiny", f"--runs={isp.parent}")
    assert status == 2 and "an ISP, not a raw-to-raw mapper: train one with fit.py raw2raw" in output
    assert not (tmp_path / "out").exists()


def test_files_of_another_camera_are_named_and_left_out(run, dngs, call, tmp_path):
    out = tmp_path / "out"
    where = ("--input", dngs["b"] / "0.dng", dngs["a"] / "1.dng", "--output", out, "--to", "b", "--device=cpu")
    status, output = call(map_raw, *where, "--run=phones", f"--runs={run.parent}")
    assert status == 1 and "0.dng has the CFA order grbg, but camera a has rggb" in output and names(out) == ["1.dng"]
