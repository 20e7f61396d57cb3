"""The device of a command, and the precision of float32 products on a GPU."""

from types import SimpleNamespace

import pytest
import torch

from config import Compute
from errors import UserError
from tasks.device import choose_device, set_precision


@pytest.fixture(autouse=True)
def restored():
    """The process-wide precision is restored after each test."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32
    yield
    cuda.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.parametrize(("precision", "allowed"), (("tf32", True), ("float32", False), ("bf16", False)))
def test_only_tf32_allows_tf32(precision, allowed):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not allowed
    set_precision(Compute(precision))
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)


def test_a_device_is_chosen_by_name():
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_is_the_cpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ("auto", "cuda", "cuda:0"))
def test_a_gpu_becomes_the_current_device_and_computes_in_float32(monkeypatch, name):
    """With a stand-in for the GPU."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    probe = SimpleNamespace(device=torch.device("cuda:0"), item=lambda: 0.0)
    monkeypatch.setattr(torch, "zeros", lambda size, device: probe)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    torch.backends.cuda.matmul.allow_tf32 = True
    assert choose_device(name) == torch.device("cuda:0") and chosen == [torch.device("cuda:0")]
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("name", ("quantum", "cuda:99", "cpu,gpu", "meta", "", "cpu:x"))
def test_a_device_that_cannot_be_used_is_refused(name):
    with pytest.raises(UserError, match=f"device '{name}' cannot be used"):
        choose_device(name)
