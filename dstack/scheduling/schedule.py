"""Decides which job runs where, and says why a job does not run yet. Pure.

Jobs are placed by priority, then age. A job that does not fit gets a reservation: the closest runner keeps its free
share for it, so smaller jobs may pass it only if they take nothing from it. Preemptible jobs give way to a job of
higher priority if that lets it start. Each pass starts from scratch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import attrgetter

from dstack.model.job.reasons import Reason
from dstack.model.job.resources import Ask
from dstack.model.runner.runner import Runner
from dstack.scheduling import reasons
from dstack.scheduling.capacity import Capacity, joined
from dstack.scheduling.matching import Candidates, FreeIndex, JobShape, allows, opens
from dstack.scheduling.preemption import Room
from dstack.scheduling.types import Eligibility, Lease, Machine, Placement, Schedule, Waiting

RESERVATIONS = 16
"""At most this many jobs have a runner reserved for them."""


def eligible(job: Waiting, machines: Sequence[Machine]) -> list[Machine]:
    return [machine for machine in machines if opens(job.eligibility, machine.runner)]


def impossible(job: Waiting, machines: Sequence[Machine], max_gpus: int | None = None) -> Reason | None:
    """Return why the job could never run on these runners, however long it waits; None if it could."""
    if max_gpus is not None and job.ask.gpus > max_gpus:
        return reasons.over_limit(job.ask, max_gpus)
    empty = [Capacity(machine, number, ()) for number, machine in enumerate(eligible(job, machines))]
    if not empty:
        return closed(job.eligibility, [machine.runner for machine in machines])
    possible = any(one.machine.runner.facts is None or one.could_hold(job.ask) for one in empty)
    return None if possible else reasons.too_much(job.ask, empty)


def closed(eligibility: Eligibility, runners: Sequence[Runner]) -> Reason:
    """Why no runner allows the job, whatever it requests."""
    pin, names, mounts = eligibility
    near = [runner for runner in runners if allows(pin, names, runner)]
    return reasons.no_mount(mounts, near) if near else reasons.nobody(pin, names)


def schedule(
    jobs: Sequence[Waiting],
    machines: Sequence[Machine],
    leases: Sequence[Lease] = (),
    now: float = 0.0,
    *,
    max_gpus: int | None = None,
) -> Schedule:
    """Place the jobs. `leases` are what unfinished jobs hold; `max_gpus` limits how many GPUs a user holds at once."""
    return Pass(jobs, machines, leases, now, max_gpus).run()


class Pass:
    """One pass over the queue. What it gives to a job is gone for the rest of the pass."""

    def __init__(
        self,
        jobs: Sequence[Waiting],
        machines: Sequence[Machine],
        leases: Sequence[Lease],
        now: float,
        max_gpus: int | None,
    ) -> None:
        held: dict[str, list[Lease]] = defaultdict(list)
        self.users: Counter[str] = Counter()
        machine_of = {machine.runner.name: machine.identity for machine in machines}
        for lease in leases:
            held[machine_of.get(lease.runner, lease.runner)].append(lease)
            self.users[lease.user] += len(lease.gpus)
        self.jobs = sorted(jobs, key=attrgetter("submitted"))
        self.jobs.sort(key=attrgetter("priority"), reverse=True)
        self.all = [Capacity(machine, at, held[machine.identity]) for at, machine in enumerate(machines)]
        joined(self.all)
        self.by_name = {one.name: one for one in self.all}
        self.now = now
        self.max_gpus = max_gpus
        self.by_free: FreeIndex = [[] for _ in range(1 + max((len(one.gpus) for one in self.all), default=0))]
        for one in sorted(self.all, key=lambda one: len(one.leases)):
            if one.works:
                self.by_free[len(one.free)].append(one)
        self.room = Room(self.all, self.jobs)
        self.candidates: dict[Eligibility, Candidates] = {}
        self.shapes: dict[tuple[Ask, str | None, tuple[str, ...], tuple[str, ...]], JobShape] = {}
        self.reserved = 0

    def run(self) -> Schedule:
        placements: dict[str, Placement] = {}
        choices: dict[str, str] = {}
        left: list[tuple[Waiting, JobShape]] = []
        for job in self.jobs:
            shape = self.shape(job)
            over = self.max_gpus is not None and self.over_limit(job)
            one = promised = self.promised(job) if self.room.promised and not over else None
            if one is None and not (over or shape.blocked):
                one = self.choose(job, shape)
            if one is not None:
                choices[job.id] = reasons.choice(job, shape.could, one, promised=promised is not None)
                placements[job.id] = Placement(one.name, self.give(one, job))
                continue
            left.append((job, shape))
            if not over and (not shape.stuck or job.id in self.room.promised):
                self.wait(job, shape)
        self.room.spare()
        order = [job.id for job, _ in left]
        promises = {job: self.all[number].name for job, number in self.room.promised.items()}
        return Schedule(placements, self.reasons(left), order, self.room.yields, promises, choices)

    def shape(self, job: Waiting) -> JobShape:
        """The job's shape: all jobs with the same needs share one."""
        key = job.ask, job.pin, job.runners, job.mounts
        shape = self.shapes.get(key)
        if shape is None:
            eligibility = job.eligibility
            if eligibility not in self.candidates:
                allowed = [one for one in self.all if opens(eligibility, one.machine.runner)]
                self.candidates[eligibility] = Candidates(allowed)
            shape = self.shapes[key] = JobShape(job.ask, self.candidates[eligibility], self.by_free)
        return shape

    def over_limit(self, job: Waiting) -> bool:
        if self.max_gpus is None or not job.ask.gpus:
            return False
        return self.users[job.user] + job.ask.gpus > self.max_gpus

    def choose(self, job: Waiting, shape: JobShape) -> Capacity | None:
        """The best runner that the job fits on now: for GPUs one that already has some of what it needs, for others the
        least busy one, and among equally busy ones one that has some of what it needs; else the best for its shape."""
        near, best = self.nearby(job, shape) if job.near else None, None
        if near is None or not job.ask.gpus:
            best = shape.best()
        if best is None or (near and near.quiet[0] <= best.quiet[0]):
            best = near
        return None if best and self.room.promised and self.room.keeps_from(job, best) else best

    def nearby(self, job: Waiting, shape: JobShape) -> Capacity | None:
        """The runner that has the most of what the job needs, among those that it fits on. Without GPUs, of the least
        busy ones."""
        best: Capacity | None = None
        rank: tuple[float, ...] = ()
        for name, has in job.near.items():
            one = self.by_name.get(name)
            if one is None or one.number not in shape.able:
                continue
            busy, free = (0.0, len(one.free)) if job.ask.gpus else (one.quiet[0], 0)
            its = (busy, -has, free, *one.quiet)
            if (best is None or its < rank) and one.fits(job.ask):
                best, rank = one, its
        return best

    def promised(self, job: Waiting) -> Capacity | None:
        """The runner that was promised to the job, if it fits there by now."""
        number = self.room.promised.get(job.id)
        return self.all[number] if number is not None and self.all[number].fits(job.ask) else None

    def give(self, one: Capacity, job: Waiting) -> tuple[int, ...]:
        """Take the job's share out of a runner."""
        gpus = one.pick(job.ask)
        one.take(Lease(job.id, one.name, job.run, job.user, gpus, job.ask, self.now))
        if gpus:
            self.users[job.user] += len(gpus)
            for each in one.siblings:
                if each.works:
                    self.by_free[len(each.free)].append(each)
        if self.room.lowest or self.room.promised:
            self.room.placed(job, one)
        return gpus

    def wait(self, job: Waiting, shape: JobShape) -> None:
        """Have others give way to a job that fits nowhere. If that does not help and the job requests resources,
        reserve the closest runner for it."""
        first = not shape.blocked
        if first and job.id not in self.room.promised:
            shape.block()
        place = self.room.make(job, shape)
        if place is not None:
            place.reserved.append(job)
            return
        shape.stuck = True
        self.room.close(shape)
        if not first or job.ask.shares or self.reserved >= RESERVATIONS:
            return
        for one in shape.nearest:
            if one.works and not one.reserved and one.could_hold(job.ask):
                one.reserved.append(job)
                self.reserved += 1
                return

    def reasons(self, left: Sequence[tuple[Waiting, JobShape]]) -> dict[str, Reason]:
        """Why each job waits, once everything that can be placed has been placed."""
        why: dict[str, Reason] = {}
        for job, shape in left:
            promised = self.room.promised.get(job.id)
            if self.max_gpus is not None and self.over_limit(job):
                why[job.id] = reasons.limit(job.ask, job.user, self.users[job.user], self.max_gpus)
            elif promised is not None:
                why[job.id] = reasons.blocked(job.ask, [self.all[promised]], 1, self.now)
            else:
                shape.reason = why[job.id] = shape.reason or self.why(shape, job.eligibility)
        return why

    def why(self, shape: JobShape, eligibility: Eligibility) -> Reason:
        """Why no job of this shape fits anywhere."""
        if not shape.candidates.machines:
            return closed(eligibility, [one.machine.runner for one in self.all])
        if shape.could:
            return reasons.blocked(shape.ask, shape.nearest, len(shape.could), self.now)
        return reasons.too_much(shape.ask, shape.candidates.machines)
