"""How the arithmetic is done changes nothing but rounding: bfloat16 autocast and compilation of the frozen networks."""

from dataclasses import replace

import imageio.v3 as iio
import pytest
import torch

import build
import metrics
from build import Model, Networks, autocast, build_generator, build_trainer, set_precision
from config import PRESETS, Backbones, Compute
from data.demosaic import Reference
from data.folders import Split
from data.sensor import Sensor, prepare
from training.steps import Batch, Trainer

CPU = torch.device("cpu")
SENSOR = Sensor()


def trainer_of(mode: str = "unpaired", **compute) -> Trainer:
    base = PRESETS["fujifilm-efficient"]
    train = replace(base.train, mode=mode, dists=0.0)
    config = replace(base, data=replace(base.data, patch=64, batch=2), train=train, compute=Compute(**compute))
    config = replace(config, backbones=Backbones("random", vit="vit_tiny_patch16_224"))
    torch.manual_seed(0)
    generator = build_generator("efficient", "")[1].to(memory_format=torch.channels_last)
    return build_trainer(config, generator, Networks(config, CPU))


def batch() -> Batch:
    random, sensor = torch.Generator().manual_seed(0), SENSOR
    mosaic, target = (torch.rand(2, c, 64, 64, generator=random) for c in (1, 3))
    return Batch(prepare(mosaic, sensor, "packed"), Reference(sensor)(mosaic), target)


def judged(trainer: Trainer) -> tuple[dict, dict, dict]:
    """(losses, gradients at the image, features) of one look."""
    data = batch()
    image = trainer.generator(data.inputs).detach().requires_grad_()
    with torch.no_grad():
        real = trainer.look(data.target, {a.feature for a in trainer.adversaries} | trainer.compares_with("target"))
        reference = trainer.look(data.reference, trainer.compares_with("reference"))
    return trainer._judge(image, real, reference)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


@pytest.mark.parametrize("mode", ("unpaired", "paired_gan"))
def test_bf16_is_near_and_all_outside_the_frozen_networks_stays_float32(mode):
    exact, near = trainer_of(mode), trainer_of(mode, precision="bf16")
    (losses, gradients, features), (near_losses, near_gradients, near_features) = judged(exact), judged(near)
    assert all(value.dtype == torch.float32 for value in (*near_losses.values(), *near_gradients.values()))
    assert all(feature.dtype == torch.float32 for feature in near_features.values())
    for name, feature in features.items():
        assert cosine(feature, near_features[name]) > 0.999, name
    for name, gradient in gradients.items():
        assert cosine(gradient, near_gradients[name]) > 0.9, name  # of differences of features
        assert near_losses[f"loss/{name}"] == pytest.approx(float(losses[f"loss/{name}"]), rel=0.05)
    assert torch.equal(gradients["tv"], near_gradients["tv"])  # no frozen network
    assert not torch.equal(gradients["content"], near_gradients["content"])
    near.step(batch(), 10)
    trained = [*near.parameters, *(p for a in near.adversaries for p in a.critic.parameters())]
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in trained)


def test_the_weights_held_in_bf16_are_those_that_autocast_makes(monkeypatch):
    held = judged(trainer_of(precision="bf16"))
    monkeypatch.setattr("build._hold_bf16", lambda network: None)
    cast = judged(trainer_of(precision="bf16"))
    for one, other in zip(held, cast, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_give_the_same_gradients(monkeypatch):
    """With torch.compile's tracing and autograd, which are what can go wrong, but without its C++."""
    calls, compiler = [], torch.compile

    def compile_(function, **options):
        calls.append(function)
        return compiler(function, backend="aot_eager", **options)

    plain = judged(trainer_of())
    monkeypatch.setattr(torch, "compile", compile_)
    compiled = judged(trainer_of(compile=True))
    assert len(calls) == 3
    for one, other in zip(plain, compiled, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_the_ranking_without_pairs_of_a_bf16_run_is_in_float32(tmp_path):
    photos = []
    for i in range(2):
        photos.append(tmp_path / f"{i}.png")
        iio.imwrite(
            photos[-1], torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(i)).byte().numpy()
        )
    base = PRESETS["fujifilm-efficient"]
    config = replace(base, backbones=Backbones("random", vit="vit_tiny_patch16_224"))
    split = Split(tuple(photos), tuple(photos), paired=False)
    for compute in (Compute(), Compute(precision="bf16", compile=True)):
        judge, notes = build.build_unpaired_judge(replace(config, compute=compute), split, Reference(SENSOR), CPU)
        assert notes["photographs"] == "2" and judge is not None


def test_a_gpu_s_float32_is_what_was_asked_for():
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32
    try:
        for precision, allowed in (("tf32", True), ("float32", False), ("bf16", False)):
            set_precision(Compute(precision))
            assert (cuda.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
    finally:
        cuda.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.parametrize(("precision", "dtype"), (("float32", torch.float32), ("bf16", torch.bfloat16)))
def test_autocast_is_what_was_asked_for(precision, dtype):
    with autocast(Compute(precision), CPU)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.fixture(params=("efficient", "robust", "rmfa-tiny"))
def model(request) -> Model:
    torch.manual_seed(0)
    generator = build_generator(request.param, "")[1].eval().to(memory_format=torch.channels_last)
    return Model("", request.param, generator, SENSOR, None)


@torch.no_grad()
def whole(model: Model, mosaic: torch.Tensor) -> torch.Tensor:
    return metrics.to_8_bit(model.generator(prepare(mosaic, SENSOR, model.generator.input_format)))


@pytest.mark.parametrize("rows", (2, 6, 20, 64))
def test_an_image_in_bands_is_the_whole_image(model, rows, monkeypatch):
    monkeypatch.setattr(build, "BAND", rows * 40 * 2)
    mosaic = torch.rand(2, 1, 52, 40, generator=torch.Generator().manual_seed(0))
    difference = model.develop(mosaic, SENSOR).int() - whole(model, mosaic).int()
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 1e-3  # truncated: rounding can show


def test_digital_numbers_are_developed_as_fractions_of_white(model):
    digital = torch.randint(60, 1024, (1, 1, 32, 40), generator=torch.Generator().manual_seed(0))
    expected = whole(model, digital / 1023)
    for numbers in (digital.to(torch.uint16), digital.to(torch.int32), digital / 1023):
        developed = model.develop(numbers, SENSOR)
        assert developed.dtype == torch.uint8 and developed.is_contiguous(memory_format=torch.channels_last)
        assert (developed.int() - expected.int()).abs().max() <= 1


def test_developing_leaves_the_mosaic_alone(model):
    mosaic = torch.rand(1, 1, 32, 40)
    before = mosaic.clone()
    model.develop(mosaic, SENSOR)
    assert torch.equal(mosaic, before)
