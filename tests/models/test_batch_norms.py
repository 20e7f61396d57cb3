"""Batch normalisation of two directions: alone as nn.BatchNorm2d, and in several processes as one batch."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models.batch_norms import BatchNorms
from training.distributed import ALONE

from . import two_processes

ROOT = Path(__file__).resolve().parents[2]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias)
    return norm


def test_alone_it_is_batch_normalisation_to_the_bit():
    norms, plain = BatchNorms(3, eps=1e-6), filled(nn.BatchNorm2d(3, 1e-6))
    norms["b"].load_state_dict(plain.state_dict())
    untouched = copy.deepcopy(norms["a"].state_dict())
    for seed in range(3):
        x = random(4, 3, 5, 6, seed=seed)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        output, expected = norms(ours, "b"), plain(theirs)
        (output**3).sum().backward(), (expected**3).sum().backward()
        assert torch.equal(output, expected) and torch.equal(ours.grad, theirs.grad)
    for name, value in plain.state_dict().items():
        assert torch.equal(norms["b"].state_dict()[name], value)
    assert all(torch.equal(norms["a"].state_dict()[name], value) for name, value in untouched.items())
    norms.eval(), plain.eval()
    assert torch.equal(norms(x, "b"), plain(x)) and not torch.equal(norms(x, "a"), plain(x))


def test_synchronised_with_nobody_it_is_batch_normalisation():
    """To rounding, in outputs, gradients and running statistics; float64."""
    norms, plain = BatchNorms(3).double(), filled(nn.BatchNorm2d(3)).double()
    norms["a"].load_state_dict(plain.state_dict())
    norms.synchronise(lambda x: x, 1)
    for seed in range(3):
        x = 2 + random(2, 3, 4, 5, seed=seed).double()
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        output, expected = norms(ours, "a"), plain(theirs)
        (output**3).sum().backward(), (expected**3).sum().backward()
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)
    for one, other in zip(norms["a"].parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(norms["a"].state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)


def test_the_average_of_all_processes_is_used_and_their_number_in_the_running_variance():
    """The other process has the same values plus 2: by hand, for -1 and 1 here and 1 and 3 there."""
    norms = BatchNorms(1, eps=0.0)
    answers = iter((torch.tensor([1.0]), torch.tensor([2.0])))  # means of (0, 2), and of (2, 2) about the mean 1
    sent = []
    norms.synchronise(lambda x: (sent.append(x.item()), next(answers))[1], 2)
    output = norms(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1), "a")
    assert sent == [0, 2]
    torch.testing.assert_close(output.flatten(), torch.tensor([-2.0, 0.0]) / 2**0.5)
    assert norms["a"].running_mean.item() == pytest.approx(0.1)
    assert norms["a"].running_var.item() == pytest.approx(0.9 + 0.1 * 2 * 4 / 3)
    assert norms["a"].num_batches_tracked == 1


def test_in_evaluation_nothing_is_exchanged():
    norms, x = BatchNorms(3).eval(), random(2, 3, 4, 4)
    expected = norms(x, "a")
    norms.synchronise(lambda _: pytest.fail("exchanged in evaluation"), 2)
    assert torch.equal(norms(x, "a"), expected)


def test_a_constant_image_far_from_zero_stays_finite():
    norms = BatchNorms(1, eps=1e-6)
    norms.synchronise(lambda x: x, 1)
    assert norms(torch.full((2, 1, 64, 64), 1000.1), "a").isfinite().all()


def test_after_none_it_is_alone_again():
    norms, x = BatchNorms(3), random(2, 3, 4, 4)
    expected = copy.deepcopy(norms)(x, "a")
    norms.synchronise(lambda _: pytest.fail("exchanged alone"), 2)
    norms.synchronise(None, 1)
    assert torch.equal(norms(x, "a"), expected)


def test_two_processes_with_half_a_batch_each_compute_what_one_does(tmp_path):
    """The whole mapper, both directions, and an ISP, with gloo: outputs, averaged gradients, running statistics."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += [two_processes.__file__, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    one = two_processes.train(ALONE)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one.keys() == first.keys() == second.keys()
    for name, value in one.items():
        if name.startswith("output"):
            torch.testing.assert_close(torch.cat((first[name], second[name])), value, rtol=0, atol=1e-10)
        else:
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(
                first[name], value, rtol=1e-7, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
            )
    assert any(value.any() for name, value in one.items() if name.startswith("gradient encoder.stem"))
    assert one["gradient isp"].any()
