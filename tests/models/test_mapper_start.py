"""A mapper that corrects a matrix, and batches whose parts are mapped in different directions."""

import pytest
import torch

from .test_mapper import build, random


def test_a_start_replaces_the_identity_in_its_direction_alone():
    mapper, planes, matrix = build(), random(2, 4, 32, 40), random(4, 4)
    mapper.start_from("b", matrix)
    expected = torch.einsum("dc,nchw->ndhw", matrix, planes)
    with torch.no_grad():
        torch.testing.assert_close(mapper(planes, "b"), expected)
        torch.testing.assert_close(mapper.map_planes(planes, "b"), expected)
        assert torch.equal(mapper(planes, "a"), planes)
    again = build()
    again.load_state_dict(mapper.state_dict())
    assert torch.equal(again.start_b, matrix)


@pytest.mark.parametrize("training", (True, False))
def test_parts_of_a_batch_are_mapped_as_if_they_came_alone(training):
    together, alone = (build(started=True).train(training) for _ in range(2))
    parts = [random(2, 4, 32, 32, seed=seed) for seed in range(4)]
    with torch.no_grad():
        mapped = together(torch.cat(parts), "bbaa").chunk(4)
        for part, to, found in zip(parts, "bbaa", mapped, strict=True):
            torch.testing.assert_close(found, alone(part, to), rtol=1e-5, atol=1e-6)
    for name, buffer in together.named_buffers():
        torch.testing.assert_close(buffer, dict(alone.named_buffers())[name], rtol=1e-5, atol=1e-6, msg=name)
