"""Leaving a host without residue: of one job, or of all that this server made there."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.commands.answer import lines
from dstack.commands.authorize import marker
from dstack.commands.command import Command, Result
from dstack.commands.place import Place, folder_name
from dstack.model.paths import container
from dstack.render import script

DISCARDING = "removing the job's folder"
LEAVING = "leaving the host"
ASKING = "asking for running jobs"


@dataclass(frozen=True)
class Leftovers:
    """What is still there: names of containers, images, volumes, paths, and the key that lets the server in."""

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of it; empty when nothing is left."""
        return self.containers + self.images + self.volumes + self.paths + self.keys


def discard(place: Place, attempt: str, image: str) -> Command[None]:
    """Remove the container, running or not, and the job's folder, whoever owns what is in it. Repeatable."""
    body = script(
        "discard",
        place,
        folder=place.layout.job(folder_name(attempt)),
        name=container(attempt),
        image=image,
        server=place.layout.server,
    )
    return Command(DISCARDING, body, _done)


def leave(place: Place, *, keep_key: bool = False) -> Command[Leftovers]:
    """Remove this server's containers with their volumes, images, folder, and the key that lets it in. What other
    servers have there stays.

    `keep_key` lets the server in on. Docker must answer if it is installed. Repeatable.
    """
    server, program = place.layout.server, place.words[0]
    body = script("leave", place, server=server, program=program, marker=marker(server), keep_key=keep_key)
    return Command(LEAVING, body, _leftovers)


def running(place: Place) -> Command[list[str]]:
    """The attempts of this server's jobs that have a live container."""
    body = script("running", place, server=place.layout.server)
    return Command(ASKING, body, _attempts)


def _done(result: Result) -> None:
    lines(DISCARDING, result)


def _leftovers(result: Result) -> Leftovers:
    left = lines(LEAVING, result)
    kinds = ("container", "image", "volume", "path", "key")
    return Leftovers(*(tuple(value for key, value in left if key == kind) for kind in kinds))


def _attempts(result: Result) -> list[str]:
    prefix = container("")
    return [value.removeprefix(prefix) for key, value in lines(ASKING, result) if key == "container"]
