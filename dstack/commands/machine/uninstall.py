"""Removes everything that this server created from a host."""

from __future__ import annotations

from dstack.commands.command import Command
from dstack.commands.machine.authorize import marker
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext
from dstack.render import script


def uninstall(context: HostContext, *, keep_key: bool = False) -> Command[list[str]]:
    """Remove this server's containers with their volumes, its images, folder and authorized key. Leaves other servers'
    data alone. Returns what remains: containers, images, volumes, paths, and the file with the key. `keep_key` keeps
    the server's key authorized. Docker must answer if it is installed. Repeatable."""
    program, key = context.words[0], marker(context.layout.server)
    body = script("machine/uninstall", context, program=program, marker=key, keep_key=keep_key)
    return Command("uninstalling from the machine", body, lambda result: [name for _, name in result.pairs()])


def running(context: HostContext) -> Command[list[str]]:
    """List the attempts of this server's jobs that have a live container."""
    prefix = container("")
    body = script("machine/running", context)
    return Command(
        "listing running jobs", body, lambda result: [name.removeprefix(prefix) for name in result.each("container")]
    )
