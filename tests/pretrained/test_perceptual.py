"""LPIPS, LPIPS+ and DISTS: pyiqa's values, frozen, from complete sets of weights only."""

import pytest
import torch
import torchvision

from errors import UserError
from pretrained.perceptual import PERCEPTUAL, PerceptualMeasure, dists, lpips, lpips_plus

ALEXNET, LPIPS_HEADS = "checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"


@pytest.fixture(scope="module")
def networks() -> dict[str, PerceptualMeasure]:
    """Each measure with the random weights of seed 3, built once."""
    return {name: build("random", seed=3) for name, build in PERCEPTUAL.items()}


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_random_measure_is_frozen_and_says_that_it_is_random(name, networks):
    network = networks[name]
    assert network.provenance == "random (seed 3)"
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_gradient_reaches_the_image_and_no_parameter(name, networks):
    network, image = networks[name], noise(1, 3, 64, 64).requires_grad_()
    network(image, 1 - image.detach()).sum().backward()
    assert image.grad.isfinite().all() and image.grad.any()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("name", ("lpips", "lpips_plus"))
def test_random_weights_depend_on_the_seed_and_preserve_the_global_random_state(name, networks):
    one, before = networks[name].state_dict(), torch.get_rng_state()
    again, other = (PERCEPTUAL[name]("random", seed=seed).state_dict() for seed in (3, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_random_measure_is_positive_and_zero_for_equal_images(name, networks):
    measure, image, other = networks[name], noise(2, 3, 64, 64), noise(2, 3, 64, 64, seed=1)
    with torch.no_grad():
        assert measure(image, other).shape == (2,) and (measure(image, other) > 0).all()
        assert measure(image, image).abs().max() < 1e-5


@pytest.mark.parametrize("build, name", ((lpips, "lpips"), (lpips_plus, "lpips+")))
def test_lpips_and_lpips_plus_equal_pyiqa(build, name, require_cached, no_connections):
    pyiqa = pytest.importorskip("pyiqa")
    require_cached(ALEXNET, LPIPS_HEADS)
    ours, theirs = build("pretrained"), pyiqa.create_metric(name, device="cpu")
    image, reference = noise(2, 3, 64, 80), noise(2, 3, 64, 80, seed=1)
    with torch.no_grad():
        expected = theirs(image, reference).flatten()
        torch.testing.assert_close(ours(image, reference), expected, atol=1e-6, rtol=0)
    assert ours.provenance.startswith("pretrained (alexnet-owt-7be5be79.pth") and "LPIPS_v0.1" in ours.provenance


def test_auto_without_the_lpips_heads_is_random_as_a_whole(cached_alexnet, no_connections):
    measure = lpips_plus("auto")
    assert measure.provenance == "random (seed 0)"
    random = lpips_plus("random").state_dict()
    assert all(torch.equal(value, random[key]) for key, value in measure.state_dict().items())


@pytest.mark.parametrize("heads", ({}, {"something": torch.ones(1)}, {"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}))
def test_other_weights_are_refused_as_lpips_heads(heads, cached_alexnet):
    (cached_alexnet / LPIPS_HEADS).parent.mkdir()
    torch.save(heads, cached_alexnet / LPIPS_HEADS)
    with pytest.raises(UserError, match="LPIPS_v0.1_alex-df73285e.pth does not hold"):
        lpips_plus("pretrained")


def test_other_weights_are_refused_as_the_dists_head(empty_cache):
    for folder in ("checkpoints", "pyiqa"):
        (empty_cache / folder).mkdir(parents=True)
    state = torchvision.models.vgg16(weights=None).features.state_dict()
    torch.save(
        {f"features.{key}": value for key, value in state.items()}, empty_cache / "checkpoints/vgg16-397923af.pth"
    )
    torch.save({"alpha": torch.ones(1, 1475, 1, 1)}, empty_cache / "pyiqa/DISTS_weights-f5e65c96.pth")  # without beta
    with pytest.raises(UserError, match="DISTS_weights-f5e65c96.pth does not hold"):
        dists("pretrained")
