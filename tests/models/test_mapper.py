"""The mapper of raw-to-raw mapping: its size, start, sharing, padding, downsampling, heads, and large images."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from errors import UserError
from models import mapper as module
from models.mapper import Mapper
from models.transforms import apply

KINDS = [(head, encoder) for head in ("patch", "pooled") for encoder in ("conformer", "plain")]


def build(started: bool = False, **options) -> Mapper:
    """A mapper in evaluation mode; `started`: no longer the identity, and with running statistics of two cameras."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mapper = Mapper(**options)
        if started:
            for head in mapper.heads.values():
                nn.init.normal_(head[-1].weight, std=0.05)
            with torch.no_grad():
                for _ in range(3):
                    planes = torch.rand(2, mapper.channels, 32, 48)
                    mapper(planes, "a"), mapper(planes.square(), "b")
    return mapper.eval()


@pytest.fixture(scope="module")
def started() -> Mapper:
    return build(started=True)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def count(parameters) -> int:
    return sum(parameter.numel() for parameter in parameters)


# --- size ------------------------------------------------------------------------------------------------------------


def test_number_of_parameters():
    """From the released code's generators: 5,668,840 parameters for one direction and 96,536 more for the other.

    Ours lack what feeds nothing in the last stage: FCUUp (16,448 and 128 of normalisation), the second residual block
    (135,168 and 1,280), and what widens the first one's bottleneck (16,384 and 512). The released code's second
    direction has its own head (80,184), batch normalisation (7,136) and layer normalisation (9,216), which we share.
    """
    unused, unused_norms = 16_448 + 135_168 + 16_384, 128 + 1_280 + 512
    norms = 7_136 - unused_norms
    with torch.device("meta"):
        mapper, three, plain = build(), build(channels=3), build(encoder="plain")
    parameters = dict(mapper.named_parameters())
    assert count(parameters.values()) == 5_668_840 - unused - unused_norms + 80_184 + norms == 5_584_320
    assert count(p for name, p in parameters.items() if name.startswith("heads.b.")) == 80_184
    assert count(p for name, p in parameters.items() if ".norm.b." in name) == norms == 5_216
    assert count(three.encoder.parameters()) == count(mapper.encoder.parameters()) - 7 * 7 * 64
    assert count(plain.encoder.parameters()) < count(mapper.encoder.parameters()) / 3


@pytest.mark.parametrize("head, encoder", KINDS)
@pytest.mark.parametrize("channels", (3, 4))
def test_each_parameter_gets_a_gradient(channels, head, encoder):
    mapper = build(started=True, channels=channels, head=head, encoder=encoder)
    for to in ("a", "b"):
        mapper(random(2, channels, 32, 48), to).square().mean().backward()
    without = [name for name, p in mapper.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without and all(p.grad.isfinite().all() for p in mapper.parameters())


# --- start and sizes of images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("head, encoder", KINDS)
@pytest.mark.parametrize("channels", (3, 4))
def test_it_starts_as_the_identity_exactly(channels, head, encoder):
    mapper, planes = build(channels=channels, head=head, encoder=encoder), 2 * random(2, channels, 37, 50) - 0.5
    for mode in (True, False):
        mapper.train(mode)
        assert all(torch.equal(mapper(planes, to), planes) for to in ("a", "b"))


@pytest.mark.parametrize("downsample", range(1, 17))
def test_any_size_and_any_downsampling(started, downsample):
    """Sides that are no multiple of a patch, and less than one."""
    for height, width in ((8 * downsample, 16 * downsample), (17 * downsample + 1, 20 * downsample - 1)):
        planes = random(1, 4, height, width)
        with torch.no_grad():
            grid, mapped = started.parameters_of(planes, "b", downsample), started(planes, "b", downsample)
        patch = 16 * downsample
        assert grid.shape == (1, 56, -(-height // patch), -(-width // patch))
        assert mapped.shape == planes.shape and mapped.isfinite().all() and not torch.equal(mapped, planes)


def test_planes_are_continued_by_their_last_row_and_column(started):
    planes = random(1, 4, 40, 57)
    padded = torch.cat((planes, planes[:, :, -1:].expand(-1, -1, 8, -1)), dim=2)
    padded = torch.cat((padded, padded[..., -1:].expand(-1, -1, -1, 7)), dim=3)
    with torch.no_grad():
        assert torch.equal(started.parameters_of(planes, "a"), started.parameters_of(padded, "a"))
        assert torch.equal(started(planes, "a"), started(padded, "a")[..., :40, :57])


@pytest.mark.parametrize("downsample", (2, 3, 4))
def test_the_encoder_sees_downsampled_planes_and_the_polynomial_all_pixels(started, downsample):
    planes = random(1, 4, 32 * downsample, 48 * downsample)
    small = F.interpolate(planes, scale_factor=1 / downsample, mode="bilinear")
    with torch.no_grad():
        grid = started.parameters_of(small, "b")
        torch.testing.assert_close(started.parameters_of(planes, "b", downsample), grid)
        torch.testing.assert_close(started(planes, "b", downsample), apply(planes, grid, 16 * downsample))


@pytest.mark.parametrize("size, downsample, least", (((7, 64), 1, 8), ((64, 31), 4, 32), ((127, 127), 16, 128)))
def test_images_without_the_centre_of_a_patch_are_refused(started, size, downsample, least):
    message = rf"planes of {size[0]}x{size[1]} pixels when it downsamples them by {downsample}: .* at least {least}\."
    with pytest.raises(UserError, match=message):
        started(random(1, 4, *size), "a", downsample)


def test_a_single_patch_can_be_mapped_but_not_trained_on():
    mapper, planes = build().train(), random(1, 4, 16, 16)
    with pytest.raises(UserError, match="16x16 pixels is a single patch, which batch normalisation cannot train on"):
        mapper(planes, "a")
    assert mapper(random(2, 4, 16, 16), "a").shape == (2, 4, 16, 16)
    assert mapper.eval()(planes, "a").shape == planes.shape


# --- directions ------------------------------------------------------------------------------------------------------


def test_a_direction_uses_its_own_head_and_batch_normalisation(started):
    planes, mapper = random(2, 4, 32, 32), copy.deepcopy(started).train()
    before = {name: buffer.clone() for name, buffer in mapper.named_buffers() if ".norm." in name}
    mapper(planes, "a").square().mean().backward()
    other = [n for n, _ in mapper.named_parameters() if n.startswith("heads.b.") or ".norm.b." in n]
    assert [name for name, p in mapper.named_parameters() if p.grad is None] == other
    changed = [
        name for name, buffer in mapper.named_buffers() if name in before and not torch.equal(buffer, before[name])
    ]
    assert changed and all(".norm.a." in name for name in changed) and len(changed) * 2 == len(before)


def test_directions_share_everything_else(started):
    """With equal heads and equal batch normalisation both directions compute the same."""
    mapper, planes = copy.deepcopy(started), random(1, 4, 32, 32)
    assert not torch.equal(mapper(planes, "a"), mapper(planes, "b"))
    state = mapper.state_dict()
    for name in [name for name in state if name.startswith("heads.a.") or ".norm.a." in name]:
        state[name.replace(".a.", ".b.")] = state[name]
    mapper.load_state_dict(state)
    assert torch.equal(mapper(planes, "a"), mapper(planes, "b"))


def test_each_shared_tensor_is_held_once(started):
    """In the parameters, in the state and in a copy, so that an optimizer steps it once and a file stores it once."""
    for mapper in (started, copy.deepcopy(started)):
        tensors = list(mapper.state_dict().values())
        assert len({id(p) for p in mapper.parameters()}) == len(list(mapper.parameters()))
        assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)
    restored, planes = build(), random(1, 4, 32, 40)
    restored.load_state_dict(started.state_dict())
    assert all(torch.equal(restored(planes, to), started(planes, to)) for to in ("a", "b"))


@pytest.mark.parametrize("head, encoder", KINDS)
def test_images_of_a_batch_do_not_mix_in_evaluation(head, encoder):
    mapper, planes = build(started=True, head=head, encoder=encoder), random(3, 4, 32, 48)
    alone = torch.cat([mapper(image[None], "a") for image in planes])
    torch.testing.assert_close(mapper(planes, "a"), alone, rtol=1e-4, atol=1e-5)


# --- heads and encoders ----------------------------------------------------------------------------------------------


def test_pooled_head_gives_an_image_one_transform_and_patch_head_many():
    """Two pixels of the same colour, far from each other: mapped alike by the one, differently by the other."""
    planes = random(1, 4, 64, 80)
    planes[..., 60, 70] = planes[..., 3, 5]
    for head, alike in (("pooled", True), ("patch", False)):
        mapped = build(started=True, head=head)(planes, "a")
        assert torch.equal(mapped[..., 60, 70], mapped[..., 3, 5]) is alike


@pytest.mark.parametrize("encoder, is_global", (("conformer", True), ("plain", False)))
def test_only_conformer_sees_the_whole_image(encoder, is_global):
    mapper, planes = build(started=True, encoder=encoder), random(1, 4, 64, 144)
    other = planes.clone()
    other[..., -16:] = random(1, 4, 64, 16, seed=1)
    with torch.no_grad():
        one, two = (mapper.parameters_of(x, "a")[..., 0] for x in (planes, other))
    assert torch.equal(one, two) is not is_global


def test_a_transform_depends_on_what_is_there_and_not_on_the_place(started):
    """No embedding of positions: in a uniform image, patches that do not see its border have the same transform."""
    planes = torch.tensor([0.2, 0.4, 0.5, 0.3]).view(1, 4, 1, 1).expand(1, 4, 272, 288)
    with torch.no_grad():
        grid = started.parameters_of(planes, "a")[..., 7:10, 7:11]
    torch.testing.assert_close(grid, grid[..., :1, :1].expand_as(grid), rtol=1e-4, atol=1e-6)


def test_a_colour_matrix_is_learned_from_pairs():
    """Fifteen steps of Adam on L1 remove most of the difference."""
    mapper = build().train()
    matrix = torch.tensor([[0.8, 0.1, 0.1, 0.0], [0.0, 0.7, 0.0, 0.2], [0.0, 0.0, 0.7, 0.2], [0.1, 0.1, 0.1, 1.0]])
    planes = random(4, 4, 32, 32)
    target = torch.einsum("dc,nchw->ndhw", matrix, planes)
    optimizer, losses = torch.optim.Adam(mapper.parameters(), 1e-3), []
    for _ in range(15):
        losses.append((mapper(planes, "b") - target).abs().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 3


def test_autocast_predicts_transforms_in_float32(started):
    planes = random(1, 4, 32, 48)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            grid, mapped = started.parameters_of(planes, "a"), started(planes, "a")
            assert torch.equal(build()(planes, "a"), planes)
        assert grid.dtype == mapped.dtype == torch.float32
        assert torch.equal(mapped, apply(planes, grid, 16))
        assert 0 < (mapped - started(planes, "a")).abs().max() < 0.05


# --- large images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("downsample", (1, 2))
def test_map_planes_equals_evaluation_in_bands_that_save_memory(started, monkeypatch, downsample):
    planes, bands = random(2, 4, 70, 50), []
    expected = started(planes, "a", downsample).detach()

    def recorded(band, *arguments):
        bands.append(band.shape[2])
        return apply(band, *arguments)

    monkeypatch.setattr(module, "apply", recorded)
    monkeypatch.setattr(module, "BAND", 1650)
    mapped = started.map_planes(planes, "a", downsample)
    assert bands == [16, 16, 16, 16, 6] and not mapped.requires_grad
    torch.testing.assert_close(mapped, expected, rtol=0, atol=1e-6)


def test_map_planes_changes_neither_mode_nor_statistics(started):
    planes, mapper = random(1, 4, 16, 16), copy.deepcopy(started).train()
    mapped = mapper.map_planes(planes, "a")
    assert torch.equal(mapped, started.map_planes(planes, "a")) and mapper.training and mapper.encoder.training
    assert all(torch.equal(x, y) for x, y in zip(mapper.buffers(), started.buffers(), strict=True))
    with pytest.raises(UserError, match="at least 8"):
        mapper.map_planes(planes[..., :4], "a")
    assert mapper.training


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    (
        ({"head": "pixel"}, "unknown head 'pixel' of the mapper; known are: patch, pooled"),
        ({"encoder": "vit"}, "unknown encoder 'vit' of the mapper; known are: conformer, plain"),
    ),
)
def test_unknown_names_list_the_known_ones(options, message):
    with pytest.raises(UserError, match=message):
        Mapper(**options)


@pytest.mark.parametrize(
    "shape, to, downsample, message",
    (
        ((1, 4, 32, 32), "c", 1, "unknown direction 'c' of the mapper; known are: a, b"),
        ((1, 3, 32, 32), "a", 1, "takes planes of 4 channels, and these have 3"),
        ((1, 4, 32, 32), "a", 0, "cannot downsample by 0: give 1 or more"),
    ),
)
def test_planes_that_cannot_be_mapped_are_refused(started, shape, to, downsample, message):
    with pytest.raises(UserError, match=message):
        started(random(*shape), to, downsample)
