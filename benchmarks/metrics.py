"""Times the measures on one large pair of images, and shows the memory that each adds, against the former way.

python benchmarks/metrics.py [--size 3000 4000] [--measures psnr ssim] [--weights auto] [--json FILE]

The former way computed SSIM, MS-SSIM and Delta E 2000 of a whole image at once, and SSIM's four images as a batch of
images with one channel. Both must give the same score within 1e-6. The other measures have no former way.
"""

import math
from unittest import mock

import torch
import torch.nn.functional as F
from common import alternate, machine, parser, peak_memory, positive, ratios, report, spread
from torch import Tensor

from errors import UserError, run_cli
from evaluation import metrics
from evaluation.metrics import MEASURES, Function
from tasks.device import choose_device
from tasks.scoring import build_measures

FORMER = ("ssim", "ms_ssim", "delta_e")  # measures that have a former way


def images(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A photograph, repeated to the size, and a noisy copy of it: (3, H, W) uint8."""
    from skimage import data

    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    photo = photo.repeat(1, -(-height // photo.shape[1]), -(-width // photo.shape[2]))[:, :height, :width].float()
    noise = 20 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    return tuple(x.clamp(0, 255).to(torch.uint8).to(device) for x in (photo + noise, photo))


def former(name: str) -> Function:
    """A measure as it was computed before: the whole image at once, SSIM's images as a batch."""

    def blur(planes: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(allow_tf32=False):
            return F.conv2d(planes[:, None], metrics._window().to(planes.device))[:, 0]

    def measure(image: Tensor, target: Tensor) -> Tensor:
        with mock.patch.object(metrics, "_blur", blur), mock.patch.object(metrics, "BAND", image.numel()):
            return MEASURES[name].function(image, target)

    return measure


def compare(ways: dict[str, Function], repeats: int, pair: tuple[Tensor, Tensor]) -> dict[str, dict]:
    """{way: {"score", "seconds", "memory_mib"}} of one measure; with two ways, also how many times as fast is ours."""
    device, calls = pair[0].device, {way: lambda f=function: f(*pair) for way, function in ways.items()}
    scores = {way: call().item() for way, call in calls.items()}
    if max(scores.values()) - min(scores.values()) > 1e-6:
        raise UserError(f"the two ways give different scores: {scores}")
    times = alternate(calls, repeats, device)
    figures = {
        way: {"score": scores[way], "seconds": spread(times[way]), "memory_mib": peak_memory(calls[way], device)}
        for way in ways
    }
    if "former" in ways:
        figures["ours"]["times_as_fast"] = ratios(times["former"], times["ours"])
    return figures


def main() -> None:
    options = parser(__doc__, repeats=3)
    options.add_argument("--device", default="auto", help="as for fit.py (%(default)s)")
    options.add_argument("--size", nargs=2, type=positive, default=[3000, 4000], metavar=("H", "W"), help="%(default)s")
    options.add_argument("--measures", nargs="+", choices=MEASURES, default=["psnr", "ssim"], help="%(default)s")
    options.add_argument("--weights", choices=("pretrained", "auto", "random"), default="auto", help="%(default)s")
    given = options.parse_args()
    if min(given.repeats, *given.size) < 1:
        raise UserError("--repeats and both values of --size must be at least 1")
    device = choose_device(given.device)
    pair = images(*given.size, device)
    functions, weights = build_measures("paper", given.measures, given.weights, device)
    figures, rows = {}, [("measure", "", "seconds", "lowest", "highest", "MiB added", "times as fast")]
    with torch.inference_mode():
        for name, function in functions.items():
            ways = {"ours": function} | ({"former": former(name)} if name in FORMER else {})
            figures[name] = compare(ways, given.repeats, pair)
            for way, figure in figures[name].items():
                faster = figure.get("times_as_fast", {}).get("median", "")
                values = [*figure["seconds"].values(), figure["memory_mib"], faster]
                rows.append((name, way, *(f"{x:.4g}" if x != "" else "" for x in values)))
    whole = {"benchmark": "metrics", "machine": machine(device), "size": given.size, "weights": weights}
    title = f"One pair of {math.prod(given.size) / 1e6:.3g} megapixels"
    report(title, whole | {"measures": figures}, rows, given.json)


if __name__ == "__main__":
    run_cli(main)
