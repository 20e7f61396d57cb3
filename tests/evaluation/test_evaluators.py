"""Evaluators: distances by hand, and each distance grows with the fault that it measures."""

import math

import pytest
import torch
from torch.nn import functional as F

from data.reference import Reference
from data.sensor import SENSORS
from evaluation.evaluators import PairedEvaluator, UnpairedEvaluator, kernel_distance, lab, sliced_distance
from evaluation.metrics import psnr, psnr_float
from pretrained import backbones


def scenes(count: int, seed: int, side: int = 96) -> torch.Tensor:
    """Coloured noise with structure at several scales, (N, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(count, 3, side // k, side // k, generator=generator) for k in (24, 6, 2)]
    image = sum(w * F.interpolate(layer, (side, side)) for w, layer in zip((0.5, 0.3, 0.2), layers, strict=True))
    return image * torch.tensor([1.0, 0.9, 0.7]).view(1, 3, 1, 1)


def mosaic(image: torch.Tensor) -> torch.Tensor:
    """The mosaic (N, 1, H, W) of an image by an RGGB sensor."""
    sites = image[:, 1:2].clone()
    sites[..., 0::2, 0::2], sites[..., 1::2, 1::2] = image[:, 0:1, 0::2, 0::2], image[:, 2:3, 1::2, 1::2]
    return 0.06 + 0.5 * sites


# --- distances -------------------------------------------------------------------------------------------------------


def test_the_kernel_distance_equals_a_plain_loop():
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


# --- with ground truth -----------------------------------------------------------------------------------------------


def test_paired_scores_of_each_file_and_their_mean():
    evaluator, target = PairedEvaluator({"psnr": psnr}), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    outputs = torch.stack((torch.full((3, 8, 8), 1.0), torch.full((3, 8, 8), 0.1)))
    values = evaluator.evaluate(outputs, evaluator.prepare(None, target))
    rows, mean = evaluator.summarize(["a", "b"], values)
    assert rows["a"]["psnr"] == 0 and rows["b"]["psnr"] == pytest.approx(20 * math.log10(255 / 25))
    assert mean["psnr"] == pytest.approx(rows["b"]["psnr"] / 2)


def test_only_a_measure_of_floats_gets_the_output_as_it_is():
    """An output of 0.5 is 127 of 255 for the others; its target, 127, is the same for all."""
    evaluator, target = PairedEvaluator({"psnr_float": psnr_float, "psnr": psnr}), torch.full((1, 3, 8, 8), 127)
    values = evaluator.evaluate(torch.full((1, 3, 8, 8), 0.5), evaluator.prepare(None, target.to(torch.uint8)))
    assert values["psnr"].item() == math.inf
    assert values["psnr_float"].item() == pytest.approx(20 * math.log10(255 / 0.5), abs=1e-3)


# --- without ground truth --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluator() -> UnpairedEvaluator:
    vit = backbones.vit("random", "vit_tiny_patch16_224")
    reference = Reference(SENSORS["fujifilm"])
    with torch.inference_mode():
        evaluator = UnpairedEvaluator(backbones.alexnet("random"), vit, reference, scenes(24, seed=1))
        evaluator.calibrate([mosaic(scenes(12, seed=2))])
    return evaluator


@torch.inference_mode()
def means(evaluator: UnpairedEvaluator, outputs: torch.Tensor) -> dict[str, float]:
    """The scores of a set of outputs for the mosaics of scenes(12, seed=2)."""
    prepared = evaluator.prepare(mosaic(scenes(12, seed=2)), None)
    rows, mean = evaluator.summarize(list("abcdefghijkl"), evaluator.evaluate(outputs, prepared))
    assert tuple(mean) == UnpairedEvaluator.columns and all(math.isfinite(value) for value in mean.values())
    assert sum(row["content"] for row in rows.values()) / 12 == pytest.approx(mean["content"], abs=1e-6)
    return mean


def test_unpaired_scores_prefer_the_right_colours_detail_and_scene(evaluator):
    right = scenes(12, seed=2)
    good = means(evaluator, right)
    green = means(evaluator, right * torch.tensor([0.3, 1.0, 0.3]).view(1, 3, 1, 1))
    blurred = means(evaluator, F.avg_pool2d(right, 9, 1, 4))
    other = means(evaluator, scenes(12, seed=3))
    assert green["color"] > 2 * good["color"] and green["unpaired"] > good["unpaired"]
    assert blurred["texture"] > good["texture"] and blurred["unpaired"] > good["unpaired"]
    assert other["content"] > good["content"]


def test_unpaired_values_do_not_depend_on_the_batch(evaluator):
    images = scenes(4, seed=5)
    with torch.inference_mode():
        prepared = evaluator.prepare(mosaic(images), None)
        whole = evaluator.evaluate(images, prepared)
        parts = [evaluator.evaluate(images[i : i + 1], prepared[i : i + 1]) for i in range(4)]
    for key, value in whole.items():
        assert torch.allclose(value, torch.cat([part[key] for part in parts]), atol=1e-5)


def test_the_texts_in_stored_score_tables_are_unchanged():
    """A table with another text or other columns counts as stale: then its checkpoint is scored again."""
    assert UnpairedEvaluator.columns == ("unpaired", "texture", "semantics", "color", "content")
    summary = "unpaired: distance to photographs of other scenes plus content lost; smaller is better"
    assert UnpairedEvaluator.summary == summary
