"""The generators: published sizes, outputs of the released weights, gradients, and the rows of `MODELS`."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from errors import UserError
from models import MODELS, build_model, model_spec
from models.efficient import CONTEXT

RELEASED = {
    "efficient": ("Efficient_ISP_unpaired_step_27220", "packed"),
    "robust": ("Robust_unpaired_step_66090", "packed"),
    "rmfa-tiny": ("RMFA_TINY_unpaired_step_48270", "three_channel_split"),
}
SMALL = (*RELEASED, "efficient-context", "lan", "srcnn", "csanet")
FORMATS = {  # of the paper's networks, and of some by others; the tests of the latter compare with published inputs
    "efficient": "packed",
    "efficient-context": "packed_context",
    "robust": "packed",
    "lan": "dn",
    "microisp": "packed_1020",
    "srcnn": "packed",
    "csanet": "rggb_4095",
} | {name: "split" for name in MODELS if name.startswith("rmfa")}
RANGES = {"rmfa-tiny": (0, 1), "lan": (-0.08, 1.08), "srcnn": (-0.08, 1.08), "csanet": (0, 1)}


def seeded(name: str, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(name)


def random_input(name: str, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """An input of the model `name` for a mosaic of height x width."""
    generator, kind = torch.Generator().manual_seed(seed), MODELS[name].input_format
    if kind in ("split", "dn"):
        return torch.rand((1, 3 if kind == "split" else 1, height, width), generator=generator)
    packed = torch.rand((1, 4, height // 2, width // 2), generator=generator)
    planes = torch.rand((1, CONTEXT, 1, 1), generator=generator).expand(-1, -1, height // 2, width // 2)
    return torch.cat((packed, planes), dim=1) if kind == "packed_context" else packed


def released_state(name: str) -> dict[str, torch.Tensor]:
    folder = os.environ.get("ISP_RELEASED")
    if not folder:
        pytest.skip("ISP_RELEASED is not set: a folder with the released .pth files")
    path = Path(folder) / f"{RELEASED[name][0]}.pth"
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize(
    "name, count", (("efficient", 3060), ("robust", 1616), ("rmfa-tiny", 29223), ("rmfa-medium", 107_283))
)
def test_published_parameter_counts(name, count):
    assert sum(p.numel() for p in build_model(name).parameters()) == count


@pytest.mark.parametrize(
    "name, blocks, width",
    (("rmfa-medium", 8, 16), ("rmfa-large", 20, 16), ("rmfa-large-32", 20, 32), ("rmfa-large-64", 20, 64)),
)
def test_larger_rmfa_nets_have_more_blocks_and_channels(name, blocks, width):
    with torch.device("meta"):
        model = build_model(name)
    assert len(model.rmfa_blocks) == blocks and model.input_module[0].out_channels == width


@pytest.mark.parametrize("name", FORMATS)
def test_input_format_and_camera_of_the_released_weights(name):
    spec = model_spec(name)
    camera = "fujifilm-rmfa" if name.startswith("rmfa") else "fujifilm"
    assert (spec.input_format, spec.released_for) == (FORMATS[name], camera)


@pytest.mark.parametrize("name", SMALL)
def test_reach_covers_all_pixels_that_an_output_pixel_depends_on(name):
    model, reach = seeded(name).double(), MODELS[name].reach
    inputs = random_input(name, 32, 32).double().requires_grad_()
    model(inputs)[0, :, 16:18, 16:18].sum().backward()
    rows = inputs.grad.abs().amax((0, 1, 3)).nonzero().flatten() * (32 // inputs.shape[-2])  # of the mosaic
    if reach is None:
        assert len(rows) == inputs.shape[-2]
    else:
        assert rows.min() >= 16 - reach and rows.max() + 1 <= 17 + reach


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", ((4, 4), (32, 48), (36, 52), (38, 46), (34, 66)))
def test_output_has_the_size_of_the_mosaic(name, size):
    model = seeded(name)
    with torch.no_grad():
        assert model(random_input(name, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("name", SMALL)
def test_output_range(name):
    model = seeded(name)
    with torch.no_grad():
        output = model(4 * random_input(name, 16, 16) - 1)
    lowest, highest = RANGES.get(name, (0, float("inf")))
    assert output.min() >= lowest and output.max() <= highest


@pytest.mark.parametrize("name", SMALL)
def test_images_of_a_batch_do_not_mix(name):
    model = seeded(name)
    one, two = random_input(name, 16, 24), random_input(name, 16, 24, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.cat((one, two))), torch.cat((model(one), model(two))))


@pytest.mark.parametrize("name", ("efficient", "robust"))
def test_channels_are_in_the_order_of_a_pixel_shuffle(name):
    model = seeded(name)
    torch.nn.init.zeros_(model.conv3.weight)
    model.conv3.bias.data = torch.arange(12.0)
    output = model(torch.zeros(1, 4, 1, 1))
    assert torch.equal(output[0], torch.arange(12.0).view(3, 2, 2))


@pytest.mark.parametrize("name", RELEASED)
def test_gradients_reach_every_parameter(name):
    reached = {}
    for seed in range(5):  # with a single seed, a ReLU may be 0 everywhere
        model = seeded(name, seed)
        model(random_input(name, 16, 16)).square().mean().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all()
            reached[key] = reached.get(key, False) or bool(parameter.grad.any())
    assert all(reached.values()), [key for key, any_gradient in reached.items() if not any_gradient]


@pytest.mark.parametrize("name", ("efficient", "robust"))
def test_no_output_channel_is_0_everywhere_at_first(name):
    for seed in range(20):
        model = seeded(name, seed)
        output = torch.nn.functional.pixel_unshuffle(model(random_input(name, 64, 64, seed)), 2)
        assert (output.amax(dim=(0, 2, 3)) > 0).all(), f"seed {seed}"


@pytest.mark.parametrize("name", SMALL)
def test_initial_weights_depend_on_the_seed(name):
    one, again, other = (next(seeded(name, seed).parameters()) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("name", RELEASED)
def test_keys_and_shapes_equal_those_of_the_released_files(name):
    expected = {key: value.shape for key, value in released_state(name).items()}
    assert {key: value.shape for key, value in build_model(name).state_dict().items()} == expected


@pytest.mark.parametrize("name", RELEASED)
def test_published_output_of_the_released_weights(name):
    path = os.environ.get("ISP_GOLDEN")
    if not path:
        pytest.skip("ISP_GOLDEN is not set: the path of golden.npz")
    file, source = RELEASED[name]
    model = build_model(name)
    model.load_state_dict(released_state(name))
    with np.load(path) as golden, torch.no_grad():
        output = model(torch.from_numpy(golden[source]))
        expected = torch.from_numpy(golden[f"output:Fujifilm/{file}"])
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("function", (build_model, model_spec))
def test_unknown_model_lists_the_known_ones(function):
    with pytest.raises(UserError, match="'rmfa'.*" + ", ".join(MODELS)):
        function("rmfa")


def plain(model: torch.nn.Module, packed: torch.Tensor) -> torch.Tensor:
    """Efficient and Robust ISP as the papers describe them, without the optimised pixel shuffle."""
    x = model.conv2(model.conv1(packed).tanh()).relu()
    return torch.nn.functional.pixel_shuffle(model.conv3(x).relu(), 2)


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize("name", ("efficient", "robust"))
def test_optimised_network_equals_the_plain_one(name, layout):
    """In outputs and gradients, in double precision."""
    model = seeded(name).double().to(memory_format=layout)
    packed = torch.rand(2, 4, 9, 14, dtype=torch.float64).contiguous(memory_format=layout)
    fast, slow = model(packed), plain(model, packed)
    torch.testing.assert_close(fast, slow, rtol=1e-13, atol=1e-14)
    at_image = torch.rand_like(slow)
    gradients = [torch.autograd.grad(image, list(model.parameters()), at_image) for image in (fast, slow)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


def test_autocast_output_is_close_to_float32():
    model = seeded("efficient").eval()
    packed = random_input("efficient", 32, 32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = model(packed)
    assert 0 < (output.float() - model(packed)).abs().max() < 0.02


# --- context ---------------------------------------------------------------------------------------------------------


def test_the_context_model_starts_as_efficient_isp():
    inputs, model, plain = random_input("efficient-context", 16, 24), seeded("efficient-context"), seeded("efficient")
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), plain(inputs[:, :4]))


def test_the_context_changes_colours_everywhere_alike():
    """With weights that only the gain of red depends on, a larger number is a larger red of the packed mosaic."""
    model, inputs = seeded("efficient-context"), random_input("efficient-context", 16, 24)
    torch.nn.init.constant_(model.context[0].weight, 0.1)
    model.context[-1].weight.data[2] = 0.5  # of B, Gr, R, Gb
    gain = model.context(inputs[:, 4:, 0, 0])[0, 2].exp().item()
    assert gain != pytest.approx(1.0, abs=0.1)
    brighter = inputs.clone()
    brighter[:, 2] *= gain
    with torch.no_grad():
        plain = seeded("efficient-context")
        torch.testing.assert_close(model(inputs), plain(brighter))


def test_the_context_model_is_small():
    assert sum(p.numel() for p in build_model("efficient-context").parameters()) == 3060 + 16 * (15 + 1) + 28 * (16 + 1)


def test_gradients_reach_the_network_of_the_context_once_its_last_layer_is_not_zero():
    model = seeded("efficient-context")
    torch.nn.init.normal_(model.context[-1].weight)
    model(random_input("efficient-context", 16, 16)).square().mean().backward()
    assert all(parameter.grad.any() for parameter in model.context.parameters())
