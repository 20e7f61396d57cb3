"""The critic of raw-to-raw mapping (its section 3.2): that of CycleGAN (Zhu et al., ICCV 2017)."""

from torch import Tensor, nn

from errors import UserError

SMALLEST = 24  # pixels: 12, 6 and 3 after the layers with stride 2, then 2, then 1
NORMS = {"instance": nn.InstanceNorm2d, "none": nn.Identity}


class PatchDiscriminator(nn.Module):
    """PatchGAN: planes (N, `channels`, H, W) -> a map of logits (N, h, w), each of which sees 70 x 70 pixels.

    The other critics return one logit for each image. This one judges patches, so the loss is taken over the map, which
    has 30 x 30 logits for 256 x 256 pixels. Four channels make 2,765,761 parameters. Weights start as N(0, 0.02).

    Args:
        channels: of the planes.
        norm: "instance" normalises each image's features after all convolutions but the first and the last, as
            CycleGAN does. That hides much of an image's mean colour, which is what cameras differ in; "none" does not.
        averaged: return the mean of each image's map, (N,), as the released code does.

    Raises:
        UserError: unknown `norm`; in use, images of less than 24 pixels to a side.
    """

    def __init__(self, channels: int = 4, norm: str = "instance", averaged: bool = False):
        super().__init__()
        if norm not in NORMS:
            raise UserError(f"unknown normalisation '{norm}' of the critic; known are: {', '.join(NORMS)}")
        self.averaged = averaged
        layers = [nn.Conv2d(channels, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
        for inputs, outputs, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride, 1), NORMS[norm](outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, planes: Tensor) -> Tensor:
        height, width = planes.shape[-2:]
        if min(height, width) < SMALLEST:
            raise UserError(
                f"PatchDiscriminator cannot see {height}x{width} pixels: its images need at least {SMALLEST} to a side"
            )
        logits = self.layers(planes).squeeze(1)
        return logits.mean((1, 2)) if self.averaged else logits
