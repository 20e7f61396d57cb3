import pytest
import torch

from data.planes import from_planes, merge_greens, split_greens, to_planes
from data.sensor import CFA_ORDERS, Sensor, offsets
from errors import UserError

BLACK, WHITE = (64.0, 63.0, 65.0, 60.0), 1023.0


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_planes_are_r_gr_gb_b_of_any_order(cfa):
    sensor = Sensor(cfa, BLACK, WHITE)
    mosaic = torch.zeros(1, 1, 4, 6)
    for value, channel, black in zip((0.1, 0.2, 0.3, 0.4), ("R", "Gr", "Gb", "B"), BLACK, strict=True):
        row, column = offsets(cfa)[channel]
        mosaic[..., row::2, column::2] = (black + value * (WHITE - black)) / WHITE
    expected = torch.tensor([0.1, 0.2, 0.3, 0.4])[None, :, None, None].expand(1, 4, 2, 3)
    torch.testing.assert_close(to_planes(mosaic, sensor), expected)


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_there_and_back_are_the_same_digital_numbers(cfa):
    sensor = Sensor(cfa, BLACK, WHITE)
    mosaic = torch.randint(65, 1024, (2, 1, 8, 10), generator=torch.Generator().manual_seed(0))
    again = from_planes(to_planes(mosaic / WHITE, sensor), sensor)
    assert again.dtype == torch.uint16 and torch.equal(again.long(), mosaic)


def test_planes_are_clipped_on_both_ways():
    sensor = Sensor("grbg", BLACK, WHITE)
    dark, bright = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 1.5)
    assert to_planes(dark, sensor).eq(0).all() and to_planes(bright, sensor).eq(1).all()
    outside = torch.tensor([-1.0, 0.0, 1.0, 2.0]).view(1, 4, 1, 1)
    assert from_planes(outside, sensor).flatten().long().tolist() == [63, 64, 60 + 963, 1023]


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_three_planes_have_the_mean_of_the_greens_before_it_is_clipped(cfa):
    sensor = Sensor(cfa, BLACK, WHITE)
    mosaic = torch.zeros(1, 1, 2, 2)
    for value, channel, black in zip((0.1, -0.02, 0.3, 0.4), ("R", "Gr", "Gb", "B"), BLACK, strict=True):
        row, column = offsets(cfa)[channel]
        mosaic[..., row, column] = (black + value * (WHITE - black)) / WHITE
    torch.testing.assert_close(to_planes(mosaic, sensor, 3).flatten(), torch.tensor([0.1, 0.14, 0.4]))


def test_greens_keep_what_each_has_of_its_own():
    planes = torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(split_greens(merge_greens(planes), planes), planes)
    mapped = split_greens(2 * merge_greens(planes) + 0.1, planes)
    torch.testing.assert_close(mapped[:, [0, 3]], 2 * planes[:, [0, 3]] + 0.1)
    torch.testing.assert_close(mapped[:, 1] - mapped[:, 2], planes[:, 1] - planes[:, 2])
    torch.testing.assert_close(merge_greens(mapped), 2 * merge_greens(planes) + 0.1)


def test_impossible_sizes_and_levels_are_refused():
    with pytest.raises(UserError, match="even sides"):
        to_planes(torch.zeros(1, 1, 3, 4), Sensor("rggb", BLACK, WHITE))
    with pytest.raises(OverflowError):
        from_planes(torch.zeros(1, 4, 1, 1), Sensor("rggb", BLACK, 1 << 18))
