"""Keeps artifacts on the host that made them, for jobs that depend on them, until the disk space is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.commands.answer import lines, values
from dstack.commands.artifacts.collect import dotted, want
from dstack.commands.command import Command, Result
from dstack.errors import CommandError
from dstack.model.job.manifest import File
from dstack.model.paths import container
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.render import quote, script

KEEPING = "keeping the artifacts"
REUSING = "copying kept artifacts"
FREEING = "freeing kept artifacts"


@dataclass(frozen=True)
class Copied:
    """The number of regular files copied from a kept job, and their total size."""

    files: int
    bytes: int


@dataclass(frozen=True)
class Freed:
    """The attempts whose artifacts were removed, and the free bytes on the disk, None if unknown."""

    attempts: tuple[str, ...]
    disk_free: int | None


def keep(
    context: HostContext, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]
) -> Command[bool]:
    """Remove the container and the folder of a collected job, except its artifacts. False if the artifacts were
    removed, too, because they differ from what was hashed. Repeatable."""
    body = script(
        "artifacts/retain",
        context,
        folder=context.layout.job(folder_name(attempt)),
        kept=context.layout.kept(attempt),
        name=container(attempt),
        image=image,
        server=context.layout.server,
        project=project,
        paths=tuple(map(dotted, want(artifacts, project).roots)),
    )
    return Command(KEEPING, body, lambda result: values(KEEPING, result, "kept")["kept"] == "yes")


def reuse(
    context: HostContext, attempt: str, sources: Sequence[str], links: Sequence[File]
) -> Command[dict[str, Copied]]:
    """Copy the kept artifacts of these attempts to the folder that the launch reads, and create `links`. Attempts that
    are missing from the answer were removed or modified: fetch their artifacts from storage."""
    made = "".join(_link(file) for file in links).encode("utf-8", "surrogateescape")
    body = script(
        "artifacts/reuse",
        context,
        folder=context.layout.job(folder_name(attempt)),
        sources=tuple(map(folder_name, sources)),
        length=len(made),
    )
    return Command(REUSING, body, _copied, made)


def free(context: HostContext, attempts: Sequence[str], wanted: int = 0) -> Command[Freed]:
    """Remove the kept artifacts of these attempts in order, until `wanted` bytes of disk are free; 0 removes all."""
    named = tuple(map(folder_name, attempts))
    body = script("artifacts/free", context, server=context.layout.server, attempts=named, wanted=-(-wanted // 1024))
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
        raise CommandError(REUSING, 0, f"the host's answer can't be parsed: {problem}") from problem


def _freed(result: Result) -> Freed:
    said = lines(FREEING, result)
    left = [int(value) * 1024 for key, value in said if key == "disk_free" and value.isdecimal()]
    return Freed(tuple(value for key, value in said if key == "freed"), left[0] if left else None)
