"""Image quality measures of 8-bit RGB images, and the table `MEASURES` of all of them.

A measure takes images and targets (..., 3, H, W), uint8, or float in [0, 1], which `to_8_bit` converts. Leading
dimensions are free as long as the two broadcast. Scores (...) are float64, on the images' device, and have no gradient.
A `UserError` is raised for images that are not RGB, have two sizes, are empty, or are too small for the measure.

To add a measure, write a function and a row in `MEASURES`; every protocol without functions of its own then offers it.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UserError
from evaluation.distances import frechet_distance, standardised_kernel_distance

Function = Callable[[Tensor, Tensor], Tensor]

WINDOW = 11  # pixels, the side of SSIM's window
SSIM_MINIMUM = WINDOW  # pixels of the shorter side
MS_SSIM_MINIMUM = 161  # pixels of the shorter side: after four halvings, rounded up, the window still fits
BAND = 1 << 17  # pixels of an image that are computed at a time: few enough to need little memory, and to be fast
C1, C2 = 0.01**2, 0.03**2
SCALE_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM's five scales, the finest first


def to_8_bit(image: Tensor) -> Tensor:
    """[0, 1] -> 0..255 as in the paper's tables: clipped, then truncated, not rounded. uint8 is returned unchanged."""
    return image if image.dtype == torch.uint8 else image.mul(255).clamp_(0, 255).to(torch.uint8)


def image_by_image(measure: Function) -> Function:
    """Extend a measure of two uint8 images (3, H, W) to images and targets (..., 3, H, W), uint8 or float in [0, 1].

    Intermediate results of a single image stay in the processor's cache: several times as fast as the batch at once.
    """

    @wraps(measure)
    def extended(image: Tensor, target: Tensor) -> Tensor:
        image, target = broadcast_pair(image, target)
        if image.ndim > 3:
            return torch.stack([extended(*pair) for pair in zip(image, target, strict=True)])
        return measure(to_8_bit(image), to_8_bit(target))

    return extended


# --- the measures ----------------------------------------------------------------------------------------------------


@image_by_image
def psnr(image: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB over all channels and pixels, infinite for equal images: (..., 3, H, W) twice -> (...)."""
    error = (image.contiguous().short() - target.contiguous().short()).int()  # mixed types would be five times slower
    squares = (error * error).sum(-1, dtype=torch.int32).sum()  # exact: 32 bits hold a row of 33,000 pixels
    return 10 * torch.log10(255**2 * error.numel() / squares.double())


@torch.no_grad()
def psnr_float(image: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB of images that are not converted to 8 bits, clipped to [0, 1]: (..., 3, H, W) twice -> (...).

    By this the released code chose its checkpoints. A uint8 image is taken as image / 255; both may be uint8.
    """
    image, target = (x / 255 if x.dtype == torch.uint8 else x.clamp(0, 1) for x in broadcast_pair(image, target))
    return -10 * torch.log10((image.double() - target.double()).square().mean((-3, -2, -1)))


@image_by_image
def ssim(image: Tensor, target: Tensor) -> Tensor:
    """SSIM in [-1, 1], the mean over channels: (..., 3, H, W) twice, sides of 11 pixels or more -> (...).

    Equal to `tf.image.ssim` on RGB: a Gaussian window of 11x11 pixels, at all positions where it lies within the image;
    negative values count. Single precision throughout, as there: rounding changes the score of flat images by up to
    2e-4. Source: Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13(4), 2004.
    """
    require_side(image, SSIM_MINIMUM, "SSIM")
    similarity, _ = mean_similarity(*_to_unit_range(image, target))
    return similarity.mean()


@image_by_image
def ms_ssim(image: Tensor, target: Tensor) -> Tensor:
    """MS-SSIM in [0, 1], the mean over channels: (..., 3, H, W) twice, sides of 161 pixels or more -> (...).

    Equal to `tf.image.ssim_multiscale` on RGB: five scales, each the 2x2 mean of the one before; a negative mean at one
    scale counts as 0. Source: Wang, Simoncelli and Bovik, Asilomar Conference 2003.
    """
    require_side(image, MS_SSIM_MINIMUM, "MS-SSIM")
    (image, target), score = _to_unit_range(image, target), 1.0
    *finer, coarsest = SCALE_POWERS
    for power in finer:
        _, structure = mean_similarity(image, target)
        score = score * structure.relu() ** power
        # TensorFlow repeats the last row of an odd side; averaging the row with its copy is averaging the row alone.
        image, target = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (image, target))
    similarity, _ = mean_similarity(image, target)
    return (score * similarity.relu() ** coarsest).mean()


@image_by_image
def delta_e_2000(image: Tensor, target: Tensor) -> Tensor:
    """CIEDE2000 of sRGB colours (D65), the mean over pixels: (..., 3, H, W) twice -> (...). Computed on the CPU."""
    colour, total = _import_colour(), 0.0
    for band in _bands(*image.shape[1:]):
        pixels = (x[:, band].permute(1, 2, 0).cpu().numpy() / 255 for x in (image, target))
        lab = (colour.XYZ_to_Lab(colour.sRGB_to_XYZ(x)) for x in pixels)
        total += colour.delta_E(*lab, method="CIE 2000").sum()
    return torch.tensor(total / image[0].numel(), dtype=torch.float64, device=image.device)


@dataclass(frozen=True)
class Measure:
    """A column of a score table: how it is headed, ordered and printed, and the function that computes it."""

    label: str
    unit: str
    higher_is_better: bool
    digits: int  # decimals to print
    function: Function | None  # None: a pretrained network computes it, which the caller provides (protocols.build)
    of_floats: bool = False  # the function gets the model's output as it is; otherwise converted to 8 bits
    # Of a measure of sets: the distance of features (N, D) of all images and of all targets. The network gives these.
    of_set: Callable[[Tensor, Tensor], float] | None = None

    @property
    def heading(self) -> str:
        """The label with its unit, such as "PSNR (dB)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


MEASURES = {
    "psnr": Measure("PSNR", "dB", True, 2, psnr),
    "psnr_float": Measure("PSNR of floats", "dB", True, 2, psnr_float, of_floats=True),
    "ssim": Measure("SSIM", "", True, 4, ssim),
    "ms_ssim": Measure("MS-SSIM", "", True, 4, ms_ssim),
    "lpips": Measure("LPIPS", "", False, 4, None),
    "lpips_plus": Measure("LPIPS+", "", False, 4, None),
    "dists": Measure("DISTS", "", False, 4, None),
    "delta_e": Measure("Delta E 2000", "", False, 2, delta_e_2000),
    "kid": Measure("KID (AlexNet)", "", False, 4, None, of_set=standardised_kernel_distance),
    "fid": Measure("FID", "", False, 2, None, of_set=frechet_distance),
}


# --- checks ----------------------------------------------------------------------------------------------------------


def broadcast_pair(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors with the same leading dimensions. Raises `UserError` if they cannot be compared."""
    shape, target_shape = tuple(image.shape), tuple(target.shape)
    if len(shape) < 3 or shape[-3] != 3 or 0 in shape + target_shape:
        raise UserError(
            f"cannot compare images of shape {shape} with targets of shape {target_shape}: "
            "give RGB images (N, 3, H, W) that are not empty"
        )
    try:
        leading = torch.broadcast_shapes(shape[:-3], target_shape[:-3])
    except RuntimeError:
        leading = None
    if shape[-3:] != target_shape[-3:] or leading is None:
        raise UserError(
            f"cannot compare images of shape {shape} with targets of shape {target_shape}: "
            "give as many targets as images, of the same size"
        )
    return image.expand(*leading, *shape[-3:]), target.expand(*leading, *shape[-3:])


def require_side(image: Tensor, smallest: int, label: str) -> None:
    """Raise `UserError` if a side of `image` has fewer than `smallest` pixels."""
    height, width = image.shape[-2:]
    if min(height, width) < smallest:
        raise UserError(
            f"{label} needs sides of at least {smallest} pixels, but the images are {height}x{width} (height x width): "
            "leave this measure out, or score larger images"
        )


# --- parts of the measures -------------------------------------------------------------------------------------------


def _to_unit_range(*images: Tensor) -> list[Tensor]:
    """uint8 -> float in [0, 1], with TensorFlow's rounding."""
    return [image.float().mul_(1 / 255) for image in images]


def _bands(height: int, width: int, margin: int = 0) -> Iterator[slice]:
    """Rows that together are a whole image: bands of about `BAND` pixels, and `margin` more rows at the end of each."""
    rows = max(1, BAND // width)
    return (slice(top, top + rows + margin) for top in range(0, height - margin, rows))


def mean_similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(SSIM, its contrast-structure factor alone) of each channel: (C, H, W) twice, in [0, 1] -> (C,), (C,)."""
    height, width, margin = *x.shape[1:], WINDOW - 1
    sums = sum(_sum_similarity(x[:, band], y[:, band]) for band in _bands(height, width, margin))
    similarity, structure = sums / ((height - margin) * (width - margin))
    return similarity, structure


def _sum_similarity(x: Tensor, y: Tensor) -> Tensor:
    """The same, summed over the window's positions in a band: (3, h, W) twice -> (2, 3)."""
    mean_x, mean_y, product, squares = _blur(torch.cat((x, y, x * y, x * x + y * y))).chunk(4)
    means, squared_means = 2 * mean_x * mean_y, mean_x**2 + mean_y**2
    structure = (2 * product - means + C2) / (squares - squared_means + C2)
    luminance = (means + C1) / (squared_means + C1)
    return torch.stack([values.double().sum((-2, -1)) for values in (luminance * structure, structure)])


def _blur(planes: Tensor) -> Tensor:
    """The mean weighted by the window: (C, H, W) -> (C, H - 10, W - 10).

    The planes are the channels of one image, which a CPU computes ten times as fast as images of one channel, with the
    same bits. A plane of a single position is the exception: its sum would have others, so it stays an image.
    """
    channels = 1 if planes[0].numel() == WINDOW**2 else len(planes)
    weights = _window().to(planes.device).expand(channels, -1, -1, -1)
    with torch.backends.cudnn.flags(allow_tf32=False):  # TF32's mantissa of 10 bits is too short for a variance
        return F.conv2d(planes.unflatten(0, (-1, channels)), weights, groups=channels).flatten(0, 1)


@cache
def _window() -> Tensor:
    """The Gaussian of 11x11 pixels, sigma 1.5, (1, 1, 11, 11), summed and rounded as in TensorFlow."""
    exponents = -((torch.arange(WINDOW, dtype=torch.float32) - WINDOW // 2) ** 2) / (2 * 1.5**2)
    return (exponents[None] + exponents[:, None]).flatten().softmax(0).view(1, 1, WINDOW, WINDOW)


def _import_colour() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing optional packages
        import colour  # takes seconds
    return colour
