"""Which job runs where, and why a job does not run yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dstack.model.runner import Runner

SHARED_JOBS = 4
"""A machine takes this many jobs at once, or one a CPU where it has more CPUs."""


@dataclass(frozen=True)
class Waiting:
    """A job that could start: its dependencies are done. `pin` is the name or label of the runners that may run it."""

    id: str
    gpus: int
    pin: str | None


@dataclass(frozen=True)
class Machine:
    """A runner as it is now. `trouble` is why it takes no jobs, None when it is ready."""

    runner: Runner
    jobs: int = 0
    leased: frozenset[int] = frozenset()
    trouble: str | None = None

    @property
    def capacity(self) -> int:
        cpus = self.runner.facts.cpus if self.runner.facts else 0
        return max(SHARED_JOBS, cpus)

    @property
    def free_gpus(self) -> tuple[int, ...]:
        return tuple(index for index in self.runner.gpu_indexes if index not in self.leased)


@dataclass(frozen=True)
class Placement:
    """A job's runner, and the indexes of the GPUs that it gets."""

    runner: str
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """Placements and, for every job without one, the reason."""

    placements: dict[str, Placement]
    reasons: dict[str, str]


def eligible(pin: str | None, machines: Sequence[Machine]) -> list[Machine]:
    """The machines that a pin allows: those of that name or label; without one, all but the hidden."""
    if pin is None:
        return [machine for machine in machines if not machine.runner.hidden]
    return [m for m in machines if m.runner.name == pin or (pin in m.runner.labels and not m.runner.hidden)]


def impossible(job: Waiting, machines: Sequence[Machine]) -> str | None:
    """Why the job could never run on these machines, however long it waits; None when it could."""
    allowed = eligible(job.pin, machines)
    if not allowed:
        return f"no runner has the name or label '{job.pin}'" if job.pin else "no runner is known"
    most = max(allowed, key=lambda machine: len(machine.runner.gpu_indexes))
    has = len(most.runner.gpu_indexes)
    if job.gpus > has and all(machine.runner.facts for machine in allowed):
        return f"it needs {plural(job.gpus, 'GPU')}; the most that a runner has is {has} ({most.runner.name})"
    return None


def schedule(jobs: Sequence[Waiting], machines: Sequence[Machine]) -> Schedule:
    """Place the jobs in their order: each on the allowed machine with the fewest jobs that has the GPUs free."""
    now = {machine.runner.name: machine for machine in machines}
    placements: dict[str, Placement] = {}
    reasons: dict[str, str] = {}
    for job in jobs:
        allowed = eligible(job.pin, list(now.values()))
        fitting = [machine for machine in allowed if fits(job, machine)]
        if not fitting:
            reasons[job.id] = impossible(job, machines) or why_not(job, allowed)
            continue
        chosen = min(fitting, key=lambda machine: (machine.jobs, len(machine.free_gpus)))
        gpus = chosen.free_gpus[: job.gpus]
        placements[job.id] = Placement(chosen.runner.name, gpus)
        now[chosen.runner.name] = replace(chosen, jobs=chosen.jobs + 1, leased=chosen.leased | set(gpus))
    return Schedule(placements, reasons)


def fits(job: Waiting, machine: Machine) -> bool:
    return machine.trouble is None and machine.jobs < machine.capacity and len(machine.free_gpus) >= job.gpus


def why_not(job: Waiting, machines: Sequence[Machine]) -> str:
    """One sentence that is true of every machine that the job may use."""
    return "; ".join(obstacle(job, machine) for machine in machines)


def obstacle(job: Waiting, machine: Machine) -> str:
    name = machine.runner.name
    if machine.trouble:
        return f"{name}: {machine.trouble}"
    if len(machine.free_gpus) < job.gpus:
        free, all_of_them = len(machine.free_gpus), len(machine.runner.gpu_indexes)
        return f"needs {plural(job.gpus, 'GPU')}; {name} has {free} of {all_of_them} free"
    return f"{name} runs {plural(machine.jobs, 'job')} already"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
