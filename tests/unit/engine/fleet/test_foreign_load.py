"""What others use of a machine: measured, smoothed, and named in the reason of a job that waits for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dstack.commands.machine.sample import Sample
from dstack.engine.fleet.foreign_load import at_rest, counted, foreign, own_machine, smoothed
from dstack.model.job.resources import Ask
from dstack.model.runner.runner import Facts
from dstack.scheduling.schedule import impossible, schedule
from dstack.scheduling.types import IDLE, Load, Machine
from tests.unit.scheduling.test_schedule import GB, lease, machine, wants


def sample(uptime: float, busy: int, memory_used: int = 0, **jobs: tuple[float, int]) -> Sample:
    """Return a sample of a machine with 8 CPUs. Its counters are hundredths of a second."""
    whole = round(uptime * 800)
    return Sample(uptime, 8, busy, whole, 64 * GB, memory_used, (), jobs, {}, 0.0)


@pytest.mark.parametrize(
    ("last", "ours", "load"),
    [
        (sample(110.0, 4000), [], Load(4.0, 0)),
        (sample(110.0, 4000, 9 * GB, a=(25.0, GB)), ["a"], Load(2.0, 8 * GB)),
        (sample(110.0, 4000, 9 * GB, a=(25.0, GB)), [], Load(4.0, 9 * GB)),
        (sample(110.0, 4000, 3 * GB, a=(5.0, 0), b=(40.0, 3 * GB)), ["a", "b", "c"], IDLE),
    ],
    ids=["others alone", "ours is taken off", "another server's is theirs", "ours that has just begun"],
)
def test_what_others_use_between_two_samples(last: Sample, ours: list[str], load: Load) -> None:
    found = foreign(sample(100.0, 0, a=(5.0, 0)), last, ours)

    assert (found.cpu, found.memory) == (pytest.approx(load.cpu), load.memory)


def test_a_spike_does_not_matter_and_what_stays_does() -> None:
    busy = Load(8.0, 32 * GB)
    spike = smoothed(IDLE, busy, 5.0)
    after, stays = spike, IDLE
    for _ in range(30):
        after, stays = smoothed(after, IDLE, 10.0), smoothed(stays, busy, 10.0)

    assert spike.cpu < 0.8
    assert after.cpu < 0.1
    assert stays.cpu > 7.9


FACTS = Facts(machine="elsewhere", cpus=8, memory=64 * GB, load=12.5, memory_free=24 * GB)


@pytest.mark.parametrize(
    ("load", "counts"),
    [
        (Load(5.9, 20 * GB + 5), Load(5, 20 * GB)),
        (Load(0.7, 6 * GB), IDLE),
        (Load(0.9, 0), IDLE),
        (at_rest(FACTS), Load(8, 40 * GB)),
    ],
)
def test_what_counts(load: Load, counts: Load) -> None:
    assert counted(load, FACTS) == counts


def test_the_servers_own_machine_is_not_judged_by_its_load() -> None:
    assert counted(Load(5.0, 20 * GB), Facts(machine=own_machine(), cpus=8, memory=64 * GB)) == IDLE
    assert at_rest(Facts(machine="elsewhere", cpus=8, memory=64 * GB)) == IDLE


def busy(name: str, cpu: float = 0, memory: int = 0, **changes: Any) -> Machine:
    return replace(machine(name, **changes), load=Load(cpu, memory))


def test_a_job_waits_for_what_others_use_and_says_so() -> None:
    cpus = schedule([wants("a", cpu=4)], [busy("lab", cpu=5)])
    memory = schedule([wants("a", memory=40 * GB)], [busy("lab", memory=30 * GB)])
    both = schedule([wants("a", cpu=4)], [busy("lab", cpu=3)], [lease("lab", ask=Ask(cpu=2))], 7200.0)

    assert cpus.reasons["a"].text == "needs 4 CPUs; lab has 3 of 8 CPUs free, 5 are used outside dstack"
    assert memory.reasons["a"].text == (
        "needs 40 GB of memory; lab has 38.7 GB of memory free, 30 GB are used outside dstack"
    )
    assert both.reasons["a"].text == (
        "needs 4 CPUs; lab has 3 of 8 CPUs free, ann's brave-otter-7 holds 2 (started 2 h ago), "
        "3 are used outside dstack"
    )
    assert impossible(wants("a", cpu=8), [busy("lab", cpu=5)]) is None


def test_who_asks_for_no_cpu_and_no_memory_does_not_care() -> None:
    crowded = busy("lab", cpu=9, memory=70 * GB, gpus=1)

    made = schedule([wants("a"), wants("b", 1)], [crowded])

    assert made.placements.keys() == {"a", "b"}
    assert schedule([wants("a", cpu=2)], [crowded, busy("free", cpu=2)]).placements["a"].runner == "free"
