"""Placement: who runs where, and why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.engine.schedule import Machine, Placement, Waiting, impossible, schedule
from dstack.model.runner import Address, Facts, Runner


def machine(name: str, *, gpus: int = 0, cpus: int = 2, **changes: object) -> Machine:
    labels = changes.pop("labels", ())
    hidden = changes.pop("hidden", False)
    runner = Runner(
        name=name,
        address=Address(host=name),
        labels=labels,  # type: ignore[arg-type]
        hidden=hidden,  # type: ignore[arg-type]
        gpus=gpus,
        facts=Facts(machine="m", cpus=cpus),
    )
    return Machine(runner, **changes)  # type: ignore[arg-type]


def test_the_machine_with_fewest_jobs_gets_the_next() -> None:
    made = schedule([Waiting("a", 0, None), Waiting("b", 0, None)], [machine("one", jobs=1), machine("two")])

    assert made.placements["a"] == Placement("two", ())
    assert made.placements["b"].runner in ("one", "two")


def test_gpus_are_leased_by_index_and_never_twice() -> None:
    jobs = [Waiting(name, 1, None) for name in "abc"]

    made = schedule(jobs, [machine("lab", gpus=3, leased=frozenset({1}))])

    assert [made.placements[name].gpus for name in "ab"] == [(0,), (2,)]
    assert made.reasons == {"c": "needs 1 GPU; lab has 0 of 3 free"}


def test_a_job_without_gpus_prefers_the_machine_without() -> None:
    made = schedule([Waiting("a", 0, None)], [machine("gpu", gpus=4), machine("cpu")])

    assert made.placements["a"].runner == "cpu"


@pytest.mark.parametrize(
    ("pin", "runner"),
    [("one", "one"), ("fast", "two"), ("hidden", "hidden"), (None, "one")],
)
def test_a_pin_is_a_name_or_a_label(pin: str | None, runner: str) -> None:
    machines = [machine("one"), machine("two", labels=("fast",), jobs=1), machine("hidden", hidden=True)]

    assert schedule([Waiting("a", 0, pin)], machines).placements["a"].runner == runner


@pytest.mark.parametrize(
    ("job", "machines", "why"),
    [
        (Waiting("a", 0, None), [], "no runner is known"),
        (Waiting("a", 0, None), [machine("m", hidden=True)], "no runner is known"),
        (Waiting("a", 0, "x"), [machine("m")], "no runner has the name or label 'x'"),
        (Waiting("a", 3, None), [machine("m", gpus=2)], "it needs 3 GPUs; the most that a runner has is 2 (m)"),
        (Waiting("a", 2, None), [machine("m", gpus=2, trouble="unreachable: gone")], None),
    ],
)
def test_what_could_never_run_is_told(job: Waiting, machines: list[Machine], why: str | None) -> None:
    assert impossible(job, machines) == why


def test_every_machine_says_why_not() -> None:
    machines = [machine("one", trouble="unreachable: no route"), machine("two", jobs=4)]

    assert schedule([Waiting("a", 0, None)], machines).reasons == {
        "a": "one: unreachable: no route; two runs 4 jobs already"
    }


@given(
    jobs=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, "m0", "m1", "x"])), max_size=12),
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.booleans()), max_size=4),
)
def test_never_over_capacity_and_always_a_reason(
    jobs: list[tuple[int, str | None]], sizes: list[tuple[int, int, bool]]
) -> None:
    machines = [
        machine(f"m{number}", gpus=gpus, jobs=busy, trouble="unusable: x" if broken else None)
        for number, (gpus, busy, broken) in enumerate(sizes)
    ]
    waiting = [Waiting(str(number), gpus, pin) for number, (gpus, pin) in enumerate(jobs)]

    made = schedule(waiting, machines)

    assert made.placements.keys() | made.reasons.keys() == {job.id for job in waiting}
    assert not made.placements.keys() & made.reasons.keys()
    for one in machines:
        here = [placement for placement in made.placements.values() if placement.runner == one.runner.name]
        leased = [index for placement in here for index in placement.gpus]
        assert len(leased) == len(set(leased))
        assert set(leased) <= set(one.runner.gpu_indexes)
        assert not here or (one.trouble is None and one.jobs + len(here) <= one.capacity)
    for job in waiting:
        if job.id in made.placements:
            assert len(made.placements[job.id].gpus) == job.gpus
    assert schedule(waiting, machines) == made
