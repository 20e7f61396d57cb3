"""What measures compare of a mapped mosaic and its truth: planes or, where pixels do not agree, colour charts."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from data.two_cameras import Pair, TwoCameras
from errors import UserError
from evaluation.evaluators import Scores
from evaluation.metrics import Function
from evaluation.protocols import PROTOCOLS
from evaluation.raw_measures import DIRECTIONS, kl_of_any_size

# Of pairs whose pixels do not agree: measures of whole pictures, and those that need agreeing pixels. All others
# compare the mean colours of the patches of colour charts, as the paper's Table 2 does.
WHOLE, ALIGNED = {"kl": kl_of_any_size}, {"ssim"}


def describe(protocol: str, cameras: TwoCameras) -> str:
    """What the scores in a table mean: the protocol, and what is special with these cameras."""
    text = f"{protocol}: {PROTOCOLS[protocol].summary}"
    if cameras.channels == 3:
        text += "; three planes, with the mean of the greens"
    if not cameras.aligned:
        text += "; pixels do not agree: no SSIM, and all but KL compare the mean colours of the patches of charts"
    return text


def without_aligned(columns: Sequence[str], given: Sequence[str], cameras: TwoCameras) -> tuple[str, ...]:
    """The columns that these cameras' pairs can have. Raises `UserError` for one that the user has `given`."""
    impossible = () if cameras.aligned else tuple(column for column in columns if measure_of(column) in ALIGNED)
    if named := [column for column in impossible if column in given]:
        raise UserError(
            f"'{named[0]}' compares pixels, which do not agree in the two cameras' pictures of this dataset: leave it "
            "out; psnr, mae and angle are taken on the colour charts, kl on whole pictures"
        )
    return tuple(column for column in columns if column not in impossible)


def measure_of(column: str) -> str:
    """The measure without the direction: "psnr_ab" -> "psnr"."""
    return next((column.removesuffix(f"_{end}") for end in DIRECTIONS if column.endswith(f"_{end}")), column)


def compare(measures: Mapping[str, Function], cameras: TwoCameras, pair: Pair, mapped: Tensor, truth: Tensor) -> Scores:
    """The scores by column of a source's planes, mapped (1, C, h, w), against the truth.

    Raises `UserError` for a map that changes the size of planes, and for charts that are not in the picture.
    """
    if cameras.aligned:
        return {column: float(function(mapped, truth)) for column, function in measures.items()}
    of_mapped, of_truth = cameras.views(pair)
    seen, scores = (of_mapped(mapped), of_truth(truth)), {}
    for column, function in measures.items():
        whole = WHOLE.get(measure_of(column))
        scores[column] = float(whole(mapped, truth) if whole else function(*seen))
    return scores
