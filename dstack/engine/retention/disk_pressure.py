"""Frees disk space on runners: removes artifacts kept there that are old, belong to deleted runs, or fill the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from dstack.commands.artifacts.retain import free
from dstack.commands.host import ask
from dstack.engine.context import Context
from dstack.model.job.resources import ask_of
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.scheduling.matching import allows
from dstack.scheduling.types import Machine

LONGEST = 7 * 24 * 3600.0
"""Seconds for which artifacts stay where they were made."""
MOST = 1000
"""How many jobs' artifacts stay on one runner at most."""
AT_ONCE = 100
"""How many are removed at a time."""
LEAST = 5 * 10**9
"""Bytes of a disk that should be free; the doctor uses the same limit."""
FREEING = 600.0
"""Seconds for removing what may be many files."""
DISK = {"disk-full", "disk-inodes"}
"""Findings that keep a runner from running jobs and are fixed here."""


def clearable(context: Context, machine: Machine) -> bool:
    """Whether the runner answers, so that something can be removed there."""
    condition = context.fleet.conditions.get(machine.runner.name)
    if condition is None or condition.state == "unreachable":
        return False
    facts = machine.runner.facts
    return machine.trouble is None or bool(facts and any(finding.name in DISK for finding in facts.blocking))


@dataclass(frozen=True)
class Surplus:
    """`gone`: the attempts whose artifacts are removed from a runner. `oldest`: those that are removed, oldest first,
    until `wanted` bytes of its disk are free. Only collected artifacts are kept there, so nothing is lost."""

    gone: tuple[str, ...] = ()
    oldest: tuple[str, ...] = ()
    wanted: int = 0

    @property
    def any(self) -> bool:
        return bool(self.gone or self.oldest)


def disk_asks(context: Context) -> list[tuple[str | None, tuple[str, ...], int]]:
    """How much disk queued jobs request, each with its run's pin and its workflow's runners."""
    asks = []
    for job in context.store.jobs.unfinished():
        asked = ask_of(job.definition.resources).disk
        if asked and job.status is Status.QUEUED:
            asks.append((context.store.runs.require(job.run).pin, job.definition.runners, asked))
    return asks


def surplus(context: Context, machine: Machine, asks: Sequence[tuple[str | None, tuple[str, ...], int]]) -> Surplus:
    """What can be removed from a runner now."""
    kept, name = context.store.retained_artifacts, machine.runner.name
    gone = kept.overdue(name, rfc3339(time.time() - LONGEST), MOST)
    wanted = max([LEAST, *(disk for pin, runners, disk in asks if allows(pin, runners, machine.runner))])
    facts = machine.runner.facts
    if facts is None or facts.disk_free >= wanted:
        return Surplus(tuple(gone))
    oldest = [each.attempt for each in kept.of(name) if each.attempt not in gone]
    return Surplus(tuple(gone), tuple(oldest[:AT_ONCE]), wanted)


async def relieve(context: Context, machine: Machine, found: Surplus) -> bool:
    """Remove it; return whether anything was removed."""
    name = machine.runner.name
    removed: list[str] = []
    for attempts, wanted in ((found.gone, 0), (found.oldest, found.wanted)):
        if not attempts:
            continue
        command = free(context.fleet.host_context(machine.runner), attempts, wanted)
        freed = await ask(context.fleet.host(machine.runner), command, timeout=FREEING)
        removed += freed.attempts
        context.store.retained_artifacts.remove(freed.attempts)
        facts = context.store.runners.require(name).facts
        if facts and freed.disk_free is not None:
            context.store.runners.change(name, facts=replace(facts, disk_free=freed.disk_free))
    return bool(removed)
