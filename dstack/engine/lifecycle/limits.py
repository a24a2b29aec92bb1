"""Ends a running job: because somebody wants it, or because its time is up."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TypeVar

from dstack.commands.command import Command
from dstack.commands.job.stop import stop, warn
from dstack.engine.job_on_runner import HOST_ANSWER, JobOnRunner
from dstack.errors import CommandError, HostUnreachableError
from dstack.hosts.host import ask
from dstack.model.job.reasons import preempted
from dstack.model.text.units import seconds, span

ASK_AGAIN = 1.0
"""Seconds between two tries to reach a runner whose job has to end."""

T = TypeVar("T")

log = logging.getLogger("dstack.engine")


async def halt(placed: JobOnRunner) -> None:
    """Tell the container to end."""
    grace = 0 if placed.job.stop == "abort" else placed.grace
    await ask(placed.host, stop(placed.host_context, placed.attempt, grace), timeout=grace + HOST_ANSWER)


async def give_way(placed: JobOnRunner) -> None:
    """Tell the container to end for a job of higher priority. If it ended on its own just before, it was not
    preempted."""
    before = placed.job.yielding
    placed.change(yielding=True, reason=preempted(placed.job.preempted_by or ""))
    outcome = await insist(placed, stop(placed.host_context, placed.attempt, placed.grace))
    if not before and outcome is not None and outcome.outcome == "ended":
        placed.change(yielding=False, preempted_by=None, reason=None)


async def limit(placed: JobOnRunner) -> None:
    """Warn the container before its time is up, and end it when it is."""
    job = placed.job
    if job.definition.max_duration is None or job.started_at is None:
        return
    ends = seconds(job.started_at) + span(job.definition.max_duration)
    warning = job.definition.signal
    if warning and not job.warned:
        await until(ends - span(warning.before))
        placed.change(warned=True)
        await insist(placed, warn(placed.host_context, placed.attempt, warning.name))
    await until(ends)
    before = placed.job.expired
    placed.change(expired=True)
    outcome = await insist(placed, stop(placed.host_context, placed.attempt, placed.grace))
    if not before and outcome is not None and outcome.outcome == "ended":
        placed.change(expired=False)  # it ended on its own just before


async def insist(placed: JobOnRunner, command: Command[T]) -> T | None:
    """Ask until the runner answers; return None if it refuses."""
    while True:
        try:
            return await ask(placed.host, command, timeout=HOST_ANSWER)
        except HostUnreachableError:
            await asyncio.sleep(ASK_AGAIN)
        except CommandError as refused:
            log.info("job %s: %s", placed.id, refused.message)
            return None


async def until(moment: float) -> None:
    """Sleep until this moment (wall clock, seconds)."""
    await asyncio.sleep(max(0.0, moment - time.time()))
