"""Batches for training, and whole files for validation and tests."""

import signal
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from data.files import Reader
from data.folders import Split
from data.patches import Patches, check_pair
from data.photographs import read_photo
from data.threads import use_one_openmp_thread
from errors import UserError

# --- training --------------------------------------------------------------------------------------------------------


class Positions(Sampler[int]):
    """The sample numbers k of the batches from `step` on, without end; of each batch, the share of one process."""

    def __init__(self, step: int, batch: int, rank: int = 0, size: int = 1):
        self.step, self.batch, self.rank, self.size = step, batch, rank, size

    def __iter__(self) -> Iterator[int]:
        share = self.batch // self.size
        for step in count(self.step):
            first = step * self.batch + self.rank * share
            yield from range(first, first + share)


def training_batches(
    patches: Patches, batch: int, step: int, workers: int, device: torch.device, rank: int = 0, size: int = 1
) -> Generator[dict[str, Tensor], None, None]:
    """Batches of a run from step `step` on, without end: dicts as `Patches` returns, with a batch axis, on the device.

    A batch depends on its step alone, not on the number of workers or on earlier batches. Process `rank` of `size`
    gets its share of each `batch`; together, the shares are the batch that a single process would get. `workers` is the
    number of reading processes; with 0, this process reads. Raises `UserError` for a file that cannot be used, or if a
    reading process was killed.

    Close the generator to end the reading processes: at the end of Python, torch may fail to do so.
    """
    loader = DataLoader(
        _ErrorsAsSamples(patches),
        batch // size,
        sampler=Positions(step, batch, rank, size),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # otherwise each loader would draw from torch's global random state
    )
    try:
        for loaded in loader:
            if isinstance(loaded, UserError):
                raise loaded
            yield {name: tensor.to(device, non_blocking=True) for name, tensor in loaded.items()}
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
    # Not raised in the handler above: the other reading processes end when the error that holds the loader is gone.
    advice = "lower --data.workers or --data.batch"
    raise UserError(f"a process that reads patches was killed, probably for lack of memory: {advice}")


class _ErrorsAsSamples(Dataset):
    """Returns a `UserError` instead of raising it: one that a worker raises would arrive wrapped in a traceback."""

    def __init__(self, patches: Patches):
        self.patches = patches

    def __getitem__(self, k: int) -> dict[str, Tensor] | UserError:
        try:
            return self.patches[k]
        except UserError as error:
            return error


def _collate(samples: list[dict[str, Tensor] | UserError]) -> dict[str, Tensor] | UserError:
    """The batch, or the first error in it."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    return next(errors, None) or default_collate(samples)


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    use_one_openmp_thread()
    warnings.filterwarnings(
        "ignore", "rawpy is being used in a process", RuntimeWarning
    )  # of what the line above mends
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the training process handles them, and ends these
        signal.signal(number, signal.SIG_IGN)


# --- validation and tests --------------------------------------------------------------------------------------------


def evaluation_pairs(split: Split, reader: Reader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Each pair of a paired split, whole, in order: mosaic (1, 1, H, W) and target (1, 3, H, W), on the device."""
    for _, mosaic, photo in whole_files(split, reader, pixels=1):
        yield mosaic.to(device), photo.to(device).float() / 255


def whole_files(
    split: Split, reader: Reader, pixels: int = 1 << 18, threads: int = 4
) -> Iterator[tuple[list[str], Tensor, Tensor | None]]:
    """All files of a split, whole and in order; neighbours of the same size are batched, up to `pixels` a batch.

    Yields file names, mosaics (N, 1, H, W) float32, 1 is white, and photographs (N, 3, H, W) uint8, or None if the
    split has no pairs. Raises `UserError` for a file that cannot be used.
    """

    def read(pair: tuple[Path, Path | None]) -> tuple[str, Tensor, Tensor | None]:
        raw_path, photo_path = pair
        mosaic = reader.mosaic(raw_path)
        if photo_path is None:
            return raw_path.name, reader.mosaic_tensor(mosaic), None
        photo = reader.aligned(read_photo(photo_path))
        check_pair(raw_path, photo_path, mosaic.shape, photo.shape[:2])
        return raw_path.name, reader.mosaic_tensor(mosaic), torch.from_numpy(photo.copy()).permute(2, 0, 1)

    photos = split.photos if split.paired and split.photos else (None,) * len(split.raws)
    pairs, batch = list(zip(split.raws, photos, strict=True)), []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pairs), 2 * threads):  # a few at a time: files can be large
            for file in pool.map(read, pairs[start : start + 2 * threads]):
                fits = batch and file[1].shape == batch[0][1].shape
                if batch and not (fits and (len(batch) + 1) * file[1].numel() <= pixels):
                    yield _stack(batch)
                    batch = []
                batch.append(file)
    if batch:
        yield _stack(batch)


def _stack(files: list[tuple[str, Tensor, Tensor | None]]) -> tuple[list[str], Tensor, Tensor | None]:
    names, mosaics, photos = zip(*files, strict=True)
    return list(names), torch.stack(mosaics), None if photos[0] is None else torch.stack(photos)
