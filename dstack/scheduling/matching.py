"""Finds runners for jobs of one kind: the best that fits, or the closest that does not. Pure.

During a pass over the queue, free shares only shrink. So a runner that does not fit a kind of job is never tried for
it again, and a pass over many jobs looks at few runners for each.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from dstack.model.job.reasons import Reason
from dstack.model.job.resources import Ask
from dstack.model.runner.mounts import allowed
from dstack.model.runner.runner import Runner
from dstack.scheduling.capacity import Capacity
from dstack.scheduling.types import Eligibility

LOOKED_AT = 64
"""How many runners, those with the most free resources, are compared to find the closest."""
Row = tuple[float, int, float, float, Capacity]
"""A runner with what it has when empty: GPUs of a kind, CPUs, bytes of memory, bytes of disk."""


def allows(pin: str | None, runners: tuple[str, ...], runner: Runner) -> bool:
    """Whether a job may use a runner, by its run's pin and its workflow's runners; both must match. A hidden runner
    only takes jobs whose pin is its name."""
    if runner.hidden:
        return pin == runner.name
    known = {runner.name, *runner.labels}
    return (pin is None or pin in known) and (not runners or not known.isdisjoint(runners))


def opens(eligibility: Eligibility, runner: Runner) -> bool:
    pin, runners, sources = eligibility
    return allows(pin, runners, runner) and all(allowed(source, runner.allow_mounts) for source in sources)


FreeIndex = list[list[Capacity]]
"""Working runners by their number of free GPUs. A runner stays in lists that no longer apply to it; they are skipped
when read."""


class Candidates:
    """The runners that some jobs may use."""

    def __init__(self, machines: list[Capacity]) -> None:
        self.machines = machines
        self.rows: dict[tuple[str, int, str] | None, list[Row]] = {}

    def could_hold(self, ask: Ask) -> list[Capacity]:
        """The runners that could hold it when empty: those with the most free resources first, those that take no jobs
        last. A runner that was never probed counts as large enough."""
        kind = ask.gpu_kind if ask.gpus else None
        if kind not in self.rows:
            ranked = sorted(self.machines, key=lambda one: (not one.works, *_free(one, ask)))
            self.rows[kind] = [_row(one, ask) for one in ranked]
        large = [
            one
            for count, cpus, memory, disk, one in self.rows[kind]
            if count >= ask.gpus and cpus >= ask.cpu and memory >= ask.memory and disk >= ask.disk
        ]
        return [one for one in large if one.machine.slots > 0] if ask.shares else large


def _free(one: Capacity, ask: Ask) -> tuple[float, ...]:
    return (-len(one.matching(ask)), -one.cpu) if ask.gpus else (-one.cpu, -one.memory)


def _row(one: Capacity, ask: Ask) -> Row:
    if one.machine.runner.facts is None:
        return float("inf"), 2**31, float("inf"), float("inf"), one
    return one.count(ask) if ask.gpus else 0, one.cpus, one.machine.memory, one.disk_size, one


class JobShape:
    """Jobs with the same needs; `could` are the runners that could hold them. `blocked`: none fits now, and `nearest`
    are the closest runners. `stuck`: preemption would not help either. `reason` says why they wait."""

    def __init__(self, ask: Ask, candidates: Candidates, by_free: FreeIndex) -> None:
        self.ask = ask
        self.candidates = candidates
        self.by_free = by_free
        self.seen: dict[int, int] = {}
        self.heap: list[tuple[tuple[float, int, int], Capacity]] | None = None
        self.reason: Reason | None = None
        self.blocked = False
        self.stuck = False
        self.could = candidates.could_hold(ask)
        self.able = {one.number for one in self.could}
        self.nearest: Sequence[Capacity] = ()

    def best(self) -> Capacity | None:
        """The runner for the next job: the fullest one with enough free GPUs, or the least busy one."""
        return self.fullest() if self.ask.gpus else self.quietest()

    def fullest(self) -> Capacity | None:
        for free in range(self.ask.gpus, len(self.by_free)):
            runners = self.by_free[free]
            for at in range(self.seen.get(free, 0), len(runners)):
                self.seen[free] = at
                one = runners[at]
                if len(one.free) == free and one.number in self.able and one.fits(self.ask):
                    return one
            self.seen[free] = len(runners)
        return None

    def quietest(self) -> Capacity | None:
        if self.heap is None:
            self.heap = sorted([(one.quiet, one) for one in self.candidates.machines if one.works])
        while self.heap:
            quiet, one = self.heap[0]
            if not one.fits(self.ask):
                heapq.heappop(self.heap)
            elif quiet == one.quiet:
                return one
            else:
                heapq.heapreplace(self.heap, (one.quiet, one))
        return None

    def block(self) -> None:
        self.blocked = True
        looked_at = self.could[:LOOKED_AT]
        self.nearest = sorted(looked_at, key=lambda one: (not one.works, one.missing(self.ask), one.number))
