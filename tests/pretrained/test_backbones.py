"""The frozen feature networks: random or loaded weights, never trained, with the normalisation that each needs."""

import pickle
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from errors import UserError
from losses.content import ContentLoss, luminance3
from pretrained import backbones
from pretrained.backbones import alexnet, vgg19, vit

TINY = "vit_tiny_patch16_224"
BUILDERS = {"vgg19": vgg19, "alexnet": alexnet, "vit": partial(vit, name=TINY)}
FROM_FILE = {name: BUILDERS[name] for name in ("alexnet", "vit")}  # VGG-19 shares AlexNet's code but builds slowly
ALL_LAYERS = tuple(f"relu{i}" for i in range(1, 6))
ALEXNET, LPIPS_HEADS = "checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"


@pytest.fixture(scope="module")
def golden(from_environment) -> dict[str, torch.Tensor]:
    path = from_environment("ISP_GOLDEN", "the path of golden.npz")
    with np.load(path) as file:
        keys = ["gray", "generated", "demosaiced", *(f"alexnet_{layer}" for layer in ALL_LAYERS)]
        return {key: torch.from_numpy(file[key]) for key in keys}


@pytest.fixture(scope="module")
def networks() -> dict[str, backbones.Frozen]:
    """Each network with the random weights of seed 3, built once."""
    return {name: build(policy="random", seed=3) for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def matconvnet(from_environment) -> backbones.VGG19:
    return vgg19("pretrained", str(from_environment("ISP_VGG", "the path of imagenet-vgg-verydeep-19.mat")))


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


# --- random weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_random_network_is_frozen_and_says_that_it_is_random(name, networks):
    network = networks[name]
    assert network.provenance == "random (seed 3)"
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_gradient_reaches_the_image_and_no_parameter(name, networks):
    network, image = networks[name], noise(1, 3, 64, 64).requires_grad_()
    features = network(image)
    (features["relu4"] if isinstance(features, dict) else features).sum().backward()
    assert image.grad.isfinite().all() and image.grad.any()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("name", ("alexnet", "vit"))
def test_random_weights_depend_on_the_seed_and_preserve_the_global_random_state(name, networks):
    one, before = networks[name].state_dict(), torch.get_rng_state()
    again, other = (BUILDERS[name](policy="random", seed=seed).state_dict() for seed in (3, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


# --- shapes and normalisation ----------------------------------------------------------------------------------------


def test_vgg_returns_relu5_4_at_a_sixteenth_of_the_size(networks):
    with torch.no_grad():
        features = networks["vgg19"](noise(2, 3, 64, 96))
    assert features.shape == (2, 512, 4, 6) and features.min() >= 0


def test_alexnet_returns_the_requested_layers(networks):
    network, image = networks["alexnet"], noise(2, 3, 64, 96)
    features = network(image, ALL_LAYERS)
    assert [tuple(f.shape) for f in features.values()] == [
        (2, 64, 15, 23),
        (2, 192, 7, 11),
        (2, 384, 3, 5),
        (2, 256, 3, 5),
        (2, 256, 3, 5),
    ]
    assert all(f.min() >= 0 for f in features.values())
    two = network(image)
    assert list(two) == ["relu1", "relu4"] and all(torch.equal(two[key], features[key]) for key in two)


@pytest.mark.parametrize("height, width", ((64, 64), (64, 96), (224, 224)))
def test_vit_returns_one_token_for_each_patch_at_any_image_size(height, width, networks):
    with torch.no_grad():
        tokens = networks["vit"](noise(2, 3, height, width))
    assert tokens.shape == (2, height // 16 * (width // 16), 192)


def test_vit_tokens_are_the_last_hidden_state_after_the_norm_without_the_class_token():
    network, image = vit("random", TINY, normalise=False), noise(1, 3, 64, 64)
    with torch.no_grad():
        hidden = network.network.forward_features(image)
        assert torch.equal(network(image), hidden[:, 1:])
    torch.testing.assert_close(hidden.mean(-1), torch.zeros(1, 17), atol=1e-5, rtol=0)  # an untrained layer norm


@pytest.mark.parametrize(
    "name, expected",  # for an image of 0.7
    (
        ("vgg19", ((0.7 - 0.485) / 0.229, (0.7 - 0.456) / 0.224, (0.7 - 0.406) / 0.225)),
        ("alexnet", ((0.4 + 0.030) / 0.458, (0.4 + 0.088) / 0.448, (0.4 + 0.188) / 0.450)),  # LPIPS: of 2x - 1
        ("vit", (0.4, 0.4, 0.4)),
    ),
)
def test_normalisation_by_hand(name, expected, networks):
    result = networks[name].normalise(torch.full((1, 3, 1, 1), 0.7))
    torch.testing.assert_close(result.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("build", (alexnet, partial(vit, name=TINY)))
def test_normalisation_can_be_omitted_as_in_the_released_code(build):
    image = noise(1, 3, 64, 64)
    assert torch.equal(build(policy="random", normalise=False).normalise(image), image)


# --- weights from files ----------------------------------------------------------------------------------------------


def test_alexnet_features_are_those_of_lpips(require_cached):
    pytest.importorskip("pyiqa")
    from pyiqa.archs.lpips_arch import LPIPS

    require_cached(ALEXNET, LPIPS_HEADS)
    theirs, image = LPIPS(net="alex").eval(), noise(2, 3, 64, 80)
    with torch.no_grad():
        expected = theirs.net(theirs.scaling_layer(2 * image - 1))
        features = alexnet("pretrained")(image, ALL_LAYERS)
    for one, other in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_published_alexnet_features(golden, require_cached, no_connections):
    require_cached(ALEXNET)
    network = alexnet("auto", normalise=False)
    with torch.no_grad():
        features = network(golden["gray"].expand(-1, 3, -1, -1), ALL_LAYERS)
    for layer in ALL_LAYERS:
        expected = golden[f"alexnet_{layer}"]
        torch.testing.assert_close(features[layer][..., ::3, ::3], expected, atol=1e-5, rtol=1e-5)
    assert network.provenance.startswith("pretrained (alexnet-owt-7be5be79.pth")


def test_published_content_loss_with_a_matconvnet_file(golden, matconvnet):
    generated = golden["generated"].clone().requires_grad_()
    with torch.no_grad():
        reference = matconvnet(luminance3(golden["demosaiced"]))
    loss = ContentLoss(scale=2)(matconvnet(luminance3(generated)), reference)
    loss.backward()
    assert loss.item() == pytest.approx(1.8518696, rel=1e-3)
    assert generated.grad.norm().item() == pytest.approx(10.818974, rel=1e-3)


def test_matconvnet_weights_take_0_to_255_minus_the_mean(matconvnet):
    expected = torch.tensor([255 - 123.68, 255 - 116.779, 255 - 103.939]).view(1, 3, 1, 1)
    torch.testing.assert_close(matconvnet.normalise(torch.ones(1, 3, 1, 1)), expected, atol=1e-3, rtol=0)
    assert re.fullmatch(r"pretrained \(.*\.mat, sha256 \w{8}\)", matconvnet.provenance)


def test_vit_from_a_local_file(from_environment):
    path = from_environment("ISP_VIT", "the path of deit_tiny_patch16_224.pth")
    network, image = vit("pretrained", "deit_tiny_patch16_224", str(path)), noise(1, 3, 64, 64)
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    assert torch.equal(network.network.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"].float())
    assert network.provenance.startswith(f"pretrained ({path.name}, sha256 ")
    assert not any(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        assert not torch.allclose(network(image), vit("random", "deit_tiny_patch16_224")(image))


def test_timm_reads_no_code_in_any_version_and_may_return_nothing(monkeypatch, tmp_path):
    """timm 1.0.15 unpickles unless `weights_only` is passed; for a NumPy file it returns None."""
    import timm

    options = {}
    monkeypatch.setattr(timm.models, "load_checkpoint", lambda *_, **given: options.update(given))
    (tmp_path / "w.npz").touch()
    assert vit("pretrained", TINY, str(tmp_path / "w.npz")).provenance.startswith("pretrained (w.npz, sha256 ")
    assert options["weights_only"] is True


def test_torchvision_state_dict_is_loaded(alexnet_file, no_connections):
    network, image = alexnet("pretrained", str(alexnet_file)), noise(1, 3, 64, 64)
    state = torch.load(alexnet_file, weights_only=True)
    assert torch.equal(network.network[0].weight, state["features.0.weight"])
    assert network.provenance.startswith("pretrained (my_alexnet.pth, sha256 ")
    with torch.no_grad():
        assert not torch.allclose(network(image)["relu1"], alexnet("random")(image)["relu1"])


# --- damaged and foreign files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FROM_FILE)
@pytest.mark.parametrize("content", (b"", b"garbage" * 50))
def test_damaged_file_is_refused_by_name(name, content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match="w.pth"):
        FROM_FILE[name](policy="pretrained", file=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", FROM_FILE)
@pytest.mark.parametrize("state", ({}, {"conv1.weight": torch.ones(3)}, {"features.0.weight": torch.ones(64, 3, 3, 3)}))
def test_weights_of_another_network_are_refused_by_name(name, state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth does not hold the weights of"):
        FROM_FILE[name](policy="pretrained", file=str(tmp_path / "w.pth"))


def save_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("name", FROM_FILE)
@pytest.mark.parametrize("save", (torch.save, save_pickle))
def test_pickle_with_code_is_refused_and_not_run(name, save, tmp_path, bomb):
    save({"features.0.weight": bomb}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth"):
        FROM_FILE[name](policy="pretrained", file=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", (b"garbage" * 50, None))
def test_other_mat_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "w.mat"
    if content:
        path.write_bytes(content)
    else:
        pytest.importorskip("scipy.io").savemat(path, {"a": np.ones(3)})
    with pytest.raises(UserError, match="w.mat is not a MatConvNet VGG-19"):
        vgg19("pretrained", str(path))


@pytest.mark.parametrize(
    "name, message",
    (
        ("vit_huge_nothing", "timm has no model 'vit_huge_nothing'; similar names are: .*vit"),
        ("nothing", "timm has no model 'nothing'; similar names are: vit_base_patch16_224"),
        (f"{TINY}.nothing", f"{TINY}.nothing"),
        ("resnet18", "'resnet18' is not a plain Vision Transformer.*vit_base_patch16_224"),
        ("mixer_s16_224", "'mixer_s16_224' is not a plain Vision Transformer"),
        ("swin_tiny_patch4_window7_224", "'swin_tiny_patch4_window7_224' is not a plain Vision Transformer"),
    ),
)
def test_name_that_is_unknown_to_timm_or_not_a_vit_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        vit("random", name)
