"""Which jobs give way to one of higher priority, so that it can start. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from dstack.engine.capacity import Capacity, Lease
from dstack.engine.search import Kind, opens

if TYPE_CHECKING:
    from dstack.engine.schedule import Waiting

AT_ONCE = 8
"""So many jobs have others stopped for them in one pass; the next ones, in the next pass."""
COMPARED = 16
"""So many machines are compared, those that lack the least; and so many jobs of a machine, one by one and in pairs."""
EXACTLY = 2
"""Up to so many victims are the fewest; more are found from the largest down."""
NOBODY = 101
"""Above every priority."""


class Room:
    """Where others give way, during one pass. `yields` has the jobs that are to stop, each with the one that it makes
    room for. What ends already, and what is promised to whom, is counted: nobody is stopped twice for one job."""

    def __init__(self, machines: Sequence[Capacity], jobs: Iterable[Waiting]) -> None:
        self.all = machines
        lowest = {one.number: least(one.leases) for one in machines if one.works}
        self.lowest = {number: priority for number, priority in lowest.items() if priority < NOBODY}
        self.yields: dict[str, str] = {}
        self.searches = 0
        self.futures: dict[int, Capacity] = {}
        self.claims: dict[int, list[Waiting]] = defaultdict(list)
        self.promised: dict[str, int] = {}
        self.closed: set[int] = set()
        self.remember(jobs)

    def remember(self, jobs: Iterable[Waiting]) -> None:
        """What earlier passes promised, as far as it still holds."""
        promised = [(job, one) for job in jobs if job.room_on for one in self.by_name(job.room_on)]
        for job, one in promised:
            if opens(job.door, one.machine.runner) and self.future(one).room(job.ask):
                self.claim(one, job)

    def by_name(self, name: str) -> list[Capacity]:
        return [one for one in self.all if one.name == name and one.works]

    def claim(self, one: Capacity, job: Waiting) -> Capacity:
        """Promise the job its place."""
        self.claims[one.number].append(job)
        self.promised[job.id] = one.number
        self.futures.pop(one.number, None)
        return one

    @property
    def promises(self) -> dict[str, str]:
        """On which machine room is made for whom."""
        return {job: self.all[number].name for job, number in self.promised.items()}

    def keeps_from(self, job: Waiting, one: Capacity) -> bool:
        """Whether a job that has a promise should leave a machine to those to whom that one is promised."""
        return job.id in self.promised and any(other.id != job.id for other in self.claims[one.number])

    def placed(self, job: Waiting, one: Capacity) -> None:
        """A job got its place there, whatever was promised to it."""
        self.futures.pop(one.number, None)
        number = self.promised.pop(job.id, None)
        if number is not None:
            self.claims[number].remove(job)
            self.futures.pop(number, None)

    def make(self, job: Waiting, kind: Kind) -> Capacity | None:
        """The machine where the job will start once those have ended that give way to it; None if nothing that ends
        would let it start."""
        if job.id in self.promised:
            return self.all[self.promised[job.id]]
        if self.searches >= AT_ONCE:
            return None
        able = {number for number, priority in self.lowest.items() if priority < job.priority} & kind.able
        able -= self.closed
        if not able:
            return None
        self.searches += 1
        for one in (self.all[number] for number in sorted(able)):
            if self.future(one).room(job.ask):
                return self.claim(one, job)
        near = [one for one in kind.nearest if one.number in able] or [self.all[number] for number in sorted(able)]
        offers = [(one, victims) for one in near[:COMPARED] if (victims := self.victims(job, one))]
        if not offers:
            return None
        one, victims = min(offers, key=lambda offer: rank(*offer))
        self.yields.update((victim.job, job.id) for victim in victims)
        return self.claim(one, job)

    def close(self, kind: Kind) -> None:
        """A job that goes first can't be helped: what became free where it could run would be kept for it."""
        if not kind.ask.shares:
            self.closed |= self.lowest.keys() & kind.able

    def running(self, one: Capacity) -> list[Lease]:
        """What does not end yet."""
        return [lease for lease in one.leases if not lease.ending and lease.job not in self.yields]

    def future(self, one: Capacity) -> Capacity:
        """The machine without what ends, and with what is promised."""
        if one.number not in self.futures:
            running = self.running(one)
            same = len(running) == len(one.leases) and not self.claims[one.number]
            self.futures[one.number] = one if same else self.imagined(one, running)
        return self.futures[one.number]

    def imagined(self, one: Capacity, leases: Iterable[Lease]) -> Capacity:
        """The machine with these leases and what is promised."""
        found = Capacity(one.machine, one.number, leases)
        found.disk = one.disk
        for job in self.claims[one.number]:
            if found.room(job.ask):
                found.take(Lease(job.id, one.name, gpus=found.pick(job.ask), ask=job.ask))
        return found

    def spare(self) -> None:
        """Let those go on whom nobody needs any more, now that all is promised: one may make room for several."""
        for number in sorted(set(self.promised.values())):
            one = self.all[number]
            for lease in one.leases:
                if lease.job in self.yields and self.holds(one, [*self.running(one), lease], self.claims[number]):
                    del self.yields[lease.job]

    def holds(self, one: Capacity, leases: Iterable[Lease], jobs: Iterable[Waiting]) -> bool:
        """Whether all of these jobs could start beside these leases."""
        found = Capacity(one.machine, one.number, leases)
        found.disk = one.disk
        for job in jobs:
            if not found.room(job.ask):
                return False
            found.take(Lease(job.id, one.name, gpus=found.pick(job.ask), ask=job.ask))
        return True

    def victims(self, job: Waiting, one: Capacity) -> Sequence[Lease]:
        """The fewest jobs whose end lets this one start, of equally many the least important and youngest; none if
        nothing helps."""
        running = self.running(one)
        able = [lease for lease in running if gives_way(lease, job)]
        able.sort(key=lambda lease: (lease.priority, -lease.since, lease.job))

        def enough(victims: Sequence[Lease]) -> bool:
            gone = {victim.job for victim in victims}
            return self.imagined(one, [lease for lease in running if lease.job not in gone]).room(job.ask)

        if not enough(able):
            return ()
        for size in range(1, EXACTLY + 1):
            for few in combinations(able[:COMPARED], size):
                if enough(few):
                    return few
        return fewer(sorted(able, key=lambda lease: (-len(lease.gpus), -lease.ask.cpu, -lease.ask.memory)), enough)


def gives_way(lease: Lease, job: Waiting) -> bool:
    """Whether a running job is stopped for a waiting one."""
    return lease.preemptible and lease.priority < job.priority


def least(leases: Iterable[Lease]) -> int:
    """The lowest priority of those that give way."""
    return min([lease.priority for lease in leases if lease.preemptible], default=NOBODY)


def rank(one: Capacity, victims: Sequence[Lease]) -> tuple[float, ...]:
    """Less is better: few victims, unimportant, young."""
    return len(victims), max(v.priority for v in victims), -min(v.since for v in victims), one.number


def fewer(leases: Sequence[Lease], enough: Callable[[Sequence[Lease]], bool]) -> Sequence[Lease]:
    """The first of these that are enough, and none of them that is not needed."""
    chosen: list[Lease] = []
    for lease in leases:
        chosen.append(lease)
        if enough(chosen):
            break
    for lease in reversed(chosen[:-1]):
        rest = [other for other in chosen if other is not lease]
        if enough(rest):
            chosen = rest
    return chosen
