"""Fixtures of the tests of exports: a generator of each kind, mosaics of it, and skips where packages are missing."""

from importlib.util import find_spec

import pytest
import torch

from data.sensor import SENSORS, Sensor
from exporting import packages
from exporting.targets import Source
from models import build_model, model_spec

SMALL = ("efficient", "robust", "efficient-context", "rmfa-tiny")
OTHER = Sensor("gbrg", (100.0, 64.0, 80.0, 0.0), 4095.0)


@pytest.fixture
def needs():
    """needs(target): skip the test where the target's packages are not installed."""

    def check(target: str) -> None:
        missing = [name for name in packages.PACKAGES[target] if find_spec(name) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)} ({packages.INSTALL})")

    return check


@pytest.fixture
def make_source():
    """make_source(name, raw_input, sensor): a generator of random weights whose context, if any, has an effect."""

    def make(name: str = "efficient", raw_input: str = "dn", sensor: Sensor | None = None) -> Source:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            generator = build_model(name).eval().requires_grad_(False)
            if name == "efficient-context":
                torch.nn.init.normal_(generator.context[-1].weight, std=0.1)
        spec = model_spec(name)
        sensor = sensor or SENSORS[spec.released_for]
        return Source(name, generator, spec.input_format, sensor, raw_input, spec.minimum)

    return make


@pytest.fixture
def make_mosaic():
    """make_mosaic(height, width, sensor): digital numbers (1, 1, H, W), some of them below black."""

    def make(height: int, width: int, sensor: Sensor, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, int(sensor.white_level) + 1, (1, 1, height, width), generator=generator).float()

    return make
