"""How often machines are sampled: no more than a share of their processors allows."""

from __future__ import annotations

import pytest

from dstack.commands.sample import Sample
from dstack.engine.metrics import SHARE, Seen


def seen(cost: float, count: int, cpus: int) -> Seen:
    last = Sample(
        clock=0,
        uptime=0.0,
        cpus=cpus,
        busy=0,
        all=0,
        memory=0,
        memory_used=0,
        gpus=(),
        jobs={},
        containers={},
        cost=0.0,
    )
    return Seen(last, 0.0, None, cost, count)


@pytest.mark.parametrize("cpus", [1, 2, 64])
def test_samples_stay_below_their_share(cpus: int) -> None:
    found = seen(cost=0.7, count=50, cpus=cpus)

    assert 0.7 / 50 / (found.pause * cpus) == pytest.approx(SHARE)


def test_a_sample_that_costs_less_than_the_clock_tells_may_be_repeated_at_once() -> None:
    assert seen(cost=0.0, count=3, cpus=2).pause == 0.0
