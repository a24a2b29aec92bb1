"""Removes a job, or everything that this server created, from a host."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.commands.command import Command, Result
from dstack.commands.machine.authorize import marker
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext
from dstack.render import script


@dataclass(frozen=True)
class Residue:
    """What remains: names of containers, images and volumes, paths, and the server's authorized key."""

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of these; empty if nothing remains."""
        return self.containers + self.images + self.volumes + self.paths + self.keys


def uninstall(context: HostContext, *, keep_key: bool = False) -> Command[Residue]:
    """Remove this server's containers with their volumes, its images, folder and authorized key. Leaves other servers'
    data alone.

    `keep_key` keeps the server's key authorized. Docker must answer if it is installed. Repeatable.
    """
    server, program = context.layout.server, context.words[0]
    body = script("machine/uninstall", context, program=program, marker=marker(server), keep_key=keep_key)
    return Command("uninstalling from the machine", body, _leftovers)


def running(context: HostContext) -> Command[list[str]]:
    """List the attempts of this server's jobs that have a live container."""
    return Command("listing running jobs", script("machine/running", context), _attempts)


def _leftovers(result: Result) -> Residue:
    return Residue(*(tuple(result.each(kind)) for kind in ("container", "image", "volume", "path", "key")))


def _attempts(result: Result) -> list[str]:
    return [name.removeprefix(container("")) for name in result.each("container")]
