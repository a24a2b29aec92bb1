"""Follows a running job until its container has ended, and ends it: because somebody wants it, or its time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from dstack.decide import Decision, Recorded, decide
from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.launch import start
from dstack.errors import CommandError, EngineSilentError, HostUnreachableError
from dstack.model.job.reasons import Reason, ReasonCode, preempted
from dstack.model.runner.runner import Runner
from dstack.model.text.units import seconds, span
from dstack.plumbing.clock import steady

SETTLING = 20
"""How many times a failed container is looked at again, until the engine that holds it knows why it failed."""
SETTLES = 0.25
"""Seconds between two such looks."""
LAUNCH_TAKES = 60.0
"""Seconds after which a container that was created but not started counts as failed to start."""
LOOK_AGAIN = 1.0
"""Seconds before looking again at a container that has not ended though its log has, or that is about to start."""
AGES = 600.0
"""At most so many seconds until the runner is asked again how long the job has run: this machine may sleep."""
ASK_AGAIN = 1.0
"""Seconds between two tries to reach a runner whose job has to end."""

T = TypeVar("T")


async def until_ended(job_on_runner: JobOnRunner) -> Decision:
    """Follow the log; return how the job ended. Raises HostUnreachableError while that can't be known."""
    waiting_since, looks = None, 0
    while True:
        await job_on_runner.append_log(job_on_runner.executor.follow(job_on_runner.attempt, job_on_runner.log_offset))
        waited = waiting_since is not None and time.monotonic() - waiting_since > LAUNCH_TAKES
        job = job_on_runner.job
        recorded = Recorded(launch=job.launch, stop=bool(job.stop or job.preempted_by), waited=waited)
        observed = await job_on_runner.executor.observe(job_on_runner.attempt)
        job_on_runner.answered = steady()
        if observed.unsettled and looks < SETTLING:
            looks += 1
            await asyncio.sleep(SETTLES)
            continue
        decision = decide(recorded, observed)
        if decision.ended:
            return decision
        if decision.unknown:
            raise EngineSilentError(observed.engine, job_on_runner.runner.name, observed.silence)
        if decision.launch:
            await start(job_on_runner)
        waiting_since = None if decision.running else waiting_since or time.monotonic()
        await asyncio.sleep(LOOK_AGAIN)


async def blamed(job_on_runner: JobOnRunner, decision: Decision) -> Decision:
    """Add what is wrong with the machine's GPUs, if a job that had some failed for no known reason."""
    job, fleet = job_on_runner.job, job_on_runner.context.fleet
    if not job.gpus or not decision.exit_code or decision.reason or job.stop or job.expired or job.preempted_by:
        return decision
    await fleet.check(job_on_runner.runner.name)
    trouble = gpus_gone(job_on_runner.runner, job.gpus)
    if trouble is None:
        return decision
    return replace(decision, reason=Reason(trouble.code, f"exit code {decision.exit_code}, and {trouble.text}"))


def gpus_gone(runner: Runner, gpus: tuple[int, ...]) -> Reason | None:
    """What is wrong with GPUs that worked before, in words that follow "and"."""
    facts = runner.facts
    broken = [finding for finding in (facts.findings if facts else ()) if finding.name == "gpu-driver"]
    if broken:
        text = f"the GPU driver of {runner.name} is failing: {broken[0].what}; {broken[0].fix}"
        return Reason(ReasonCode.GPU_DRIVER, text)
    there = {gpu.index for gpu in facts.gpus if not gpu.trouble} if facts else set()
    gone = [str(index) for index in gpus if index not in there and runner.gpus is None]
    if not gone:
        return None
    which = f"GPU {gone[0]} is" if len(gone) == 1 else f"GPUs {', '.join(gone)} are"
    text = f"{which} gone from {runner.name}; to see why, run there: sudo dmesg | grep Xid"
    return Reason(ReasonCode.GPU_GONE, text)


async def end_in_time(job_on_runner: JobOnRunner) -> None:
    """Tell the container to end once it has to: for its user, for a job of higher priority, or when its time is up."""
    job, attempt = job_on_runner.job, job_on_runner.attempt
    if job.stop:
        await job_on_runner.stop(0 if job.stop == "abort" else job_on_runner.grace)
    elif job.preempted_by:
        await end(job_on_runner, yielding=True, reason=preempted(job.preempted_by))
    elif job.definition.max_duration is not None and job.started_at is not None:
        limit, warning = span(job.definition.max_duration), job.definition.signal
        if warning and not job.warned:
            name = warning.name
            await ran(job_on_runner, limit - span(warning.before))
            job_on_runner.change(warned=True)
            await job_on_runner.store.database.synced()
            await insist(job_on_runner, lambda: job_on_runner.executor.warn(attempt, name))
        await ran(job_on_runner, limit)
        await end(job_on_runner, expired=True)


async def end(at: JobOnRunner, **because: Any) -> None:
    """Record why the container has to end, and tell it until the runner answers."""
    at.change(**because)
    await insist(at, lambda: at.stop(at.grace))


async def ran(at: JobOnRunner, limit: float) -> None:
    """Return once the job has run for so many seconds."""
    left = limit - await age(at)
    while left > 0:
        await asyncio.sleep(min(left, AGES))
        left = limit - await age(at)


async def age(at: JobOnRunner) -> float:
    """How many seconds the job has run, by the clock that its runner counts from its boot: the time of day may jump,
    here and there. Jobs that an older version launched have only that."""
    job, observed = at.job, await insist(at, lambda: at.executor.observe(at.attempt))
    passed = job.launch.until(observed.origin) if job.launch and observed else None
    return passed if passed is not None else time.time() - seconds(job.started_at or job.submitted_at)


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
