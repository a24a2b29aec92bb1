"""Frees the disks of runners of kept artifacts: of deleted runs, of long ago, and where the disk is short."""

from __future__ import annotations

import time

from msgspec.structs import replace

from dstack.commands.kept import free
from dstack.engine.capacity import Machine
from dstack.engine.context import Context
from dstack.engine.search import allows
from dstack.hosts.host import ask
from dstack.model.resources import ask_of
from dstack.model.status import Status
from dstack.model.times import seconds

LONGEST = 7 * 24 * 3600.0
"""Seconds for which artifacts stay where they were made."""
LEAST = 5 * 1024**3
"""Bytes of a disk that should be free, as the doctor of machines has it."""
FREEING = 600.0
"""Seconds for removing what may be many files."""
DISK = {"disk-full", "disk-inodes"}
"""What keeps a machine from running jobs, and is mended here."""


def clearable(context: Context, machine: Machine) -> bool:
    """Whether the machine answers, so that something can be removed there."""
    condition = context.machines.conditions.get(machine.runner.name)
    if condition is None or condition.state == "unreachable":
        return False
    facts = machine.runner.facts
    return machine.trouble is None or bool(facts and any(finding.name in DISK for finding in facts.blocking))


def surplus(context: Context, machine: Machine) -> tuple[list[str], list[str], int]:
    """The attempts whose artifacts on the machine go, and those that may, oldest first, until so many bytes are free.

    Artifacts that were not stored elsewhere are never among them: only what was collected is kept."""
    store, now = context.store, time.time()
    kept = store.kept.of(machine.runner.name)
    if not kept:
        return [], [], 0
    hidden = set(store.runs.hidden())
    gone = []
    for each in kept:
        job = store.jobs.get(each.job)
        if job is None or job.run in hidden or now - seconds(each.since) > LONGEST:
            gone.append(each.attempt)
    wanted = wanted_disk(context, machine)
    short = machine.runner.facts is not None and machine.runner.facts.disk_free < wanted
    return gone, [each.attempt for each in kept if each.attempt not in gone] if short else [], wanted


def wanted_disk(context: Context, machine: Machine) -> int:
    """How many bytes of the machine's disk should be free: for what waits and may run there, too."""
    asked = [
        ask_of(job.definition.resources).disk
        for job in context.store.jobs.unfinished()
        if job.status is Status.QUEUED
        and allows(context.store.runs.require(job.run).pin, job.definition.runners, machine.runner)
    ]
    return max([LEAST, *asked])


async def relieve(context: Context, machine: Machine) -> bool:
    """Remove what `surplus` says; whether anything was."""
    name = machine.runner.name
    gone, oldest, wanted = surplus(context, machine)
    removed: list[str] = []
    for attempts, limit in ((gone, 0), (oldest, wanted)):
        if not attempts:
            continue
        command = free(context.machines.place(machine.runner), attempts, limit)
        freed = await ask(context.machines.host(machine.runner), command, timeout=FREEING)
        removed += freed.attempts
        facts = context.store.runners.require(name).facts
        if facts and freed.disk_free is not None:
            context.store.runners.change(name, facts=replace(facts, disk_free=freed.disk_free))
    context.store.kept.remove(each.job for each in context.store.kept.of(name) if each.attempt in removed)
    return bool(removed)
