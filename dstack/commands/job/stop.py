"""Stops a job, before it starts or while it runs."""

from __future__ import annotations

from msgspec import ValidationError, convert

from dstack.commands import answer
from dstack.commands.command import Command, Result, succeeded
from dstack.errors import CommandError
from dstack.model.job.execution import Stopped
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.render import script

NAME = "stopping the job"
WARNING = "warning the job"


def stop(context: HostContext, attempt: str, grace: int) -> Command[Stopped]:
    """Keep the job from starting, or tell its container to end and kill it after `grace` seconds (0: at once).

    Does not wait for the end. While an earlier stop is in progress, another one with a grace has no effect.
    """
    if grace < 0:
        raise ValueError(f"the grace of {grace} seconds is negative")
    folder = context.layout.job(folder_name(attempt))
    return Command(NAME, script("job/stop", context, folder=folder, name=container(attempt), grace=grace), _stopped)


def warn(context: HostContext, attempt: str, signal: str) -> Command[None]:
    """Send the container a signal that does not end it; it forwards the signal to all its processes. Raises
    CommandError if the container does not run."""
    body = script("job/warn", context, name=container(folder_name(attempt)), signal=signal)
    return Command(WARNING, body, lambda result: succeeded(WARNING, result))


def _stopped(result: Result) -> Stopped:
    try:
        return convert(answer.values(NAME, result, "outcome"), Stopped)
    except ValidationError as problem:
        raise CommandError(NAME, result.exit_status, f"the host's answer can't be parsed: {problem}") from problem
