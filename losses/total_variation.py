"""Total variation: section 3.6."""

from torch import Tensor


class TotalVariation:
    """Eq. 9 on images (N, C, H, W): the mean squared difference of vertical neighbours plus that of horizontal ones."""

    def __call__(self, image: Tensor) -> Tensor:
        down = image[..., 1:, :] - image[..., :-1, :]
        across = image[..., :, 1:] - image[..., :, :-1]
        return down.square().mean() + across.square().mean()
