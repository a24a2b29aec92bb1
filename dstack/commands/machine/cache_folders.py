"""Lists and removes the cache folders of jobs on a host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.commands.answer import lines
from dstack.commands.command import Command, Result
from dstack.errors import CommandError
from dstack.model.runner.host_context import HostContext
from dstack.render import script

LISTING = "listing the caches"
REMOVING = "removing caches"


@dataclass(frozen=True)
class Cache:
    """A folder that the jobs of a repository share. `folder` is its name on the host, `path` its path in containers;
    `used` is when a job with it was last launched, in seconds since the epoch; `size` is in bytes."""

    folder: str
    path: str
    used: int
    size: int

    @property
    def repo(self) -> str:
        return self.folder.split("/")[1]


def caches(context: HostContext) -> Command[list[Cache]]:
    """List this server's caches on the host. Their sizes are measured now, which may take long."""
    return Command(LISTING, script("machine/cache_folders", context, server=context.layout.server, wanted=()), _listed)


def drop(context: HostContext, folders: Sequence[str]) -> Command[list[str]]:
    """Remove these caches unless a job uses them. Returns the removed folders. Repeatable."""
    body = script("machine/cache_folders", context, server=context.layout.server, wanted=tuple(folders))
    return Command(REMOVING, body, lambda result: [value for key, value in lines(REMOVING, result) if key == "gone"])


def _listed(result: Result) -> list[Cache]:
    try:
        return [_read(value) for key, value in lines(LISTING, result) if key == "cache"]
    except ValueError as problem:
        raise CommandError(LISTING, 0, f"the host's answer can't be parsed: {problem}") from problem


def _read(line: str) -> Cache:
    folder, used, size, path = line.split(" ", 3)
    return Cache(folder, path, int(used), int(size) * 1024)
