"""Every test of training leaves the process as it was."""

import pytest


@pytest.fixture(autouse=True)
def restored_everywhere(restored):
    """`restored` is used by all tests here."""
