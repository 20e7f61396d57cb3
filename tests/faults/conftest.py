"""Fixtures of the tests of bad input."""

import signal
from pathlib import Path

import pytest


@pytest.fixture
def quick():
    """A test that waits for ever, as on a pipe without a writer, fails after ten seconds."""

    def stop(*_):
        raise TimeoutError("waited for ten seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pairs(tmp_path, make_pairs) -> tuple[Path, Path]:
    """Twelve pairs of 64x64 pixels: the folders of mosaics and of photographs."""
    make_pairs(tmp_path / "raws", tmp_path / "photos", 12, 0)
    return tmp_path / "raws", tmp_path / "photos"
