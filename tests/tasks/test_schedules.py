"""Learning rates from step to step."""

import pytest
import torch

from tasks.schedules import SCHEDULES, build_schedule


@pytest.mark.parametrize(
    ("name", "factors"),
    (
        ("cosine", {0: 1, 0.5: 0.505, 1: 0.01, 1.5: 0.01}),
        ("halved", {0: 1, 0.499: 1, 0.5: 0.5, 1: 0.5}),
        # SYENet's 200 epochs: restarts after 50 and 150, and a quarter of the third period.
        ("restarts", {0: 1, 0.125: 0.50005, 0.249999: 1e-4, 0.25: 1, 0.5: 0.50005, 0.75: 1, 1: 0.8535}),
    ),
)
def test_the_share_of_the_rate(name, factors):
    for done, factor in factors.items():
        assert SCHEDULES[name](done) == pytest.approx(factor, rel=1e-3)


def test_a_schedule_counts_updates():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = build_schedule("halved", optimizer, 4), []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [2.0, 2.0, 1.0, 1.0]
    assert build_schedule("constant", optimizer, 4) is None and build_schedule("halved", None, 4) is None
