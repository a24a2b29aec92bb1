"""How often machines are sampled and probed: no more than a share of their processors allows."""

from __future__ import annotations

import pytest

from dstack.commands.machine.sample import Sample
from dstack.engine.fleet.condition import Condition
from dstack.engine.fleet.sampling import Seen
from dstack.engine.fleet.watch import INTERVAL, LOOKING, RAREST, SAMPLING, SESSION, rest
from dstack.model.runner.runner import Facts

READY = Condition("ready")


def seen(cost: float, count: int, cpus: int) -> Seen:
    last = Sample(
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

    assert (0.7 / 50 + SESSION) / (found.pause * cpus) == pytest.approx(SAMPLING)


def test_a_sample_that_costs_less_than_the_clock_tells_still_costs_its_session() -> None:
    assert seen(cost=0.0, count=3, cpus=2).pause == pytest.approx(SESSION / SAMPLING / 2)


@pytest.mark.parametrize(
    ("cost", "cpus", "seconds"),
    [(0.04, 2, INTERVAL * 5 / 6), (1.0, 8, (1.0 + SESSION) / LOOKING / 8), (3.0, 64, 3.005 / 0.064), (3.0, 2, RAREST)],
)
def test_a_probe_that_costs_much_is_rare(cost: float, cpus: int, seconds: float) -> None:
    assert rest(READY, Facts(machine="m", cpus=cpus, cost=cost)) == pytest.approx(seconds)


def test_a_machine_that_takes_no_jobs_is_looked_at_more_often() -> None:
    facts = Facts(machine="m", cpus=2, cost=0.05)

    assert rest(Condition("unusable", failures=9), facts) == INTERVAL / 2
    assert rest(READY, facts) == pytest.approx((0.05 + SESSION) / LOOKING / 2)


def test_a_machine_that_was_never_seen_is_looked_at_often() -> None:
    assert rest(Condition("unreachable", failures=9), None) == INTERVAL / 2


@pytest.mark.parametrize("state", ["unreachable", "unusable"])
def test_the_first_probes_after_a_failure_follow_each_other_soon(state: str) -> None:
    facts = Facts(machine="m", cpus=2, cost=3.0)

    soon = [rest(Condition(state, failures=count), facts) for count in range(1, 7)]

    usual = INTERVAL / 2 if state == "unreachable" else RAREST  # where nothing answers, probes cost nothing
    assert soon == [1, 2, 4, 8, usual, usual]
