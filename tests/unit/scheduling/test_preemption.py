"""Which job gives way to which, and that none does so in vain."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dstack.model.job.reasons import ReasonCode
from dstack.model.job.resources import Ask
from dstack.scheduling.capacity import Capacity
from dstack.scheduling.reasons import not_ready
from dstack.scheduling.schedule import schedule
from dstack.scheduling.types import Lease, Machine, Waiting
from tests.unit.scheduling.test_schedule import machine, wants

GB = 1024**3

OFF = not_ready("unreachable", "off")


def low(job: str, runner: str, *gpus: int, **changes: Any) -> Lease:
    """A running job that gives way."""
    ask = changes.pop("ask", Ask(len(gpus)))
    return Lease(job, runner, f"run-{job}", "bob", gpus, ask, preemptible=True, **changes)


def test_the_fewest_and_youngest_give_way() -> None:
    leases = [low("old", "lab", 0, since=1.0), low("young", "lab", 1, since=2.0), low("large", "lab", 2, 3, since=0.0)]

    def goes(gpus: int) -> dict[str, str]:
        return schedule([wants("vip", gpus, priority=1)], [machine("lab", 4)], leases, 9.0).preemptions

    assert goes(1) == {"young": "vip"}
    assert goes(2) == {"large": "vip"}
    assert goes(3) == {"young": "vip", "large": "vip"}
    assert goes(4).keys() == {"old", "young", "large"}


def test_the_least_important_gives_way_first() -> None:
    leases = [low("a", "lab", 0, priority=2, since=5.0), low("b", "lab", 1, priority=1, since=1.0)]

    made = schedule([wants("vip", 1, priority=3)], [machine("lab", 2)], leases)

    assert made.preemptions == {"b": "vip"}


def test_nobody_gives_way_to_an_equal_or_for_nothing() -> None:
    running = [low("a", "lab", 0, priority=1), replace(low("b", "lab", 1), preemptible=False)]

    assert schedule([wants("x", 1, priority=1)], [machine("lab", 2)], running).preemptions == {}
    assert schedule([wants("x", 2, priority=9)], [machine("lab", 2)], running).preemptions == {}
    assert schedule([wants("x", 1, priority=9)], [machine("lab", 2, trouble=OFF)], running).preemptions == {}
    assert schedule([wants("x", 1, priority=9, pin="other")], [machine("lab", 2)], running).preemptions == {}
    assert schedule([wants("x", 1, priority=9)], [machine("lab", 3)], running).placements.keys() == {"x"}


def test_a_job_gives_way_to_one_on_the_same_machine_under_its_other_name() -> None:
    machines = [machine(name, 2, machine="M") for name in ("ann", "bob")] + [machine("other", 2)]
    running = [low("a", "ann", 0), low("b", "bob", 1), low("c", "other", 0, 1)]
    vip = wants("vip", 2, priority=1, pin="bob")

    made = schedule([vip], machines, running)
    again = schedule([replace(vip, room_on="bob")], machines, [replace(each, ending=True) for each in running[:2]])
    # What ends is promised to one job, whichever name the next asks for.
    next_one = wants("next", 2, priority=1, pin="ann", submitted=1.0)
    both = schedule([replace(vip, room_on="bob"), next_one], machines, [running[0]])

    assert made.preemptions == {"a": "vip", "b": "vip"}
    assert (again.preemptions, again.promises) == ({}, {"vip": "bob"})
    assert (both.preemptions, both.promises) == ({"a": "vip"}, {"vip": "bob"})


def test_nobody_gives_way_to_a_job_whose_user_has_enough() -> None:
    made = schedule([wants("x", 1, priority=9, user="bob")], [machine("lab", 1)], [low("a", "lab", 0)], max_gpus=1)

    assert made.preemptions == {}
    assert made.reasons["x"].code is ReasonCode.USER_GPU_LIMIT


def test_what_ends_for_a_job_is_waited_for_and_kept() -> None:
    ending = [low("a", "lab", 0, ending=True), low("b", "lab", 1), low("c", "lab", 2)]
    jobs = [wants("vip", 2, priority=2, room_on="lab"), wants("small", 1, priority=1, submitted=1.0)]

    made = schedule(jobs, [machine("lab", 4)], ending)

    assert made.placements == {}
    assert made.preemptions == {"b": "small"} or made.preemptions == {"c": "small"}
    assert schedule(jobs[:1], [machine("lab", 4)], ending).preemptions == {}


def test_a_promise_is_void_where_the_job_may_not_run_any_more() -> None:
    machines = [machine("lab", 1), machine("other", 1, labels=("x",))]

    made = schedule([wants("vip", 1, priority=2, pin="x", room_on="lab")], machines)
    off = schedule([wants("vip", 1, priority=2, room_on="lab")], [machine("lab", 1, trouble=OFF), machines[1]])

    assert made.placements["vip"].runner == off.placements["vip"].runner == "other"


def test_cpus_and_slots_make_room_too() -> None:
    busy = [low("a", "lab", ask=Ask(cpu=6)), low("b", "lab", ask=Ask(cpu=2))]
    shared = [low(f"s{number}", "lab", since=float(number)) for number in range(2)]

    assert schedule([wants("x", cpu=5, priority=1)], [machine("lab")], busy).preemptions == {"a": "x"}
    assert schedule([wants("x", priority=1)], [machine("lab", max_jobs=2)], shared).preemptions == {"s1": "x"}


# --- what holds for every queue ------------------------------------------------------------------------------------

asks = st.builds(Ask, gpus=st.integers(0, 3), cpu=st.sampled_from([0, 0, 2]), memory=st.sampled_from([0, 8 * GB]))
jobs_of = st.lists(st.tuples(asks, st.integers(0, 3), st.booleans()), min_size=1, max_size=12)
sizes_of = st.lists(st.integers(0, 4), min_size=1, max_size=3)


class Lab:
    """Machines with waiting and running jobs; nothing ends by itself."""

    def __init__(self, sizes: list[int], jobs: list[tuple[Ask, int, bool]], *, twice: bool = False) -> None:
        """`twice`: each machine has two names."""
        self.machines: list[Machine] = [
            machine(f"m{n}{name}", size, cpus=6, max_jobs=2, machine=f"m{n}")
            for n, size in enumerate(sizes)
            for name in ("", *(["b"] if twice else []))
        ]
        self.gives: dict[str, bool] = {}
        self.asked: dict[str, Waiting] = {}
        for number, (ask, priority, gives) in enumerate(jobs):
            self.asked[f"j{number}"] = Waiting(f"j{number}", ask, priority=priority, submitted=float(number))
            self.gives[f"j{number}"] = gives
        self.waiting: list[str] = []
        self.came: list[str] = []
        self.promises: dict[str, str] = {}
        self.leases: dict[str, Lease] = {}

    def comes(self, name: str) -> None:
        """A job is submitted."""
        self.asked[name] = replace(self.asked[name], submitted=float(len(self.came)))
        self.came.append(name)
        self.waiting.append(name)

    def step(self, now: float) -> dict[str, str]:
        """Run one pass and start what it places; return the jobs that have to give way."""
        jobs = [replace(self.asked[name], room_on=self.promises.get(name)) for name in self.waiting]
        made = schedule(jobs, self.machines, list(self.leases.values()), now)
        self.promises = made.promises
        for name, put in made.placements.items():
            job = self.asked[name]
            self.leases[name] = Lease(
                *(name, put.runner, name, "", put.gpus, job.ask, now, job.priority, self.gives[name])
            )
            self.waiting.remove(name)
        for victim, winner in made.preemptions.items():
            lease = self.leases[victim]
            assert lease.preemptible
            assert not lease.ending
            assert lease.priority < self.asked[winner].priority
            assert winner in self.waiting
            self.leases[victim] = replace(lease, ending=True)
        return made.preemptions

    def stopped(self, victim: str) -> None:
        """Queue a job again that gave way."""
        del self.leases[victim]
        self.waiting.append(victim)


@given(sizes=sizes_of, jobs=jobs_of, order=st.randoms(use_true_random=False), twice=st.booleans())
def test_who_others_gave_way_to_starts_and_all_comes_to_rest(
    sizes: list[int], jobs: Any, order: Any, twice: bool
) -> None:
    """Jobs are submitted one by one, and those that give way end at any later moment, in any order."""
    lab = Lab(sizes, jobs, twice=twice)
    coming = list(lab.asked)
    order.shuffle(coming)
    beneficiaries: set[str] = set()
    given_way: dict[str, int] = {}
    for now in range(40 * len(jobs)):
        if coming and order.random() < 0.5:
            lab.comes(coming.pop())
        for victim, winner in lab.step(float(now)).items():
            beneficiaries.add(winner)
            given_way[victim] = given_way.get(victim, 0) + 1
        ending = [name for name, lease in lab.leases.items() if lease.ending]
        if ending:
            lab.stopped(order.choice(ending))
        elif not coming:
            break
    assert lab.step(1000.0) == {}
    most = max(job.priority for job in lab.asked.values())
    for name in beneficiaries:
        later = lab.came[lab.came.index(name) + 1 :]
        more_important = any(lab.asked[other].priority > lab.asked[name].priority for other in later)
        assert name in lab.leases or more_important
    for name, times in given_way.items():
        assert lab.asked[name].priority < most
        assert times <= sum(other.priority > lab.asked[name].priority for other in lab.asked.values())


@given(sizes=sizes_of, jobs=jobs_of, twice=st.booleans())
def test_a_job_that_others_give_way_to_could_not_start_and_then_can(sizes: list[int], jobs: Any, twice: bool) -> None:
    lab = Lab(sizes, [(ask, 0, True) for ask, _, _ in jobs], twice=twice)
    lab.waiting = list(lab.asked)
    lab.step(0.0)
    vips = [Waiting(f"v{n}", ask, priority=priority, submitted=float(n)) for n, (ask, priority, _) in enumerate(jobs)]

    made = schedule(vips, lab.machines, list(lab.leases.values()), 1.0)

    begun = [
        Lease(vip.id, put.runner, "", "", put.gpus, vip.ask, 1.0, vip.priority)
        for vip in vips
        if (put := made.placements.get(vip.id))
    ]
    left = [replace(vip, room_on=made.promises.get(vip.id)) for vip in vips if vip.id in made.reasons]

    def placed(without: set[str]) -> set[str]:
        rest = [lease for name, lease in lab.leases.items() if name not in without]
        return set(schedule(left, lab.machines, [*rest, *begun], 2.0).placements)

    winners = set(made.promises)
    assert set(made.preemptions.values()) <= winners
    assert winners <= placed(set(made.preemptions))
    for victim in made.preemptions:
        (there_too,) = (one.identity for one in lab.machines if one.runner.name == lab.leases[victim].runner)
        names = {one.runner.name: one for one in lab.machines if one.identity == there_too}
        gone = made.preemptions.keys() - {victim}
        held = [lease for name, lease in lab.leases.items() if name not in gone]
        there = [vip for vip in left if vip.room_on in names]
        assert schedule(there, list(names.values()), [*held, *begun], 2.0).reasons
    assert schedule(vips, lab.machines, list(lab.leases.values()), 1.0) == made


@given(sizes=sizes_of, jobs=jobs_of, ended=st.sets(st.integers(0, 11)), limit=st.sampled_from([None, 2]))
def test_whoever_waits_waits_for_a_reason(sizes: list[int], jobs: Any, ended: set[int], limit: int | None) -> None:
    """Also while others give way, and after some of those have ended."""
    lab = Lab(sizes, [(ask, 0, gives) for ask, _, gives in jobs])
    lab.waiting = list(lab.asked)
    lab.step(0.0)
    vips = [Waiting(f"v{n}", ask, None, (), f"run-v{n}", "", p, float(n)) for n, (ask, p, _) in enumerate(jobs)]
    for now in (1.0, 2.0, 3.0):
        held = list(lab.leases.values())
        made = schedule(vips, lab.machines, held, now, max_gpus=limit)
        for vip in vips:
            if put := made.placements.get(vip.id):
                held.append(Lease(vip.id, put.runner, vip.run, "", put.gpus, vip.ask, now, vip.priority))
        after = [
            Capacity(one, n, [lease for lease in held if lease.runner == one.runner.name])
            for n, one in enumerate(lab.machines)
        ]
        for one in after:
            taken = [index for lease in one.leases for index in lease.gpus]
            assert len(taken) == len(set(taken))
            assert min(one.cpu, one.memory, one.slots) >= 0
        for vip in vips:
            reason = made.reasons.get(vip.id)
            assert (reason is None) == (vip.id in made.placements)
            if reason is None or reason.code is ReasonCode.USER_GPU_LIMIT or vip.id in made.promises:
                continue
            for one in after:
                assert not one.room(vip.ask) or f"{one.name} keeps its free share for run-v" in reason.text
        for victim in made.preemptions:
            lab.leases[victim] = replace(lab.leases[victim], ending=True)
        for victim in [name for name in made.preemptions if int(name[1:]) in ended]:
            del lab.leases[victim]
        vips = [replace(vip, room_on=made.promises.get(vip.id)) for vip in vips if vip.id in made.reasons]
        lab.leases.update({lease.job: lease for lease in held if lease.job[0] == "v"})
