"""Which job runs where, and why a job does not run yet. Pure.

Jobs are placed by priority, then age. One that does not fit gets a reservation: the machine that comes nearest
keeps for it what is free there, so that smaller jobs pass it only where that takes nothing from it. Each pass looks
again.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dstack.engine import reasons
from dstack.engine.capacity import Capacity, Lease, Machine
from dstack.model.mounts import allowed
from dstack.model.resources import NOTHING, Ask

RESERVATIONS = 16
"""At most so many jobs have a machine kept for them."""

Door = tuple["str | None", tuple[str, ...], tuple[str, ...]]
"""What decides which machines a job may use: the pin of its run, its workflow's runners, the folders that it mounts."""
Kind = tuple[Ask, Door]


@dataclass(frozen=True)
class Waiting:
    """A job that could start: its dependencies are done. `pin` is the name or label of the runners that its run may
    use, `runners` are those that its workflow may, `mounts` the folders of the machine that it mounts. `submitted`
    in seconds of the clock that `now` has; `near` says how much of what it needs is on which runner already.
    """

    id: str
    ask: Ask = NOTHING
    pin: str | None = None
    runners: tuple[str, ...] = ()
    run: str = ""
    user: str = ""
    priority: int = 0
    submitted: float = 0.0
    near: Mapping[str, int] = field(default_factory=dict, hash=False)
    mounts: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Jobs of one kind fit the same machines."""
        return self.ask, self.door

    @property
    def door(self) -> Door:
        return self.pin, self.runners, self.mounts


@dataclass(frozen=True)
class Placement:
    """A job's runner, and the indexes of the GPUs that it gets."""

    runner: str
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """Placements and, for every job without one, the reason. `order` holds the jobs without one, first come first."""

    placements: dict[str, Placement]
    reasons: dict[str, str]
    order: list[str]


def allows(pin: str | None, runners: tuple[str, ...], machine: Machine) -> bool:
    """Whether pins let a job use a machine. A hidden one takes only those that name it."""
    runner = machine.runner
    if pin == runner.name:
        return True
    if runner.hidden:
        return False
    if pin is not None and pin not in runner.labels:
        return False
    return not runners or any(name == runner.name or name in runner.labels for name in runners)


def opens(door: Door, machine: Machine) -> bool:
    """Whether a job may use a machine, and mount there what it mounts."""
    pin, runners, sources = door
    return allows(pin, runners, machine) and all(allowed(source, machine.runner.allow_mounts) for source in sources)


def eligible(job: Waiting, machines: Sequence[Machine]) -> list[Machine]:
    """The machines that the job may use."""
    return [machine for machine in machines if opens(job.door, machine)]


def impossible(job: Waiting, machines: Sequence[Machine], max_gpus: int | None = None) -> str | None:
    """Why the job could never run on these machines, however long it waits; None when it could."""
    if max_gpus is not None and job.ask.gpus > max_gpus:
        return f"it needs {job.ask.gpu_words}; a user may have {max_gpus} at once"
    found = eligible(job, machines)
    if not found:
        return closed(job, machines)
    empty = [Capacity(machine, number, ()) for number, machine in enumerate(found)]
    if any(machine.runner.facts is None for machine in found) or any(one.could_hold(job.ask) for one in empty):
        return None
    return reasons.too_much(job.ask, empty)


def closed(job: Waiting, machines: Sequence[Machine]) -> str:
    """Why no machine is for the job, whatever it asks for."""
    near = [machine.runner for machine in machines if allows(job.pin, job.runners, machine)]
    return reasons.no_mount(job.mounts, near) if near else reasons.nobody(job.pin, job.runners)


def schedule(
    jobs: Sequence[Waiting],
    machines: Sequence[Machine],
    leases: Sequence[Lease] = (),
    now: float = 0.0,
    *,
    max_gpus: int | None = None,
) -> Schedule:
    """Place the jobs. `leases` is what unfinished jobs hold; `max_gpus` limits what a user holds at once."""
    return Pass(machines, leases, now, max_gpus).run(jobs)


class Pass:
    """One pass over the queue. What it gives away is gone for the rest of it."""

    def __init__(self, machines: Sequence[Machine], leases: Sequence[Lease], now: float, max_gpus: int | None) -> None:
        held: dict[str, list[Lease]] = {machine.runner.name: [] for machine in machines}
        self.users: dict[str, int] = {}
        for lease in leases:
            self.users[lease.user] = self.users.get(lease.user, 0) + len(lease.gpus)
            if lease.runner in held:
                held[lease.runner].append(lease)
        self.all = [Capacity(machine, at, held[machine.runner.name]) for at, machine in enumerate(machines)]
        self.by_name = {one.name: one for one in self.all}
        self.now = now
        self.max_gpus = max_gpus
        self.open: dict[Door, list[Capacity]] = {}
        self.heaps: dict[Kind, list[tuple[tuple[float, ...], int]]] = {}
        self.blocked: set[Kind] = set()
        self.reserved = 0

    def run(self, jobs: Sequence[Waiting]) -> Schedule:
        """Place what can be placed, in order."""
        placements: dict[str, Placement] = {}
        left: list[Waiting] = []
        for job in sorted(jobs, key=lambda job: (-job.priority, job.submitted)):
            kind = job.kind
            if kind in self.blocked or self.over_limit(job):
                left.append(job)
                continue
            one = self.choose(job)
            if one is not None:
                placements[job.id] = Placement(one.name, self.give(one, job))
                continue
            left.append(job)
            self.blocked.add(kind)
            self.reserve(job)
        return Schedule(placements, self.reasons(left), [job.id for job in left])

    def over_limit(self, job: Waiting) -> bool:
        """Whether the user may not have so many more GPUs now."""
        if self.max_gpus is None or not job.ask.gpus:
            return False
        return self.users.get(job.user, 0) + job.ask.gpus > self.max_gpus

    def reasons(self, jobs: Sequence[Waiting]) -> dict[str, str]:
        """Why each job waits, as things stand when all that can be placed has been."""
        kinds: dict[Kind, str] = {}
        told: dict[str, str] = {}
        for job in jobs:
            if self.max_gpus is not None and self.over_limit(job):
                told[job.id] = reasons.limit(job.ask, job.user, self.users.get(job.user, 0), self.max_gpus)
                continue
            kind = job.kind
            if kind not in kinds:
                kinds[kind] = self.why(job)
            told[job.id] = kinds[kind]
        return told

    def why(self, job: Waiting) -> str:
        """Why no job of this kind fits anywhere."""
        found = self.of(job.door)
        if not found:
            return closed(job, [one.machine for one in self.all])
        if any(one.machine.runner.facts is None or one.could_hold(job.ask) for one in found):
            return reasons.blocked(job.ask, found, self.now)
        return reasons.too_much(job.ask, found)

    def choose(self, job: Waiting) -> Capacity | None:
        """The best machine that the job fits now: one that has what it needs, else the fullest."""
        near = [self.by_name[name] for name in job.near if name in self.by_name]
        found = [one for one in near if opens(job.door, one.machine) and one.fits(job.ask)]
        if found:
            return min(found, key=lambda one: (-job.near[one.name], one.score(job.ask)))
        heap = self.heap(job.kind)
        while heap:
            score, number = heap[0]
            one = self.all[number]
            if score == one.score(job.ask) and one.fits(job.ask):
                return one
            heapq.heappop(heap)
        return None

    def of(self, door: Door) -> list[Capacity]:
        """The machines that jobs may use."""
        if door not in self.open:
            self.open[door] = [one for one in self.all if opens(door, one.machine)]
        return self.open[door]

    def heap(self, kind: Kind) -> list[tuple[tuple[float, ...], int]]:
        """The machines that jobs of this kind fit, best first. An entry whose score is not the machine's own any more
        is out of date: another one was pushed for it."""
        if kind not in self.heaps:
            ask, door = kind
            found = [(one.score(ask), one.number) for one in self.of(door) if one.fits(ask)]
            heapq.heapify(found)
            self.heaps[kind] = found
        return self.heaps[kind]

    def give(self, one: Capacity, job: Waiting) -> tuple[int, ...]:
        """Take the job's share out of a machine."""
        gpus = one.pick(job.ask)
        self.users[job.user] = self.users.get(job.user, 0) + len(gpus)
        one.take(Lease(job.id, one.name, job.run, job.user, gpus, job.ask, self.now))
        for (ask, door), heap in self.heaps.items():
            if heap and one.fits(ask) and opens(door, one.machine):
                heapq.heappush(heap, (one.score(ask), one.number))
        return gpus

    def reserve(self, job: Waiting) -> None:
        """Keep what is free on the machine that comes nearest, for a job that asks for something of its own."""
        if job.ask.shares or self.reserved >= RESERVATIONS:
            return
        free = [
            one
            for one in self.of(job.door)
            if one.machine.trouble is None and one.reserved is None and one.could_hold(job.ask)
        ]
        if free:
            nearest = min(free, key=lambda one: (one.missing(job.ask), one.number))
            nearest.reserved = job
            self.reserved += 1
