"""Removes everything that this server created from a host."""

from __future__ import annotations

from dstack.commands.command import Command, Result
from dstack.commands.machine.authorize import marker
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext
from dstack.render import script


def uninstall(
    context: HostContext, *, shared: bool = False, keep_images: bool = False, keep_key: bool = False
) -> Command[list[str]]:
    """Remove this server's containers with their volumes, its images, folder and authorized key. Leaves other servers'
    data alone. If the machine is `shared` with other runners, leaves alone what does not belong to this folder, too.
    Returns what remains: containers, images, volumes, paths, and the file with the key, each with its kind in front.
    `keep_key` keeps the server's key authorized. Docker must answer if it is installed. Repeatable."""
    body = script(
        "machine/uninstall",
        context,
        program=context.words[0],
        marker=marker(context.layout.server),
        shared=shared,
        images=not keep_images,
        keep_key=keep_key,
    )
    return Command("uninstalling from the machine", body, _left)


def revoke(context: HostContext) -> Command[list[str]]:
    """Remove only the server's authorized key. Returns the file with the key if it remains. Repeatable."""
    body = script("machine/revoke", context, marker=marker(context.layout.server))
    return Command("revoking the server's key", body, _left)


def _left(result: Result) -> list[str]:
    return [f"{kind} {name.lstrip('/') if kind == 'container' else name}" for kind, name in result.pairs()]


def running(context: HostContext) -> Command[list[str]]:
    """List the attempts of this server's jobs that have a live container."""
    prefix = container("")
    body = script("machine/running", context)
    return Command(
        "listing running jobs", body, lambda result: [name.removeprefix(prefix) for name in result.each("container")]
    )
