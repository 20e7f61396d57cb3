"""Protocols: which measures a table of scores has, and which implementation computes each of them.

To add a protocol, write a row in `PROTOCOLS`. To add a measure to the protocols, see `evaluation.metrics`, and
`evaluation.raw_measures` for those of planes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor, nn

from errors import UserError
from evaluation.metrics import (
    MEASURES,
    MS_SSIM_MINIMUM,
    SSIM_MINIMUM,
    Function,
    Measure,
    broadcast_pair,
    require_side,
    to_8_bit,
)
from evaluation.raw_measures import RAW_MEASURES, directed

Scored = Literal["images", "planes"]  # 8-bit RGB (..., 3, H, W); a mosaic's floating point planes (N, C, H, W)
OUTPUTS = {"images": "photographs", "planes": "mosaics of another camera"}  # in words

NETWORK_MINIMUM = 32  # pixels of the shorter side that AlexNet's last layers need; VGG-16 (DISTS) needs no more


@dataclass(frozen=True)
class Protocol:
    """A way to score images, or the planes of mosaics, as papers name it."""

    # One line. Score tables store it and count as scored only with the same text: a change makes them stale.
    summary: str
    measures: tuple[str, ...]  # its usual columns, names in MEASURES, or in RAW_MEASURES for planes
    functions: dict[str, Function] | None = None  # by column, replacing those of the measures; None: use these
    scored: Scored = "images"  # what its functions compare


def find_protocol(name: str, scored: Scored | None = None) -> Protocol:
    """The row of `PROTOCOLS`. Raises `UserError` if it is unknown, or does not score what is `scored` here."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol '{name}'; known are: {', '.join(PROTOCOLS)}")
    if scored not in (None, PROTOCOLS[name].scored):
        fitting = ", ".join(other for other, row in PROTOCOLS.items() if row.scored == scored)
        raise UserError(
            f"protocol '{name}' scores {OUTPUTS[PROTOCOLS[name].scored]}, but this model makes {OUTPUTS[scored]}: "
            f"choose one of {fitting}"
        )
    return PROTOCOLS[name]


def measures_of(protocol: str) -> dict[str, Measure]:
    """The measures by column that tables of this protocol can have; those of planes also for each direction alone."""
    return MEASURES if find_protocol(protocol).scored == "images" else directed(RAW_MEASURES)


def all_measures() -> dict[str, Measure]:
    """The measures of all protocols by column, for headings and options; of one name, that of images."""
    return directed(RAW_MEASURES) | MEASURES


def choose(protocol: str, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns of a table: `names` without repetition, or the protocol's usual ones if there are none.

    Raises `UserError` for an unknown protocol, and for a measure that the protocol does not have.
    """
    measures, own = measures_of(protocol), PROTOCOLS[protocol].functions
    known = [name for name, measure in measures.items() if own is None or name in own or measure.function is None]
    for name in names:
        if name not in known:
            raise UserError(f"protocol '{protocol}' has no measure '{name}'; known are: {', '.join(known)}")
    return tuple(dict.fromkeys(names)) or PROTOCOLS[protocol].measures


def needs_network(protocol: str, name: str) -> bool:
    """Whether a pretrained network computes this column, one of those that `choose` returns."""
    return measures_of(protocol)[name].function is None and name not in (PROTOCOLS[protocol].functions or {})


def build(protocol: str, names: Sequence[str], network: Callable[[str], nn.Module]) -> dict[str, Function]:
    """The function of each column that `choose` returns: images and targets (..., 3, H, W) -> scores (...).

    Those of a protocol that scores planes take planes and truth (N, C, H, W) -> (N,), and need no network.
    `network(name)` is called once for each column with `needs_network`. It returns a module on the images' device that
    takes two float tensors (N, 3, H, W) in [0, 1] and returns (N,); or, for a measure of sets, one, and returns its
    features (N, D). The function of such a column gives the features of both, (..., 2, D), for `Measure.of_set`.
    """
    columns, measures = choose(protocol, names), measures_of(protocol)
    own = PROTOCOLS[protocol].functions
    functions = {name: measure.function for name, measure in measures.items()} if own is None else own
    return {
        name: _of_network(network(name), measures[name]) if needs_network(protocol, name) else functions[name]
        for name in columns
    }


# --- measures of networks and of pyiqa ------------------------------------------------------------------------------


def _of_8_bits(measure: Function) -> Function:
    """Extend a measure of two float batches (N, 3, H, W) in [0, 1] to images (..., 3, H, W), converted to 8 bits."""

    @torch.no_grad()
    def extended(image: Tensor, target: Tensor) -> Tensor:
        pair = broadcast_pair(image, target)
        batches = (to_8_bit(x).reshape(-1, *x.shape[-3:]) / 255 for x in pair)
        scores = measure(*batches).double()  # (N,), or features (N, 2, D)
        return scores.unflatten(0, pair[0].shape[:-3]) if pair[0].ndim > 3 else scores[0]

    return extended


def refuse_single(names: Sequence[str], images: int) -> None:
    """Raise `UserError` if one of these columns compares sets, and there are fewer than two images."""
    for name in names:
        if name in MEASURES and MEASURES[name].of_set and images < 2:
            raise UserError(f"measure '{name}' compares sets of images and needs at least two, but there is {images}")


def _of_network(network: nn.Module, measure: Measure) -> Function:
    """The measure that `network` computes, with a check of the images' size."""

    def of_set(image: Tensor, target: Tensor) -> Tensor:
        return torch.stack((network(image), network(target)), dim=1)

    function = _of_8_bits(of_set if measure.of_set else network)

    def checked(image: Tensor, target: Tensor) -> Tensor:
        require_side(image, NETWORK_MINIMUM, measure.label)
        return function(image, target)

    return checked


def _pyiqa(name: str, smallest: int, image: Tensor, target: Tensor) -> Tensor:
    """pyiqa's measure `name` with its default settings: (..., 3, H, W) twice -> (...)."""
    require_side(image, smallest, MEASURES[name].label)
    return _of_8_bits(_pyiqa_module(name))(image, target)


@cache
def _pyiqa_module(name: str) -> nn.Module:
    import pyiqa  # takes seconds

    return pyiqa.create_metric(name, device="cpu").net  # has no parameters, so it computes on the images' device


PROTOCOLS = {
    "paper": Protocol(
        "the paper's tables: 8 bits, truncated; PSNR on RGB; SSIM and MS-SSIM as tf.image on RGB; LPIPS v0.1 with "
        "AlexNet on [-1, 1]; of each image, then the mean",
        ("psnr", "ssim", "ms_ssim", "lpips"),
    ),
    # The challenge's own script is not public: bits, PSNR and SSIM are those of protocol paper.
    "ntire26": Protocol(
        "the measures of the NTIRE 2026 challenge, not its own script: 8 bits, truncated, PSNR and SSIM as in protocol "
        "paper; CIEDE2000 of sRGB (D65); of each image, then the mean",
        ("psnr", "ssim", "delta_e"),
    ),
    "pyiqa": Protocol(
        "pyiqa's defaults: 8 bits, truncated; PSNR on RGB; SSIM and MS-SSIM on rounded Y; LPIPS v0.1 and LPIPS+ with "
        "AlexNet; of each image, then the mean",
        ("psnr", "ssim", "ms_ssim", "lpips", "lpips_plus"),
        {
            "psnr": partial(_pyiqa, "psnr", 1),
            "ssim": partial(_pyiqa, "ssim", SSIM_MINIMUM),
            "ms_ssim": partial(_pyiqa, "ms_ssim", MS_SSIM_MINIMUM),
        },
    ),
    "raw2raw": Protocol(
        "raw-to-raw mapping: floating point planes, clipped to [0, 1], all channels and pixels; PSNR; SSIM with a "
        "Gaussian of 11x11 pixels; mean absolute error; KL of histograms of 255 x, truncated, both ways, the mean over "
        "channels; of each file in each direction, then the mean",
        ("psnr", "ssim", "mae", "kl"),
        scored="planes",
    ),
}
