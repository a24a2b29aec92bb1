"""Lists and removes the cache folders of jobs on a host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.commands.command import Command, Result
from dstack.model.runner.host_context import HostContext
from dstack.model.text.untrusted import whole
from dstack.render import script


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
    return Command("listing the caches", script("machine/cache_folders", context, wanted=()), _listed)


def drop(context: HostContext, folders: Sequence[str]) -> Command[list[str]]:
    """Remove these caches unless a job uses them. Returns the removed folders. Repeatable."""
    body = script("machine/cache_folders", context, wanted=tuple(folders))
    return Command("removing caches", body, lambda result: result.each("gone"))


def _listed(result: Result) -> list[Cache]:
    found = [line.split(" ", 3) for line in result.each("cache")]
    return [Cache(folder, path, whole(used), whole(size) * 1024) for folder, used, size, path in found]
