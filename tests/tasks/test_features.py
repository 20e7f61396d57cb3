"""The frozen networks of a run: bfloat16 and compilation change nothing but rounding; the views' features."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from config import Compute
from losses.color import blur
from losses.content import luminance3
from tasks import features as module
from tasks.features import Networks, autocast, build_views, grey3, resize
from training.steps import Batch, Trainer

CPU = torch.device("cpu")


def objectives(trainer: Trainer, batch: Batch) -> tuple[dict, dict, dict]:
    """(losses, gradients at the generated image, its features) of all objectives of a trainer."""
    image = trainer.generator(batch.inputs).detach().requires_grad_()
    with torch.no_grad():
        names = {a.feature for a in trainer.adversaries} | trainer.compared_with("target")
        real = trainer.features(batch.target, names)
        reference = trainer.features(batch.reference, trainer.compared_with("reference"))
    return trainer.image_gradients(image, real, reference)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


# --- precision and compilation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ("unpaired", "paired_gan"))
def test_bf16_is_close_and_everything_outside_the_frozen_networks_stays_float32(make_config, make_trainer, batch, mode):
    exact = make_trainer(make_config(mode=mode, dists=0.0))
    rounded = make_trainer(make_config(Compute("bf16"), mode=mode, dists=0.0))
    losses, gradients, features = objectives(exact, batch)
    rounded_losses, rounded_gradients, rounded_features = objectives(rounded, batch)
    for values in (rounded_losses, rounded_gradients, rounded_features):
        assert all(value.dtype == torch.float32 for value in values.values())
    for name, feature in features.items():
        assert cosine(feature, rounded_features[name]) > 0.999, name
    for name, gradient in gradients.items():
        assert cosine(gradient, rounded_gradients[name]) > 0.9, name  # of differences of features
        assert rounded_losses[f"loss/{name}"] == pytest.approx(float(losses[f"loss/{name}"]), rel=0.05)
    assert torch.equal(gradients["tv"], rounded_gradients["tv"])  # no frozen network
    assert not torch.equal(gradients["content"], rounded_gradients["content"])
    rounded.step(batch, 10)
    trained = [*rounded.parameters, *(p for a in rounded.adversaries for p in a.critic.parameters())]
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in trained)


def test_weights_stored_in_bf16_equal_those_that_autocast_converts(make_config, make_trainer, batch, monkeypatch):
    config = make_config(Compute("bf16"))
    stored = objectives(make_trainer(config), batch)
    monkeypatch.setattr(module, "_store_in_bf16", lambda network: None)
    converted = objectives(make_trainer(config), batch)
    for one, other in zip(stored, converted, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_give_the_same_gradients(make_config, make_trainer, batch, monkeypatch):
    """With torch.compile's tracing and autograd, which are what can go wrong, but without its C++."""
    calls, compiler = [], torch.compile

    def compile_(function, **options):
        calls.append(function)
        return compiler(function, backend="aot_eager", **options)

    plain = objectives(make_trainer(make_config()), batch)
    monkeypatch.setattr(torch, "compile", compile_)
    compiled = objectives(make_trainer(make_config(Compute(compile=True))), batch)
    assert len(calls) == 3
    for one, other in zip(plain, compiled, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("precision", "dtype"), (("float32", torch.float32), ("bf16", torch.bfloat16)))
def test_autocast_follows_the_config(precision, dtype):
    with autocast(Compute(precision), CPU)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_networks_are_built_once_and_name_their_weights(make_config):
    networks = Networks(make_config(), CPU)
    assert networks.provenance == {}
    assert networks("alexnet") is networks("alexnet")
    assert networks.provenance == {"alexnet": "random (seed 0)"}


# --- views -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks(make_config) -> Networks:
    return Networks(make_config(), CPU)


def features_of(image: Tensor, names: set[str], networks: Networks) -> dict[str, Tensor]:
    found = {}
    for view in build_views(names, networks):
        found |= zip(view.names, view.compute(image), strict=True)
    return found


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_each_feature_is_what_its_name_says(networks, image):
    expected = {
        "vgg_rgb": networks("vgg")(image),
        "vgg_luminance": networks("vgg")(luminance3(image)),
        "vit_tokens": networks("vit")(resize(blur(image), 224)),
        "vgg_tokens": networks("vgg")(blur(image)).flatten(2).mT,
        "alexnet_tokens": networks("alexnet")(blur(image), ("relu5",))["relu5"].flatten(2).mT,
        "blurred": blur(image),
        "grey": grey3(image)[:, :1],
        "lin2": networks("alexnet")(grey3(image), ("relu3",))["relu3"],
        "lin0": networks("alexnet")(grey3(image), ("relu1",))["relu1"],
        "lin3": networks("alexnet")(grey3(image), ("relu4",))["relu4"],
    }
    found = features_of(image, set(expected), networks)
    assert found.keys() == expected.keys()
    for name, feature in expected.items():
        assert torch.equal(found[name], feature), name


@pytest.mark.parametrize("blurred", (True, False))
@pytest.mark.parametrize("size", (0, 32, 224))
def test_what_the_vit_sees_follows_from_the_config(make_config, image, blurred, size):
    config = make_config(blur_color=blurred)
    config = replace(config, backbones=replace(config.backbones, vit_size=size))
    networks, seen = Networks(config, CPU), blur(image) if blurred else image
    seen = F.interpolate(seen, (size, size), mode="bilinear", align_corners=False) if size else seen
    assert torch.equal(features_of(image, {"vit_tokens"}, networks)["vit_tokens"], networks("vit")(seen))
    assert torch.equal(features_of(image, {"blurred"}, networks)["blurred"], blur(image))


@pytest.mark.parametrize("normalise", (True, False))
def test_the_vit_s_input_is_normalised_only_if_asked(make_config, image, normalise):
    config = make_config()
    vit = Networks(replace(config, backbones=replace(config.backbones, vit_normalise=normalise)), CPU)("vit")
    assert torch.equal(vit.normalise(image), (image - 0.5) / 0.5 if normalise else image)


def test_only_the_views_of_wanted_features_are_built(networks):
    assert [view.names for view in build_views({"image", "lin3", "grey"}, networks)] == [("grey",), ("lin3",)]
    assert build_views({"image"}, networks) == []


def test_one_view_gives_both_features_of_alexnet(networks):
    assert [view.names for view in build_views({"lin0", "lin3"}, networks)] == [("lin0", "lin3")]


def test_features_of_an_image_do_not_depend_on_the_rest_of_the_batch(networks, image):
    """Otherwise processes that share a batch would not compute what one process does."""
    names = {"vgg_rgb", "vit_tokens", "vgg_tokens", "lin0", "lin3"}
    together, alone = features_of(image, names, networks), features_of(image[1:], names, networks)
    for name in names:
        torch.testing.assert_close(together[name][1:], alone[name], rtol=1e-4, atol=1e-5)


def test_grey_weighs_red_green_and_blue():
    image = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]).view(3, 3, 1, 1)
    assert grey3(image).flatten(1).tolist() == [[pytest.approx(w)] * 3 for w in (0.299, 0.587, 0.114)]


def test_grey_is_that_of_the_released_code():
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    with np.load(path) as golden:
        generated, expected = torch.from_numpy(golden["generated"]), torch.from_numpy(golden["gray"])
    torch.testing.assert_close(grey3(generated), expected.expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-3)
