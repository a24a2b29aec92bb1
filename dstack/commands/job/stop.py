"""Ends an attempt: stops it before it starts or while it runs, and removes what it left on its host."""

from __future__ import annotations

from msgspec import convert

from dstack.commands.command import Command, done
from dstack.model.job.execution import Stopped
from dstack.model.runner.host_context import HostContext
from dstack.render import script


def stop(context: HostContext, attempt: str, grace: int | None) -> Command[Stopped]:
    """Keep the job from starting, or tell its container to end and kill it after `grace` seconds (0: at once; None: let
    it run). Does not wait for the end. While an earlier stop is in progress, another one with a grace has no effect."""
    if grace is not None and grace < 0:
        raise ValueError(f"the grace of {grace} seconds is negative")
    body = script("job/stop", context, attempt, grace=grace)
    return Command("stopping the job", body, lambda result: convert(result.values("outcome"), Stopped))


def warn(context: HostContext, attempt: str, signal: str) -> Command[None]:
    """Send a signal that does not end the job to all its processes. Raises CommandError if it does not run."""
    return Command("warning the job", script("job/warn", context, attempt, signal=signal), done)


def discard(context: HostContext, attempt: str, image: str) -> Command[None]:
    """Remove the container, running or not, and the job's folder, whoever owns its files. Repeatable."""
    return Command("removing the job's folder", script("job/discard", context, attempt, image=image), done)
