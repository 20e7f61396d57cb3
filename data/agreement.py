"""How well two pictures of the same pixels agree: what moved between them, and what only one shows."""

import cv2
import numpy as np

from data.registration import luma, normalise

WINDOW = 31  # pixels: the side of the squares whose correlation is judged
TEXTURE = 4.0  # levels of 255: the standard deviation of such a square, below which there is nothing to correlate
SMOOTH = 2.0  # pixels: the Gaussian by which a sensor's noise is reduced before
SATURATED = 250  # levels of 255: above it in all colours, a pixel shows no content
EDGE = 4  # pixels along the photograph's edge, which its resampling reaches over


def correlation(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(correlation coefficient, contrast) of two images (H, W) uint8 in the square around each pixel: (H, W) float32.

    The contrast is the larger one of the two standard deviations. Noise is smoothed before.
    """
    a, b = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTH) for image in (first, second))
    size = (WINDOW, WINDOW)
    mean_a, mean_b = cv2.blur(a, size), cv2.blur(b, size)
    covariance = cv2.blur(a * b, size) - mean_a * mean_b
    power_a, power_b = cv2.blur(a * a, size) - mean_a**2, cv2.blur(b * b, size) - mean_b**2
    floor = 0.25  # squared levels: rounding to 8 bits
    ncc = covariance / np.sqrt(np.maximum(power_a, floor) * np.maximum(power_b, floor))
    return ncc.clip(-1, 1), np.sqrt(np.maximum(np.maximum(power_a, power_b), 0))


def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where each pixel of an image lies in another, relative to its own place: (H, W, 2) float32, x and y.

    DIS optical flow (Kroeger et al., ECCV 2016) of images (H, W) uint8, as `comparable` returns them.
    """
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


def comparable(image: np.ndarray) -> np.ndarray:
    """The brightness of an image (H, W, 3) uint8 with its local mean and contrast made equal: (H, W) uint8."""
    return (normalise(luma(image)) * 40 + 128.5).clip(0, 255).astype(np.uint8)


def round_trip(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """How far a pixel is from its place after the flow (H, W, 2) to the other image and `back`: (H, W) float32."""
    height, width = there.shape[:2]
    places = there + np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    returned = cv2.remap(back, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.linalg.norm(there + returned, axis=-1)


def inside(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which of these places (H, W, 2), x and y, lie in a photograph of this shape, off its very edge: (H, W) bool."""
    (x, y), (height, width) = np.moveaxis(places, -1, 0), shape[:2]
    return (x >= EDGE) & (x <= width - 1 - EDGE) & (y >= EDGE) & (y <= height - 1 - EDGE)


def lost_highlights(rendered: np.ndarray, warped: np.ndarray) -> np.ndarray:
    """Where the sensor is saturated and the photograph is not: (H, W) bool, of two images (H, W, 3) uint8.

    No network can know what was there. Where both are saturated, white is right.
    """
    return (rendered.min(axis=2) >= SATURATED) & (warped.min(axis=2) < SATURATED)
