"""Image quality measures, each with the protocol that gives it its meaning.

All of them compare 8-bit RGB images; floats are brought there by `to_8_bit`. Leading dimensions are free, as long as
the two broadcast: (..., 3, H, W) and (..., 3, H, W) give (...). Scores are float64, on the images' device, and have no
gradient. A `UserError` says what cannot be compared: images that are not RGB, of two sizes, empty, or too small.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError

Function = Callable[[Tensor, Tensor], Tensor]

SSIM_MINIMUM = 11  # pixels of the shorter side: the window's
NETWORK_MINIMUM = 32  # of AlexNet's last layers, and no less of VGG-16's
MS_SSIM_MINIMUM = 161  # the smallest that is still a window's after four halvings, rounded up
C1, C2 = 0.01**2, 0.03**2
POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM's scales, the finest first


def to_8_bit(image: Tensor) -> Tensor:
    """[0, 1] -> 0..255 as the paper's tables have it: clipped, then truncated, not rounded. uint8 stays as it is."""
    return image if image.dtype == torch.uint8 else image.mul(255).clamp_(0, 255).to(torch.uint8)


def _image_by_image(measure: Function) -> Function:
    """Make a measure of two uint8 images (3, H, W) one of (..., 3, H, W), float or uint8.

    One by one, what lies between stays in the processor's cache: several times as fast as a whole batch at once.
    """

    @wraps(measure)
    def of_all(image: Tensor, target: Tensor) -> Tensor:
        image, target = _pair(image, target)
        if image.ndim > 3:
            return torch.stack([of_all(*pair) for pair in zip(image, target, strict=True)])
        return measure(to_8_bit(image), to_8_bit(target))

    return of_all


@_image_by_image
def psnr(image: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB over all channels and pixels, infinite for equals: (..., 3, H, W) twice -> (...)."""
    error = (image.contiguous().short() - target.contiguous().short()).int()  # mixed types would be five times slower
    squares = (error * error).sum(-1, dtype=torch.int32).sum()  # exact: 32 bits hold a row of 33,000 pixels
    return 10 * torch.log10(255**2 * error.numel() / squares.double())


@_image_by_image
def ssim(image: Tensor, target: Tensor) -> Tensor:
    """SSIM in [-1, 1], the mean over channels: (..., 3, H, W) twice, sides of 11 or more -> (...).

    It is `tf.image.ssim`, on RGB: Gaussian window of 11x11 where it lies within the image, negative values kept.
    As there, all is single precision, whose rounding is part of the figure: up to 2e-4 where an image is flat.
    Source: Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13(4), 2004.
    """
    _require_side(image, SSIM_MINIMUM, "SSIM")
    similarity, _ = _similarity(*_unit(image, target))
    return similarity.mean()


@_image_by_image
def ms_ssim(image: Tensor, target: Tensor) -> Tensor:
    """MS-SSIM in [0, 1], the mean over channels: (..., 3, H, W) twice, sides of 161 or more -> (...).

    It is `tf.image.ssim_multiscale`, on RGB: five scales, each the 2x2 mean of the one before; a negative mean of one
    scale counts as 0. Source: Wang, Simoncelli and Bovik, Asilomar Conference 2003.
    """
    _require_side(image, MS_SSIM_MINIMUM, "MS-SSIM")
    (image, target), score = _unit(image, target), 1.0
    *finer, coarsest = POWERS
    for power in finer:
        _, structure = _similarity(image, target)
        score = score * structure.relu() ** power
        # TensorFlow repeats the last row of an odd side; the mean of that pair is the mean of what is there.
        image, target = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (image, target))
    similarity, _ = _similarity(image, target)
    return (score * similarity.relu() ** coarsest).mean()


@_image_by_image
def delta_e_2000(image: Tensor, target: Tensor) -> Tensor:
    """CIEDE2000 of sRGB colours (D65), the mean over pixels: (..., 3, H, W) twice -> (...). Computed on the CPU."""
    colour = _colour()
    pixels = (x.permute(1, 2, 0).cpu().numpy() / 255 for x in (image, target))
    lab = (colour.XYZ_to_Lab(colour.sRGB_to_XYZ(x)) for x in pixels)
    difference = colour.delta_E(*lab, method="CIE 2000").mean()
    return torch.tensor(difference, dtype=torch.float64, device=image.device)


# --- what they stand on ----------------------------------------------------------------------------------------------


def _pair(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both, with the same leading dimensions; or a UserError, where there is nothing to compare."""
    one, other = tuple(image.shape), tuple(target.shape)
    if len(one) < 3 or one[-3] != 3 or 0 in one + other:
        raise UserError(f"got images of shape {one} and targets of {other}; give RGB images, (N, 3, H, W), not empty")
    try:
        lead = torch.broadcast_shapes(one[:-3], other[:-3])
    except RuntimeError:
        lead = None
    if one[-3:] != other[-3:] or lead is None:
        raise UserError(f"images of shape {one} cannot be compared with targets of {other}; give as many of one size")
    return image.expand(*lead, *one[-3:]), target.expand(*lead, *one[-3:])


def _unit(*images: Tensor) -> list[Tensor]:
    """uint8 -> [0, 1], as TensorFlow converts."""
    return [image.float() * (1 / 255) for image in images]


def _require_side(image: Tensor, smallest: int, label: str) -> None:
    height, width = image.shape[-2:]
    if min(height, width) < smallest:
        advice = "leave it out, or score larger images"
        raise UserError(f"{label} needs sides of at least {smallest} pixels, not {height}x{width}; {advice}")


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM of each channel, and its contrast-structure factor alone: (3, H, W) twice, in [0, 1] -> (3,), (3,)."""
    mean_x, mean_y, product, squares = _blur(torch.stack((x, y, x * y, x * x + y * y)))
    means, squared_means = 2 * mean_x * mean_y, mean_x**2 + mean_y**2
    structure = (2 * product - means + C2) / (squares - squared_means + C2)
    luminance = (means + C1) / (squared_means + C1)
    return (luminance * structure).double().mean((-2, -1)), structure.double().mean((-2, -1))


def _blur(x: Tensor) -> Tensor:
    """The window's weighted mean: (B, 3, H, W) -> (B, 3, H - 10, W - 10)."""
    with torch.backends.cudnn.flags(allow_tf32=False):  # ten bits of mantissa are too few for a variance
        return F.conv2d(x.flatten(0, 1)[:, None], _window().to(x.device)).unflatten(0, x.shape[:2])[:, :, 0]


@cache
def _window() -> Tensor:
    """The Gaussian of 11x11, sigma 1.5, (1, 1, 11, 11), summed and rounded as TensorFlow does it."""
    exponents = -((torch.arange(11, dtype=torch.float32) - 5) ** 2) / (2 * 1.5**2)
    return (exponents[None] + exponents[:, None]).flatten().softmax(0).view(1, 1, 11, 11)


def _on_unit_range(measure: Function) -> Function:
    """Make a measure of two float (N, 3, H, W) in [0, 1] one of (..., 3, H, W), float or uint8, in 8 bits."""

    @torch.no_grad()
    def of_8_bit(image: Tensor, target: Tensor) -> Tensor:
        pair = _pair(image, target)
        batches = (to_8_bit(x).reshape(-1, *x.shape[-3:]) / 255 for x in pair)
        return measure(*batches).double().reshape(pair[0].shape[:-3])

    return of_8_bit


def _by_network(name: str, network: nn.Module) -> Function:
    def measure(image: Tensor, target: Tensor) -> Tensor:
        _require_side(image, NETWORK_MINIMUM, MEASURES[name].label)
        return of_unit_range(image, target)

    of_unit_range = _on_unit_range(network)
    return measure


def _pyiqa(name: str, image: Tensor, target: Tensor) -> Tensor:
    """pyiqa's measure of that name, as it has it by default: (..., 3, H, W) twice -> (...)."""
    _require_side(image, {"ssim": SSIM_MINIMUM, "ms_ssim": MS_SSIM_MINIMUM}.get(name, 1), MEASURES[name].label)
    return _on_unit_range(_pyiqa_module(name))(image, target)


@cache
def _pyiqa_module(name: str) -> nn.Module:
    import pyiqa  # takes seconds

    return pyiqa.create_metric(name, device="cpu").net  # without parameters: it follows the images to their device


def _colour() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about optional packages that it misses
        import colour  # takes seconds
    return colour


# --- what a report shows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """How a column is headed and read; `digits` behind the point are worth printing."""

    label: str
    unit: str
    higher_is_better: bool
    digits: int


MEASURES = {
    "psnr": Measure("PSNR", "dB", True, 2),
    "ssim": Measure("SSIM", "", True, 4),
    "ms_ssim": Measure("MS-SSIM", "", True, 4),
    "lpips": Measure("LPIPS", "", False, 4),
    "lpips_plus": Measure("LPIPS+", "", False, 4),
    "dists": Measure("DISTS", "", False, 4),
    "delta_e": Measure("Delta E 2000", "", False, 2),
}
NETWORKS = ("lpips", "lpips_plus", "dists")  # a pretrained network computes these; the caller provides it


@dataclass(frozen=True)
class Protocol:
    """One line that says how it measures, its usual columns, and what computes all of them but NETWORKS."""

    summary: str
    measures: tuple[str, ...]
    functions: dict[str, Function]


_RGB = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim, "delta_e": delta_e_2000}
PROTOCOLS = {
    "paper": Protocol(
        "the paper's tables: 8 bits, truncated; PSNR on RGB; SSIM and MS-SSIM as tf.image on RGB; LPIPS v0.1 with "
        "AlexNet on [-1, 1]; of each image, then the mean",
        ("psnr", "ssim", "ms_ssim", "lpips"),
        _RGB,
    ),
    # The challenge's own script is not public: bits, PSNR and SSIM are those of `paper`.
    "ntire26": Protocol(
        "the measures of the NTIRE 2026 challenge, not its own script: 8 bits, truncated, PSNR and SSIM as in protocol "
        "paper; CIEDE2000 of sRGB (D65); of each image, then the mean",
        ("psnr", "ssim", "delta_e"),
        _RGB,
    ),
    "pyiqa": Protocol(
        "pyiqa's defaults: 8 bits, truncated; PSNR on RGB; SSIM and MS-SSIM on rounded Y; LPIPS v0.1 and LPIPS+ with "
        "AlexNet; of each image, then the mean",
        ("psnr", "ssim", "ms_ssim", "lpips", "lpips_plus"),
        {name: partial(_pyiqa, name) for name in ("psnr", "ssim", "ms_ssim")},
    ),
}


def choose(protocol: str, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns of a report: those named, or the protocol's usual ones. UserError where it does not know a name."""
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol '{protocol}'; known are: {', '.join(PROTOCOLS)}")
    known = [name for name in MEASURES if name in NETWORKS or name in PROTOCOLS[protocol].functions]
    for name in names:
        if name not in known:
            raise UserError(f"protocol '{protocol}' has no measure '{name}'; known are: {', '.join(known)}")
    return tuple(dict.fromkeys(names)) or PROTOCOLS[protocol].measures


def build(protocol: str, names: Sequence[str], network: Callable[[str], nn.Module]) -> dict[str, Function]:
    """Column -> function of two uint8 (N, 3, H, W) -> (N,), for the columns that `choose` gives.

    `network(name)` is called for those of NETWORKS among them. It returns a module, on the device of the images to
    come, that takes two float (N, 3, H, W) in [0, 1] and returns (N,).
    """
    return {
        name: _by_network(name, network(name)) if name in NETWORKS else PROTOCOLS[protocol].functions[name]
        for name in choose(protocol, names)
    }
