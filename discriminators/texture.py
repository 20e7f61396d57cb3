"""The texture critics: section 3.5, Fig. 3, adapted from DPED (Ignatov et al. 2017)."""

from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.LeakyReLU(0.2))


class TextureDiscriminator(nn.Module):
    """Five convolutions and two fully connected layers: (N, `channels`, height, width) -> logits (N,).

    The input is AlexNet features (64 channels of relu1, 256 of relu4) or, as in the ablation of section 4.2, an image.
    `size` is its (height, width), which the first fully connected layer fixes: train on patches of one size.
    `train_fc1=False` leaves that layer at its initial values. The released code does so, because it creates the layer
    after the optimizer: of the 9.3 million parameters of the relu1 critic, 8.4 million are never trained.
    """

    def __init__(self, channels: int, size: tuple[int, int], train_fc1: bool = True):
        super().__init__()
        self.features = nn.Sequential(
            _conv(channels, 48, 5, 2),
            _conv(48, 128, 3, 2),
            _conv(128, 192, 3, 1),
            _conv(192, 192, 3, 1),
            _conv(192, 128, 3, 2),
            nn.Flatten(),
        )
        height, width = ((side + 7) // 8 for side in size)  # three strides of 2, each rounding up
        self.fc1 = nn.Linear(128 * height * width, 1024).requires_grad_(train_fc1)
        self.fc2 = nn.Linear(1024, 1)
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(self.features(x)))).squeeze(1)
