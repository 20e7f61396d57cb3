"""Pairs of 8-bit images to compare measures on, the same bit for bit on every machine.

Photographs come with scikit-image. What is done to them takes integers, a root (which IEEE 754 rounds exactly), and
numpy's legacy generator, whose stream is frozen; no codec and no power, which differ from build to build.
"""

import numpy as np

Image = np.ndarray  # (H, W, 3), uint8


def pairs() -> dict[str, tuple[Image, Image]]:
    """Name -> image and target. MS-SSIM is defined where both sides have at least 161 pixels."""
    return {name: pair for group in (_photographs(), _hard(), _small()) for name, pair in group.items()}


def _photographs() -> dict[str, tuple[Image, Image]]:
    return {
        "equal, 176x176": _spoilt("astronaut", 176, 176, lambda x: x),
        "noise, 161x161": _spoilt("astronaut", 161, 161, lambda x: _noisy(x, 25, seed=1)),
        "strong noise, 177x177": _spoilt("coffee", 177, 177, lambda x: _noisy(x, 120, seed=2)),
        "blur, 192x256": _spoilt("chelsea", 192, 256, _blurred),
        "gamma, 181x240": _spoilt("coffee", 181, 240, _brightened),
        "shift, 240x181": _spoilt("chelsea", 240, 181, lambda x: np.roll(x, (3, 5), (0, 1))),
        "blocks, 256x256": _spoilt("astronaut", 256, 256, _blocks),
        "four levels, 163x200": _spoilt("coffee", 163, 200, lambda x: x // 64 * 85),
        "red cast, 256x161": _spoilt("chelsea", 256, 161, lambda x: (x * np.array([8, 6, 5]) // 8).astype(np.uint8)),
        "blur and noise, 448x448": _spoilt("astronaut", 448, 448, lambda x: _noisy(_blurred(x), 12, seed=3)),
        "two photographs, 256x256": (_crop("coffee", 256, 256), _crop("chelsea", 256, 256)),
        "inverted, 178x256": _spoilt("astronaut", 178, 256, lambda x: 255 - x),
    }


def _hard() -> dict[str, tuple[Image, Image]]:
    """No structure, all of it, or the opposite one: variances of 0 and negative covariances."""
    board = np.indices((176, 192)).sum(0)[..., None].repeat(3, -1).astype(np.uint8) % 2 * 255
    noise, other = (_noise(192, 177, seed) for seed in (4, 5))
    return {
        "a constant and itself": (_constant(90, 160, 210), _constant(90, 160, 210)),
        "two constants": (_constant(90, 160, 210), _constant(120, 160, 60)),
        "constants one level apart": (_constant(200, 200, 200), _constant(201, 199, 200)),
        "black and white": (_constant(0, 0, 0), _constant(255, 255, 255)),
        "noise and other noise": (noise, other),
        "noise and its inverse": (noise, 255 - noise),
        "noise and a constant": (noise, np.full_like(noise, 128)),
        "chessboards, inverted": (board, 255 - board),
        "chessboard and grey": (board, np.full_like(board, 127)),
    }


def _small() -> dict[str, tuple[Image, Image]]:
    return {
        "noise, 11x11": _spoilt("coffee", 11, 11, lambda x: _noisy(x, 40, seed=6)),
        "blur, 11x40": _spoilt("chelsea", 11, 40, _blurred),
        "gamma, 37x95": _spoilt("astronaut", 37, 95, _brightened),
        "inverted, 64x64": _spoilt("astronaut", 64, 64, lambda x: 255 - x),
        "noise, 160x256": _spoilt("coffee", 160, 256, lambda x: _noisy(x, 25, seed=7)),
        "noise, 256x160": _spoilt("coffee", 256, 160, lambda x: _noisy(x, 25, seed=8)),
    }


def _crop(photograph: str, height: int, width: int) -> Image:
    from skimage import data

    return getattr(data, photograph)()[40 : 40 + height, 100 : 100 + width]


def _spoilt(photograph: str, height: int, width: int, spoil) -> tuple[Image, Image]:
    target = _crop(photograph, height, width)
    return spoil(target), target


def _constant(*rgb: int) -> Image:
    return np.broadcast_to(np.array(rgb, np.uint8), (170, 165, 3))


def _noise(height: int, width: int, seed: int) -> Image:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def _noisy(image: Image, amplitude: int, seed: int) -> Image:
    noise = np.random.RandomState(seed).randint(-amplitude, amplitude + 1, image.shape, np.int32)
    return (image + noise).clip(0, 255).astype(np.uint8)


def _blurred(image: Image) -> Image:
    """The mean of 3x3 pixels, truncated; the edges wrap around."""
    around = [np.roll(image, (y, x), (0, 1)).astype(np.int32) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return (sum(around) // 9).astype(np.uint8)


def _brightened(image: Image) -> Image:
    """Gamma 1/2."""
    return np.sqrt(image.astype(np.float64) * 255).astype(np.uint8)


def _blocks(image: Image) -> Image:
    """The mean of 8x8 pixels, truncated, in each of them; sides are multiples of 8."""
    height, width, _ = image.shape
    means = image.reshape(height // 8, 8, width // 8, 8, 3).astype(np.int32).sum((1, 3)) // 64
    return means.astype(np.uint8).repeat(8, 0).repeat(8, 1)
