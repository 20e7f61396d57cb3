"""What a stage trains of a network: levels against reduced photographs, and SYENet's warm-up."""

import torch
from torch.nn import functional as F

from tasks.parts import WHOLE, Level, WarmUp
from training.steps import Batch

from .small_networks import SmallLevels, SmallWarmUp


def make_batch(count: int = 2, side: int = 32) -> Batch:
    return Batch(torch.rand(count, 4, side // 2, side // 2), None, torch.rand(count, 3, side, side))


def test_a_level_is_compared_with_the_mean_of_its_pixels():
    part, batch, network = Level(3, finest=1), make_batch(), SmallLevels((3, 2, 1))
    reduced = part.batch(batch)
    assert reduced.target.shape == part.output(network, batch.inputs).shape == (2, 3, 8, 8)
    torch.testing.assert_close(reduced.target[1, 2, 0, 3], batch.target[1, 2, :4, 12:16].mean())
    assert reduced.inputs is batch.inputs


def test_a_level_s_image_has_the_full_size():
    network, batch = SmallLevels((3, 2, 1)), make_batch()
    for level in (3, 2, 1):
        assert Level(level, finest=1).image(network, batch.inputs).shape == batch.target.shape
    assert torch.equal(Level(1, finest=1).image(network, batch.inputs), network(batch.inputs))
    assert Level(1, finest=1).batch(batch) is batch and WHOLE.batch(batch) is batch


def test_the_warm_up_restores_the_whole_input_from_one_with_holes():
    torch.manual_seed(0)
    part, batch = WarmUp(), make_batch(count=8, side=128)
    warm = part.batch(batch)
    kept = warm.inputs != 0
    assert torch.equal(kept, kept[:, :1].expand_as(kept))  # a hole is one of all planes
    assert torch.equal(warm.inputs[kept], batch.inputs[kept])
    holes = (~kept[:, :1]).float()
    inside = F.pad(-F.max_pool2d(-holes, 3, stride=1), (1, 1, 1, 1))  # the centres of blocks of 3x3 that are holes
    opened = F.max_pool2d(inside, 3, stride=1, padding=1)
    assert torch.equal(opened[..., 2:-2, 2:-2], holes[..., 2:-2, 2:-2])
    # 1 - (1 - 0.5 / 9)^9 of the pixels lie in a hole, as holes overlap.
    assert abs(float(holes.mean()) - (1 - (1 - 0.5 / 9) ** 9)) < 0.04  # so few differ so much by chance
    assert torch.equal(warm.target[:, :3], batch.target)
    assert torch.equal(warm.target[:, 3:, 0::2, 1::2], batch.inputs[:, 1:2])
    output = part.output(SmallWarmUp(), warm.inputs)
    assert output.shape == warm.target.shape and part.image(SmallWarmUp(), batch.inputs).shape == batch.target.shape
