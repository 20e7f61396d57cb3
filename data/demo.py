"""The demo dataset: mosaics of a simulated camera, from the photographs inside the scikit-image wheel.

python -m data.demo FOLDER      whole mosaics of the photographs that the demo does not train on, to develop
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.cuts import (
    SPLITS,
    check_patch,
    describe,
    grid,
    is_complete,
    locked,
    pick,
    refuse_existing,
    shrink,
    write_dataset,
    write_png,
)
from data.photographs import read_photo
from data.unprocess import Camera, expose, unprocess
from errors import UserError, run_cli

MIDDLEBURY = "Middlebury stereo 2014, Scharstein et al., GCPR 2014 (no licence named; cite when used)"
SCALES = (1.0, 0.7, 0.5, 0.35)

# Photograph -> split, the most patches to take, licence (from the docstrings of skimage.data). Val and test are whole
# photographs. The two motorcycles show the same scene, so they are in the same split. Photographs that differ most from
# a phone's scenes contribute fewer patches; the Hubble field, which is almost black, contributes none.
DEMO = {
    "astronaut.png": ("train", 64, "NASA, public domain"),
    "motorcycle_left.png": ("train", 64, MIDDLEBURY),
    "motorcycle_right.png": ("train", 64, MIDDLEBURY),
    "rocket.jpg": ("train", 32, "SpaceX, public domain"),
    "ihc.png": ("train", 24, "CMMI, no known copyright restrictions"),
    "retina.jpg": ("train", 24, "Mikael Häggström, CC0"),
    "chelsea.png": ("test", 24, "Stefan van der Walt, CC0"),
    "coffee.png": ("val", 24, "Rachel Michetti, CC0"),
}


def make_demo(root: Path | str, patch: int = 128, seed: int = 0, **camera) -> None:
    """Write the demo dataset to `root`, unless it is there already, complete and with the same settings.

    Args:
        root: the folder to create.
        patch: side of a patch in pixels, even.
        seed: of the camera, the noise and the choice of patches.
        camera: as for `Camera.random`.

    Raises:
        UserError: `root` holds anything else, or a value is impossible.
    """
    root = Path(root).resolve()
    check_patch(patch)
    simulated = Camera.random(seed, **camera)
    if not (root / "camera.json").is_file():
        refuse_existing(root)
    photos, rng, cuts = demo_photographs(), np.random.default_rng(seed), []
    for name, (side, most, _) in DEMO.items():
        cuts += pick([(side, name, *box) for box in demo_boxes(photos[name], patch)], most, rng)
    if missing := set(SPLITS) - {cut[0] for cut in cuts}:
        raise UserError(f"patch {patch} is too large for the demo photographs: no patch for {', '.join(missing)}")
    written = ("camera.json", describe(simulated, cuts, seed, patch), 2 * len(cuts))
    if is_complete(root, *written):  # perhaps where no lock can be written
        return
    licences = {name: row[2] for name, row in DEMO.items()}
    with locked(root, wait=True):  # several runs may start together
        if not is_complete(root, *written):
            write_dataset(root, cuts, photos.__getitem__, simulated, seed, patch, licences)


def demo_boxes(photo: np.ndarray, patch: int) -> list[tuple[float, int, int]]:
    """The (scale, top, left) of the patches of a photograph (H, W, 3), every half patch, at all `SCALES`.

    Flat patches, such as the retina's black corners, are left out: they teach nothing, and a min-max stretch divides by
    zero there.
    """
    small = {scale: shrink(photo, scale) for scale in SCALES}
    boxes = grid(photo.shape[:2], patch, patch // 2, SCALES)
    return [(s, y, x) for s, y, x in boxes if small[s][y : y + patch, x : x + patch].std(axis=(0, 1)).max() > 4]


def demo_photographs() -> dict[str, np.ndarray]:
    """{file name: (H, W, 3) uint8} of `DEMO`, from the installed scikit-image wheel; nothing is downloaded.

    Raises `UserError` if the installation has no photographs.
    """
    from importlib.resources import files

    folder = Path(str(files("skimage"))) / "data"
    missing = [name for name in DEMO if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}; install scikit-image 0.26 from its wheel")
    return {name: read_photo(folder / name) for name in DEMO}


def write_whole(folder: Path, seed: int = 0) -> list[Path]:
    """Write whole mosaics, 16-bit PNG, of the photographs of val and test, as the camera of that seed records them."""
    camera, rng, written = Camera.random(seed), np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for name, photo in demo_photographs().items():
        height, width = (side // 2 * 2 for side in photo.shape[:2])
        if DEMO[name][0] != "train":
            written.append(folder / f"{Path(name).stem}.png")
            write_png(written[-1], expose(unprocess(photo[:height, :width], camera), camera, rng))
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser("python -m data.demo", description="Write whole mosaics of the demo's camera.")
    options.add_argument("folder", type=Path, help="where to write them; files of their names are replaced")
    for path in write_whole(options.parse_args(arguments).folder):
        print(path)


if __name__ == "__main__":
    run_cli(main)
