"""Training patches: sample k of a run is a pure function of the split, the seed, the stage and k."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.cache import Files
from data.camera_files import CAMERA_FILES, check_not_turned
from data.folders import Split
from data.masks import check_mask
from data.photographs import check_upright
from data.sensor import Sensor, mosaic_tensor
from errors import UserError

# --- images ----------------------------------------------------------------------------------------------------------


def random_window(
    shape: tuple[int, ...], patch: int, rng: np.random.Generator, path: Path, even: bool
) -> tuple[slice, slice]:
    """Draw a `patch` x `patch` window of an image of this shape (H, W, ...).

    With `even`, it starts at an even row and column, so that a mosaic keeps its CFA order. Raises `UserError`, which
    names `path`, if the image is smaller than the patch.
    """
    if min(shape[:2]) < patch:
        raise UserError(f"{path} is {shape[0]}x{shape[1]}, smaller than a patch of {patch}: lower --data.patch")
    stride = 2 if even else 1
    row, column = (stride * int(rng.integers(0, (side - patch) // stride + 1)) for side in shape[:2])
    return slice(row, row + patch), slice(column, column + patch)


def centre(image: np.ndarray, most: int = 512) -> np.ndarray:
    """The central square of (H, W, ...), at most `most` pixels a side, at an even position (keeps the CFA order)."""
    side = min(*image.shape[:2], most) // 2 * 2
    top, left = ((length - side) // 4 * 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def flip(image: np.ndarray, rows: bool, columns: bool) -> np.ndarray:
    """Mirror an image (H, W, ...) of even sides such that a mosaic keeps its CFA order.

    Moving row y to row H - 1 - y would swap the colours of neighbouring pixels, so it moves to row H - 2 - y, and
    columns likewise. The last row leaves the image by this; the gap is filled by reflection. A photograph that is
    flipped in the same way as its mosaic stays aligned.
    """
    if rows:
        image = np.concatenate((image[1:2], image[:-1]))[::-1]
    if columns:
        image = np.concatenate((image[:, 1:2], image[:, :-1]), axis=1)[:, ::-1]
    return image


def photo_tensor(photo: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).float() / 255


def check_pair(raw_path: Path, photo_path: Path, mosaic: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise `UserError` if the pixels of a pair do not correspond: its (height, width) differ, or one is turned."""
    check_upright(photo_path)
    if raw_path.suffix.lower() in CAMERA_FILES:
        check_not_turned(raw_path)
    if mosaic != photo:
        sizes = f"{mosaic[0]}x{mosaic[1]} and {photo[0]}x{photo[1]}"
        raise UserError(f"{raw_path} and {photo_path} are a pair, but of different sizes: {sizes} (height x width)")


# --- whole files ------------------------------------------------------------------------------------------------------


@dataclass
class OfWhole:
    """What whole mosaics say, for their patches, such as the range of a file's reference; each is computed once."""

    compute: Callable[[Tensor], Tensor]  # of a mosaic (1, 1, H, W), 1 is white: (1, K)
    sensor: Sensor
    known: dict[Path, Tensor] = field(default_factory=dict)

    def __call__(self, path: Path, mosaic: np.ndarray) -> Tensor:
        """(K,) of the file at `path`, whose whole mosaic is (H, W), digital numbers."""
        if path not in self.known:
            self.known[path] = self.compute(mosaic_tensor(mosaic, self.sensor)[None])[0]
        return self.known[path]


# --- patches ---------------------------------------------------------------------------------------------------------


class Patches(Dataset):
    """The endless stream of training samples of one stage of a run.

    Sample k is a dict:
    - "mosaic": (1, P, P) float32, 1 is white;
    - "target": (3, P, P) float32 in [0, 1], a patch of a photograph;
    - "mask": (1, P, P) bool, only if the split has masks: where the target is aligned with the mosaic;
    - "span": (2,) float32, only if `spans` is given: the range of the whole mosaic's reference;
    - "context": (K,) float32, only if `contexts` is given: numbers about the whole mosaic.

    Files are drawn in epochs, without repeats within an epoch; with a `chunk`, in chunks of so many samples, each a new
    choice of the files without repeats (released code; of all files, if the chunk has more samples). In a paired split,
    mosaic and target are the same window of the same scene. Otherwise their windows are independent, and so are the
    draws of files, unless the split is `coupled`.

    Args:
        split: the files to draw from.
        files: reads them.
        patch: side P of a patch in pixels, even.
        seed: of the run; not negative.
        stage: index of the stage in the run, from 0. Each stage of each seed draws different random numbers.
        flips: mirror samples at random, keeping the CFA order.
        spans: `OfWhole` of `data.reference.Reference.span`, for a stage that renders the references of patches. It
            demosaics each whole file once, so leave it None if no loss needs the reference.
        chunk: samples in a chunk; 0: draw in epochs.
        contexts: `OfWhole` of `data.inputs.context_of`, for a generator that takes the context of its image.

    A sample raises `UserError` if its file cannot be read, is smaller than a patch, or differs in size from its pair
    or mask.
    """

    def __init__(
        self,
        split: Split,
        files: Files,
        patch: int,
        seed: int,
        stage: int = 0,
        flips: bool = False,
        spans: Callable[[Path, np.ndarray], Tensor] | None = None,
        chunk: int = 0,
        contexts: Callable[[Path, np.ndarray], Tensor] | None = None,
    ):
        self.split, self.files, self.patch, self.flips = split, files, patch, flips
        self.of_whole = {name: of for name, of in (("span", spans), ("context", contexts)) if of}
        self.seed, self.stage, self.chunk = seed, stage, chunk

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        photo_stream = 0 if self.split.paired or self.split.coupled else 1
        raw_path = self._file(self.split.raws, k, stream=0)
        photo_path = self._file(self.split.photos, k, stream=photo_stream)
        whole, photo = self.files.mosaic(raw_path), self.files.photo(photo_path)
        rng = generator_of(self.seed, self.stage, 2, k)
        window, mirror = random_window(whole.shape, self.patch, rng, raw_path, even=True), self._mirror(rng)
        mosaic = flip(whole[window], *mirror)
        if self.split.paired:
            check_pair(raw_path, photo_path, whole.shape, photo.shape[:2])
        else:
            window, mirror = random_window(photo.shape, self.patch, rng, photo_path, even=False), self._mirror(rng)
        target = photo_tensor(flip(photo[window], *mirror))
        sample = {"mosaic": self.files.reader.mosaic_tensor(mosaic), "target": target}
        if self.split.masks:
            path = self._file(self.split.masks, k, stream=0)
            mask = self.files.mask(path)
            check_mask(path, photo_path, mask.shape, photo.shape[:2])
            sample["mask"] = torch.from_numpy(np.ascontiguousarray(flip(mask[window], *mirror)))[None]
        return sample | {name: of(raw_path, whole) for name, of in self.of_whole.items()}

    def _file(self, paths: tuple[Path, ...], k: int, stream: int) -> Path:
        epoch, index = divmod(k, min(self.chunk or len(paths), len(paths)))
        return paths[draw_order(self.seed, self.stage, stream, epoch, len(paths))[index]]

    def _mirror(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """Whether to flip the rows and the columns."""
        return tuple(rng.random(2) < 0.5) if self.flips else (False, False)


@lru_cache(maxsize=8)
def draw_order(seed: int, stage: int, stream: int, epoch: int, files: int) -> np.ndarray:
    """The order in which an epoch draws its files. Streams: 0 for mosaics, 1 for photographs drawn independently."""
    return generator_of(seed, stage, stream, epoch).permutation(files)


def generator_of(seed: int, stage: int, *position: int) -> np.random.Generator:
    """The random numbers of one file order (stream, epoch) or one sample (2, k), independent of all others.

    Stages 0 and 1 have the seeds 2 * seed and 2 * seed + 1; later stages add a spawn key, because 2 * seed + 2 would
    repeat stage 0 of the next seed.
    """
    spawn_key = (stage // 2,) if stage > 1 else ()
    return np.random.default_rng(np.random.SeedSequence((2 * seed + stage % 2, *position), spawn_key=spawn_key))
