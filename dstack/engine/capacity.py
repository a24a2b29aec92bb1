"""What a machine has, and how much of it is free while a pass over the queue gives it away. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dstack.model.quantities import SOLD
from dstack.model.resources import NOTHING, Ask
from dstack.model.runner import Gpu, Runner

if TYPE_CHECKING:
    from dstack.engine.schedule import Waiting

SHARED_JOBS = 4
"""A machine takes this many jobs at once that ask for nothing, or one a CPU where it has more CPUs."""


@dataclass(frozen=True)
class Lease:
    """What an unfinished job holds on a runner, `since` when (seconds)."""

    job: str
    runner: str
    run: str = ""
    user: str = ""
    gpus: tuple[int, ...] = ()
    ask: Ask = NOTHING
    since: float = 0.0


@dataclass(frozen=True)
class Machine:
    """A runner as it is now. `trouble` is why it takes no jobs, None when it is ready; `foreign` says by index who
    uses a GPU outside of dstack; `gpu_trouble` is why no job gets a GPU of it."""

    runner: Runner
    trouble: str | None = None
    foreign: Mapping[int, str] = field(default_factory=dict)
    gpu_trouble: str | None = None

    @property
    def cpus(self) -> int:
        return self.runner.facts.cpus if self.runner.facts else 0

    @property
    def memory(self) -> float:
        """As it is sold: in bytes."""
        return self.runner.facts.memory / SOLD if self.runner.facts else 0

    @property
    def slots(self) -> int:
        """How many jobs that ask for nothing it takes at once."""
        return max(SHARED_JOBS, self.cpus) if self.runner.max_jobs is None else self.runner.max_jobs

    @property
    def gpus(self) -> list[Gpu]:
        """The GPUs that jobs may get, with what is known of each."""
        found = self.runner.facts.gpus if self.runner.facts else ()
        if self.runner.gpus is None:
            return [gpu for gpu in found if gpu.mig is None]
        facts = {gpu.index: gpu for gpu in found}
        return [facts.get(index) or Gpu(index=index) for index in self.runner.gpu_indexes]


class Capacity:
    """A machine's free share. `number` is its place among the machines."""

    def __init__(self, machine: Machine, number: int, leases: Sequence[Lease]) -> None:
        self.machine = machine
        self.number = number
        self.name = machine.runner.name
        self.works = machine.trouble is None
        self.leases = list(leases)
        self.gpus = machine.gpus
        self.alike = len({(gpu.name, gpu.memory) for gpu in self.gpus}) == 1
        taken = {index for lease in leases for index in lease.gpus}.union(machine.foreign)
        self.free = [gpu for gpu in self.gpus if gpu.index not in taken] if taken else self.gpus
        if machine.gpu_trouble:
            self.free = []
        self.cpu = machine.cpus - sum(lease.ask.cpu for lease in leases)
        self.memory = machine.memory - sum(lease.ask.memory for lease in leases)
        self.disk = machine.runner.facts.disk_free if machine.runner.facts else 0
        self.slots = machine.slots - sum(lease.ask.shares for lease in leases)
        self.reserved: Waiting | None = None

    def matching(self, ask: Ask) -> list[Gpu]:
        """The free GPUs of the kind."""
        if ask.takes_any:
            return self.free
        if self.alike:
            return self.free if self.free and ask.takes(self.free[0]) else []
        return [gpu for gpu in self.free if ask.takes(gpu)]

    def pick(self, ask: Ask) -> tuple[int, ...]:
        """The GPUs for a job that fits: the smallest that do, and if it can be none that are kept for another one."""
        if not ask.gpus:
            return ()
        theirs = self.reserved.ask if self.reserved else None
        kept = {gpu.index for gpu in self.matching(theirs)} if theirs and theirs.gpus else frozenset[int]()
        found = sorted(self.matching(ask), key=lambda gpu: (gpu.index in kept, gpu.memory, gpu.index))[: ask.gpus]
        return tuple(sorted(gpu.index for gpu in found))

    def room(self, ask: Ask) -> bool:
        """Whether the free share holds it."""
        if ask.gpus:
            if len(self.free) < ask.gpus or len(self.matching(ask)) < ask.gpus:
                return False
        elif self.slots < 1 and ask.shares:
            return False
        return self.cpu >= ask.cpu and self.memory >= ask.memory and self.disk >= ask.disk

    def fits(self, ask: Ask) -> bool:
        """Whether a job may start here now: there is room, and none of it is kept for another one."""
        return self.works and self.room(ask) and (self.reserved is None or self.spares(ask))

    def spares(self, ask: Ask) -> bool:
        """Whether the job takes nothing that the one needs for which this machine is kept."""
        assert self.reserved is not None
        theirs = self.reserved.ask
        if ask.gpus and theirs.gpus:
            mine = self.pick(ask)
            wanted = self.matching(theirs)
            taken = sum(gpu.index in mine for gpu in wanted)
            if taken and len(wanted) - taken < theirs.gpus:
                return False
        if ask.cpu and theirs.cpu and self.cpu - ask.cpu < theirs.cpu:
            return False
        return not (ask.memory and theirs.memory and self.memory - ask.memory < theirs.memory)

    def could_hold(self, ask: Ask) -> bool:
        """Whether it would fit if nothing ran here. The disk may be cleared."""
        return (
            (not ask.gpus or self.count(ask) >= ask.gpus)
            and self.machine.cpus >= ask.cpu
            and (not ask.memory or self.machine.memory >= ask.memory)
            and (not ask.shares or self.machine.slots > 0)
        )

    def count(self, ask: Ask) -> int:
        """How many GPUs of the kind it has, free or not."""
        if self.alike or ask.takes_any:
            return len(self.gpus) if ask.takes_any or ask.takes(self.gpus[0]) else 0
        return sum(ask.takes(gpu) for gpu in self.gpus)

    def missing(self, ask: Ask) -> tuple[float, ...]:
        """How far it is from fitting: GPUs, CPUs, bytes of memory."""
        gpus = ask.gpus - len(self.matching(ask)) if ask.gpus else 0
        cpu, memory = ask.cpu - self.cpu, ask.memory - self.memory
        return gpus if gpus > 0 else 0, cpu if cpu > 0 else 0, memory if memory > 0 else 0

    def score(self, ask: Ask) -> tuple[float, ...]:
        """Less is better: for GPUs, the box that is left with the fewest; else the one with the fewest jobs, then
        GPUs, so that those stay free for who needs them."""
        if ask.gpus:
            return len(self.free), len(self.leases)
        return len(self.leases), len(self.gpus), len(self.free)

    def take(self, lease: Lease) -> None:
        """Give a share away."""
        self.leases.append(lease)
        self.free = [gpu for gpu in self.free if gpu.index not in lease.gpus]
        self.cpu -= lease.ask.cpu
        self.memory -= lease.ask.memory
        self.disk -= lease.ask.disk
        self.slots -= lease.ask.shares
