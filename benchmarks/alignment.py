"""End-point errors of aligning a photograph to a mosaic, stage by stage: known warps through the simulated camera.

python benchmarks/alignment.py [--scale 2] [--seeds N]
python benchmarks/alignment.py --large          a mosaic of 12 megapixels, a photograph of 24: time and memory
"""

import argparse
import resource
import time
from collections.abc import Iterator

from common import positive  # first: it adds the repository's root to sys.path

# isort: split
import cv2
import numpy as np

from data.alignment import Options, align, find_homography, render
from data.demo import demo_photographs
from data.local_motion import compose
from data.registration import refine
from data.sensor import Sensor
from data.unprocess import Camera, expose, unprocess
from errors import run_cli

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")
CORNERS, LOCAL, SIGMA = 15.0, 2.0, 80.0  # pixels: of a homography's corners; of the local warp, and its smoothness
BLUR = 0.7  # pixels: the Gaussian of the phone's lens
LARGE, LARGER = (3000, 4000), (4000, 6000)  # of the mosaic and the photograph of --large, height and width


def shot(
    photo: np.ndarray, seed: int, corners: float = CORNERS, local: float = 0.0, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, Sensor, np.ndarray]:
    """What a simulated phone records of the scene of a photograph, from another place.

    Args:
        photo: (H2, W2, 3) uint8.
        seed: of the camera, its noise and the warp.
        corners: pixels by which the corners of the view are moved at most.
        local: pixels of the largest smooth displacement beside the homography.
        size: height and width of the mosaic; that of the photograph, made even, if it is not given.

    Returns:
        (mosaic (H, W), its sensor, where its pixels lie in the photograph: (H, W, 2) float32, x and y).
    """
    rng, camera = np.random.default_rng(seed), Camera.random(seed)
    if size is None:
        photo = photo[: photo.shape[0] // 2 * 2, : photo.shape[1] // 2 * 2]
    height, width = size or photo.shape[:2]
    before = np.float32([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    ratio = np.float32([photo.shape[1] / width, photo.shape[0] / height])
    after = (before + rng.uniform(-corners, corners, (4, 2)).astype(np.float32)) * ratio
    places = compose(cv2.getPerspectiveTransform(before, after), None, (height, width))
    if local:
        field = [cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), SIGMA) for _ in "xy"]
        field = np.stack(field, axis=-1)
        places += (field / np.abs(field).max() * local).astype(np.float32)
    soft = cv2.GaussianBlur(photo, (0, 0), BLUR * float(ratio.max()))
    seen = cv2.remap(soft, places, None, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    mosaic = np.empty((height, width), np.uint16)
    for top in range(0, height, 500):  # in double precision, a large picture would fill the memory
        mosaic[top : top + 500] = expose(unprocess(seen[top : top + 500], camera), camera, rng)
    return mosaic, Sensor(camera.cfa, tuple(map(float, camera.black)), float(camera.white)), places


def errors(places: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """(mean, median, 95th percentile) of the distances, in pixels, of two maps (H, W, 2)."""
    distance = np.linalg.norm(places - truth, axis=-1)
    return float(distance.mean()), float(np.median(distance)), float(np.percentile(distance, 95))


def stages(mosaic: np.ndarray, sensor: Sensor, photo: np.ndarray, truth: np.ndarray) -> Iterator[tuple[str, tuple]]:
    """(stage, its `errors`) of one pair."""
    rendered, options = render(mosaic, sensor), Options()
    shape = rendered.shape[:2]
    scaling = np.diag([photo.shape[1] / shape[1], photo.shape[0] / shape[0], 1])
    yield "none", errors(compose(scaling, None, shape), truth)
    matrix, _ = find_homography(rendered, photo, options)
    yield "SIFT + MAGSAC", errors(compose(matrix, None, shape), truth)
    yield "+ ECC", errors(compose(refine(rendered, photo, matrix), None, shape), truth)
    yield "+ local, kept where it helps", errors(align(rendered, photo, options).map, truth)


def table(scale: float, seeds: int) -> None:
    """Print the mean of each figure over all photographs and seeds, and the largest."""
    photos = demo_photographs()
    for title, local in (("homography", 0.0), (f"homography and a smooth local warp of {LOCAL:g} px", LOCAL)):
        found: dict[str, list[tuple[float, float, float]]] = {}
        for name in PHOTOGRAPHS:
            photo = cv2.resize(photos[name], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            for seed in range(seeds):
                for stage, figures in stages(*_with_truth(photo, seed, local)):
                    found.setdefault(stage, []).append(figures)
        print(f"\n{title}: end-point error in pixels, mean / median / 95 %\n")
        print("| stage | mean of the pairs | largest |\n|---|---|---|")
        for stage, rows in found.items():
            cells = (" / ".join(f"{value:.3f}" for value in values) for values in (np.mean(rows, 0), np.max(rows, 0)))
            print(f"| {' | '.join((stage, *cells))} |", flush=True)


def _with_truth(photo: np.ndarray, seed: int, local: float) -> tuple:
    mosaic, sensor, truth = shot(photo, seed, local=local)
    return mosaic, sensor, photo, truth


def large() -> None:
    """Print what one pair of large pictures takes."""
    photo = cv2.resize(demo_photographs()["motorcycle_left.png"], LARGER[::-1], interpolation=cv2.INTER_CUBIC)
    photo = cv2.add(photo, np.random.default_rng(0).integers(0, 12, photo.shape, np.uint8))  # detail of fine scale
    mosaic, sensor, truth = shot(photo, 0, corners=60, local=LOCAL, size=LARGE)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    rendered = render(mosaic, sensor)
    found = align(rendered, photo, Options())
    found.warp(photo)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = f"peak memory {peak / 2**20:.2f} GiB, {before / 2**20:.2f} GiB of them before"
    print(f"{seconds:.1f} s with {cv2.getNumThreads()} threads; {memory}")
    print("end-point error (mean, median, 95 %): {:.3f} / {:.3f} / {:.3f} px".format(*errors(found.map, truth)))
    print({name: round(value, 3) for name, value in found.figures.items()})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scale", type=float, default=2.0, help="by which the photographs are enlarged (%(default)s)")
    options.add_argument("--seeds", type=positive, default=1, help="cameras and warps for each (%(default)s)")
    options.add_argument("--large", action="store_true", help="time one pair of 12 and 24 megapixels instead")
    given = options.parse_args()
    large() if given.large else table(given.scale, given.seeds)


if __name__ == "__main__":
    run_cli(main)
