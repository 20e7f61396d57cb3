"""From two pictures of a scene to the homography between them: features, a robust fit, and its refinement."""

import cv2
import numpy as np

SIDE = 1600  # pixels of the longer side of the images that features are found in; larger ones are scaled down
ECC_SIDE = 2048  # likewise for the refinement
FEATURES = 6000  # at most, the strongest
SMOOTH, FAINT = 1.0, 0.02  # Gaussian in pixels, against a sensor's noise; SIFT's threshold of contrast
ITERATIONS, EPSILON = 100, 1e-6  # of ECC: the most steps, and the rise of the correlation that ends it
WINDOW = 12.0  # pixels: the Gaussian in which brightness and contrast are made equal
CONTRAST = 4.0  # levels of 255: contrast below it is taken for noise, and not raised


def scaling(before: tuple[int, ...], after: tuple[int, ...]) -> np.ndarray:
    """The matrix (3, 3) from pixels of an image of shape `before` (H, W, ...) to those of its resized copy."""
    x, y = after[1] / before[1], after[0] / before[0]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]])


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """An image whose longer side has at most `side` pixels, by area averaging; itself if it is small enough."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = [max(1, round(length * factor)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def luma(image: np.ndarray) -> np.ndarray:
    """Brightness (H, W), uint8, of an sRGB image (H, W, 3), uint8."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


# --- features --------------------------------------------------------------------------------------------------------


def features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2), column and row, and descriptors (N, 128) of an image (H, W, 3) uint8; N may be 0.

    SIFT (Lowe, IJCV 2004) of the brightness after CLAHE, which evens out the tone curves of the two cameras. RootSIFT
    (Arandjelovic and Zisserman, CVPR 2012, section 3): the root of descriptors of sum 1.
    """
    small = shrink(image, SIDE)
    even = cv2.createCLAHE(2.0, (8, 8)).apply(cv2.GaussianBlur(luma(small), (0, 0), SMOOTH))
    keypoints, descriptors = cv2.SIFT_create(FEATURES, contrastThreshold=FAINT).detectAndCompute(even, None)
    if not keypoints:
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    points = transform(np.array([point.pt for point in keypoints]), scaling(small.shape, image.shape))
    return points, np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-7))


def matches(first: np.ndarray, second: np.ndarray, ratio: float) -> np.ndarray:
    """Indices (N, 2) of descriptors that fit together: nearer than the second nearest by `ratio`, each used once."""
    if min(len(first), len(second)) < 2:
        return np.empty((0, 2), int)
    there = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first, second, k=2)
    nearest: dict[int, tuple[float, int]] = {}  # of the second: (distance, which of the first)
    for best, other in there:
        if best.distance < ratio * other.distance:
            nearest[best.trainIdx] = min(nearest.get(best.trainIdx, (np.inf, -1)), (best.distance, best.queryIdx))
    return np.array(sorted((query, train) for train, (_, query) in nearest.items()), int).reshape(-1, 2)


def fit_homography(first: np.ndarray, second: np.ndarray, scale: float) -> tuple[np.ndarray | None, np.ndarray]:
    """The homography (3, 3) from points (N, 2) to points (N, 2), and which fit it (N,) bool; None if there is none.

    MAGSAC++ (Barath et al., CVPR 2020) with inliers of at most `scale` pixels.
    """
    if len(first) < 4:
        return None, np.zeros(len(first), bool)
    cv2.setRNGSeed(0)  # it draws samples
    matrix, inliers = cv2.findHomography(first, second, cv2.USAC_MAGSAC, scale, maxIters=10000, confidence=0.9999)
    if matrix is None:
        return None, np.zeros(len(first), bool)
    return matrix, inliers[:, 0] > 0


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (N, 2), float64, moved by a homography (3, 3)."""
    return cv2.perspectiveTransform(np.asarray(points, np.float64).reshape(-1, 1, 2), matrix)[:, 0]


def is_plausible(matrix: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a homography shows an image of this shape (H, W, ...) as a camera could: not mirrored, folded or tiny."""
    height, width = shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    depth = np.c_[corners, np.ones(4)] @ matrix[2]
    if not np.isfinite(matrix).all() or depth.min() * depth.max() <= 0:
        return False
    moved = transform(corners, matrix)
    sides = np.roll(moved, -1, axis=0) - moved
    turns = np.cross(np.pad(sides, ((0, 0), (0, 1))), np.pad(np.roll(sides, -1, axis=0), ((0, 0), (0, 1))))[:, 2]
    lengths = np.linalg.norm(sides, axis=1) / (width, height, width, height)
    return bool(turns.min() > 0 and lengths.min() > 1 / 16 and lengths.max() < 16 and lengths.max() < 4 * lengths.min())


# --- refinement ------------------------------------------------------------------------------------------------------


def normalise(grey: np.ndarray, sigma: float = WINDOW) -> np.ndarray:
    """(H, W) with the mean and contrast of each neighbourhood, a Gaussian of `sigma` pixels, made 0 and 1: float32."""
    centred = grey.astype(np.float32)
    centred -= cv2.GaussianBlur(centred, (0, 0), sigma)
    power = cv2.GaussianBlur(centred * centred, (0, 0), sigma)
    return centred / (np.sqrt(power, out=power) + CONTRAST)


def with_tones_of(image: np.ndarray, other: np.ndarray, where: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 whose every level is replaced by the mean of `other` there, rising with the level.

    A blurred edge seems to move with the tone curve, by up to a pixel; this makes the two curves one.

    Args:
        image: (H, W, 3) uint8.
        other: the same scene, (H, W, 3) uint8, about aligned.
        where: (H, W), the pixels to compare; not 0.
    """
    result = np.empty_like(image)
    for channel in range(3):
        levels, others = image[..., channel][where > 0], other[..., channel][where > 0]
        count = np.bincount(levels, minlength=256)
        mean = np.bincount(levels, others, minlength=256) / np.maximum(count, 1)
        known = np.flatnonzero(count)
        table = np.interp(np.arange(256), known, mean[known]) if len(known) else np.arange(256)
        result[..., channel] = np.rint(np.maximum.accumulate(table)).astype(np.uint8)[image[..., channel]]
    return result


def refine(rendered: np.ndarray, photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A homography (3, 3) from a rendering to a photograph, both (H, W, 3) uint8, after ECC; the same if that is worse.

    Evangelidis and Psarakis, PAMI 2008, on images of locally equal brightness and contrast.
    """
    small = shrink(rendered, ECC_SIDE)
    down = scaling(rendered.shape, small.shape)
    start = matrix @ np.linalg.inv(down)  # from the small rendering to the photograph
    seen, inside = seen_through(photo, start, small.shape)
    template, image = normalise(luma(with_tones_of(small, seen, inside))), normalise(luma(seen))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, EPSILON)
    step = np.eye(3, dtype=np.float32)
    try:
        before = cv2.computeECC(template, image, inside)
        after, step = cv2.findTransformECC(template, image, step, cv2.MOTION_HOMOGRAPHY, criteria, inside, 3)
    except cv2.error:  # it does not converge
        return matrix
    refined = start @ step.astype(np.float64) @ down
    return refined if after > before and is_plausible(refined, rendered.shape) else matrix


def low_pass(photo: np.ndarray, scale: float) -> np.ndarray:
    """A photograph without the detail that is lost where it is shown `scale` times smaller; itself up to 1."""
    if scale <= 1.05:
        return photo
    return cv2.GaussianBlur(photo, (0, 0), 0.5 * np.sqrt(scale * scale - 1))


def scale_of(matrix: np.ndarray, shape: tuple[int, ...]) -> float:
    """By how much a homography enlarges lengths in the middle of an image of this shape (H, W, ...)."""
    x, y = shape[1] / 2, shape[0] / 2
    depth = matrix[2] @ (x, y, 1)
    return float(np.sqrt(abs(np.linalg.det(matrix) / depth**3)))


def seen_through(photo: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(photograph, where it is) in an image of this shape (H, W, ...): (H, W, 3) and 255 or 0 (H, W), both uint8."""
    size, flags = (shape[1], shape[0]), cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    soft = low_pass(photo, scale_of(matrix, shape))
    seen = cv2.warpPerspective(soft, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    whole = np.full(photo.shape[:2], 255, np.uint8)
    return seen, cv2.warpPerspective(whole, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
