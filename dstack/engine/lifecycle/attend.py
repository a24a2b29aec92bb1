"""Tells what keeps a running job from going on, for as long as it does."""

from __future__ import annotations

import asyncio
import time

from dstack.commands.command import Command
from dstack.decide import FULL, Observed
from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.upload_status import engine_silent, unreachable
from dstack.errors import DstackError
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.paths import container
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import steady, time_of_day

LOOK = 15.0
"""Seconds between two looks at a running job."""
LATE = 4.0
"""Seconds without an answer after which a runner counts as silent."""
CONDITIONS = (ReasonCode.RUNNER_UNREACHABLE, ReasonCode.CONTAINER_PAUSED, ReasonCode.DISK_FULL)
NOTHING = Command("asking the runner to answer", ":", lambda result: None)


async def attend(at: JobOnRunner) -> None:
    """Look at a running job now and then, until cancelled."""
    while True:
        await asyncio.sleep(LOOK)
        try:
            await answer(at)
            tell(at, condition(at, await at.executor.observe(at.attempt)))
        except DstackError as trouble:
            log.info("job %s: %s", at.id, trouble.message)


async def answer(at: JobOnRunner) -> None:
    """Return once the runner answers, and tell meanwhile since when it has not: bytes of the log are an answer, too.
    Where the connection answers and commands hang, those count. If it breaks, whoever follows the log tells that."""
    begun = steady()
    asked = asyncio.ensure_future(at.host.run(NOTHING))
    try:
        done, _ = await asyncio.wait({asked}, timeout=LATE)
        answered, heard = at.answered or 0.0, at.host.answered or 0.0
        if not done and answered < begun:
            since = rfc3339(time_of_day((answered if heard > begun else max(answered, heard)) or begun))
            tell(at, unreachable(at.job, since, stop=bool(at.job.stop)), unreachable_since=since)
        await asked
        at.answered = steady()
    finally:
        asked.cancel()


def condition(at: JobOnRunner, observed: Observed) -> Reason | None:
    """What keeps the job from going on, if anything does."""
    runner, now = at.runner, rfc3339(time.time())
    if observed.silent and observed.exit_code is None:
        return engine_silent(at.job, observed.engine, now, observed.silence, stop=bool(at.job.stop))
    if observed.container and observed.container.paused:
        type_this = f"{runner.docker} unpause {container(at.attempt)}"
        text = f"somebody paused its container before {now}; to resume it, run on {runner.name}: {type_this}"
        return Reason(ReasonCode.CONTAINER_PAUSED, text)
    if observed.disk_free is not None and observed.disk_free < FULL:
        text = f"the disk of {runner.name} has been full since {now}; to see what helps: dstack runners check"
        return Reason(ReasonCode.DISK_FULL, f"{text} {runner.name}")
    return None


def tell(at: JobOnRunner, reason: Reason | None, unreachable_since: str | None = None) -> None:
    """Record the condition, or that there is none any more. One that lasts keeps its first words, with since when."""
    job = at.job
    before = job.reason.code if job.reason else None
    now = reason.code if reason else None
    if job.status is Status.RUNNING and (before is None or before in CONDITIONS) and before != now:
        at.change(reason=reason, unreachable_since=unreachable_since)
