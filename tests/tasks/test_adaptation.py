"""Another camera's mosaics for an ISP: values, places, directions, light, and what is refused."""

import pickle
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import storage
from config import Config, Data
from data.cache import Files
from data.files import Reader
from data.folders import Split
from data.loader import training_batches, whole_files
from data.patches import Patches
from data.planes import to_planes
from data.sensor import CFA_ORDERS, SENSORS, Sensor, mosaic_tensor, offsets
from errors import UserError
from models import build_model
from tasks import closed_form
from tasks.adaptation import CPU, MappedReader, adapted_reader, mapped_reader
from tasks.conversion import Converter
from tasks.data import identify, open_data
from tasks.model import Model

from ..adaptation import profile_of, write_map, write_mapper
from ..dng import dng, sampled

A, B = Sensor("rggb", (60.0, 62.0, 64.0, 66.0), 1023.0), Sensor("grbg", (256.0,) * 4, 4095.0)
MATRIX = ((0.6, 0.3, 0.0), (0.2, 0.7, 0.1), (0.0, 0.3, 0.6))
SCENE = np.random.default_rng(0).uniform(0.02, 0.6, (48, 64, 3))


def model_of(sensor: Sensor = B, name: str = "efficient", **facts) -> Model:
    torch.manual_seed(0)
    return Model("isp.pt", name, build_model(name).eval().requires_grad_(False), sensor, None, **facts)


def recorded_by(sensor: Sensor, scene: np.ndarray = SCENE) -> np.ndarray:
    return sampled(scene, sensor.cfa, sensor.black_level, int(sensor.white_level))


@pytest.fixture
def file(tmp_path) -> Path:
    """A plain mosaic of camera a."""
    iio.imwrite(tmp_path / "0.png", recorded_by(A))
    return tmp_path / "0.png"


def shot(path: Path, camera: str = "One", sensor: Sensor = A, **notes) -> Path:
    """A camera file of camera a."""
    levels = (sensor.cfa, sensor.black_level, int(sensor.white_level))
    path.write_bytes(dng(recorded_by(sensor), *levels, camera=("Maker", camera), **notes))
    return path


def opened(path: Path, model: Model | None = None, wish: str = "") -> MappedReader:
    return adapted_reader(model or model_of(), str(path), wish, CPU)


# --- values and places -----------------------------------------------------------------------------------------------


def test_mosaics_have_the_other_cameras_values_at_the_same_places(file, tmp_path):
    reader = opened(write_map(tmp_path / "m.json", {"a": A, "b": B}, "b", MATRIX))
    mosaic = reader.mosaic(file)
    assert reader.sensor == replace(B, cfa="rggb") and mosaic.dtype == np.uint16
    source = to_planes(mosaic_tensor(recorded_by(A), A)[None], A)[0].double()
    found = to_planes(mosaic_tensor(mosaic, reader.sensor)[None], reader.sensor)[0].double()
    red, first, second, blue = source
    green = (first + second) / 2
    expected = torch.stack(
        (
            0.6 * red + 0.3 * green,
            0.2 * red + 0.7 * first + 0.1 * blue,
            0.2 * red + 0.7 * second + 0.1 * blue,
            0.3 * green + 0.6 * blue,
        )
    )
    torch.testing.assert_close(found, expected, atol=0.51 / 3839, rtol=0)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
@pytest.mark.parametrize("wanted", CFA_ORDERS)
def test_a_network_learns_the_other_cameras_order_and_photographs_stay_aligned(tmp_path, cfa, wanted):
    """The mosaic is what the other camera records of the photograph, pixel by pixel."""
    source, target = replace(A, cfa=cfa), replace(B, cfa=wanted)
    iio.imwrite(tmp_path / "0.png", recorded_by(source))
    reader = opened(write_map(tmp_path / "m.json", {"a": source, "b": target}, "b"), model_of(target))
    photo = np.random.default_rng(1).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    assert np.array_equal(reader.aligned(photo), photo)
    training = reader.for_training()
    expected = recorded_by(target, training.aligned(SCENE))
    assert training.sensor == target
    assert np.abs(training.mosaic(tmp_path / "0.png").astype(int) - expected).max() <= 3  # a's levels are four of b's
    same = cfa == wanted
    assert np.array_equal(training.aligned(photo), photo) == same
    assert training.for_training() == training and Reader(A).for_training() == Reader(A)


def test_samples_and_whole_files_are_of_one_place(tmp_path):
    """The photograph's pixel is a function of the mosaic's, in patches and whole files."""
    iio.imwrite(tmp_path / "0.png", recorded_by(A))
    (tmp_path / "photos").mkdir()
    iio.imwrite(tmp_path / "photos" / "0.png", (255 * SCENE).round().astype(np.uint8))
    reader = opened(write_map(tmp_path / "m.json", {"a": A, "b": B}, "b")).for_training()
    split = Split((tmp_path / "0.png",), (tmp_path / "photos" / "0.png",), paired=True)
    patches = Patches(split, Files(reader), 32, seed=0, flips=True)
    loaded = [patches[k] for k in range(4)]
    found = [(sample["mosaic"], sample["target"]) for sample in loaded]
    found += [(mosaic[0], photo[0] / 255) for _, mosaic, photo in whole_files(split, reader)]
    for mosaic, photo in found:
        for channel, (row, column) in offsets("grbg").items():
            signal = (mosaic[0, row::2, column::2] * 4095 - 256) / 3839
            of_photo = photo["RGB".index(channel[0]), row::2, column::2]
            torch.testing.assert_close(signal, of_photo, atol=0.003, rtol=0)
    in_worker = next(training_batches(patches, 2, 0, 1, CPU))
    assert torch.equal(in_worker["mosaic"][1], loaded[1]["mosaic"])


def test_a_trained_mapper_is_opened_and_copies_of_a_reader_read_the_same(file, tmp_path):
    reader = opened(write_mapper(tmp_path / "m.pt", {"a": A, "b": B}))
    expected = recorded_by(replace(B, cfa="rggb"))
    assert np.abs(reader.mosaic(file).astype(int) - expected).max() <= 3
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).mosaic(file), reader.mosaic(file))


def test_what_reads_in_another_way_has_other_facts(file, tmp_path):
    one = opened(write_map(tmp_path / "1.json", {"a": A, "b": B}, "b"))
    same = opened(write_map(tmp_path / "2.json", {"a": A, "b": B}, "b"))
    other = opened(write_map(tmp_path / "3.json", {"a": A, "b": B}, "b", MATRIX))
    facts = [reader.facts([file]) for reader in (one, same, other, one.for_training(), Reader(one.sensor, (48, 64)))]
    assert facts[0] == facts[1] and len({repr(each) for each in facts}) == 4


def test_rmfa_gets_the_levels_that_it_was_trained_with(file, tmp_path):
    own = SENSORS["fujifilm-rmfa"]
    path = write_map(tmp_path / "m.json", {"a": A, "b": SENSORS["fujifilm"]}, "b")
    assert opened(path, model_of(own, "rmfa-tiny"), "b").sensor == own
    assert opened(path, model_of(own, "efficient"), "b").sensor == SENSORS["fujifilm"]


# --- directions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sensors", "models", "sensor", "name", "to"),
    (
        ({"a": A, "b": B}, None, B, "", "b"),  # by levels
        ({"a": A, "b": B}, None, A, "", "a"),
        ({"a": A, "b": A}, ("One", "Two"), A, "Two", "b"),  # by name, of cameras of one kind
        ({"a": A, "b": A}, ("One", "Two"), A, "One", "a"),
        ({"a": A, "b": B}, ("One", "Two"), replace(A, black_level=(64.0,) * 4), "", "a"),  # black levels vary a little
    ),
)
def test_the_direction_is_to_the_cameras_model(tmp_path, sensors, models, sensor, name, to):
    camera = profile_of(sensor, name) if name else None
    path = write_mapper(tmp_path / "m.pt", sensors, models)
    assert opened(path, model_of(sensor, camera=camera)).converter.to == to


@pytest.mark.parametrize(
    ("sensors", "closed", "wish", "message"),
    (
        ({"a": A, "b": A}, False, "", "both directions of .*m.pt seem to fit the camera of isp.pt.*--adapt-to a or b"),
        ({"a": B, "b": B}, False, "", "neither direction of .*m.pt seems to fit the camera of isp.pt, a camera of CFA"),
        (
            {"a": A, "b": B},
            True,
            "",
            "m.json, a map to camera b, does not seem to fit .*another map, or say with --adapt-to b",
        ),
        ({"a": B, "b": A}, True, "a", "m.json is a map to camera b, not a: fit another with map_raw.py"),
    ),
)
def test_a_direction_that_nobody_knows_is_refused(tmp_path, sensors, closed, wish, message):
    path = write_map(tmp_path / "m.json", sensors, "b") if closed else write_mapper(tmp_path / "m.pt", sensors)
    with pytest.raises(UserError, match=message):
        opened(path, model_of(A), wish)
    assert opened(path, model_of(A), "b").converter.to == "b"  # the user may say so


def test_files_of_another_camera_are_refused_by_name(tmp_path):
    reader = opened(write_map(tmp_path / "m.json", {"a": A, "b": B}, "b"))
    iio.imwrite(tmp_path / "bright.png", np.full((48, 64), 4000, np.uint16))
    for path, message in (
        (shot(tmp_path / "b.dng", sensor=B), "b.dng has the CFA order grbg, but camera a has rggb"),
        (shot(tmp_path / "w.dng", sensor=replace(A, white_level=4095.0)), "w.dng has the white level 4095, but camera"),
        (tmp_path / "bright.png", "outside 0 to the white level 1023: .*m.json is a map of another camera"),
    ):
        with pytest.raises(UserError, match=message):
            reader.mosaic(path)


def test_no_map_is_named(tmp_path):
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(UserError, match="m.json is not a map of two cameras: write it with map_raw.py --save"):
        opened(tmp_path / "m.json")
    with pytest.raises(UserError, match="gone.json"):
        opened(tmp_path / "gone.json")


# --- light -----------------------------------------------------------------------------------------------------------


def test_noted_gains_are_carried_as_map_raw_carries_them(tmp_path):
    """Red is halved by the map, so its gain doubles."""
    halved = ((0.5, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.8))
    path, map_file = shot(tmp_path / "0.dng", gains=(2.0, 1.5)), tmp_path / "m.json"
    reader = opened(write_map(map_file, {"a": A, "b": B}, "b", halved), model_of(normalisation="white_balance"))
    gains = reader.gains(path, reader.recorded(path))
    assert gains == pytest.approx((4.0, 1.0, 1.875), rel=1e-3)
    converter = Converter(closed_form.load(map_file), "b", 1, CPU)
    assert gains[::2] == pytest.approx(converter.convert(converter.read(path)).gains, rel=1e-2)
    untouched = replace(reader, normalisation="gray_world")
    mosaic = untouched.recorded(path)
    assert untouched.gains(path, mosaic) == Reader(reader.sensor, normalisation="gray_world").gains(path, mosaic)


def test_what_is_not_noted_is_estimated_from_the_mapped_mosaic(file, tmp_path):
    model = model_of(normalisation="white_balance")
    reader = opened(write_map(tmp_path / "m.json", {"a": A, "b": B}, "b", MATRIX), model)
    mosaic = reader.recorded(file)
    assert reader.gains(file, mosaic) == Reader(reader.sensor, normalisation="white_balance").gains(file, mosaic)


# --- a run's data ----------------------------------------------------------------------------------------------------


def data_of(tmp_path: Path, **fields) -> Data:
    """A run on one pair of camera a."""
    for folder in ("raws", "photos"):
        (tmp_path / folder).mkdir(exist_ok=True)
    iio.imwrite(tmp_path / "raws" / "0.png", recorded_by(A))
    iio.imwrite(tmp_path / "photos" / "0.png", (255 * SCENE).astype(np.uint8))
    folders = {"layout": "folders", "raw": str(tmp_path / "raws"), "photos": str(tmp_path / "photos")}
    levels = {"cfa": A.cfa, "black_level": A.black_level, "white_level": A.white_level}
    return Data(**folders, **(levels | {"val_count": 0, "test_count": 0} | fields))


def test_a_run_knows_its_map_again(tmp_path):
    path = write_map(tmp_path / "m.json", {"a": A, "b": B}, "b")
    config = Config(data=data_of(tmp_path, map=str(path)))
    splits, reader, reference = open_data(config)
    assert isinstance(reader, MappedReader) and reference.sensor == reader.sensor == replace(B, cfa="rggb")
    (known,) = identify(splits, reader)["map"]
    assert known == ("to camera b", storage.sha256_of(path))
    write_map(path, {"a": A, "b": B}, "b", MATRIX)
    assert identify(splits, open_data(config)[1])["map"] != [known]


def test_a_map_from_another_camera_than_the_files_is_refused(tmp_path):
    path = write_map(tmp_path / "m.json", {"a": B, "b": A}, "b")
    with pytest.raises(UserError, match="m.json, a map to camera b, does not seem to fit that of the run's mosaics"):
        mapped_reader(data_of(tmp_path, map=str(path)))
    with pytest.raises(UserError, match="m.json maps camera a, of CFA grbg.*and the run's mosaics have CFA rggb"):
        mapped_reader(data_of(tmp_path, map=str(path), map_to="b"))
