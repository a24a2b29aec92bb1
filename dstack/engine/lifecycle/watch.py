"""Follows a job's log until its container has ended."""

from __future__ import annotations

import asyncio
import time

from msgspec.structs import replace

from dstack.commands.job.follow import follow, read_log
from dstack.commands.job.observe import observe
from dstack.decide import Decision, Recorded, decide
from dstack.engine.job_on_runner import HOST_ANSWER, JobOnRunner
from dstack.engine.lifecycle.launch import begun, launched
from dstack.errors import HostUnreachableError
from dstack.hosts.host import ask
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.runner.runner import Runner

SETTLING = 20
"""How many times a failed container is looked at again, until Docker knows why it failed."""
SETTLES = 0.25
"""Seconds between two such looks."""
LAUNCH_TAKES = 60.0
"""Seconds after which a container that was created but not started counts as failed to start."""
LOOK_AGAIN = 1.0
"""Seconds before looking again at a container that has not ended though its log has, or that is about to start."""


async def until_ended(placed: JobOnRunner) -> Decision:
    """Follow the log; return how the job ended. Raises HostUnreachableError while that can't be known."""
    waiting_since, looks = None, 0
    while True:
        await keep_up(placed)
        waited = waiting_since is not None and time.monotonic() - waiting_since > LAUNCH_TAKES
        job = placed.job
        recorded = Recorded(launch=job.launch, stop=bool(job.stop or job.preempted_by), waited=waited)
        observed = await ask(placed.host, observe(placed.host_context, placed.attempt), timeout=HOST_ANSWER)
        if observed.unsettled and looks < SETTLING:
            looks += 1
            await asyncio.sleep(SETTLES)
            continue
        decision = decide(recorded, observed)
        if decision.ended:
            return decision
        if decision.unknown:
            raise HostUnreachableError(decision.reason.text if decision.reason else "Docker does not answer")
        if decision.launch:
            begun(placed, await launched(placed))
        waiting_since = None if decision.running else waiting_since or time.monotonic()
        await asyncio.sleep(LOOK_AGAIN)


async def blamed(placed: JobOnRunner, decision: Decision) -> Decision:
    """Add what is wrong with the machine's GPUs, if a job that had some failed for no known reason."""
    job, fleet = placed.job, placed.context.fleet
    if not job.gpus or not decision.exit_code or decision.reason or job.stop or job.expired or job.preempted_by:
        return decision
    await fleet.check(placed.runner.name)
    trouble = gpus_gone(placed.runner, job.gpus)
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


async def keep_up(placed: JobOnRunner) -> None:
    """Append the log's bytes as they arrive, until the stream ends."""
    async for data in placed.host.stream(follow(placed.host_context, placed.attempt, offset(placed))):
        heard(placed, data)


async def drain(placed: JobOnRunner) -> None:
    """Read the rest of the log, which is complete because the job has ended."""
    async for data in placed.host.stream(read_log(placed.host_context, placed.attempt, offset(placed))):
        heard(placed, data)


def offset(placed: JobOnRunner) -> int:
    """How many bytes of the attempt's log have been read."""
    return placed.store.logs.size(placed.id) - placed.job.log_start


def heard(placed: JobOnRunner, data: bytes) -> None:
    job = placed.job
    placed.store.logs.append(placed.id, data)
    if job.unreachable_since:
        placed.change(unreachable_since=None, reason=None)
    placed.context.events.publish(job.run)
