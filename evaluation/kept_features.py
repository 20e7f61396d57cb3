"""Features that are the same for all checkpoints of a run, kept in files beside the score tables."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

import storage
from data.notes import note
from errors import UserError

FORMAT = 1  # of the files: increase it when `evaluation.evaluators` computes other features

Features = dict[str, Tensor]  # name -> (N, ...), on the CPU


class KeptFeatures:
    """Reads features from the files of `folder`, and computes those that are not there.

    `facts` say what the features depend on: images, networks and their weights. A file of other facts, or a damaged
    one, is replaced. Of several processes that need the same features, the first one computes them, and the others wait
    for it.
    """

    def __init__(self, folder: Path, facts: dict[str, str]):
        self.folder = folder
        self.key = hashlib.sha256(repr((FORMAT, sorted(facts.items()))).encode(errors="surrogateescape")).hexdigest()

    def __call__(self, name: str, compute: Callable[[], Features]) -> Features:
        """The features `name`: as stored, or else of `compute`, stored for the next time."""
        path, lock = self.folder / f".{name}.pt", self.folder / f".{name}.lock"
        if storage.is_locked(lock):
            note(f"waiting for another process that computes the features of the {name}")
        with storage.lock(lock):
            if (features := self._read(path)) is None:
                features = compute()
                storage.save(path, {"key": self.key, "features": features})
        return features

    def _read(self, path: Path) -> Features | None:
        try:
            content = storage.load(path) if path.is_file() else {}
        except UserError:  # damaged
            return None
        return content.get("features") if content.get("key") == self.key else None
