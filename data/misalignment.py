"""How far the pictures of a pair, which should show the same in the same pixels, are from doing so."""

import cv2
import numpy as np

from data.agreement import TEXTURE, comparable, correlation, flow
from data.registration import luma, with_tones_of

REACH = 12  # pixels: the largest shift that is searched for
SMOOTH = 1.0  # pixels: the Gaussian by which a sensor's noise is reduced before
DETAIL = 0.05  # of a picture, in which there must be something to correlate
SAME = 0.4  # correlation at the best shift; below it, the two pictures do not show the same scene
BETTER = 0.005  # by which the correlation at the best shift must exceed that without a shift


def misalignment(rendered: np.ndarray, photo: np.ndarray) -> dict[str, float]:
    """Figures of a rendering and its photograph, (H, W, 3) uint8 of one size.

    - "shift": pixels of the best shift of the whole picture, up to `REACH` in each direction;
    - "flow": the median of the residual flow, in pixels, where there is detail;
    - "ncc" and "ncc_shifted": the correlation of brightness without and with that shift;
    - "detail": the share of the picture that has detail.
    """
    toned = with_tones_of(rendered, photo, np.ones(photo.shape[:2]))
    first, second = luma(toned), luma(photo)
    _, contrast = correlation(first, second)
    detailed = contrast > TEXTURE
    a, b = (cv2.GaussianBlur(image, (0, 0), SMOOTH).astype(np.float32) for image in (first, second))
    reach = min(REACH, min(a.shape) // 4)
    inner = a[reach:-reach, reach:-reach]
    scores = cv2.matchTemplate(b, inner, cv2.TM_CCOEFF_NORMED)
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    residual = np.linalg.norm(flow(comparable(toned), comparable(photo)), axis=-1)
    return {
        "shift": float(np.hypot(row - reach, column - reach)),
        "flow": float(np.median(residual[detailed])) if detailed.any() else 0.0,
        "ncc": float(scores[reach, reach]),
        "ncc_shifted": float(scores[row, column]),
        "detail": float(detailed.mean()),
    }


def judge(figures: dict[str, float], largest: float) -> tuple[str, bool]:
    """(why a pair with these figures is misaligned, "" if it is not; whether there is enough detail to tell).

    It is misaligned if its content is moved by more than `largest` pixels, or not the same.
    """
    if figures["detail"] < DETAIL:
        return "", False
    if figures["ncc_shifted"] < SAME:
        return "shows something else", True
    if figures["shift"] > largest and figures["ncc_shifted"] > figures["ncc"] + BETTER:
        return "shifted", True
    return ("moved" if figures["flow"] > largest else ""), True
