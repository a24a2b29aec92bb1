"""Reads a job's log, byte for byte."""

from __future__ import annotations

from dstack.commands.command import Command
from dstack.model.runner.host_context import HostContext
from dstack.render import script


def follow(context: HostContext, attempt: str, offset: int) -> Command[bytes]:
    """Print the log's bytes from `offset` on, as they arrive, until the job ends or stdin is closed.

    It may end before it has printed everything: read the rest with `read_log` once the job is known to have ended.
    """
    return _command("following the log", "job/follow", context, attempt, offset)


def read_log(context: HostContext, attempt: str, offset: int) -> Command[bytes]:
    """Print the log's bytes from `offset` to its current end. Prints nothing if the log was removed."""
    return _command("reading the log", "job/read_log", context, attempt, offset)


def _command(name: str, template: str, context: HostContext, attempt: str, offset: int) -> Command[bytes]:
    if offset < 0:
        raise ValueError(f"the log offset {offset} is negative")
    return Command(name, script(template, context, attempt, first=offset + 1), lambda result: result.stdout)
