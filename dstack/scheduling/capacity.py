"""What a runner has, and how much of it is still free during a scheduling pass. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dstack.model.job.resources import Ask
from dstack.model.runner.runner import Gpu
from dstack.scheduling.types import Lease, Machine, Waiting


class Capacity:
    """A runner's free share, which only shrinks. `number` is its position among the runners, and `leases` are those of
    its machine. `siblings` are the runners that are the same machine, itself included: what one gives, all have less.
    `jobs` counts the machine's jobs; one that asks for CPUs counts as so many."""

    def __init__(self, machine: Machine, number: int, leases: Iterable[Lease]) -> None:
        self.machine = machine
        self.number = number
        self.name = machine.runner.name
        self.works = machine.trouble is None
        self.leases = list(leases)
        self.gpus = machine.gpus
        self.alike = len({(gpu.name, gpu.memory, gpu.vendor) for gpu in self.gpus}) == 1
        self.cpus = machine.cpus
        self.cpu = self.cpus - machine.load.cpu - sum([lease.ask.cpu for lease in self.leases])
        self.memory = machine.memory - machine.load.memory - sum([lease.ask.memory for lease in self.leases])
        self.disk = machine.runner.facts.disk_free if machine.runner.facts else 0
        self.jobs = sum([lease.ask.cpu or 1 for lease in self.leases])
        self.slots = machine.slots - sum([lease.ask.shares for lease in self.leases])
        taken = {index for lease in self.leases for index in lease.gpus}.union(machine.foreign)
        self.free = [] if machine.gpu_trouble else [gpu for gpu in self.gpus if gpu.index not in taken]
        self.reserved: list[Waiting] = []
        self.siblings: Sequence[Capacity] = (self,)
        self.matches: dict[tuple[str, int, str], list[Gpu]] = {}

    @property
    def group(self) -> int:
        """The number of its machine: that of the first runner that is the same one."""
        return self.siblings[0].number

    def matching(self, ask: Ask) -> list[Gpu]:
        kind = ask.gpu_kind
        found = self.matches.get(kind)
        if found is None:
            found = self.matches[kind] = self.of_kind(self.free, ask)
        return found

    def of_kind(self, gpus: Sequence[Gpu], ask: Ask) -> list[Gpu]:
        if self.alike:
            return list(gpus) if ask.takes(self.gpus[0]) else []
        return [gpu for gpu in gpus if ask.takes(gpu)]

    def pick(self, ask: Ask) -> tuple[int, ...]:
        """The GPUs for a job that fits: those with the least memory, and reserved ones only if there is no choice."""
        if not ask.gpus:
            return ()
        if self.alike and not self.reserved:
            return tuple(sorted([gpu.index for gpu in self.matching(ask)])[: ask.gpus])
        kept = {gpu.index for job in self.reserved if job.ask.gpus for gpu in self.matching(job.ask)}
        found = sorted([(gpu.index in kept, gpu.memory, gpu.index) for gpu in self.matching(ask)])
        return tuple(sorted([index for _, _, index in found[: ask.gpus]]))

    def room(self, ask: Ask) -> bool:
        if ask.gpus:
            if len(self.free) < ask.gpus or len(self.matching(ask)) < ask.gpus:
                return False
        elif self.slots < 1 and ask.shares:
            return False
        if (ask.cpu and self.cpu < ask.cpu) or (ask.memory and self.memory < ask.memory):
            return False
        return self.disk >= ask.disk

    def fits(self, ask: Ask) -> bool:
        """Whether the job may start here now: there is room, and none of it is reserved for another job."""
        return self.works and self.room(ask) and (not self.reserved or self.spares(ask))

    def spares(self, ask: Ask) -> bool:
        """Whether the job leaves enough for the jobs for which this runner is reserved."""
        theirs = [job.ask for job in self.reserved]
        gpus, shares = sum(a.gpus for a in theirs), sum(a.shares for a in theirs)
        cpu, memory = sum(a.cpu for a in theirs), sum(a.memory for a in theirs)
        if ask.gpus and gpus:
            mine = set(self.pick(ask))
            for wanted in ({gpu.index for gpu in self.matching(each)} for each in theirs if each.gpus):
                if mine & wanted and len(wanted - mine) < gpus:
                    return False
        return not (
            (ask.cpu and cpu and self.cpu - ask.cpu < cpu)
            or (ask.memory and memory and self.memory - ask.memory < memory)
            or (ask.shares and shares and self.slots <= shares)
        )

    def could_hold(self, ask: Ask) -> bool:
        """Whether it would fit on the empty runner. What is free on the disk does not count: it may be cleared."""
        return (
            (not ask.gpus or self.count(ask) >= ask.gpus)
            and self.cpus >= ask.cpu
            and (not ask.memory or self.machine.memory >= ask.memory)
            and (not ask.shares or self.machine.slots > 0)
            and self.disk_size >= ask.disk
        )

    @property
    def disk_size(self) -> float:
        """The size of its disk in bytes; infinite if unknown."""
        return (self.machine.runner.facts and self.machine.runner.facts.disk_total) or math.inf

    def count(self, ask: Ask) -> int:
        """How many GPUs it has that the job can use, free or not."""
        return len(self.of_kind(self.gpus, ask))

    def missing(self, ask: Ask) -> tuple[float, ...]:
        """What is missing until it fits: GPUs, CPUs, bytes of memory."""
        gpus = ask.gpus - len(self.matching(ask)) if ask.gpus else 0
        memory = ask.memory - self.memory if ask.memory else 0
        return max(0, gpus), max(0, ask.cpu - self.cpu), max(0, memory)

    @property
    def quiet(self) -> tuple[float, int, int]:
        """Sort key for jobs without GPUs, best first: the fewest jobs per CPU, then the fewest GPUs, which stay free
        for jobs that need them. It never gets smaller."""
        return self.jobs / max(self.cpus, 1), len(self.gpus), self.number

    def take(self, lease: Lease) -> None:
        """Take a job's share out of the machine, under all of its names."""
        for one in self.siblings:
            one.taken(lease)

    def taken(self, lease: Lease) -> None:
        ask = lease.ask
        self.leases.append(lease)
        if lease.gpus:
            self.free = [gpu for gpu in self.free if gpu.index not in lease.gpus]
            self.matches.clear()
        self.jobs += ask.cpu or 1
        self.cpu -= ask.cpu
        self.memory -= ask.memory
        self.disk -= ask.disk
        if ask.shares:
            self.slots -= 1


def joined(capacities: Sequence[Capacity]) -> None:
    """Have runners that are one machine share what it has, and what is reserved there."""
    found: dict[str, list[Capacity]] = defaultdict(list)
    for one in capacities:
        found[one.machine.identity].append(one)
    for siblings in found.values():
        for one in siblings:
            one.siblings, one.reserved = siblings, siblings[0].reserved
