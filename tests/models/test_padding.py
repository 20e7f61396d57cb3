import pytest
import torch

from models.padding import in_multiples


@pytest.mark.parametrize("side", (8, 10, 14))
def test_sides_are_padded_to_the_multiple_and_the_output_is_cropped(side):
    seen = []

    def network(planes):
        seen.append(planes)
        return planes.repeat_interleave(2, -1).repeat_interleave(2, -2)

    planes = torch.arange(side * 8.0).view(1, 1, side, 8)
    output = in_multiples(network, planes, 8, scale=2)
    assert seen[0].shape[-2] % 8 == 0 and torch.equal(seen[0][..., :side, :], planes)
    assert torch.equal(output, planes.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_reflection_keeps_the_cfa_order():
    parity = (torch.arange(6)[:, None] % 2 * 2 + torch.arange(6) % 2).float()[None, None]
    padded = []
    in_multiples(lambda mosaic: padded.append(mosaic) or mosaic, parity, 4, scale=1)
    expected = (torch.arange(8)[:, None] % 2 * 2 + torch.arange(8) % 2).float()[None, None]
    assert torch.equal(padded[0], expected)
