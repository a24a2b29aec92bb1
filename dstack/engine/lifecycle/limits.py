"""Ends a running job: because somebody wants it, or because its time is up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import CommandError, HostUnreachableError
from dstack.model.job.reasons import preempted
from dstack.model.text.units import seconds, span

ASK_AGAIN = 1.0
"""Seconds between two tries to reach a runner whose job has to end."""

T = TypeVar("T")

log = logging.getLogger("dstack.engine")


async def halt(job_on_runner: JobOnRunner) -> None:
    """Tell the container to end."""
    grace = 0 if job_on_runner.job.stop == "abort" else job_on_runner.grace
    await job_on_runner.executor.stop(job_on_runner.attempt, grace)


async def give_way(job_on_runner: JobOnRunner) -> None:
    """Tell the container to end for a job of higher priority. If it ended on its own just before, it was not
    preempted."""
    before = job_on_runner.job.yielding
    job_on_runner.change(yielding=True, reason=preempted(job_on_runner.job.preempted_by or ""))
    if await insist_on_stop(job_on_runner) == "ended" and not before:
        job_on_runner.change(yielding=False, preempted_by=None, reason=None)


async def limit(job_on_runner: JobOnRunner) -> None:
    """Warn the container before its time is up, and end it when it is."""
    job = job_on_runner.job
    if job.definition.max_duration is None or job.started_at is None:
        return
    ends = seconds(job.started_at) + span(job.definition.max_duration)
    warning = job.definition.signal
    if warning and not job.warned:
        name = warning.name
        await until(ends - span(warning.before))
        job_on_runner.change(warned=True)
        await insist(job_on_runner, lambda: job_on_runner.executor.warn(job_on_runner.attempt, name))
    await until(ends)
    before = job_on_runner.job.expired
    job_on_runner.change(expired=True)
    if await insist_on_stop(job_on_runner) == "ended" and not before:
        job_on_runner.change(expired=False)  # it ended on its own just before


async def insist_on_stop(job_on_runner: JobOnRunner) -> str | None:
    """Tell the container to end, until the runner answers; return the outcome, or None if the runner refuses."""
    attempt, grace = job_on_runner.attempt, job_on_runner.grace
    stopped = await insist(job_on_runner, lambda: job_on_runner.executor.stop(attempt, grace))
    return stopped.outcome if stopped else None


async def insist(job_on_runner: JobOnRunner, ask: Callable[[], Awaitable[T]]) -> T | None:
    """Ask until the runner answers; return None if it refuses."""
    while True:
        try:
            return await ask()
        except HostUnreachableError:
            await asyncio.sleep(ASK_AGAIN)
        except CommandError as refused:
            log.info("job %s: %s", job_on_runner.id, refused.message)
            return None


async def until(moment: float) -> None:
    """Sleep until this moment (wall clock, seconds)."""
    await asyncio.sleep(max(0.0, moment - time.time()))
