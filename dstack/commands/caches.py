"""The folders that jobs keep on a host: what there is, and removing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.commands.answer import lines
from dstack.commands.command import Command, Result
from dstack.commands.place import Place
from dstack.errors import CommandError
from dstack.render import script

LISTING = "listing the caches"
REMOVING = "removing caches"


@dataclass(frozen=True)
class Cache:
    """A folder that jobs of a repository share. `folder` names it on its host, `path` is where containers have it;
    `used` is when a job that has it was last launched, in seconds since the epoch; `size` in bytes."""

    folder: str
    path: str
    used: int
    size: int

    @property
    def repo(self) -> str:
        return self.folder.split("/")[1]


def caches(place: Place) -> Command[list[Cache]]:
    """All of this server's on the host. Sizes are those of now: they take as long as the host needs to count."""
    return Command(LISTING, script("caches", place, server=place.layout.server, wanted=()), _listed)


def drop(place: Place, folders: Sequence[str]) -> Command[list[str]]:
    """Remove these, but none that a job uses; the folders that are gone. Repeatable."""
    body = script("caches", place, server=place.layout.server, wanted=tuple(folders))
    return Command(REMOVING, body, lambda result: [value for key, value in lines(REMOVING, result) if key == "gone"])


def _listed(result: Result) -> list[Cache]:
    try:
        return [_read(value) for key, value in lines(LISTING, result) if key == "cache"]
    except ValueError as problem:
        raise CommandError(LISTING, 0, f"the host's answer is not understood: {problem}") from problem


def _read(line: str) -> Cache:
    folder, used, size, path = line.split(" ", 3)
    return Cache(folder, path, int(used), int(size) * 1024)
