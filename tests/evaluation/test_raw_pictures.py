"""Pictures of planes: gains and gamma by hand, and one picture of many rows."""

import pytest
import torch

from evaluation.raw_pictures import GAP, grey_world, picture, row_of_pictures, sheet, shrink


def flat(*values: float, height: int = 6, width: int = 8) -> torch.Tensor:
    """Planes (C, height, width) of one value each."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).expand(-1, height, width).clone()


def test_grey_world_gains_by_hand():
    assert grey_world(flat(0.1, 0.1, 0.3, 0.4)).tolist() == pytest.approx([2, 1, 0.5])
    assert grey_world(flat(0.1, 0.2, 0.4)).tolist() == pytest.approx([2, 1, 0.5])
    assert grey_world(flat(0.0, 0.2, 0.2, 0.1)).tolist() == pytest.approx([1, 1, 2])
    assert grey_world(flat(0.3, 0.0, 0.0, 0.1)).tolist() == [1, 1, 1]
    assert grey_world(flat(1.5, 0.5, 0.5, -1.0)).tolist() == pytest.approx([0.5, 1, 1])  # of clipped planes


def test_a_picture_by_hand():
    image = picture(flat(0.1, 0.1, 0.3, 0.4), torch.tensor([2.0, 1.0, 5.0]))
    assert image.shape == (3, 6, 8)
    assert image[:, 0, 0].tolist() == pytest.approx([0.2**0.625, 0.2**0.625, 1])
    assert picture(flat(0.1, 0.1, 0.3, 0.4))[:, 0, 0].tolist() == pytest.approx([0.2**0.625] * 3)
    assert picture(flat(-1.0, 0.5, 0.5, 2.0), torch.ones(3))[:, 0, 0].tolist() == pytest.approx([0, 0.5**0.625, 1])


def test_a_row_has_the_gains_of_its_last_picture():
    first, last = flat(0.4, 0.2, 0.2, 0.2), flat(0.1, 0.2, 0.2, 0.4)
    images = row_of_pictures([first, first, last])
    assert images[2][:, 0, 0].tolist() == pytest.approx([0.2**0.625] * 3)
    assert images[0][:, 0, 0].tolist() == pytest.approx([0.8**0.625, 0.2**0.625, 0.1**0.625])
    assert torch.equal(images[0], images[1])


def test_planes_are_shrunk_by_the_mean_of_linear_values():
    planes = torch.arange(64, dtype=torch.float32).view(1, 8, 8).expand(4, -1, -1)
    assert shrink(planes, 4).shape == (4, 4, 4)
    assert shrink(planes, 4)[0, 0, 0].item() == pytest.approx((0 + 1 + 8 + 9) / 4)
    assert shrink(planes, 8) is planes
    assert shrink(flat(0, 0, 0, 0, height=2, width=100), 10).shape == (4, 1, 10)


def test_a_sheet_of_rows():
    dark, light = flat(0.2, 0.2, 0.2, 0.2), flat(0.5, 0.5, 0.5, 0.5, height=12, width=16)
    image = sheet([[dark, dark, dark], [light, light]], side=8)
    assert image.shape == (6 + GAP + 6, 3 * 8 + 2 * GAP, 3)
    levels = [int(255 * value**0.625) for value in (0.2, 0.5)]
    assert (image[:6, :8] == levels[0]).all() and (image[6 + GAP :, 8 + GAP : 16 + GAP] == levels[1]).all()
    assert (image[:6, 8 : 8 + GAP] == 255).all() and (image[6 : 6 + GAP] == 255).all()
    assert (image[6 + GAP :, 16 + GAP :] == 255).all()  # the second row is shorter


def test_a_sheet_with_errors_shows_amplified_differences_to_the_last():
    black, truth = flat(0, 0, 0, 0), flat(*[(20.5 / 255) ** 1.6] * 4)
    image = sheet([[black, truth, truth]], errors=True)
    assert image.shape == (6 + GAP + 6, 3 * 8 + 2 * GAP, 3)
    below = image[6 + GAP :]
    assert (below[:, :8] == 80).all() and (below[:, 8 + GAP : 16 + GAP] == 0).all()
    assert (below[:, 16 + GAP :] == 255).all()


def test_pictures_of_a_row_may_have_several_heights():
    image = sheet([[flat(0.2, 0.2, 0.2), flat(0.2, 0.2, 0.2, 0.2, height=4)]])
    assert image.shape == (6, 16 + GAP, 3) and (image[4:, 8:] == 255).all() and (image[:4, 8 + GAP :] < 255).all()
