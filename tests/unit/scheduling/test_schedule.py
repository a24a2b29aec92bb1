"""Placement: which job runs where, or why it waits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.resources import Ask
from dstack.model.runner.runner import Address, Facts, Gpu, Runner
from dstack.scheduling.capacity import Capacity
from dstack.scheduling.matching import allows
from dstack.scheduling.reasons import UNCHECKED, not_ready
from dstack.scheduling.schedule import RESERVATIONS, eligible, impossible, schedule
from dstack.scheduling.types import Lease, Machine, Placement, Schedule, Waiting

GB = 1024**3
HOUR = 3600.0
A100 = {"name": "NVIDIA A100-SXM4-40GB", "memory": 40 * GB}


def machine(name: str, gpus: int = 0, *, cpus: int = 8, memory: int = 64 * GB, **changes: Any) -> Machine:
    kinds = changes.pop("kinds", [{}] * gpus)
    found = tuple(Gpu(index=index, **kind) for index, kind in enumerate(kinds))
    facts = Facts(machine="m", cpus=cpus, memory=memory, disk_free=changes.pop("disk", 100 * 10**9), gpus=found)
    facts = replace(facts, disk_total=changes.pop("disk_total", 0))
    outside = {key: changes.pop(key) for key in ("trouble", "foreign", "machine") if key in changes}
    return Machine(Runner(name=name, address=Address(host=name), facts=facts, **changes), **outside)


def wants(job: str, gpus: int = 0, **changes: Any) -> Waiting:
    asked = {key: changes.pop(key) for key in ("cpu", "memory", "disk", "gpu_name", "gpu_memory") if key in changes}
    return Waiting(job, Ask(gpus, **asked), **changes)


def lease(runner: str, *gpus: int, run: str = "brave-otter-7", user: str = "ann", **changes: Any) -> Lease:
    return Lease(f"{run}-job", runner, run, user, gpus, changes.pop("ask", Ask(len(gpus))), **changes)


def shared(runner: str, count: int) -> list[Lease]:
    return [Lease(f"s{number}", runner) for number in range(count)]


def test_the_machine_with_fewest_jobs_gets_the_next() -> None:
    made = schedule([wants("a"), wants("b")], [machine("one"), machine("two")], shared("one", 1))

    assert made.placements["a"] == Placement("two", ())
    assert made.placements["b"].runner in ("one", "two")


def test_gpus_are_leased_by_index_and_never_twice() -> None:
    made = schedule([wants(name, 1) for name in "abc"], [machine("lab", 3)], [lease("lab", 1)], 2 * HOUR)

    assert [made.placements[name].gpus for name in "ab"] == [(0,), (2,)]
    assert made.reasons.keys() == {"c"}
    assert made.reasons["c"].text.startswith("needs 1 GPU; lab has 0 of 3 GPUs free, ")


def test_a_job_without_gpus_prefers_the_machine_without() -> None:
    assert schedule([wants("a")], [machine("gpu", 4), machine("cpu")]).placements["a"].runner == "cpu"


def test_small_jobs_fill_the_box_that_is_fullest() -> None:
    made = schedule([wants("a", 1), wants("b", 4)], [machine("one", 4), machine("two", 4)], [lease("two", 0, 1)])

    assert made.placements == {"a": Placement("two", (2,)), "b": Placement("one", (0, 1, 2, 3))}


def test_a_machine_that_has_what_the_job_needs_comes_first() -> None:
    machines = [machine("one"), machine("two"), machine("three")]

    assert schedule([wants("a", near={"one": 1, "two": 5})], machines).placements["a"].runner == "two"
    assert schedule([wants("a", near={"gone": 9})], machines).placements["a"].runner == "one"
    busy = schedule([wants("a", 1, near={"one": 5})], [machine("one", 1), machine("two", 1)], [lease("one", 0)])
    assert busy.placements["a"].runner == "two"


def spread(count: int, machines: list[Machine], near: dict[str, int]) -> list[str]:
    """Return the runners of so many equal jobs."""
    made = schedule([wants(f"j{n}", submitted=n, near=near) for n in range(count)], machines)
    return [made.placements[f"j{n}"].runner for n in range(count)]


def test_jobs_without_gpus_spread_although_one_machine_has_what_they_need() -> None:
    small, large = machine("small", cpus=2), machine("large", cpus=6)

    assert spread(4, [machine("one", cpus=2), machine("two", cpus=2)], {"two": 7}) == ["two", "one", "two", "one"]
    assert sorted(spread(8, [small, large], {"small": 7})) == ["large"] * 6 + ["small"] * 2
    busy = [lease("one", ask=Ask(cpu=2)), *shared("two", 1)]
    made = schedule([wants("a", cpu=1, near={"one": 7})], [machine("one"), machine("two")], busy)
    assert made.placements["a"].runner == "two"


def test_runners_that_are_one_machine_have_one_set_of_leases() -> None:
    """Two accounts with a limit each on a machine with 4 GPUs, 8 CPUs and 64 GB."""
    machines = [machine(name, 4, machine="M", max_jobs=2) for name in ("ann", "bob")] + [machine("other", 1)]

    def waits(name: str, leases: list[Lease], *others: Waiting, gpus: int = 0, **asks: Any) -> str:
        made = schedule([*others, wants("z", gpus, pin=name, submitted=9, **asks)], machines, leases, 2 * HOUR)
        return made.reasons["z"].text if "z" in made.reasons else ""

    assert waits("bob", [lease("ann", 0, 1)], gpus=2) == ""
    assert "bob has 1 of 4 GPUs free, ann's brave-otter-7 holds 3" in waits("bob", [lease("ann", 0, 1, 3)], gpus=2)
    assert "bob has 1 of 8 CPUs free" in waits("bob", [lease("ann", ask=Ask(cpu=7))], cpu=2)
    assert "bob has 4.7 GB of memory free" in waits("bob", [lease("ann", ask=Ask(memory=64 * GB))], memory=5 * GB)
    assert waits("bob", [*shared("ann", 1), lease("other", 0)]) == ""
    assert waits("bob", shared("ann", 2)) == "bob already runs 2 jobs, its limit"
    assert waits("bob", [], wants("a", 3, pin="ann"), gpus=2).startswith("needs 2 GPUs; bob has 1 of 4 GPUs free")
    assert waits("bob", [], wants("a", cpu=8, pin="ann"), cpu=1).startswith("needs 1 CPU; bob has 0 of 8 CPUs free")
    kept = waits("bob", [lease("ann", 0)], wants("a", 4, pin="ann", run="big", user="eve"), gpus=3)
    assert kept == "needs 3 GPUs; bob keeps its free share for eve's big, which is ahead in the queue"


def test_a_gpu_is_chosen_by_name_and_memory_the_smallest_that_does() -> None:
    lab = machine(
        "lab", kinds=[{"name": "NVIDIA A100-SXM4-80GB", "memory": 80 * GB}, A100, {"name": "T4", "memory": 15 * GB}]
    )

    assert schedule([wants("a", 1)], [lab]).placements["a"].gpus == (2,)
    assert schedule([wants("a", 1, gpu_name="a100")], [lab]).placements["a"].gpus == (1,)
    assert schedule([wants("a", 1, gpu_name="A100 SXM4")], [lab]).placements["a"].gpus == (1,)
    assert schedule([wants("a", 1, gpu_memory=64 * GB)], [lab]).placements["a"].gpus == (0,)
    assert schedule([wants("a", 1, gpu_name="T4", gpu_memory=16 * GB)], [lab]).placements["a"].gpus == (2,)


@pytest.mark.parametrize(
    ("pin", "runner"),
    [("one", "one"), ("fast", "two"), ("hidden", "hidden"), (None, "one")],
)
def test_a_pin_is_a_name_or_a_label(pin: str | None, runner: str) -> None:
    machines = [machine("one"), machine("two", labels=("fast",)), machine("hidden", hidden=True)]

    made = schedule([wants("a", pin=pin)], machines, shared("two", 1))

    assert made.placements["a"].runner == runner


def test_a_workflows_runners_narrow_it_too() -> None:
    machines = [machine("one", labels=("fast",)), machine("two", labels=("fast",)), machine("three")]

    assert schedule([wants("a", runners=("three", "x"))], machines).placements["a"].runner == "three"
    assert schedule([wants("a", pin="fast", runners=("two",))], machines).placements["a"].runner == "two"
    assert "a" in schedule([wants("a", pin="one", runners=("three",))], machines).reasons
    refused = schedule([wants("a", pin="fast", runners=("three",))], machines).reasons["a"].text
    assert refused == "no runner that the workflow allows (three) has the name or label 'fast'"


def test_a_folder_is_mounted_only_where_that_is_allowed() -> None:
    machines = [machine("one"), machine("two", allow_mounts=("/data",)), machine("three", allow_mounts=("/dat", "/x"))]

    assert schedule([wants("a", mounts=("/data/set",))], machines).placements["a"].runner == "two"
    assert schedule([wants("a", mounts=("/x",), pin="three")], machines).placements["a"].runner == "three"
    refused = wants("a", mounts=("/data/set", "/x"))
    why = "no runner allows mounting /x; the closest is two, which allows /data"
    assert (
        impossible(refused, machines)
        == schedule([refused], machines).reasons["a"]
        == Reason(ReasonCode.MOUNT_NOT_ALLOWED, why)
    )
    why = "no runner allows mounting /data; to allow it: dstack runners set NAME --allow-mount DIR"
    assert impossible(wants("a", mounts=("/data",)), machines[:1]) == Reason(ReasonCode.MOUNT_NOT_ALLOWED, why)


def test_priority_then_age() -> None:
    jobs = [
        wants("late", 1, submitted=2.0),
        wants("early", 1, submitted=1.0),
        wants("vip", 1, submitted=3.0, priority=1),
    ]

    made = schedule(jobs, [machine("lab", 1)])

    assert made.placements.keys() == {"vip"}
    assert made.order == ["early", "late"]


def test_a_small_job_passes_a_large_one_only_where_that_takes_nothing_from_it() -> None:
    lab = machine("lab", 4)
    jobs = [
        wants("large", 4, run="big-bear-1", user="bob"),
        wants("small", 1, submitted=1.0),
        wants("cpu", submitted=2.0),
    ]

    alone = schedule(jobs, [lab], [lease("lab", 0)], HOUR)
    beside = schedule(jobs, [lab, machine("other", 1)], [lease("lab", 0)], HOUR)

    assert alone.placements.keys() == {"cpu"}
    assert alone.reasons["small"].text == (
        "needs 1 GPU; lab keeps its free share for bob's big-bear-1, which is ahead in the queue"
    )
    assert beside.placements["small"].runner == "other"


def test_what_a_large_job_does_not_need_is_given_away() -> None:
    jobs = [wants("large", 4, cpu=6), wants("small", 2, submitted=1.0), wants("one", 1, cpu=5, submitted=2.0)]

    made = schedule(jobs, [machine("lab", 8)], [lease("lab", 0, ask=Ask(1, cpu=3))])

    assert made.placements["small"].gpus == (5, 6) or len(made.placements["small"].gpus) == 2
    assert "one" not in made.placements


def test_a_users_share_is_limited() -> None:
    jobs = [wants("a", 1, user="ann"), wants("b", 1, user="bob", submitted=1.0), wants("c", user="ann", submitted=2.0)]

    made = schedule(jobs, [machine("lab", 4)], [lease("lab", 0, 1)], max_gpus=2)

    assert made.placements.keys() == {"b", "c"}
    why = "needs 1 GPU; ann already has 2 of the 2 GPUs allowed per user"
    assert made.reasons == {"a": Reason(ReasonCode.USER_GPU_LIMIT, why)}


REASONS = [
    (wants("a"), [], [], "no runner has been added yet"),
    (wants("a", pin="x"), [machine("lab")], [], "no runner has the name or label 'x'"),
    (wants("a", runners=("x", "y")), [machine("lab")], [], "no runner has the name or label 'x' or 'y'"),
    (wants("a", 3), [machine("lab", 2)], [], "it needs 3 GPUs; no runner has more than 2 (lab)"),
    (
        wants("a", 2, gpu_name="A100", gpu_memory=80 * GB),
        [machine("one", 4), machine("lab", kinds=[A100, A100])],
        [],
        "it needs 2 A100 GPUs of 80 GB; the closest runner is one with 4x GPU",
    ),
    (wants("a", cpu=9), [machine("lab")], [], "it needs 9 CPUs; the closest runner is lab with 8 CPUs"),
    (
        wants("a", cpu=1, memory=90 * GB),
        [machine("lab")],
        [],
        "it needs 1 CPU and 90 GB of memory; the closest runner is lab with 64 GB",
    ),
    (wants("a"), [machine("lab", max_jobs=0)], [], "lab only takes jobs that request CPUs, memory or GPUs"),
    (wants("a"), [machine("lab", trouble=not_ready("unreachable", "no route"))], [], "lab is unreachable: no route"),
    (wants("a"), [machine("lab", max_jobs=2)], shared("lab", 2), "lab already runs 2 jobs, its limit"),
    (
        wants("a", 2, gpu_memory=40 * GB),
        [machine("lab2", kinds=[A100, A100])],
        [lease("lab2", 0, since=0.0)],
        "needs 2 GPUs of 40 GB; lab2 has 1 of 2 GPUs free, ann's brave-otter-7 holds 1 (started 2 h ago)",
    ),
    (
        wants("a", 4),
        [machine("lab", 4), machine("off", 4, trouble=not_ready("drained", "disk swap"))],
        [lease("lab", 0, 1), lease("lab", 2, run="calm-fox-2", user="bob", since=1.75 * HOUR)],
        "needs 4 GPUs; lab has 1 of 4 GPUs free, ann's brave-otter-7 holds 2 (started 2 h ago), "
        "bob's calm-fox-2 holds 1 (started 15 min ago); off is drained: disk swap",
    ),
    (
        wants("a", 1),
        [machine("lab", 2, foreign={1: "by bob (python3, process 42)"})],
        [lease("lab", 0)],
        "needs 1 GPU; lab has 0 of 2 GPUs free, ann's brave-otter-7 holds 1 (started 2 h ago), "
        "GPU 1 is used outside dstack by bob (python3, process 42)",
    ),
    (
        wants("a", cpu=4),
        [machine("lab")],
        [lease("lab", ask=Ask(cpu=6))],
        "needs 4 CPUs; lab has 2 of 8 CPUs free, ann's brave-otter-7 holds 6 (started 2 h ago)",
    ),
    (
        wants("a", memory=40 * GB),
        [machine("lab", memory=60 * GB)],
        [lease("lab", ask=Ask(memory=40 * GB)), lease("lab", run="r", ask=Ask(memory=4 * GB))],
        "needs 40 GB of memory; lab has 20.4 GB of memory free, "
        "ann's brave-otter-7 holds 40 GB (started 2 h ago), 1 other job holds some",
    ),
    (wants("a", disk=500 * 10**9), [machine("lab")], [], "needs 500 GB of disk; lab has 100 GB of disk free"),
    (
        wants("a", 1),
        [machine(name, 1) for name in "vwxyz"],
        [lease(name, 0, run=name) for name in "vwxyz"],
        "needs 1 GPU; v has 0 of 1 GPUs free, ann's v holds 1 (started 2 h ago); "
        "w has 0 of 1 GPUs free, ann's w holds 1 (started 2 h ago); "
        "x has 0 of 1 GPUs free, ann's x holds 1 (started 2 h ago); 2 other runners can't take it now either",
    ),
]


@pytest.mark.parametrize(("job", "machines", "leases", "reason"), REASONS, ids=[each[3][:50] for each in REASONS])
def test_the_reason_in_full(job: Waiting, machines: list[Machine], leases: list[Lease], reason: str) -> None:
    assert schedule([job], machines, leases, 2 * HOUR).reasons["a"].text == reason


@pytest.mark.parametrize(
    ("job", "machines", "why"),
    [
        (wants("a"), [], "no runner has been added yet"),
        (wants("a"), [machine("m", hidden=True)], "no runner has been added yet"),
        (wants("a", pin="x"), [machine("m")], "no runner has the name or label 'x'"),
        (wants("a", 3), [machine("m", 2)], "it needs 3 GPUs; no runner has more than 2 (m)"),
        (wants("a", 2), [machine("m", 2, trouble=not_ready("unreachable", "gone"))], None),
        (wants("a", 3), [machine("m", 3)], "it needs 3 GPUs; the limit per user is 2"),
        (
            wants("a", disk=5000 * 10**9),
            [machine("s", disk_total=10**12), machine("m", disk_total=3 * 10**12)],
            "it needs 5 TB of disk; the closest runner is m with a disk of 3 TB",
        ),
        (wants("a", disk=500 * 10**9), [machine("m", disk=0, disk_total=10**12)], None),
        (wants("a", disk=500 * 10**9), [machine("older version")], None),
    ],
)
def test_what_could_never_run_is_told(job: Waiting, machines: list[Machine], why: str | None) -> None:
    found = impossible(job, machines, 2 if job.ask.gpus == 3 and why and "user" in why else None)

    assert (found.text if found else None) == why


def test_a_machine_that_was_never_seen_may_have_anything() -> None:
    unseen = Machine(Runner(name="new", address=Address(host="new")), trouble=UNCHECKED)

    assert impossible(wants("a", 8), [unseen]) is None
    assert schedule([wants("a", 8)], [unseen]).reasons["a"].text == "needs 8 GPUs; new is being checked"


# --- what holds for every queue ------------------------------------------------------------------------------------

KINDS: list[dict[str, Any]] = [{"name": "A100", "memory": 40 * GB}, {"name": "T4", "memory": 16 * GB}]
asks = st.builds(
    Ask,
    gpus=st.integers(0, 4),
    gpu_name=st.sampled_from(["", "", "A100", "T4"]),
    cpu=st.sampled_from([0, 0, 0.5, 2, 4]),
    memory=st.sampled_from([0, 0, 8 * GB, 30 * GB]),
)
jobs_of = st.lists(
    st.tuples(
        asks,
        st.sampled_from([None, None, "m0", "m1", "x"]),
        st.sampled_from([(), (), ("m1", "m2")]),
        st.sampled_from(["ann", "bob"]),
        st.integers(0, 2),
        st.integers(0, 5),
        st.sampled_from([{}, {"m0": 1}, {"m1": 2, "m2": 1}]),
    ),
    max_size=14,
)
machines_of = st.lists(
    st.tuples(st.lists(st.sampled_from(KINDS), max_size=4), st.integers(1, 6), st.booleans(), st.booleans()),
    max_size=4,
)


def built(jobs: Any, machines: Any) -> tuple[list[Waiting], list[Machine]]:
    waiting = [
        Waiting(f"j{n}", ask, pin, runners, f"run-{n}", user, priority, float(age), near)
        for n, (ask, pin, runners, user, priority, age, near) in enumerate(jobs)
    ]
    found = [
        machine(
            f"m{n}",
            kinds=kinds,
            cpus=cpus,
            memory=32 * GB,
            trouble=not_ready("unusable", "x") if broken else None,
            foreign={0: "by eve (x)"} if foreign and kinds else {},
        )
        for n, (kinds, cpus, broken, foreign) in enumerate(machines)
    ]
    return waiting, found


def leases_of(waiting: list[Waiting], made: Schedule, now: float = 0.0) -> list[Lease]:
    asked = {job.id: job for job in waiting}
    return [
        Lease(job, put.runner, asked[job].run, asked[job].user, put.gpus, asked[job].ask, now)
        for job, put in made.placements.items()
    ]


@given(
    jobs=jobs_of, sizes=machines_of, limit=st.sampled_from([None, 2, 4]), names=st.sampled_from(["", "AABB", "ABAA"])
)
def test_never_over_capacity_and_always_a_reason(jobs: Any, sizes: Any, limit: int | None, names: str) -> None:
    waiting, machines = built(jobs, sizes)
    if names:
        machines = [dataclasses.replace(one, machine=name) for one, name in zip(machines, names, strict=False)]

    made = schedule(waiting, machines, max_gpus=limit)

    assert made.placements.keys() | made.reasons.keys() == {job.id for job in waiting}
    assert not made.placements.keys() & made.reasons.keys()
    assert sorted(made.order) == sorted(made.reasons)
    leases = leases_of(waiting, made)
    for one in machines:
        alike = [each for each in machines if each.identity == one.identity]
        there = [each for each in leases if each.runner in {same.runner.name for same in alike}]
        here = [each for each in there if each.runner == one.runner.name]
        leased = [index for each in there for index in each.gpus]
        assert len(leased) == len(set(leased))
        assert {index for each in here for index in each.gpus} <= {gpu.index for gpu in one.gpus} - set(one.foreign)
        assert not here or one.trouble is None
        assert sum(each.ask.cpu for each in there) <= max(each.cpus for each in alike)
        assert sum(each.ask.memory for each in there) <= max(each.memory for each in alike)
        assert sum(each.ask.shares for each in there) <= max(each.slots for each in alike)
    for job in waiting:
        if job.id in made.placements:
            put = made.placements[job.id]
            one = next(one for one in machines if one.runner.name == put.runner)
            assert allows(job.pin, job.runners, one.runner)
            assert len(put.gpus) == job.ask.gpus
            assert all(job.ask.takes(gpu) for gpu in one.gpus if gpu.index in put.gpus)
    for user in ("ann", "bob"):
        assert limit is None or sum(len(each.gpus) for each in leases if each.user == user) <= limit
    assert schedule(waiting, machines, max_gpus=limit) == made


@given(jobs=jobs_of, sizes=machines_of, limit=st.sampled_from([None, 2, 4]))
def test_a_reason_is_true(jobs: Any, sizes: Any, limit: int | None) -> None:
    waiting, machines = built(jobs, sizes)
    made = schedule(waiting, machines, max_gpus=limit)
    leases = leases_of(waiting, made)
    after = {
        one.runner.name: Capacity(one, n, [each for each in leases if each.runner == one.runner.name])
        for n, one in enumerate(machines)
    }
    users = {user: sum(len(each.gpus) for each in leases if each.user == user) for user in ("ann", "bob")}

    for job in waiting:
        told = made.reasons.get(job.id)
        if told is None:
            continue
        allowed = [after[one.runner.name] for one in eligible(job, machines)]
        has_room = [one.name for one in allowed if one.machine.trouble is None and one.room(job.ask)]
        code, reason = told.code, told.text
        if code is ReasonCode.USER_GPU_LIMIT:
            assert limit is not None
            assert users[job.user] + job.ask.gpus > limit
            assert f"{job.user} already has {users[job.user]} of the {limit} GPUs" in reason
        elif code in (ReasonCode.NO_RUNNER_KNOWN, ReasonCode.NO_MATCHING_RUNNER):
            assert not allowed
        elif code is ReasonCode.NEEDS_MORE_THAN_ANY_RUNNER_HAS:
            assert not any(one.could_hold(job.ask) for one in allowed)
        else:
            assert any(one.could_hold(job.ask) for one in allowed)
            for name in has_room:
                kept = f"{name} keeps its free share for "
                assert kept in reason
                run = reason.split(kept)[1].split(", ")[0].split("'s ")[-1]
                other = next(each for each in waiting if each.run == run)
                assert other.id in made.reasons
                assert (-other.priority, other.submitted) <= (-job.priority, job.submitted)
            for one in allowed:
                if one.name not in has_room and one.machine.trouble is None and f"{one.name} has " in reason:
                    said = reason.split(f"{one.name} has ")[1]
                    if job.ask.gpus and " free" in said and "CPU" not in said.split(" free")[0] and "B of" not in said:
                        assert said.startswith(f"{len(one.matching(job.ask))} of ")


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    queue=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_nobody_starves(sizes: list[int], queue: list[int], order: Any) -> None:
    """However many small jobs arrive behind a large one, it starts by the time those ahead of it have ended."""
    machines = [machine(f"m{n}", gpus) for n, gpus in enumerate(sizes)]
    waiting = [wants(f"j{n}", min(gpus, max(sizes)), submitted=float(n)) for n, gpus in enumerate(queue)]
    large = wants("large", max(sizes), submitted=float(len(queue)))
    waiting.append(large)
    leases: list[Lease] = []
    for step in range(len(queue) * 2 + 40):
        waiting.append(wants(f"late{step}", 1, submitted=100.0 + step))
        made = schedule(waiting, machines, leases, float(step))
        leases += leases_of(waiting, made, float(step))
        waiting = [job for job in waiting if job.id in made.reasons]
        if "large" in made.placements:
            return
        leases.remove(order.choice(leases))
    raise AssertionError("the large job never started")


def test_only_the_first_jobs_that_wait_have_a_runner_reserved() -> None:
    count = RESERVATIONS + 1
    machines = [machine(f"lab{number}", 2) for number in range(count)]
    taken = [lease(f"lab{number}", 0) for number in range(count)]
    large = [wants(f"large{number:02}", 2, cpu=1 + number / 100, submitted=float(number)) for number in range(count)]
    small = [wants(f"small{number:02}", 1, submitted=100.0 + number) for number in range(count)]

    made = schedule([*large, *small], machines, taken, HOUR)

    assert len(made.placements) == count - RESERVATIONS
