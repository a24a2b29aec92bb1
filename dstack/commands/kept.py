"""Artifacts that stay on the host where they were made: for jobs that depend on them, until they are freed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.commands.answer import lines, values
from dstack.commands.collect import dotted, want
from dstack.commands.command import Command, Result
from dstack.commands.place import Place, folder_name
from dstack.errors import CommandError
from dstack.model.manifest import File
from dstack.model.paths import container
from dstack.model.workflow import Artifact
from dstack.render import quote, script

KEEPING = "keeping the artifacts"
REUSING = "copying kept artifacts"
FREEING = "freeing kept artifacts"


@dataclass(frozen=True)
class Copied:
    """How many regular files of a kept job were copied, and their sizes together."""

    files: int
    bytes: int


@dataclass(frozen=True)
class Freed:
    """Which attempts' artifacts are gone, and how many bytes of the disk are free now; None where it is not said."""

    attempts: tuple[str, ...]
    disk_free: int | None


def keep(place: Place, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> Command[bool]:
    """Remove the container and the folder of a job that was collected, but for its artifacts. False where these had to
    go too: they are not what was hashed. Repeatable."""
    body = script(
        "keep",
        place,
        folder=place.layout.job(folder_name(attempt)),
        kept=place.layout.kept(attempt),
        name=container(attempt),
        image=image,
        server=place.layout.server,
        project=project,
        paths=tuple(map(dotted, want(artifacts, project).roots)),
    )
    return Command(KEEPING, body, lambda result: values(KEEPING, result, "kept")["kept"] == "yes")


def reuse(place: Place, attempt: str, sources: Sequence[str], links: Sequence[File]) -> Command[dict[str, Copied]]:
    """Copy what was kept of these attempts to where a launch takes its artifacts from, and make `links`. Those that
    are not in the answer have to come from elsewhere: they are gone, or were touched."""
    made = "".join(_link(file) for file in links).encode("utf-8", "surrogateescape")
    body = script(
        "reuse",
        place,
        folder=place.layout.job(folder_name(attempt)),
        sources=tuple(map(folder_name, sources)),
        length=len(made),
    )
    return Command(REUSING, body, _copied, made)


def free(place: Place, attempts: Sequence[str], wanted: int = 0) -> Command[Freed]:
    """Remove what was kept of these attempts, in their order, until `wanted` bytes of the disk are free; 0: of all."""
    named = tuple(map(folder_name, attempts))
    body = script("free", place, server=place.layout.server, attempts=named, wanted=-(-wanted // 1024))
    return Command(FREEING, body, _freed)


def _link(file: File) -> str:
    folder = dotted(file.path).rpartition("/")[0]
    path = quote(dotted(file.path))
    return f"mkdir -p {quote(folder)} && rm -f {path} && ln -s -- {quote(file.link or '')} {path}\n"


def _copied(result: Result) -> dict[str, Copied]:
    try:
        found = [value.split(" ") for key, value in lines(REUSING, result) if key == "copied"]
        return {attempt: Copied(int(files), int(size)) for attempt, files, size in found}
    except ValueError as problem:
        raise CommandError(REUSING, 0, f"the host's answer is not understood: {problem}") from problem


def _freed(result: Result) -> Freed:
    said = lines(FREEING, result)
    left = [int(value) * 1024 for key, value in said if key == "disk_free" and value.isdecimal()]
    return Freed(tuple(value for key, value in said if key == "freed"), left[0] if left else None)
