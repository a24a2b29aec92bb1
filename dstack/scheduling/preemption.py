"""Chooses which jobs give way so that a job of higher priority can start. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from dstack.scheduling.capacity import Capacity
from dstack.scheduling.matching import JobShape, opens
from dstack.scheduling.types import Lease, Waiting

AT_ONCE = 8
"""How many jobs have others stopped for them in one pass; the next pass serves more."""
COMPARED = 16
"""How many runners are compared (those that lack the least), and how many jobs of a runner are tried alone and in
pairs."""
EXACTLY = 2
"""Up to this size, the smallest set of victims is found; larger sets are built from the largest jobs down."""


class Room:
    """The room that preemption makes during one pass. `yields` maps each job to stop to the job that it makes room for.
    Jobs that are ending and earlier promises are counted, so that nothing is stopped twice for one job."""

    def __init__(self, machines: Sequence[Capacity], jobs: Iterable[Waiting]) -> None:
        self.all = machines
        self.lowest: dict[int, int] = {}
        for one in machines:
            yielding = [lease.priority for lease in one.leases if lease.preemptible]
            if one.works and yielding:
                self.lowest[one.number] = min(yielding)
        self.yields: dict[str, str] = {}
        self.searches = 0
        self.futures: dict[int, Capacity] = {}
        self.claims: dict[int, list[Waiting]] = defaultdict(list)
        self.promised: dict[str, int] = {}
        self.closed: set[int] = set()
        by_name = {one.name: one for one in machines if one.works}
        for job in jobs:  # the promises of earlier passes, as far as they still hold
            there = by_name.get(job.room_on) if job.room_on else None
            if there and opens(job.eligibility, there.machine.runner) and self.future(there).room(job.ask):
                self.claim(there, job)

    def claim(self, one: Capacity, job: Waiting) -> Capacity:
        self.claims[one.group].append(job)
        self.promised[job.id] = one.number
        self.changed(one)
        return one

    def changed(self, one: Capacity) -> None:
        """Imagine the future of this machine anew."""
        for each in one.siblings:
            self.futures.pop(each.number, None)

    def keeps_from(self, job: Waiting, one: Capacity) -> bool:
        """Whether a job that has a promise should leave this runner to other jobs that it is promised to."""
        return job.id in self.promised and any(other.id != job.id for other in self.claims[one.group])

    def placed(self, job: Waiting, one: Capacity) -> None:
        """Drop a job's promise: it got this runner, whichever one was promised."""
        self.changed(one)
        number = self.promised.pop(job.id, None)
        if number is not None:
            self.claims[self.all[number].group].remove(job)
            self.changed(self.all[number])

    def make(self, job: Waiting, shape: JobShape) -> Capacity | None:
        """Return the runner on which the job can start once other jobs have given way; None if no preemption would
        help."""
        if job.id in self.promised:
            return self.all[self.promised[job.id]]
        if self.searches >= AT_ONCE:
            return None
        lower = {number for number, priority in self.lowest.items() if priority < job.priority}
        able = (lower & shape.able) - self.closed
        if not able:
            return None
        self.searches += 1
        capable = [self.all[number] for number in sorted(able)]
        for one in capable:
            if self.future(one).room(job.ask):
                return self.claim(one, job)
        near = [one for one in shape.nearest if one.number in able] or capable
        offers = [(one, victims) for one in near[:COMPARED] if (victims := self.victims(job, one))]
        if not offers:
            return None
        one, victims = min(offers, key=lambda offer: rank(*offer))
        self.yields.update((victim.job, job.id) for victim in victims)
        return self.claim(one, job)

    def close(self, shape: JobShape) -> None:
        """Stop no further jobs on the runners that this shape could use: the job ahead can't be helped by that, and
        what became free would be reserved for it."""
        if not shape.ask.shares:
            self.closed |= self.lowest.keys() & shape.able

    def running(self, one: Capacity) -> list[Lease]:
        """The jobs on the runner that are not ending."""
        return [lease for lease in one.leases if not lease.ending and lease.job not in self.yields]

    def future(self, one: Capacity) -> Capacity:
        """The runner without the jobs that are ending, and with the promised ones."""
        if one.number not in self.futures:
            running = self.running(one)
            same = len(running) == len(one.leases) and not self.claims[one.group]
            self.futures[one.number] = one if same else self.imagined(one, running)[0]
        return self.futures[one.number]

    def imagined(self, one: Capacity, leases: Iterable[Lease]) -> tuple[Capacity, bool]:
        """The runner with these leases and the promised jobs, and whether all of these fit."""
        found, all_fit = Capacity(one.machine, one.number, leases), True
        found.disk = one.disk
        for job in self.claims[one.group]:
            if found.room(job.ask):
                found.take(Lease(job.id, one.name, gpus=found.pick(job.ask), ask=job.ask))
            else:
                all_fit = False
        return found, all_fit

    def spare(self) -> None:
        """Spare victims that turn out not to be needed, now that all promises are made: one may make room for
        several jobs."""
        for number in sorted(set(self.promised.values())):
            one = self.all[number]
            for lease in one.leases:
                if lease.job in self.yields and self.imagined(one, [*self.running(one), lease])[1]:
                    del self.yields[lease.job]

    def victims(self, job: Waiting, one: Capacity) -> Sequence[Lease]:
        """The smallest set of jobs whose end lets this job start; among equals, the least important and youngest. Empty
        if nothing helps."""
        running = self.running(one)
        able = [lease for lease in running if lease.preemptible and lease.priority < job.priority]
        able.sort(key=lambda lease: (lease.priority, -lease.since, lease.job))

        def enough(victims: Sequence[Lease]) -> bool:
            gone = {victim.job for victim in victims}
            return self.imagined(one, [lease for lease in running if lease.job not in gone])[0].room(job.ask)

        if not enough(able):
            return ()
        for size in range(1, EXACTLY + 1):
            for few in combinations(able[:COMPARED], size):
                if enough(few):
                    return few
        return fewer(sorted(able, key=lambda lease: (-len(lease.gpus), -lease.ask.cpu, -lease.ask.memory)), enough)


def rank(one: Capacity, victims: Sequence[Lease]) -> tuple[float, ...]:
    """Sort key, best first: few victims, of low priority, started recently."""
    return len(victims), max(v.priority for v in victims), -min(v.since for v in victims), one.number


def fewer(leases: Sequence[Lease], enough: Callable[[Sequence[Lease]], bool]) -> Sequence[Lease]:
    """Take the first of these that are enough, then drop those that turn out not to be needed."""
    count = next(count for count in range(1, len(leases) + 1) if enough(leases[:count]))
    chosen = list(leases[:count])
    for lease in reversed(chosen[:-1]):
        rest = [other for other in chosen if other is not lease]
        if enough(rest):
            chosen = rest
    return chosen
