"""The convolutional critics: section 3.5, Fig. 3, adapted from DPED (Ignatov et al. 2017)."""

from torch import Tensor, nn

from errors import UserError

CHANNELS = (48, 128, 192, 192, 128)


class ConvolutionalDiscriminator(nn.Module):
    """Five convolutions and two fully connected layers: (N, `channels`, height, width) -> logits (N,).

    Args:
        channels: of the input, which is a feature map or an image.
        size: (height, width) of the input. The first fully connected layer fixes it: train on patches of one size.
        kernels: (side, stride) of each convolution.
        padded: pad by half of the kernel; otherwise use only positions where the kernel lies within the input.

    Raises:
        UserError: the input is too small for the convolutions.
    """

    def __init__(self, channels: int, size: tuple[int, int], kernels: tuple[tuple[int, int], ...], padded: bool = True):
        super().__init__()
        layers, sides = [], size
        for inputs, outputs, (kernel, stride) in zip((channels, *CHANNELS), CHANNELS, kernels, strict=False):
            padding = kernel // 2 if padded else 0
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.LeakyReLU(0.2)]
            sides = tuple((side + 2 * padding - kernel) // stride + 1 for side in sides)
            if min(sides) < 1:
                height, width = size
                raise UserError(f"{type(self).__name__} cannot see {height}x{width} pixels: raise --data.patch")
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.fc1 = nn.Linear(CHANNELS[-1] * sides[0] * sides[1], 1024)
        self.fc2 = nn.Linear(1024, 1)
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(self.features(x)))).squeeze(1)


class TextureDiscriminator(ConvolutionalDiscriminator):
    """The critic of AlexNet features (64 channels at lin0, 192 at lin1, 384 at lin2, 256 at lin3 and lin4), or of grey
    images: (N, `channels`, height, width) -> logits (N,).
    """

    def __init__(self, channels: int, size: tuple[int, int]):
        super().__init__(channels, size, ((5, 2), (3, 2), (3, 1), (3, 1), (3, 2)))


class ColorImageDiscriminator(ConvolutionalDiscriminator):
    """The colour critic of blurred images (section 4.2; released code): (N, 3, height, width), sides of at least 75
    pixels -> logits (N,).
    """

    def __init__(self, channels: int, size: tuple[int, int]):
        super().__init__(channels, size, ((11, 4), (5, 2), (3, 1), (3, 1), (3, 2)), padded=False)
