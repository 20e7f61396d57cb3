"""Judges: distances by hand, and that each notices what it is for."""

import math

import pytest
import torch
from torch.nn import functional as F

from data.demosaic import Reference
from data.sensor import Sensor
from judges import Paired, Unpaired, kernel_distance, lab, sliced_distance
from metrics import psnr
from pretrained import backbones

CPU = torch.device("cpu")


def scenes(count: int, seed: int, side: int = 96) -> torch.Tensor:
    """Coloured noise with structure at several scales, (N, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(count, 3, side // k, side // k, generator=generator) for k in (24, 6, 2)]
    image = sum(w * F.interpolate(layer, (side, side)) for w, layer in zip((0.5, 0.3, 0.2), layers, strict=True))
    return image * torch.tensor([1.0, 0.9, 0.7]).view(1, 3, 1, 1)


# --- distances -------------------------------------------------------------------------------------------------------


def test_the_kernel_distance_by_a_plain_loop():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [2.0, 1.0]])

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / 2 + 1) ** 3

    within_x = sum(kernel(x[i], x[j]) for i in range(3) for j in range(3) if i != j) / 6
    within_y = (kernel(y[0], y[1]) + kernel(y[1], y[0])) / 2
    between = sum(kernel(a, b) for a in x for b in y) / 6
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * between)


def test_the_kernel_distance_of_one_distribution_is_about_zero():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2000, 4, generator=generator) for _ in range(2))
    assert abs(kernel_distance(x, y)) < 0.01 < 0.1 < kernel_distance(x, y + 1)


def test_the_sliced_distance_of_a_shift_is_the_mean_of_its_projections():
    points, shift = torch.rand(1000, 3), torch.tensor([3.0, -4.0, 0.0])
    directions = torch.eye(3)
    assert sliced_distance(points, points + shift, directions) == pytest.approx(7 / 3, abs=1e-4)
    assert sliced_distance(points, points, directions) == 0


def test_lab_of_known_colours():
    colours = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).T[None]
    expected = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0], [53.24, 80.09, 67.20]]).T[None]
    assert torch.allclose(lab(colours), expected, atol=0.05)


# --- judges ----------------------------------------------------------------------------------------------------------


def test_paired_figures_of_each_file_and_their_mean():
    judge, target = Paired({"psnr": psnr}), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    outputs = torch.stack((torch.full((3, 8, 8), 1.0), torch.full((3, 8, 8), 0.1)))
    rows, mean = judge.conclude(["a", "b"], judge.look(outputs, judge.context(None, target)))
    assert rows["a"]["psnr"] == 0 and rows["b"]["psnr"] == pytest.approx(20 * math.log10(255 / 25))
    assert mean["psnr"] == pytest.approx(rows["b"]["psnr"] / 2)


@pytest.fixture(scope="module")
def judge() -> Unpaired:
    vit = backbones.vit("random", "vit_tiny_patch16_224")
    with torch.inference_mode():
        judge = Unpaired(backbones.alexnet("random"), vit, Reference(Sensor()), scenes(24, seed=1))
        judge.calibrate([mosaic(scenes(12, seed=2))])
    return judge


def mosaic(image: torch.Tensor) -> torch.Tensor:
    """What an RGGB sensor sees of it, (N, 1, H, W)."""
    sites = image[:, 1:2].clone()
    sites[..., 0::2, 0::2], sites[..., 1::2, 1::2] = image[:, 0:1, 0::2, 0::2], image[:, 2:3, 1::2, 1::2]
    return 0.06 + 0.5 * sites


@torch.inference_mode()
def conclude(judge: Unpaired, outputs: torch.Tensor) -> dict[str, float]:
    raw = mosaic(scenes(12, seed=2))
    rows, mean = judge.conclude(list("abcdefghijkl"), judge.look(outputs, judge.context(raw, None)))
    assert tuple(mean) == Unpaired.columns and all(math.isfinite(value) for value in mean.values())
    assert sum(row["content"] for row in rows.values()) / 12 == pytest.approx(mean["content"], abs=1e-6)
    return mean


def test_the_unpaired_judge_prefers_the_right_colours_detail_and_scene(judge):
    right = scenes(12, seed=2)
    good = conclude(judge, right)
    green = conclude(judge, right * torch.tensor([0.3, 1.0, 0.3]).view(1, 3, 1, 1))
    blurred = conclude(judge, F.avg_pool2d(right, 9, 1, 4))
    other = conclude(judge, scenes(12, seed=3))
    assert green["color"] > 2 * good["color"] and green["unpaired"] > good["unpaired"]
    assert blurred["texture"] > good["texture"] and blurred["unpaired"] > good["unpaired"]
    assert other["content"] > good["content"]


def test_a_look_is_the_same_in_any_batch(judge):
    images = scenes(4, seed=5)
    with torch.inference_mode():
        context = judge.context(mosaic(images), None)
        whole = judge.look(images, context)
        parts = [judge.look(images[i : i + 1], context[i : i + 1]) for i in range(4)]
    for key, value in whole.items():
        assert torch.allclose(value, torch.cat([part[key] for part in parts]), atol=1e-5)
