"""A whole training step as the released code makes it, and each of its critics (golden/critics.npz)."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from discriminators import ColorDiscriminator, ColorImageDiscriminator, TextureDiscriminator
from losses.adversarial import RelativisticLoss
from losses.color import blur
from losses.content import ContentLoss, luminance3
from losses.perceptual import PerceptualLoss
from losses.total_variation import TotalVariation
from models import build_model
from pretrained import backbones, perceptual, zoo
from tasks.features import LAYERS, grey3, resize
from training.steps import Adversary, Batch, Term, Trainer, View

TEXTURES = tuple(LAYERS)  # lin0 to lin4
CHANNELS = dict(zip(TEXTURES, (64, 192, 384, 256, 256), strict=True))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz, which has critics.npz beside it")
    with np.load(Path(path).with_name("critics.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def images(golden) -> dict[str, Tensor]:
    return {name: torch.from_numpy(golden[name]) for name in ("packed", "reference", "target", "generated")}


@pytest.fixture(scope="module")
def alexnet() -> backbones.AlexNet:
    if not os.environ.get("TORCH_HOME"):
        pytest.skip("TORCH_HOME is not set: the folder that has AlexNet's weights")
    return backbones.alexnet("pretrained", normalise=False)


@pytest.fixture(scope="module")
def vit(golden) -> backbones.ViT:
    """The small ViT of the golden file, whose parameters have the names of Hugging Face's library."""
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(
        img_size=224, patch_size=16, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2, num_classes=0, global_pool=""
    )
    given = {name.removeprefix("vit/"): torch.from_numpy(golden[name]) for name in golden if name.startswith("vit/")}
    state = {
        "cls_token": given["embeddings.cls_token"],
        "pos_embed": given["embeddings.position_embeddings"],
        "norm.weight": given["layernorm.weight"],
        "norm.bias": given["layernorm.bias"],
    }
    names = {
        "attention.o_proj": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    for kind in ("weight", "bias"):
        state[f"patch_embed.proj.{kind}"] = given[f"embeddings.patch_embeddings.projection.{kind}"]
        for block in range(2):
            theirs, ours = f"layers.{block}", f"blocks.{block}"
            qkv = [given[f"{theirs}.attention.{part}_proj.{kind}"] for part in "qkv"]
            state[f"{ours}.attn.qkv.{kind}"] = torch.cat(qkv)
            state |= {f"{ours}.{own}.{kind}": given[f"{theirs}.{their}.{kind}"] for their, own in names.items()}
    network.load_state_dict(state)
    return backbones.ViT(network, (0.0,) * 3, (1.0,) * 3, "golden")


@pytest.fixture(scope="module")
def critics(golden) -> dict[str, nn.Module]:
    """The critics with weights by the golden file's recipe: one stream of random numbers for all, in its order."""
    built = {
        **{name: TextureDiscriminator(CHANNELS[name], _size(name)) for name in TEXTURES},
        "color": ColorDiscriminator(64, hidden=32),
        "color_image": ColorImageDiscriminator(3, (128, 128)),
    }
    rng = np.random.default_rng(0)
    for name in golden:
        if name.startswith("vit/"):
            _draw(rng, golden[name].shape)
    for name, critic in built.items():
        own = dict(critic.named_parameters())
        for line in golden[f"parameters/{name}"]:
            theirs, shape = str(line).split(" ", 1)
            parameter = own[_own_name(theirs)]
            assert str(tuple(parameter.shape)) == shape
            parameter.data = torch.from_numpy(_draw(rng, tuple(parameter.shape)))
    return built


def _size(name: str) -> tuple[int, int]:
    """The size of AlexNet's features of 128x128 pixels."""
    side = {"lin0": 31, "lin1": 15}.get(name, 7)
    return side, side


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    scale = 1.4 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.05
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def _own_name(theirs: str) -> str:
    """conv1.weight -> features.0.weight, layers.0.weight -> mlp.0.weight."""
    if theirs.startswith("conv"):
        return f"features.{2 * (int(theirs[4]) - 1)}.{theirs[6:]}"
    return theirs.replace("layers.", "mlp.")


def _views(alexnet: nn.Module, vit: nn.Module, textures: tuple[str, ...]) -> list[View]:
    layers = tuple(LAYERS[name] for name in textures)
    return [
        View(textures, lambda image: alexnet(grey3(image), layers).values()),
        View(("color",), lambda image: (vit(resize(blur(image), 224)),)),
    ]


def _trainer(alexnet, vit, critics, names, generator, terms=(), views=()) -> Trainer:
    adversaries = [Adversary(name, 1.0, name, critics[name]) for name in names]
    textures = tuple(name for name in names if name != "color") or ("lin0",)
    return Trainer(
        generator,
        torch.optim.SGD(generator.parameters(), 0.0),
        [*_views(alexnet, vit, textures), *views],
        terms,
        adversaries,
        critic_optimizer=torch.optim.SGD([p for name in names for p in critics[name].parameters()], 0.0),
        adversarial=RelativisticLoss(100 * 10),
        clip_norm=float("inf"),
    )


def test_the_vit_sees_what_the_released_one_sees(golden, images, vit):
    seen = resize(blur(images["target"]), 224)
    torch.testing.assert_close(seen, torch.from_numpy(golden["vit_input/target"]), atol=1e-6, rtol=1e-5)
    tokens = torch.from_numpy(golden["vit_tokens/target"])
    torch.testing.assert_close(vit(seen), tokens, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", (*TEXTURES, "color"))
def test_each_critic_s_losses_and_gradients(golden, images, alexnet, vit, critics, name):
    trainer = _trainer(alexnet, vit, critics, (name,), build_model("efficient"))
    with torch.no_grad():
        real = trainer.features(images["target"], {name})
    losses, gradients, fake = trainer.image_gradients(images["generated"].clone().requires_grad_(), real, {})
    assert float(losses[f"loss/{name}"]) == pytest.approx(float(golden[f"loss/generator/{name}"]), rel=1e-4)
    expected = torch.from_numpy(golden[f"grad/{name}"])
    assert (gradients[name] - expected).norm() < 1e-4 * expected.norm()
    loss, _ = trainer.adversarial.discriminator(critics[name], fake[name], real[name])
    assert float(loss.detach()) == pytest.approx(float(golden[f"loss/critic/{name}"]), rel=1e-4)


def test_the_critic_of_blurred_images(golden, images, critics):
    for name in ("target", "generated"):
        expected = torch.from_numpy(golden[f"logits/color_image/blurred_{name}"])[:, 0]
        torch.testing.assert_close(critics["color_image"](blur(images[name])), expected, rtol=1e-4, atol=1e-4)


def test_lpips_plus_with_its_arguments_swapped(golden, images):
    if not os.environ.get("TORCH_HOME"):
        pytest.skip("TORCH_HOME is not set: the folder that has LPIPS's weights")
    loss = PerceptualLoss(perceptual.lpips_plus(), swapped=True)(images["generated"], images["target"])
    assert float(loss) == pytest.approx(float(golden["lpips_plus_as_released"]), rel=1e-4)


def test_a_whole_step_equals_the_released_code_s(golden, images, alexnet, vit, critics):
    """Content, total variation, lin0, lin3 and colour, balanced, at the parameters of a released generator."""
    released, vgg_file = os.environ.get("ISP_RELEASED"), os.environ.get("ISP_VGG")
    if not (released and vgg_file):
        pytest.skip("ISP_RELEASED or ISP_VGG is not set: the released models, VGG-19 as a .mat file")
    generator = build_model("efficient")
    (file,) = Path(released).rglob("*Efficient_ISP_unpaired_step_27220.pth")
    generator.load_state_dict(zoo.open_generator(str(file))[1])
    vgg = backbones.vgg19("pretrained", vgg_file)
    terms = (
        Term("content", 1.0, "content", "reference", ContentLoss(2.0)),
        Term("tv", 1.0, "image", None, TotalVariation()),
    )
    content = View(("content",), lambda image: (vgg(luminance3(image)),))
    trainer = _trainer(alexnet, vit, critics, ("lin0", "lin3", "color"), generator, terms, (content,))
    torch.testing.assert_close(generator(images["packed"]), images["generated"], atol=1e-5, rtol=1e-4)
    trainer.step(Batch(images["packed"], images["reference"], images["target"]), 1)
    gradient = torch.cat([p.grad.flatten() for p in generator.parameters()])
    expected = torch.from_numpy(golden["step/gradient"])
    assert (gradient - expected).norm() < 1e-4 * expected.norm()
