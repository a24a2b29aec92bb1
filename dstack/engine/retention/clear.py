"""Decides what stays on a runner when a job ends: a done job's artifacts, for the jobs that depend on it."""

from __future__ import annotations

import logging
import time

from dstack.engine.context import Context
from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import CommandError, HostUnreachableError
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.store.tables.contents import Retained

log = logging.getLogger("dstack.engine")


async def clear(context: Context, job_id: str) -> None:
    """Remove the container and the folder of an ended job, once. A done job's artifacts stay."""
    store = context.store
    async with context.clearing[job_id]:
        job = store.jobs.get(job_id)
        runner = store.runners.get(job.runner or "") if job else None
        if job is None or job.discarded or runner is None:
            return
        job_on_runner = JobOnRunner(context, job_id)
        executor, attempt = job_on_runner.executor, job_on_runner.attempt
        if job.status is Status.DONE and job.files:
            stays = await executor.retain(attempt, job_on_runner.project, job.image, job.definition.outputs)
        else:
            await executor.discard(attempt, job.image)
            stays = False
        with store.database.transaction():
            store.jobs.change(job.id, discarded=True)
            if stays:
                store.retained_artifacts.add(Retained(job.id, attempt, runner.name, rfc3339(time.time())))
    context.clearing.pop(job_id, None)


async def remove_aborted(context: Context, runner: str) -> None:
    """Remove the jobs that were aborted while the runner did not answer: what they hold is about to go to another job.
    Raises HostUnreachableError, after which it may be tried again."""
    for job in context.store.jobs.to_discard(runner):
        if job.stop == "abort":
            try:
                await clear(context, job.id)
            except CommandError as refused:
                raise HostUnreachableError(
                    f"{job.run} was aborted, but can't be removed from {runner}: {refused.message}"
                ) from refused
    context.unsure.discard(runner)
