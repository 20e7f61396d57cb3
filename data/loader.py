"""From files to batches: an endless, seeded stream of patches that can be entered at any position."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from data.files import Files, Reader
from data.folders import Split, flip, random_window, read_photo
from errors import UserError


def photo_tensor(photo: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).float() / 255


class Patches(Dataset):
    """Sample k of a run: (mosaic (1, P, P), span (2,), target (3, P, P)), a pure function of (split, seed, k).

    The span is that of the whole mosaic, for `data.demosaic.Reference`.

    The files are drawn in epochs without repeats. In a paired split both come from one scene and one window; otherwise
    the windows are independent, and so are the two streams of files, unless the split couples them.
    """

    def __init__(self, split: Split, files: Files, patch: int, seed: int, flips: bool = False):
        self.split, self.files, self.patch, self.seed, self.flips = split, files, patch, seed, flips

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        raw_path = self.split.raws[self._draw(k, len(self.split.raws), stream=0)]
        photo_stream = 0 if self.split.paired or self.split.coupled else 1
        photo_path = self.split.photos[self._draw(k, len(self.split.photos), stream=photo_stream)]
        (mosaic, span), photo = self.files.mosaic(raw_path), self.files.photo(photo_path)
        rng = np.random.default_rng((self.seed, 2, k))
        window = random_window(mosaic.shape, self.patch, rng, raw_path, even=True)
        mirror = tuple(rng.random(2) < 0.5) if self.flips else (False, False)
        whole, mosaic = mosaic.shape, flip(mosaic[window], *mirror)
        if not self.split.paired:
            window = random_window(photo.shape, self.patch, rng, photo_path, even=False)
            mirror = tuple(rng.random(2) < 0.5) if self.flips else (False, False)
        else:
            check_same_size(raw_path, photo_path, whole, photo.shape[:2])
        return self.files.reader.mosaic_tensor(mosaic), span, photo_tensor(flip(photo[window], *mirror))

    def _draw(self, k: int, files: int, stream: int) -> int:
        epoch, place = divmod(k, files)
        return int(_order(self.seed, stream, epoch, files)[place])


@lru_cache(maxsize=8)
def _order(seed: int, stream: int, epoch: int, files: int) -> np.ndarray:
    return np.random.default_rng((seed, stream, epoch)).permutation(files)


def check_same_size(raw_path: Path, photo_path: Path, mosaic: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise `UserError` where a pair's (height, width) differ: then its pixels do not correspond."""
    if mosaic != photo:
        sizes = f"{mosaic[0]}x{mosaic[1]} and {photo[0]}x{photo[1]}"
        raise UserError(f"{raw_path} and {photo_path} are a pair, but {sizes} (height x width)")


class Positions(Sampler[int]):
    """The positions in the stream of the batches from `step` on, without end: of each, the share of one process."""

    def __init__(self, step: int, batch: int, rank: int = 0, size: int = 1):
        self.step, self.batch, self.rank, self.size = step, batch, rank, size

    def __iter__(self) -> Iterator[int]:
        share = self.batch // self.size
        for step in count(self.step):
            first = step * self.batch + self.rank * share
            yield from range(first, first + share)


def training_batches(
    patches: Patches, batch: int, step: int, workers: int, device: torch.device, rank: int = 0, size: int = 1
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of a run from step `step` on: mosaics (N, 1, P, P), spans (N, 2), targets (N, 3, P, P), on the device.

    What comes depends on the step alone, not on the number of workers or on what was drawn before. Process `rank` of
    `size` gets its share of each `batch`: all shares together are what one process alone would get.
    """
    loader = DataLoader(
        _Told(patches),
        batch // size,
        sampler=Positions(step, batch, rank, size),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
        collate_fn=_collate,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # or each loader would draw from the run's own random state
    )
    for loaded in loader:
        if isinstance(loaded, UserError):
            raise loaded
        yield tuple(tensor.to(device, non_blocking=True) for tensor in loaded)


def evaluation_pairs(split: Split, reader: Reader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Each pair of a paired split, whole, in order: mosaic (1, 1, H, W) and target (1, 3, H, W), on the device."""
    for _, mosaic, photo in whole_files(split, reader, pixels=1):
        yield mosaic.to(device), photo.to(device).float() / 255


def whole_files(
    split: Split, reader: Reader, pixels: int = 1 << 18, threads: int = 4
) -> Iterator[tuple[list[str], Tensor, Tensor | None]]:
    """All files of a split, whole and in order; neighbours of one size come together, up to so many `pixels`.

    Yields names, mosaics (N, 1, H, W), and photographs (N, 3, H, W) uint8, or None where the split has no pairs.
    """

    def read(pair: tuple[Path, Path | None]) -> tuple[str, Tensor, Tensor | None]:
        raw_path, photo_path = pair
        mosaic = reader.mosaic(raw_path)
        if photo_path is None:
            return raw_path.name, reader.mosaic_tensor(mosaic), None
        photo = read_photo(photo_path)
        check_same_size(raw_path, photo_path, mosaic.shape, photo.shape[:2])
        return raw_path.name, reader.mosaic_tensor(mosaic), torch.from_numpy(photo.copy()).permute(2, 0, 1)

    photos = split.photos if split.paired and split.photos else (None,) * len(split.raws)
    pairs, together = list(zip(split.raws, photos, strict=True)), []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pairs), 2 * threads):  # no further ahead: files can be large
            for file in pool.map(read, pairs[start : start + 2 * threads]):
                fits = together and file[1].shape == together[0][1].shape
                if together and not (fits and (len(together) + 1) * file[1].numel() <= pixels):
                    yield _stack(together)
                    together = []
                together.append(file)
    if together:
        yield _stack(together)


def _stack(files: list[tuple[str, Tensor, Tensor | None]]) -> tuple[list[str], Tensor, Tensor | None]:
    names, mosaics, photos = zip(*files, strict=True)
    return list(names), torch.stack(mosaics), None if photos[0] is None else torch.stack(photos)


class _Told(Dataset):
    """Hands a user's mistake over as a value: what a worker raises would arrive wrapped in its traceback."""

    def __init__(self, patches: Patches):
        self.patches = patches

    def __getitem__(self, k: int) -> tuple[Tensor, ...] | UserError:
        try:
            return self.patches[k]
        except UserError as error:
            return error


def _collate(samples: list) -> list[Tensor] | UserError:
    mistakes = (sample for sample in samples if isinstance(sample, UserError))
    return next(mistakes, None) or default_collate(samples)


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the training process answers these, and ends its workers
        signal.signal(number, signal.SIG_IGN)
