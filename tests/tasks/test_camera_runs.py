"""Runs on a camera's own files: training, the rendering for any camera, white balance, and developing."""

import base64
import dataclasses
import os
import re
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import fit
import test_model
from data import camera
from data.camera_files import look_at
from data.files import Reader
from data.photographs import read_photo
from data.reference import GAMMA
from data.sensor import CFA_ORDERS, Sensor, mirror, mirrored_axes
from evaluation.metrics import psnr
from fit import parse
from models import build_model
from tasks.data import open_data
from tasks.model import open_model
from training.checkpoint import save_generator

from ..camera_folder import GAINS, ONLY_MSE, SIZE, UNPAIRED, WHITE, folders, quick, seen, smooth, write, write_photo
from ..dng import dng, sampled
from ..faults.commands import refused
from ..fit_runs import read_log

CPU = torch.device("cpu")
SENSOR = Sensor("rggb", (2056.0,) * 4, 15000.0)

# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("restored", "cached_networks")
def test_a_run_on_camera_files_is_trained_resumed_and_tested_without_levels(own, call):
    status, output = call(fit, *folders(own), *quick(own, *UNPAIRED))
    assert status == 0, output
    folder = own / "runs" / "own"
    assert call(fit, *folders(own), *quick(own, *UNPAIRED), "--resume")[0] == 0
    assert read_log(folder, "train")[-1]["step"] == 2
    model = open_model(str(folder / "checkpoints" / "step_0000002.pt"), CPU)
    profile = camera.profile_of(tuple(sorted((own / "raws").iterdir())))
    assert model.camera == profile and model.sensor == profile.sensor and profile.black_by_iso.keys() == {"100", "800"}
    given = ["--checkpoint", model.source, "--input", own / "raws", "--output", own / "out", "--device", "cpu"]
    status, output = call(test_model, *given)
    assert status == 0 and len(list((own / "out").glob("*.png"))) == 6 and "was trained on" not in output


@pytest.mark.usefixtures("restored", "cached_networks")
def test_a_run_does_not_go_on_with_the_files_of_another_camera(own, call):
    given = [*folders(own), *quick(own, *UNPAIRED, "--train.schedule", "constant")]
    assert call(fit, *given)[0] == 0
    shutil.rmtree(own / "raws")
    for i in range(6):
        write(own / "raws" / f"{i}.dng", seen(smooth(i)), camera=("Maker", "Phone 2"))
    look_at.cache_clear()
    camera.profile_of.cache_clear()
    sentence = refused(call, fit, *given, "--resume", "--train.steps", "3")
    assert "the dataset is not the one that" in sentence


@pytest.mark.usefixtures("restored", "cached_networks")
def test_a_portrait_in_a_paired_folder_is_refused(own, call):
    """Even a square one, whose size fits its photograph."""
    for i in range(3):
        write(own / "pairs" / "raws" / f"{i}.dng", smooth(i)[:, :64], orientation=6 if i == 1 else 1)
        (own / "pairs" / "photos").mkdir(exist_ok=True)
        iio.imwrite(own / "pairs" / "photos" / f"{i}.png", (255 * smooth(i)[:, :64]).astype(np.uint8))
    given = [*folders(own / "pairs"), *quick(own), *ONLY_MSE]
    assert "1.dng was taken with the camera turned" in refused(call, fit, *given)
    status, output = call(fit, *folders(own / "pairs"), *quick(own, *UNPAIRED), "--data.pairs", "no", "--run", "other")
    assert status == 0, output


# --- the rendering ---------------------------------------------------------------------------------------------------


def rendered(own: Path, scene: np.ndarray, *options: str) -> np.ndarray:
    """The reference (H, W, 3) in [0, 1] of a DNG of this scene."""
    return rendered_file(write(own / "scene.dng", scene), own, *options)


def rendered_file(path: Path, own: Path, *options: str) -> np.ndarray:
    """The reference of a camera file that is alone in its folder."""
    look_at.cache_clear()
    camera.profile_of.cache_clear()
    (own / "alone").mkdir(exist_ok=True)
    path = path.replace(own / "alone" / path.name)
    _, reader, reference = open_data(parse([*folders(own, raws="alone"), *options])[0])
    return reference(reader.mosaic_tensor(reader.mosaic(path))[None])[0].permute(1, 2, 0).numpy()


def test_the_rendering_for_any_camera_has_neutral_shadows_and_white_highlights(own):
    """Grey steps from black to twice white, in the light that the file notes."""
    steps = np.repeat(np.linspace(0, 2, 12), 8)
    scene = np.broadcast_to(seen(np.repeat(steps[None, :, None], 3, 2)), (*SIZE, 3))
    image = rendered(own, scene)[8:-8, 3::8]  # the middle of each step: demosaicing rings at its border
    assert np.ptp(image, axis=2).max() < 0.02  # grey everywhere
    assert image[:, 0].max() < 0.02 and image[:, -1].min() > 0.98
    published = rendered(own, scene, "--data.rendering", "published")[8:-8, 3::8]
    assert np.ptp(published[:, :3], axis=2).max() > 0.1  # magenta: black is multiplied by the gains


def test_known_colours_are_rendered_by_hand(own):
    """From black to white there is a gamma, and nothing else."""
    colours = np.array(((0, 0, 0), (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (0.2, 0.2, 0.2), (1, 1, 1)))
    scene = np.repeat(colours, 16, axis=0)[None].repeat(SIZE[0], 0)
    found = rendered(own, seen(scene))[8:-8, 8::16].mean(0)
    np.testing.assert_allclose(found, colours ** (1 / GAMMA), atol=0.02)


def test_the_darkest_tenth_of_a_real_photograph_is_dark_and_neutral(own):
    data = os.environ.get("ISP_DATA")
    if not data:
        pytest.skip("ISP_DATA is not set: a folder with raw_samples/")
    darkest = {}
    for rendering in ("camera", "published"):
        shutil.copy(Path(data, "raw_samples", "colorchart.dng"), own)
        image = 255 * rendered_file(own / "colorchart.dng", own, "--data.rendering", rendering)
        grey = image.mean(2)
        darkest[rendering] = image[grey <= np.quantile(grey, 0.1)].mean(0)
    assert darkest["camera"].max() < 25 and np.ptp(darkest["camera"]) < 8
    assert np.ptp(darkest["published"]) > 40  # magenta


def test_gains_below_1_leave_no_colour_in_highlights(own):
    """Whatever the gains, what is saturated is white."""
    scene = np.broadcast_to(np.linspace(0, 3, SIZE[1])[None, :, None], (*SIZE, 3))
    image = rendered(own, scene, "--data.gains", "0.5", "1", "0.7")
    assert image[:, -16:].min() > 0.98


def test_a_mosaic_that_is_balanced_is_not_balanced_twice(own):
    scene = seen(np.broadcast_to(np.linspace(0, 1, SIZE[1])[None, :, None], (*SIZE, 3)))
    once = rendered(own, scene)
    balanced = rendered(own, scene, "--data.normalise", "white_balance")
    assert np.abs(once - balanced).max() < 0.02


# --- white balance ---------------------------------------------------------------------------------------------------


def lost(folder: Path, normalisation: str) -> float:
    """PSNR that a model loses on a file whose gains differ by 25 % from those that it was trained with, in dB."""
    for i in range(6):
        write(folder / "raws" / f"{i}.dng", seen(smooth(i)))
        write_photo(folder / "photos" / f"{i}.png", smooth(i))
    options = [*quick(folder, *ONLY_MSE), "--train.steps", "120", "--train.lr", "3e-3", "--log.every", "120"]
    run = fit.train(parse([*folders(folder), *options, "--data.normalise", normalisation])[0])
    model, found = open_model(str(run / "checkpoints" / "step_0000120.pt"), CPU), []
    reader = Reader(model.sensor, normalisation=model.normalisation)
    write_photo(folder / "truth.png", smooth(50))
    truth = torch.from_numpy(read_photo(folder / "truth.png")).permute(2, 0, 1)[None]
    for name, gains in (("same", GAINS), ("other", (GAINS[0] * 1.25, GAINS[1] / 1.25))):
        path = write(folder / f"{name}.dng", seen(smooth(50), gains), gains=gains)
        found.append(float(psnr(model.develop(reader.mosaic_tensor(reader.mosaic(path))[None], SENSOR), truth)))
    return found[0] - found[1]


@pytest.mark.usefixtures("restored")
def test_another_light_costs_little_with_white_balance_and_much_without(tmp_path):
    assert abs(lost(tmp_path / "balanced", "white_balance")) < 0.5
    assert lost(tmp_path / "off", "off") > 2


def test_balanced_highlights_are_clipped_to_white(tmp_path):
    path = write(tmp_path / "a.dng", np.ones((*SIZE, 3)))
    assert (Reader(SENSOR, normalisation="white_balance").mosaic(path) == WHITE).all()


# --- one picture, many files -----------------------------------------------------------------------------------------


@pytest.fixture
def twelve_bits(tmp_path) -> Path:
    """A checkpoint of random weights for a camera of 12 bits."""
    torch.manual_seed(3)
    sensor = dataclasses.asdict(Sensor("rggb", (256.0,) * 4, 4095.0))
    save_generator(tmp_path / "step_0000001.pt", build_model("efficient"), 1, {"model": "efficient", "sensor": sensor})
    return tmp_path / "step_0000001.pt"


def test_the_same_picture_in_four_cfa_orders_is_developed_alike(twelve_bits, tmp_path, call):
    """Mirrored mosaics have another CFA order, and mirrored pictures."""
    mosaic = sampled(smooth(0), "rggb", 256, 4095)
    images = []
    for cfa in CFA_ORDERS:
        axes = mirrored_axes("rggb", cfa)
        mirrored = mirror(torch.from_numpy(mosaic.astype(np.int32)), axes).numpy().astype(np.uint16)
        (tmp_path / cfa).mkdir()
        (tmp_path / cfa / "a.dng").write_bytes(dng(mirrored, cfa, 256, 4095))
        output = tmp_path / f"out_{cfa}"
        assert call(test_model, "--checkpoint", twelve_bits, "--input", tmp_path / cfa, "--output", output)[0] == 0
        images.append(np.flip(iio.imread(output / "a.png").astype(int), [axis - 1 for axis in axes]))
    assert np.ptp(images, axis=0).max() <= 1 and images[0].std() > 3


def test_ten_bits_through_a_model_of_twelve_are_not_dark(twelve_bits, tmp_path, call):
    for name, black, white in (("ten", 64, 1023), ("twelve", 256, 4095)):
        write(tmp_path / name / "a.dng", smooth(0), black=black, white=white)
        given = ("--checkpoint", twelve_bits, "--input", tmp_path / name, "--output", tmp_path / f"out_{name}")
        assert call(test_model, *given)[0] == 0
    ten, twelve = (iio.imread(tmp_path / f"out_{name}" / "a.png").astype(int) for name in ("ten", "twelve"))
    assert np.abs(ten - twelve).max() <= 2


def test_a_model_of_another_camera_is_noted(twelve_bits, tmp_path, call):
    write(tmp_path / "raws" / "a.dng", smooth(0))
    given = ("--checkpoint", twelve_bits, "--input", tmp_path / "raws", "--output", tmp_path / "out")
    status, output = call(test_model, *given)
    assert status == 0 and "was trained on a camera of" in output and "these are of Maker Phone 1" in output
    write(tmp_path / "raws" / "b.dng", smooth(0), camera=("Maker", "Phone 2"))
    mixed = refused(call, test_model, *given[:-1], tmp_path / "new")
    assert "b.dng has the camera Maker Phone 2, but" in mixed and not (tmp_path / "new").exists()
    (tmp_path / "raws" / "b.dng").unlink()
    message = "a.dng has the white level 15000, not 4095: leave out --data.white-level (test_model.py: --white-level)"
    assert message in refused(call, test_model, *given[:-1], tmp_path / "new", "--white-level", 4095)


def test_the_report_shows_portraits_upright_and_the_files_are_as_they_were_recorded(twelve_bits, tmp_path, call):
    for name, orientation in (("flat", 1), ("portrait", 6)):
        write(tmp_path / "raws" / f"{name}.dng", smooth(0), orientation=orientation)
    given = ("--checkpoint", twelve_bits, "--input", tmp_path / "raws", "--output", tmp_path / "out")
    assert call(test_model, *given)[0] == 0
    flat, portrait = (iio.imread(tmp_path / "out" / f"{name}.png") for name in ("flat", "portrait"))
    assert np.array_equal(flat, portrait) and flat.shape[:2] == SIZE
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "out" / "report.html").read_text())
    shown = [iio.imread(base64.b64decode(picture)).astype(int) for picture in pictures]
    assert len(shown) == 4  # the demosaiced reference and the output, of either file
    for lying, standing in zip(shown[:2], shown[2:], strict=True):
        clockwise, other = (np.abs(np.rot90(lying, turns) - standing).mean() for turns in (-1, 1))
        assert lying.shape[:2] == SIZE and clockwise < 3 < other  # JPEG makes some difference
    assert np.abs(shown[3] - np.rot90(flat.astype(int), -1)).mean() < 3
