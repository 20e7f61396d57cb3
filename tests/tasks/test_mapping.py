"""Mappers for use, from their checkpoints: what they say of both cameras, and that they map as they were trained."""

import dataclasses

import numpy as np
import pytest
import torch

from config import to_dict
from data import camera
from data.camera import profile_of_mosaics
from data.planes import merge_greens
from data.sensor import Sensor
from errors import UserError
from models import MAPPERS, build_mapper
from tasks.mapping import open_mapper
from training.checkpoint import save_generator

from ..mapper_runs import make_config

CPU = torch.device("cpu")
SENSORS = {"a": Sensor("rggb", (60.0, 62.0, 64.0, 66.0), 1023.0), "b": Sensor("grbg", (256.0,) * 4, 4095.0)}


def spoiled(name: str = "mapper-plain") -> torch.nn.Module:
    """Mappers that are not the identity, with running statistics that are not those of a batch."""
    torch.manual_seed(0)
    mapper = build_mapper(name)
    if name == "cyclegan":  # never the identity, and without running statistics
        return mapper
    for to, matrix in (("a", torch.eye(4) * 2), ("b", torch.eye(4) / 2)):
        mapper.start_from(to, matrix)
        torch.nn.init.normal_(mapper.heads[to][-1].weight, std=0.02)
    mapper.train()(torch.rand(2, 4, 32, 32), "ba")
    return mapper


@pytest.fixture
def saved(tmp_path):
    """saved(mapper, name): the file of a checkpoint."""

    def save(mapper: torch.nn.Module, name: str = "mapper-plain", **changes) -> str:
        sensors = {each: vars(sensor) for each, sensor in SENSORS.items()}
        config = to_dict(make_config(tmp_path, tmp_path, seed=7))
        description = {"model": name, "sensors": sensors, "cameras": {}, "config": config, "weights": {}} | changes
        save_generator(tmp_path / "a.pt", mapper, 1, description)
        return str(tmp_path / "a.pt")

    return save


@pytest.mark.parametrize("name", MAPPERS)
def test_an_opened_mapper_maps_as_the_saved_one_does(saved, name):
    mapper = spoiled(name).to(memory_format=torch.channels_last)
    found = open_mapper(saved(mapper, name), CPU)
    planes = torch.rand(1, 4, 40, 48)
    for to in "ab":
        expected = mapper.map_planes(planes, to)
        assert torch.equal(found.map(planes, to), expected) and not torch.equal(expected, planes)
        if name != "cyclegan":  # which cannot downsample
            assert torch.equal(found.map(planes, to, 2), mapper.map_planes(planes, to, 2))
    assert found.name == name and not found.mapper.training
    assert not any(parameter.requires_grad for parameter in found.mapper.parameters())


def test_it_says_of_which_cameras_it_is(saved):
    found = open_mapper(saved(spoiled()), CPU)
    assert found.sensors == SENSORS and found.cameras == {"a": None, "b": None} and found.config.seed == 7


def test_mapping_changes_neither_the_mode_nor_the_statistics_of_a_mapper_in_training():
    mapper = spoiled()
    before = {name: value.clone() for name, value in mapper.state_dict().items()}
    mapper.train()
    first = mapper.map_planes(torch.rand(1, 4, 32, 32), "b")
    assert mapper.training and first.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in mapper.state_dict().items())


@pytest.mark.parametrize("name", ("mapper-plain", "cyclegan"))
def test_a_mapper_of_three_channels_maps_four_planes_with_each_green_s_detail(saved, name, monkeypatch):
    monkeypatch.setattr("models.cyclegan.WIDTH", 4)
    mapper = build_mapper(name, 3).to(memory_format=torch.channels_last)
    if name != "cyclegan":
        mapper.start_from("b", torch.tensor([[0.5, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.3, 0.9]]))
    found, planes = open_mapper(saved(mapper, name, channels=3), CPU), torch.rand(1, 4, 40, 48)
    three = merge_greens(planes)
    expected, mapped = mapper.map_planes(three, "b"), found.map(planes, "b")
    assert mapped.shape == planes.shape and torch.equal(found.map(three, "b"), expected)
    torch.testing.assert_close(merge_greens(mapped), expected)
    torch.testing.assert_close(mapped[:, 1] - mapped[:, 2], planes[:, 1] - planes[:, 2])


@pytest.mark.parametrize("name", ("mapper-plain", "cyclegan"))
def test_three_planes_need_a_mapper_of_three_channels(saved, name, monkeypatch):
    monkeypatch.setattr("models.cyclegan.WIDTH", 4)
    with pytest.raises(UserError, match="a.pt maps planes of 4 channels, and these have 3"):
        open_mapper(saved(build_mapper(name), name), CPU).map(torch.rand(1, 3, 32, 32), "b")


@pytest.mark.parametrize("channels", (5, "3", None))
def test_other_channels_in_a_checkpoint_are_refused(saved, channels):
    with pytest.raises(UserError, match=f"its mapper has {channels!r} channels, not 4 or 3"):
        open_mapper(saved(build_mapper("mapper-plain"), channels=channels), CPU)


def test_weights_of_other_channels_than_a_checkpoint_says_are_refused(saved):
    with pytest.raises(UserError, match="weights that do not fit its model 'mapper-plain': start_a has the shape"):
        open_mapper(saved(build_mapper("mapper-plain"), channels=3), CPU)


def test_planes_are_not_clipped(saved):
    mapper = build_mapper("mapper-plain")
    mapper.start_from("b", 3 * torch.eye(4))
    assert open_mapper(saved(mapper), CPU).map(torch.ones(1, 4, 16, 16), "b").eq(3).all()


def test_a_small_mosaic_is_refused(saved):
    with pytest.raises(UserError, match="their sides must have at least 128"):
        open_mapper(saved(spoiled()), CPU).map(torch.rand(1, 4, 64, 64), "b", 16)


def test_profiles_come_with_the_checkpoint(saved, tmp_path):
    np.save(tmp_path / "0.npy", np.random.default_rng(0).integers(100, 900, (32, 32)).astype(np.uint16))
    profile = dataclasses.replace(profile_of_mosaics([tmp_path / "0.npy"], SENSORS["a"]), model="One")
    found = open_mapper(saved(spoiled(), cameras={"a": camera.to_dict(profile)}), CPU)
    assert found.cameras["a"] == profile and found.cameras["b"] is None
