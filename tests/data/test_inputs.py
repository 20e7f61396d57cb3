"""Input formats against values worked out by hand and against the released code."""

import numpy as np
import pytest
import torch

from data.inputs import INPUT_FORMATS, PACKED_CHANNELS, context_of, packed_input, prepare, split_input
from data.sensor import CFA_ORDERS, CHANNELS, SENSORS, Sensor
from errors import UserError

from .by_hand import BY_HAND, LEVELS

FUJIFILM = SENSORS["fujifilm"]


def random_mosaic(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def pack(mosaic: torch.Tensor, cfa: str) -> torch.Tensor:
    """The packed input with black 0, which leaves the values as they are."""
    return packed_input(mosaic, Sensor(cfa, (0.0,) * 4, 100.0))


def at_level(levels: tuple[float, ...], cfa: str, white: float = 100.0) -> torch.Tensor:
    """A mosaic (1, 1, 4, 6) with each channel at its level."""
    mosaic = torch.empty(1, 1, 4, 6)
    for channel, level in zip(CHANNELS, levels, strict=True):
        row, column = BY_HAND[cfa][channel]
        mosaic[..., row::2, column::2] = level / white
    return mosaic


@pytest.mark.parametrize(
    "cfa, first, last",  # B, Gr, R, Gb of the first and the last 2x2 block of a mosaic that is numbered row by row
    (
        ("rggb", (5, 1, 0, 4), (15, 11, 10, 14)),
        ("bggr", (0, 4, 5, 1), (10, 14, 15, 11)),
        ("grbg", (4, 0, 1, 5), (14, 10, 11, 15)),
        ("gbrg", (1, 5, 4, 0), (11, 15, 14, 10)),
    ),
)
def test_packed_channels_are_blue_gr_red_gb(cfa, first, last):
    packed = pack(torch.arange(16.0).view(1, 1, 4, 4), cfa)
    assert packed.shape == (1, 4, 2, 2)
    assert tuple(packed[0, :, 0, 0].tolist()) == first and tuple(packed[0, :, 1, 1].tolist()) == last


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_packing_keeps_every_pixel_in_its_channel(cfa):
    mosaic = random_mosaic(2, 1, 6, 10)
    packed = pack(mosaic, cfa)
    assert packed.shape == (2, 4, 3, 5)
    for i, (row, column) in enumerate(BY_HAND[cfa][channel] for channel in ("B", "Gr", "R", "Gb")):
        assert torch.equal(packed[:, i], mosaic[:, 0, row::2, column::2])
    assert torch.equal(packed.flatten(1).sort().values, mosaic.flatten(1).sort().values)


@pytest.mark.parametrize("shift", ((0, 1, "grbg"), (1, 0, "gbrg"), (1, 1, "bggr")))
def test_a_scene_is_packed_alike_in_every_cfa_order(shift):
    rows, columns, cfa = shift
    mosaic = random_mosaic(1, 1, 10, 12)
    whole, cut = pack(mosaic, "rggb"), pack(mosaic[..., rows : rows + 8, columns : columns + 10], cfa)
    for i, channel in enumerate(PACKED_CHANNELS):
        # A channel whose first pixel was cut off begins with its second one.
        row, column = (int(site < cut_off) for site, cut_off in zip(BY_HAND["rggb"][channel], shift[:2], strict=True))
        assert torch.equal(cut[0, i], whole[0, i, row : row + 4, column : column + 5])


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_packed_black_is_zero_and_white_is_one(cfa):
    sensor = Sensor(cfa, LEVELS, 100.0)
    torch.testing.assert_close(packed_input(at_level(LEVELS, cfa), sensor), torch.zeros(1, 4, 2, 3))
    torch.testing.assert_close(packed_input(at_level((100.0,) * 4, cfa), sensor), torch.ones(1, 4, 2, 3))


def test_packed_values_by_hand():
    packed = packed_input(at_level((55.0, 60.0, 65.0, 70.0), "grbg"), Sensor("grbg", LEVELS, 100.0))
    torch.testing.assert_close(packed[0, :, 0, 0], torch.tensor([30 / 60, 40 / 80, 45 / 90, 35 / 70]))


def test_packed_below_black_is_negative():
    packed = packed_input(torch.zeros(1, 1, 2, 2), Sensor("rggb", LEVELS, 100.0))
    torch.testing.assert_close(packed.flatten(), torch.tensor([-40 / 60, -20 / 80, -10 / 90, -30 / 70]))


@pytest.mark.parametrize("cfa", CFA_ORDERS)
def test_split_keeps_each_colour_at_its_own_sites_among_ones(cfa):
    split = split_input(at_level((50.0, 60.0, 70.0, 80.0), cfa), Sensor(cfa, LEVELS, 100.0))
    expected = torch.ones(1, 3, 4, 6)
    for channel, (site, value) in zip((0, 1, 1, 2), zip(("R", "Gr", "Gb", "B"), (0.4,) * 4, strict=True), strict=True):
        row, column = BY_HAND[cfa][site]
        expected[:, channel, row::2, column::2] = value
    torch.testing.assert_close(split, expected)


def test_split_subtracts_each_channel_s_black_level_and_clips_at_zero():
    split = split_input(torch.full((1, 1, 2, 2), 0.25), Sensor("rggb", LEVELS, 100.0))
    torch.testing.assert_close(split[0, 0], torch.tensor([[0.15, 1], [1, 1]]))
    torch.testing.assert_close(split[0, 1], torch.tensor([[1, 0.05], [0, 1]]))
    torch.testing.assert_close(split[0, 2], torch.tensor([[1.0, 1], [1, 0]]))


def test_white_becomes_one_minus_black_in_the_split():
    split = split_input(torch.ones(1, 1, 2, 2), Sensor("rggb", (63.0,) * 4, 1023.0))
    assert split[0, 0, 0, 0].item() == pytest.approx(960 / 1023)


@pytest.mark.parametrize("make", (packed_input, split_input))
@pytest.mark.parametrize("dtype", (torch.float16, torch.float32, torch.float64))
def test_batches_do_not_mix_and_keep_their_dtype(make, dtype):
    mosaics, sensor = random_mosaic(3, 1, 4, 6).to(dtype), FUJIFILM
    together = make(mosaics, sensor)
    assert together.dtype == dtype
    assert torch.equal(together, torch.cat([make(mosaic[None], sensor) for mosaic in mosaics]))
    assert make(mosaics[:0], sensor).shape[0] == 0


@pytest.mark.parametrize("make", (packed_input, split_input))
def test_the_device_is_kept(make):
    assert make(torch.empty(1, 1, 4, 4, device="meta"), FUJIFILM).device.type == "meta"


@pytest.mark.parametrize("make", (packed_input, split_input))
def test_the_mosaic_is_not_changed(make):
    mosaic = random_mosaic(1, 1, 4, 4)
    before = mosaic.clone()
    make(mosaic, FUJIFILM)
    assert torch.equal(mosaic, before)


def test_packing_equals_the_released_code(golden):
    mosaic = torch.from_numpy(golden["raw"].astype(np.float32))[:, None] / 1023
    packed = prepare(mosaic, FUJIFILM, "packed")
    torch.testing.assert_close(packed, torch.from_numpy(golden["packed"]), atol=1e-5, rtol=0)


def test_split_equals_the_released_code(golden):
    mosaic = torch.from_numpy(golden["raw"].astype(np.float32))[:, None] / 1023
    split = prepare(mosaic, SENSORS["fujifilm-rmfa"], "split")
    torch.testing.assert_close(split, torch.from_numpy(golden["three_channel_split"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", (packed_input, split_input))
@pytest.mark.parametrize("size", ((3, 4), (4, 3)))
def test_an_odd_size_is_refused(make, size):
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]}.*crop"):
        make(torch.zeros(1, 1, *size), FUJIFILM)


def test_an_unknown_input_format_lists_the_known_ones():
    with pytest.raises(UserError, match="'rgb'.*packed, split"):
        prepare(torch.zeros(1, 1, 2, 2), FUJIFILM, "rgb")


def test_planes_of_context_follow_the_packed_mosaic():
    mosaic = random_mosaic(2, 1, 32, 48)
    inputs, context = prepare(mosaic, FUJIFILM, "packed_context"), context_of(mosaic, FUJIFILM)
    assert torch.equal(inputs[:, :4], packed_input(mosaic, FUJIFILM))
    assert torch.equal(inputs[:, 4:], context[:, :, None, None].expand(-1, -1, 16, 24))


def test_a_patch_takes_the_context_of_its_file():
    mosaic = random_mosaic(1, 1, 32, 48)
    patch = prepare(mosaic[..., 8:24, 4:20], FUJIFILM, "packed_context", context_of(mosaic, FUJIFILM))
    assert torch.equal(patch, prepare(mosaic, FUJIFILM, "packed_context")[..., 4:12, 2:10])


# --- formats of the networks by others: facts from their code, applied to 10-bit digital numbers by hand -------------


PHONE_63 = SENSORS["fujifilm-rmfa"]
NUMBERS = (63.0, 1023.0, 573.0, 20.0)  # of R, Gr, Gb, B
B_GR_R_GB = (20.0, 1023.0, 63.0, 573.0)


@pytest.mark.parametrize(
    "name, sensor, expected",
    (
        ("packed_1020", FUJIFILM, [n / 1020 for n in B_GR_R_GB]),
        ("packed_63", PHONE_63, [max(n - 63, 0) / 957 for n in B_GR_R_GB]),
        ("rggb_4095", FUJIFILM, [n / 1023 for n in NUMBERS]),  # white is 1, as 4095 / 4095 is
    ),
)
def test_formats_of_other_networks_on_their_phone(name, sensor, expected):
    planes = prepare(at_level(NUMBERS, "rggb", 1023.0), sensor, name)
    assert planes.shape == (1, 4, 2, 3)
    torch.testing.assert_close(planes[0, :, 1, 2], torch.tensor(expected))


def test_lan_takes_digital_numbers_in_place():
    mosaic = random_mosaic(2, 1, 4, 6)
    torch.testing.assert_close(prepare(mosaic, FUJIFILM, "dn"), 1023 * mosaic)


@pytest.mark.parametrize("name", ("dn", "packed_1020", "packed_63", "rggb_4095"))
@pytest.mark.parametrize("black, white", (((256.0, 260.0, 264.0, 268.0), 4095.0), ((0.0,) * 4, 16383.0)))
def test_another_camera_is_brought_to_the_phones_levels(name, black, white):
    """The same share of the range above black gives the same input, whatever the camera's levels are."""
    phone = PHONE_63 if name == "packed_63" else FUJIFILM
    share = (0.1, 0.9, 1.0, 0.0)

    def inputs(levels: tuple[float, ...], top: float) -> torch.Tensor:
        numbers = [level + part * (top - level) for level, part in zip(levels, share, strict=True)]
        return prepare(at_level(numbers, "rggb", top), Sensor("rggb", levels, top), name)

    torch.testing.assert_close(inputs(black, white), inputs(phone.black_level, 1023.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", INPUT_FORMATS)
def test_every_format_refuses_odd_sides(name):
    with pytest.raises(UserError, match="even sides"):
        prepare(random_mosaic(1, 1, 5, 6), FUJIFILM, name)
