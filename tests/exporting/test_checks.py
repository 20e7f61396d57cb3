"""Files are compared with PyTorch, and refused beyond the bound of their precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from errors import UserError
from exporting.checks import Reference, check, milliseconds
from exporting.scenes import Scene
from exporting.targets import PhoneFile

SIZE = (24, 32)


class Fake:
    """A file whose images are PyTorch's, with an error."""

    def __init__(self, source, error):
        self.source, self.error = source, error

    def run(self, inputs):
        raw = torch.from_numpy(inputs["raw"])
        return self.source.generator(raw).clamp(0, 1).numpy() + self.error

    def operators(self):
        return {"CONV": 3}


@pytest.fixture
def setting(make_source, make_mosaic, monkeypatch):
    """setting(error, precision, size): (file, reference); the first of two scenes has a target."""
    source = make_source(raw_input="normalised")

    def make(error: float, precision: str = "fp32", size=None):
        scenes = [Scene(str(seed), make_mosaic(*SIZE, source.sensor, seed)) for seed in range(2)]
        scenes[0] = replace(scenes[0], target=torch.zeros(3, *SIZE, dtype=torch.uint8))
        monkeypatch.setattr(PhoneFile, "open", lambda self, threads: Fake(source, np.float32(error)))
        return PhoneFile("model.x", "onnx", precision, size, b""), Reference(source, scenes)

    return make


def level(image, target):
    return image.mean().item()


def test_figures_by_hand(setting):
    file, reference = setting(2**-14)
    figures = check(file, reference, level, threads=1)
    assert figures["largest_difference"] == pytest.approx(2**-14, rel=0.01)
    assert figures["psnr_against_pytorch"] == pytest.approx(20 * 14 * np.log10(2), abs=0.1)
    assert figures["psnr"] == pytest.approx(figures["psnr_of_pytorch"] + 2**-14, abs=1e-4)
    assert figures["operators"] == {"CONV": 3}


def test_an_equal_file_has_no_distance(setting):
    figures = check(*setting(0.0), level, threads=1)
    assert figures["largest_difference"] == 0 and figures["psnr_against_pytorch"] is None


@pytest.mark.parametrize("precision, error", (("fp32", 0.002), ("fp16", 0.03), ("int8", 0.04), ("int8", np.nan)))
def test_beyond_its_bound_a_file_is_refused(setting, precision, error):
    with pytest.raises(UserError, match=f"model.x differs too much.*{precision}.*nothing was written"):
        check(*setting(error, precision), level, threads=1)


@pytest.mark.parametrize("precision, error", (("fp32", 5e-5), ("fp16", 0.002), ("int8", 0.02)))
def test_within_its_bound_it_is_not(setting, precision, error):
    assert check(*setting(error, precision), level, threads=1)["largest_difference"] == pytest.approx(error, rel=0.01)


def test_a_file_of_one_size_gets_tiled_mosaics_without_targets(setting):
    file, reference = setting(0.0, size=(40, 48))
    assert check(file, reference, level, threads=1)["psnr"] is None
    assert reference.of_size((40, 48))[0][1].shape == (1, 3, 40, 48)


def test_an_image_of_another_size_is_refused(setting, monkeypatch):
    file, reference = setting(0.0)
    monkeypatch.setattr(Fake, "run", lambda self, inputs: np.zeros((1, 3, 2, 2), np.float32))
    with pytest.raises(UserError, match=r"\(1, 3, 2, 2\), not \(1, 3, 24, 32\)"):
        check(file, reference, level, threads=1)


def test_a_file_that_does_not_run_is_refused(setting, monkeypatch):
    def fail(self, inputs):
        raise RuntimeError("shapes differ\nat node 3\nin a library")

    file, reference = setting(0.0)
    monkeypatch.setattr(Fake, "run", fail)
    with pytest.raises(UserError, match="model.x fails for a mosaic of 24x32: shapes differ at node 3$"):
        check(file, reference, level, threads=1)


def test_time_is_measured(setting):
    file, reference = setting(0.0)
    assert milliseconds(file, reference.source, reference.scenes[None][0], threads=1) > 0
