"""The generators, by name. A new network is a file here and a row in `MODELS`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from errors import UserError
from models import syenet
from models.csanet import CSANet
from models.cyclegan import CycleGenerators
from models.efficient import ContextISP, EfficientISP
from models.kernels import KernelISP, reach_of
from models.lan import LAN
from models.liteispnet import LiteISPNet
from models.mapper import Mapper
from models.microisp import MicroISP
from models.pynet import PyNET
from models.pynet_v2 import PyNETV2
from models.rmfa import RMFANet
from models.srcnn import SRCNN
from models.syenet import SYENet


@dataclass(frozen=True)
class ModelSpec:
    """A generator and how to feed it.

    The network takes what `data.inputs.prepare` makes of a mosaic (N, 1, H, W) and returns the sRGB image
    (N, 3, H, W), nominally in [0, 1].
    """

    build: Callable[[], nn.Module]  # with freshly initialised weights, from torch's global random state
    input_format: str  # a name in data.inputs.INPUT_FORMATS
    reach: int | None  # mosaic pixels to each side that an output pixel depends on; None: on the whole image
    memory: int = 0  # bytes that a mosaic pixel needs at once, for a network that takes images whole
    minimum: int = 0  # the least mosaic pixels of a side; it pads to the multiple that it needs by itself (padding.py)
    multiple: int = 2  # bands of an image start at multiples of so many mosaic rows: its poolings begin there, too
    for_use: Callable[[Any], nn.Module] | None = None  # makes a smaller network that computes the same in eval mode
    released_for: str = "fujifilm"  # a name in data.sensor.SENSORS: the camera that its released weights expect


_context = partial(ModelSpec, input_format="packed_context", reach=6)
_packed = partial(ModelSpec, input_format="packed", reach=6)  # three 3x3 convolutions at half resolution
# Channel attention looks at the whole image. Memory as measured in float32 on a CPU: 27 bytes a channel of its width.
_rmfa = partial(ModelSpec, input_format="split", reach=None, memory=440, released_for="fujifilm-rmfa")
_syenet = partial(ModelSpec, input_format="rggb_4095", reach=None, memory=80)


def _kernels(widths: tuple[int, ...]) -> ModelSpec:
    """`KernelISP` with these widths. Padding by reflection needs sides of at least 5 packed pixels."""
    levels = len(widths)
    build = partial(KernelISP, widths=widths)
    return ModelSpec(build, input_format="packed", reach=reach_of(levels), minimum=10, multiple=2**levels)


MODELS: dict[str, ModelSpec] = {
    "efficient": _packed(partial(EfficientISP, widths=(12, 12, 12))),  # 3,060 parameters
    "efficient-context": _context(partial(ContextISP, widths=(12, 12, 12))),  # 3,792
    "robust": _packed(partial(EfficientISP, widths=(16, 4, 12))),  # 1,616
    "rmfa-tiny": _rmfa(partial(RMFANet, blocks=2, width=16)),  # 29,223
    "rmfa-medium": _rmfa(partial(RMFANet, blocks=8, width=16)),  # 107,283
    "rmfa-large": _rmfa(partial(RMFANet, blocks=20, width=16)),  # 263,403
    "rmfa-large-32": _rmfa(partial(RMFANet, blocks=20, width=32), memory=870),
    "rmfa-large-64": _rmfa(partial(RMFANet, blocks=20, width=64), memory=1740),
    # Networks by others (docs/networks.md)
    "lan": ModelSpec(LAN, "dn", reach=None, memory=120, minimum=4),  # 46,847
    "microisp": ModelSpec(MicroISP, "packed_1020", reach=None, memory=75, minimum=158),  # 13,560
    "srcnn": ModelSpec(SRCNN, "packed", reach=16),  # 81,644
    "csanet": ModelSpec(CSANet, "rggb_4095", reach=None, memory=100, minimum=4),  # 28,511
    "syenet": _syenet(SYENet, for_use=syenet.fold),  # 108,715; 5,640 in use
    "syenet-folded": _syenet(partial(SYENet, folded=True)),  # trained as it is used
    "pynet-v2": ModelSpec(PyNETV2, "packed_1020", reach=None, memory=400, minimum=50),  # 932,583; 930,255 in use
    "liteispnet": ModelSpec(  # 9,039,623
        LiteISPNet, "packed_63", reach=None, memory=1000, minimum=10, released_for="fujifilm-rmfa"
    ),
    "pynet": ModelSpec(PyNET, "packed_1020", reach=None, memory=1200, minimum=34),  # 47,554,738
    # Per-pixel kernels (Xing et al., A Well-aligned Dataset for Learning ISP, SIGGRAPH 2022 poster)
    "per-pixel-kernels": _kernels((32, 64, 128, 256)),  # 1,961,404
    "per-pixel-kernels-small": _kernels((8, 16, 32)),  # 33,724: trains on a CPU in minutes
}


def model_spec(name: str) -> ModelSpec:
    """The row of `MODELS`. Raises `UserError` for an unknown name."""
    if name not in MODELS:
        raise UserError(f"unknown model '{name}'; known are: {', '.join(MODELS)}")
    return MODELS[name]


def build_model(name: str) -> nn.Module:
    """A generator with freshly initialised weights. Raises `UserError` for an unknown name."""
    return model_spec(name).build()


# --- between two cameras ----------------------------------------------------------------------------------------------

# Raw-to-raw mappers, which take and return planes (data/planes.py); weights from torch's global random state. A row is
# called with the number of `channels`, 4 or 3.
MAPPERS: dict[str, Callable[..., nn.Module]] = {
    "mapper": Mapper,  # 5,584,320 parameters with four channels
    "mapper-pooled": partial(Mapper, head="pooled"),  # one transform an image
    "mapper-plain": partial(Mapper, encoder="plain"),  # convolutions alone
    "cyclegan": CycleGenerators,  # CycleGAN's own, the usual baseline
}


def build_mapper(name: str, channels: int = 4) -> nn.Module:
    """Mappers between two cameras with freshly initialised weights. Raises `UserError` for an unknown name."""
    if name not in MAPPERS:
        raise UserError(f"unknown mapper '{name}'; known are: {', '.join(MAPPERS)}")
    return MAPPERS[name](channels=channels)
