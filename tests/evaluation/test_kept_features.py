"""Features in files: computed once, the same afterwards, and computed anew when they no longer fit."""

import threading

import pytest
import torch

import storage
from evaluation.kept_features import KeptFeatures

FACTS = {"data": "4 files, 0123", "vit": "random (seed 0)"}


@pytest.fixture
def computed():
    """(a function that computes features, how often it did)."""
    calls = []

    def compute() -> dict[str, torch.Tensor]:
        calls.append(len(calls))
        return {"texture": torch.arange(6.0).view(2, 3) + len(calls)}

    return compute, calls


def test_features_are_computed_once(computed, tmp_path):
    compute, calls = computed
    first = KeptFeatures(tmp_path / "scores", FACTS)("photographs", compute)
    again = KeptFeatures(tmp_path / "scores", dict(reversed(FACTS.items())))("photographs", compute)
    assert len(calls) == 1 and torch.equal(first["texture"], again["texture"])
    KeptFeatures(tmp_path / "scores", FACTS)("references", compute)  # others, with a file of their own
    assert len(calls) == 2


def test_features_of_other_facts_are_replaced(computed, tmp_path):
    compute, calls = computed
    for facts in (FACTS, FACTS | {"data": "4 files, 4567"}, FACTS):
        KeptFeatures(tmp_path, facts)("photographs", compute)
    assert len(calls) == 3


@pytest.mark.parametrize("damage", (b"", b"not a file of torch", None))
def test_a_damaged_or_foreign_file_is_replaced(computed, tmp_path, damage):
    compute, calls = computed
    keep = KeptFeatures(tmp_path, FACTS)
    keep("photographs", compute)
    (file,) = tmp_path.glob(".*.pt")
    if damage is None:
        storage.save(file, {"generator": torch.zeros(2)})
    else:
        file.write_bytes(damage)
    assert torch.equal(keep("photographs", compute)["texture"], torch.arange(6.0).view(2, 3) + 2)
    keep("photographs", compute)
    assert len(calls) == 2


def test_of_two_at_once_one_computes_and_the_other_waits(tmp_path, capsys):
    started, calls = threading.Event(), []

    def slow() -> dict[str, torch.Tensor]:
        calls.append(1)
        started.set()
        waiting.join(0.3)  # the other one cannot end meanwhile
        return {"texture": torch.ones(1)}

    def wait() -> None:
        started.wait(10)
        KeptFeatures(tmp_path, FACTS)("photographs", slow)

    waiting = threading.Thread(target=wait)
    waiting.start()
    KeptFeatures(tmp_path, FACTS)("photographs", slow)
    waiting.join(10)
    assert len(calls) == 1
    assert "waiting for another process that computes the features of the photographs" in capsys.readouterr().err
