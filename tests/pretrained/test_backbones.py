"""The frozen networks: seeded or loaded, never learning, with the input that each was made for."""

import os
import pickle
import socket
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from errors import UserError
from losses.content import ContentLoss, luminance3
from pretrained import backbones
from pretrained.backbones import alexnet, dists, lpips, lpips_plus, vgg19, vit

TINY = "vit_tiny_patch16_224"
BUILDERS = {
    "vgg19": vgg19,
    "alexnet": alexnet,
    "vit": lambda policy, **options: vit(policy, TINY, **options),
    "lpips": lpips,
    "lpips_plus": lpips_plus,
    "dists": dists,
}


def from_environment(name: str, what: str) -> Path:
    if not os.environ.get(name):
        pytest.skip(f"{name} is not set: {what}")
    return Path(os.environ[name])


def cached(*names: str) -> None:
    """Skip unless torch's own cache has these files."""
    hub = Path(torch.hub.get_dir())
    missing = [name for name in names if not (hub / name).is_file()]
    if missing:
        pytest.skip(f"not in the cache of TORCH_HOME: {', '.join(missing)}")


ALEXNET = "checkpoints/alexnet-owt-7be5be79.pth"
LPIPS_HEADS = "pyiqa/LPIPS_v0.1_alex-df73285e.pth"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    path = from_environment("ISP_GOLDEN", "the path of golden.npz")
    with np.load(path) as file:
        keys = ["gray", "generated", "demosaiced", *(f"alexnet_relu{i}" for i in range(1, 6))]
        return {key: torch.from_numpy(file[key]) for key in keys}


@pytest.fixture
def bare(monkeypatch, tmp_path) -> Path:
    """A machine without any cached weights; its TORCH_HOME."""
    import huggingface_hub

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))  # HF_HOME was read at import
    return tmp_path / "torch"


@pytest.fixture
def no_socket(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module", autouse=True)
def uninitialised_classifiers():
    """torchvision fills up to 120 million weights of classifiers that nobody here uses: a second for each VGG."""

    def quick(build, options: dict, **given) -> torch.nn.Module:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)
            return build(**options, **given)

    with pytest.MonkeyPatch.context() as patch:
        for name, options in (("alexnet", {}), ("vgg16", {"init_weights": False}), ("vgg19", {"init_weights": False})):
            patch.setattr(torchvision.models, name, partial(quick, getattr(torchvision.models, name), options))
        yield


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    """Each network with the random weights of seed 3, built once."""
    return {name: build("random", seed=3) for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def matconvnet() -> backbones.VGG19:
    return vgg19("pretrained", str(from_environment("ISP_VGG", "imagenet-vgg-verydeep-19.mat")))


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def call(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    if isinstance(network, backbones.Measure):
        return network(image, 1 - image.detach())
    features = network(image)
    return features["relu4"] if isinstance(features, dict) else features


# --- random weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_a_random_network_is_frozen_and_says_that_it_is_random(name, networks):
    network = networks[name]
    assert network.provenance == "random (seed 3)"
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_the_image_gets_a_gradient_and_the_parameters_none(name, networks):
    network, image = networks[name], noise(1, 3, 64, 64).requires_grad_()
    call(network, image).sum().backward()
    assert image.grad.isfinite().all() and image.grad.any()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("name", ("alexnet", "vit", "lpips", "lpips_plus"))
def test_random_weights_are_the_seed_s_and_leave_the_global_state_alone(name, networks):
    one, before = networks[name].state_dict(), torch.get_rng_state()
    again, other = (BUILDERS[name]("random", seed=seed).state_dict() for seed in (3, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_random_measures_are_zero_for_equals_and_not_negative(networks):
    image, other = noise(2, 3, 64, 64), noise(2, 3, 64, 64, seed=1)
    for measure in (networks["lpips"], networks["lpips_plus"], networks["dists"]):
        with torch.no_grad():
            assert measure(image, other).shape == (2,) and (measure(image, other) > 0).all()
            assert measure(image, image).abs().max() < 1e-5


# --- shapes and normalisation ----------------------------------------------------------------------------------------


def test_vgg_gives_relu5_4_at_a_sixteenth(networks):
    with torch.no_grad():
        features = networks["vgg19"](noise(2, 3, 64, 96))
    assert features.shape == (2, 512, 4, 6) and features.min() >= 0


def test_alexnet_gives_the_layers_that_were_asked_for(networks):
    network, image = networks["alexnet"], noise(2, 3, 64, 96)
    features = network(image, ("relu1", "relu2", "relu3", "relu4", "relu5"))
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
def test_vit_gives_the_patches_tokens_at_the_image_s_own_size(height, width, networks):
    network = networks["vit"]
    with torch.no_grad():
        tokens = network(noise(2, 3, height, width))
    assert tokens.shape == (2, height // 16 * (width // 16), 192) and network.width == 192


def test_vit_tokens_are_the_last_hidden_state_after_the_norm_without_the_class_token():
    network, image = vit("random", TINY, normalise=False), noise(1, 3, 64, 64)
    with torch.no_grad():
        hidden = network.network.forward_features(image)
        assert torch.equal(network(image), hidden[:, 1:])
    torch.testing.assert_close(hidden.mean(-1), torch.zeros(1, 17), atol=1e-5, rtol=0)  # a fresh layer norm's


@pytest.mark.parametrize(
    "name, expected",  # of 0.7 in each channel
    (
        ("vgg19", ((0.7 - 0.485) / 0.229, (0.7 - 0.456) / 0.224, (0.7 - 0.406) / 0.225)),
        ("alexnet", ((0.4 + 0.030) / 0.458, (0.4 + 0.088) / 0.448, (0.4 + 0.188) / 0.450)),  # LPIPS's, on 2 x - 1
        ("vit", (0.4, 0.4, 0.4)),
    ),
)
def test_images_are_normalised_as_the_weights_want(name, expected, networks):
    result = networks[name].normalise(torch.full((1, 3, 1, 1), 0.7))
    torch.testing.assert_close(result.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("build", (alexnet, partial(vit, name=TINY)))
def test_normalisation_can_be_left_out_as_released(build):
    image = noise(1, 3, 64, 64)
    assert torch.equal(build(policy="random", normalise=False).normalise(image), image)


# --- weights from files ----------------------------------------------------------------------------------------------


def test_alexnet_with_normalisation_sees_what_lpips_sees():
    pytest.importorskip("pyiqa")
    from pyiqa.archs.lpips_arch import LPIPS

    cached(ALEXNET, LPIPS_HEADS)
    theirs, image = LPIPS(net="alex").eval(), noise(2, 3, 64, 80)
    with torch.no_grad():
        expected = theirs.net(theirs.scaling_layer(2 * image - 1))
        features = alexnet("pretrained")(image, ("relu1", "relu2", "relu3", "relu4", "relu5"))
    for one, other in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_published_alexnet_features(golden, no_socket):
    cached(ALEXNET)
    network = alexnet("auto", normalise=False)
    layers = tuple(f"relu{i}" for i in range(1, 6))
    with torch.no_grad():
        features = network(golden["gray"].expand(-1, 3, -1, -1), layers)
    for layer in layers:
        expected = golden[f"alexnet_{layer}"]
        torch.testing.assert_close(features[layer][..., ::3, ::3], expected, atol=1e-5, rtol=1e-5)
    assert network.provenance == "pretrained (alexnet-owt-7be5be79.pth)"


def test_published_content_loss_through_a_matconvnet_file(golden, matconvnet):
    network = matconvnet
    generated = golden["generated"].clone().requires_grad_()
    with torch.no_grad():
        reference = network(luminance3(golden["demosaiced"]))
    loss = ContentLoss(scale=2)(network(luminance3(generated)), reference)
    loss.backward()
    assert loss.item() == pytest.approx(1.8518696, rel=1e-3)
    assert generated.grad.norm().item() == pytest.approx(10.818974, rel=1e-3)


def test_a_matconvnet_file_wants_0_to_255_less_the_mean(matconvnet):
    expected = torch.tensor([255 - 123.68, 255 - 116.779, 255 - 103.939]).view(1, 3, 1, 1)
    torch.testing.assert_close(matconvnet.normalise(torch.ones(1, 3, 1, 1)), expected, atol=1e-3, rtol=0)
    assert matconvnet.provenance.startswith("pretrained (") and matconvnet.provenance.endswith(".mat)")


def test_vit_from_a_local_file():
    path = from_environment("ISP_VIT", "deit_tiny_patch16_224.pth")
    network, image = vit("pretrained", "deit_tiny_patch16_224", str(path)), noise(1, 3, 64, 64)
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    assert torch.equal(network.network.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"].float())
    assert network.provenance == f"pretrained ({path.name})" and not any(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        assert not torch.allclose(network(image), vit("random", "deit_tiny_patch16_224")(image))


@pytest.fixture
def torchvision_alexnet(tmp_path) -> Path:
    """torchvision's own file format, with weights of another seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        features = torchvision.models.alexnet(weights=None).features
    path = tmp_path / "my_alexnet.pth"
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(state | {"classifier.6.bias": torch.zeros(1000)}, path)
    return path


def test_a_torchvision_state_dict_is_loaded(torchvision_alexnet, no_socket):
    network, image = alexnet("pretrained", str(torchvision_alexnet)), noise(1, 3, 64, 64)
    state = torch.load(torchvision_alexnet, weights_only=True)
    assert torch.equal(network.network[0].weight, state["features.0.weight"])
    assert network.provenance == "pretrained (my_alexnet.pth)"
    with torch.no_grad():
        assert not torch.allclose(network(image)["relu1"], alexnet("random")(image)["relu1"])


def test_auto_takes_a_file_that_is_named(torchvision_alexnet, bare, no_socket):
    assert alexnet("auto", str(torchvision_alexnet)).provenance == "pretrained (my_alexnet.pth)"


def test_random_takes_no_file(torchvision_alexnet):
    assert alexnet("random", str(torchvision_alexnet)).provenance == "random (seed 0)"


@pytest.mark.parametrize("build, name", ((lpips, "lpips"), (lpips_plus, "lpips+")))
def test_lpips_and_lpips_plus_are_pyiqa_s(build, name, no_socket):
    pyiqa = pytest.importorskip("pyiqa")
    cached(ALEXNET, LPIPS_HEADS)
    ours, theirs = build("pretrained"), pyiqa.create_metric(name, device="cpu")
    image, reference = noise(2, 3, 64, 80), noise(2, 3, 64, 80, seed=1)
    with torch.no_grad():
        expected = theirs(image, reference).flatten()
        torch.testing.assert_close(ours(image, reference), expected, atol=1e-6, rtol=0)
    assert ours.provenance.startswith("pretrained (alexnet-owt-7be5be79.pth)") and "LPIPS_v0.1" in ours.provenance


# --- what is not there, or broken ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_auto_without_weights_is_random_says_so_and_opens_no_connection(name, bare, no_socket):
    assert BUILDERS[name]("auto", seed=2).provenance == "random (seed 2)"


def test_auto_without_lpips_s_heads_is_random_as_a_whole(bare, torchvision_alexnet, no_socket):
    (bare / "hub/checkpoints").mkdir(parents=True)
    torchvision_alexnet.rename(bare / "hub" / ALEXNET)
    measure = lpips_plus("auto")
    assert measure.provenance == "random (seed 0)"
    random = lpips_plus("random").state_dict()
    assert all(torch.equal(value, random[key]) for key, value in measure.state_dict().items())


@pytest.mark.parametrize(
    "name, file",
    (
        ("vgg19", "vgg19-dcbb9e9d.pth"),
        ("alexnet", "alexnet-owt-7be5be79.pth"),
        ("vit", "model.safetensors"),
        ("lpips", "alexnet-owt-7be5be79.pth"),
        ("lpips_plus", "alexnet-owt-7be5be79.pth"),
        ("dists", "vgg16-397923af.pth"),
    ),
)
def test_pretrained_without_a_network_names_the_file_and_its_place(name, file, bare, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", refuse)
    began = time.monotonic()
    with pytest.raises(UserError, match=f"no network: .*{file}") as caught:
        BUILDERS[name]("pretrained")
    assert time.monotonic() - began < 15
    assert ("--backbones.vit-file" if name == "vit" else str(bare)) in str(caught.value)


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


FROM_FILE = {  # VGG-19 goes the way of AlexNet, but takes a second to build
    "alexnet": partial(alexnet, "pretrained"),
    "vit": partial(vit, "pretrained", TINY),
}


@pytest.mark.parametrize("name", FROM_FILE)
@pytest.mark.parametrize("content", (b"", b"garbage" * 50))
def test_garbage_is_refused_by_name(name, content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match="w.pth"):
        FROM_FILE[name](str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", FROM_FILE)
@pytest.mark.parametrize("state", ({}, {"conv1.weight": torch.ones(3)}, {"features.0.weight": torch.ones(64, 3, 3, 3)}))
def test_the_weights_of_another_network_are_refused_by_name(name, state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth does not hold"):
        FROM_FILE[name](str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", FROM_FILE)
@pytest.mark.parametrize("write", (torch.save, lambda o, path: path.write_bytes(pickle.dumps(o, protocol=2))))
def test_a_pickle_with_code_is_refused_and_not_run(name, write, tmp_path):
    write({"features.0.weight": Bomb(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth"):
        FROM_FILE[name](str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", FROM_FILE)
def test_a_file_that_is_not_there_is_named(name):
    for policy in ("pretrained", "auto"):
        with pytest.raises(UserError, match="no file nowhere/w.pth"):
            BUILDERS[name](policy, file="nowhere/w.pth")


@pytest.mark.parametrize("content", (b"garbage" * 50, None))
def test_another_mat_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "w.mat"
    if content:
        path.write_bytes(content)
    else:
        pytest.importorskip("scipy.io").savemat(path, {"a": np.ones(3)})
    with pytest.raises(UserError, match="w.mat is no MatConvNet VGG-19"):
        vgg19("pretrained", str(path))


@pytest.mark.parametrize("heads", ({}, {"something": torch.ones(1)}, {"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}))
def test_heads_of_another_measure_do_not_pass_for_lpips_s(heads, bare, torchvision_alexnet):
    for folder in ("checkpoints", "pyiqa"):
        (bare / "hub" / folder).mkdir(parents=True)
    torchvision_alexnet.rename(bare / "hub" / ALEXNET)
    torch.save(heads, bare / "hub" / LPIPS_HEADS)
    with pytest.raises(UserError, match="LPIPS_v0.1_alex-df73285e.pth does not hold"):
        lpips_plus("pretrained")


def test_heads_of_another_measure_do_not_pass_for_dists_s(bare):
    for folder in ("checkpoints", "pyiqa"):
        (bare / "hub" / folder).mkdir(parents=True)
    state = torchvision.models.vgg16(weights=None).features.state_dict()
    torch.save({f"features.{key}": value for key, value in state.items()}, bare / "hub/checkpoints/vgg16-397923af.pth")
    torch.save({"alpha": torch.ones(1, 1475, 1, 1)}, bare / "hub/pyiqa/DISTS_weights-f5e65c96.pth")  # and no beta
    with pytest.raises(UserError, match="DISTS_weights-f5e65c96.pth does not hold"):
        dists("pretrained")


@pytest.mark.parametrize("name", ("alexnet", "vit", "lpips", "lpips_plus"))
def test_an_unknown_policy_lists_the_known(name):
    with pytest.raises(UserError, match="'trained'.*pretrained, random, auto"):
        BUILDERS[name]("trained")


@pytest.mark.parametrize(
    "name, says",
    (
        ("vit_huge_nothing", "timm knows no model 'vit_huge_nothing'; near it are: .*vit"),
        ("nothing", "timm knows no model 'nothing'; near it are: vit_base_patch16_224"),
        (f"{TINY}.nothing", f"{TINY}.nothing"),
        ("resnet18", "'resnet18' is no plain vision transformer.*vit_base_patch16_224"),
        ("mixer_s16_224", "'mixer_s16_224' is no plain vision transformer"),
        ("swin_tiny_patch4_window7_224", "'swin_tiny_patch4_window7_224' is no plain vision transformer"),
    ),
)
def test_a_name_that_timm_does_not_know_or_that_is_no_vit(name, says):
    with pytest.raises(UserError, match=says):
        vit("random", name)
