"""The Mobile AI challenges' score of a learned ISP, from PSNR and the latency on the challenge's phone.

- 2021: PSNR + a (0.2 - seconds); a is 20 up to 200 ms, else 0.5. Ignatov et al., *Learned Smartphone ISP on Mobile NPUs
  with Deep Learning, Mobile AI 2021 Challenge: Report*, CVPRW 2021 (arXiv:2105.07809); MediaTek Dimensity 1000+.
- 2022: 2^(2 PSNR) / (C ms). Ignatov et al., *Learned Smartphone ISP on Mobile GPUs with Deep Learning, Mobile AI & AIM
  2022 Challenge: Report*, ECCVW 2022; Snapdragon 8 Gen 1. C only sets the scale, and was not published.
"""

import math

from errors import UserError

LIMIT = 0.2  # seconds
FORMULAS = ("2021", "2022")


def score(psnr: float, milliseconds: float, formula: str = "2022", constant: float | None = None) -> float:
    """The challenge's score.

    Args:
        psnr: in dB, on the challenge's test set.
        milliseconds: measured on a phone, for Full HD.
        formula: "2021" or "2022".
        constant: 2021: a, instead of the published ones; 2022: C, by default 1.

    Raises `UserError` for numbers that no measurement gives.
    """
    if not (math.isfinite(psnr) and math.isfinite(milliseconds) and milliseconds > 0):
        raise UserError(f"--score needs a PSNR in dB and a latency above 0 ms, not {psnr:g} and {milliseconds:g}")
    if constant is not None and not (math.isfinite(constant) and constant > 0):
        raise UserError(f"--score-constant must be above 0, but is {constant:g}")
    seconds = milliseconds / 1e3
    if formula == "2021":
        weight = constant if constant is not None else 20.0 if seconds <= LIMIT else 0.5
        return psnr + weight * (LIMIT - seconds)
    if psnr > 500:  # 2^(2 PSNR) would be infinite
        raise UserError(f"--score: no image has a PSNR of {psnr:g} dB")
    return 2 ** (2 * psnr) / ((constant or 1.0) * milliseconds)
