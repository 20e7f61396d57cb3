import torch

from models.wavelet import DWT, IDWT


def test_four_values_by_hand():
    """The average and three differences, of rows, of columns, and of diagonals, each of them halved twice but once."""
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]]).view(1, 1, 2, 2)
    assert DWT(1)(x).flatten().tolist() == [7.5, -4.5, -2.5, 1.5]


def test_channels_are_transformed_each_on_its_own_and_back():
    x = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    transformed = DWT(3).double()(x)
    assert transformed.shape == (2, 12, 3, 4)
    torch.testing.assert_close(transformed[:, 4:8], DWT(1).double()(x[:, 1:2]))
    torch.testing.assert_close(IDWT(3).double()(transformed), x)


def test_the_filters_are_not_trained():
    assert not list(DWT(3).parameters()) and list(DWT(3).state_dict()) == ["weight"]
