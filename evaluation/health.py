"""Signs that training goes wrong, which need no pairs: in the generated images, and in the critics' logits.

A mesh of two pixels, a colour that died or was inverted, and a colour cast are seen in the images; a critic that has
won is seen in its logits. `Watch` turns them into sentences that say what to do.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@torch.no_grad()
def measure(outputs: Sequence[Tensor], demosaiced: Sequence[Tensor], photographs: Sequence[Tensor]) -> dict[str, float]:
    """The signs in `outputs` of mosaics, of which `demosaiced` are the references; photographs may be of other scenes.

    All images are (3, H, W) in [0, 1], of even sides.

    - "health/mesh": amplitude of a pattern that repeats every two pixels, in grey levels of 255, as `mesh` has it;
    - "health/structure": the lowest correlation of a colour of the outputs with that of the references: near 0 if a
      colour has died, negative if it is inverted;
    - "health/cast": how far the means of red minus green, or blue minus green, are from the photographs', in grey
      levels of 255. These depend less than the brightness on which scenes the two sides show.
    """
    structure = torch.stack([_correlation(a, b) for a, b in zip(outputs, demosaiced, strict=True)]).mean(0)
    means = [torch.stack([image.mean((1, 2)) for image in images]).mean(0) for images in (outputs, photographs)]
    red, green, blue = means[0] - means[1]
    return {
        "health/mesh": float(torch.stack([mesh(image) for image in outputs]).mean()),
        "health/structure": float(structure.min()),
        "health/cast": float(255 * max(abs(red - green), abs(blue - green))),
    }


def mesh(image: Tensor) -> Tensor:
    """The amplitude of a pattern that repeats every two pixels, in grey levels of 255, of (3, H, W), H and W even.

    It is the deviation within a colour's mean 2x2 block, that is the energy at the Nyquist frequencies, of the colour
    with the most. Textures of so fine a scale change their phase within an image, and are averaged away; a mesh is not.
    """
    channels, height, width = image.shape
    block = image.reshape(channels, height // 2, 2, width // 2, 2).mean((1, 3)).flatten(1)
    return 255 * block.std(1, correction=0).max()


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of each channel of (3, H, W): (3,); 0 for a constant one."""
    a, b = ((x - x.mean((1, 2), keepdim=True)).flatten(1) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-6)


# --- alarms ----------------------------------------------------------------------------------------------------------


MOST = 0.7  # of the lines: all of three, seven of ten


@dataclass(frozen=True)
class Rule:
    """When a statistic of the log is a cause for alarm: if it is beyond `limit` in most of `lines` lines.

    Early in training it may be, and fall; so there is none while the excess is less than half of that `lines` before.
    The limits separate the runs of docs/ablations.md that went wrong from the others (docs/beyond.md).
    """

    statistic: str  # a name, or its end
    limit: float
    lines: int
    sentence: str  # {value}, {name}
    sign: int = 1  # -1: if it falls below
    not_in: str = ""  # a stage whose images may be so


RULES = (
    Rule(
        "health/mesh",
        1.5,
        3,
        "the images have a mesh of two pixels (amplitude {value:.1f} of 255): raise the weight of the total variation, "
        "or lower the learning rates",
    ),
    Rule(
        "health/structure",
        0.5,
        3,
        "a colour of the images no longer follows the mosaics (correlation {value:.2f}): it has died or is inverted. "
        "Continue from an earlier checkpoint (--init) with lower rates, or raise the weight of the content loss",
        sign=-1,
    ),
    Rule(
        "health/cast",
        20.0,
        3,
        "the images have a colour cast that the photographs do not have ({value:.0f} of 255): choose an earlier "
        "checkpoint, lower the learning rates, or fit the colours first (fit.py quick)",
        not_in="pretrain",  # it aims at the demosaiced rendering, not at photographs
    ),
    Rule(
        "/gap",
        3.0,
        10,
        "the critic {name} tells all generated images from photographs (logit gap {value:.1f}), so it teaches little: "
        "lower its learning rate (--train.lr-of), or update it less often (--train.every-of)",
    ),
)


@dataclass
class Watch:
    """Looks at the lines of a log, one after another, and says once for each statistic and stage what is wrong."""

    recent: dict[tuple[str, str], deque[float]] = field(default_factory=dict)  # (stage, statistic) -> last excesses
    said: set[tuple[str, str]] = field(default_factory=set)

    def look(self, stage: str, step: int, values: dict[str, float]) -> list[str]:
        """New sentences after a line of `values` by name."""
        found = []
        for rule in RULES:
            for name in (name for name in values if name.endswith(rule.statistic) and stage != rule.not_in):
                excess = self.recent.setdefault((stage, name), deque(maxlen=rule.lines))
                excess.append(rule.sign * (values[name] - rule.limit))
                enough = sum(value > 0 for value in excess) >= MOST * rule.lines
                wrong = enough and excess[-1] > max(0, excess[0] / 2)
                if wrong and (stage, name) not in self.said:
                    self.said.add((stage, name))
                    sentence = rule.sentence.format(value=values[name], name=name.split("/")[1])
                    found.append(f"step {step} of {stage}: {sentence}")
        return found


def alarms(log: Sequence[dict]) -> list[str]:
    """What a `Watch` says of the lines of a log.jsonl."""
    watch, found = Watch(), []
    for line in log:
        if "step" in line:
            values = {name: value for name, value in line.items() if isinstance(value, float)}
            found += watch.look(line["stage"], line["step"], values)
    return found
