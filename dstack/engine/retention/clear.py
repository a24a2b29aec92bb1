"""Decides what stays on a runner when a job ends: a done job's artifacts, for the jobs that depend on it, until they
are old, belong to a deleted run, or fill the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec.structs import replace

from dstack.commands.artifacts.retain import free
from dstack.commands.host import ask
from dstack.engine.context import Context
from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import CommandError, HostUnreachableError
from dstack.model.job.resources import ask_of
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.scheduling.matching import allows
from dstack.scheduling.types import Machine
from dstack.store.tables.contents import Retained

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

DiskAsk = tuple["str | None", tuple[str, ...], int]
"""How many bytes of disk a queued job requests, with its run's pin and its workflow's runners in front."""
Surplus = list[tuple[list[str], int]]
"""Attempts whose artifacts are removed from a runner, oldest first, until so many bytes of its disk are free; 0 removes
all of them. Only collected artifacts are kept there, so nothing is lost."""


async def clear(context: Context, job_id: str) -> None:
    """Remove the container and the folder of an ended job, once. A done job's artifacts stay."""
    store = context.store
    async with context.locks["clear", job_id]:
        job = store.jobs.get(job_id)
        runner = store.runners.get(job.runner or "") if job else None
        if job is None or job.discarded or runner is None:
            return
        job_on_runner = JobOnRunner(context, job_id)
        executor, attempt = job_on_runner.executor, job_on_runner.attempt
        await store.database.synced()
        if job.status is Status.DONE and job.files:
            stays = await executor.retain(attempt, job_on_runner.snapshot.project, job.image, job.definition.outputs)
        else:
            await executor.discard(attempt, job.image)
            stays = False
        with store.database.transaction():
            store.jobs.change(job.id, discarded=True)
            if stays:
                store.retained_artifacts.add(Retained(job.id, attempt, runner.name, rfc3339(time.time())))
    context.locks.pop(("clear", job_id), None)


async def remove_aborted(context: Context, runner: str) -> None:
    """Remove the jobs that were aborted while the runner did not answer: what they hold is about to go to another job.
    Raises HostUnreachableError, after which it may be tried again."""
    for job in context.store.jobs.to_discard(runner):
        if job.stop == "abort":
            try:
                await clear(context, job.id)
            except CommandError as refused:
                message = f"{job.run} was aborted, but can't be removed from {runner}: {refused.message}"
                raise HostUnreachableError(message) from refused
    context.fleet.unsure.discard(runner)


def clearable(context: Context, machine: Machine) -> bool:
    """Whether the runner answers, so that something can be removed there."""
    condition, facts = context.fleet.conditions.get(machine.runner.name), machine.runner.facts
    if condition is None or condition.state == "unreachable":
        return False
    return machine.trouble is None or bool(facts and any(finding.name in DISK for finding in facts.blocking))


def disk_asks(context: Context) -> list[DiskAsk]:
    """How much disk the queued jobs request."""
    asks = []
    for job in context.store.jobs.unfinished():
        asked = ask_of(job.definition.resources).disk
        if asked and job.status is Status.QUEUED:
            asks.append((context.store.runs.require(job.run).pin, job.definition.runners, asked))
    return asks


def surplus(context: Context, machine: Machine, asks: Sequence[DiskAsk]) -> Surplus:
    """What can be removed from a runner now."""
    kept, name, facts = context.store.retained_artifacts, machine.runner.name, machine.runner.facts
    gone = kept.overdue(name, rfc3339(time.time() - LONGEST), MOST)
    wanted = max([LEAST, *(disk for pin, runners, disk in asks if allows(pin, runners, machine.runner))])
    full = facts is not None and facts.disk_free < wanted
    oldest = [each.attempt for each in kept.of(name) if each.attempt not in gone] if full else []
    return [(attempts, bound) for attempts, bound in ((gone, 0), (oldest[:AT_ONCE], wanted)) if attempts]


async def relieve(context: Context, machine: Machine, found: Surplus) -> bool:
    """Remove it; return whether anything was removed."""
    name, removed = machine.runner.name, False
    for attempts, wanted in found:
        command = free(context.fleet.host_context(machine.runner), attempts, wanted)
        freed = await ask(context.fleet.host(machine.runner), command, timeout=FREEING)
        removed = removed or bool(freed.attempts)
        context.store.retained_artifacts.remove(freed.attempts)
        facts = context.store.runners.require(name).facts
        if facts and freed.disk_free is not None:
            context.store.runners.change(name, facts=replace(facts, disk_free=freed.disk_free))
    return removed
