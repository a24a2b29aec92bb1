"""Keeps artifacts on the host that made them, for jobs that depend on them, until the disk space is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.commands.artifacts.collect import dotted, line, want
from dstack.commands.command import Command, Result
from dstack.model.job.manifest import File
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.model.text.untrusted import whole
from dstack.render import quote, script


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
        attempt,
        kept=context.layout.kept(attempt),
        image=image,
        project=project,
        paths=tuple(map(dotted, want(artifacts, project).roots)),
    )
    return Command("keeping the artifacts", body, lambda result: result.values("kept")["kept"] == "yes")


def reuse(
    context: HostContext, attempt: str, sources: Sequence[str], links: Sequence[File]
) -> Command[dict[str, Copied]]:
    """Copy the kept artifacts of these attempts to the folder that the launch reads, and create `links`. Attempts that
    are missing from the answer were removed or modified: fetch their artifacts from storage."""
    made = b"".join(map(_link, links))
    body = script("artifacts/reuse", context, attempt, sources=tuple(map(folder_name, sources)), length=len(made))
    return Command("copying kept artifacts", body, _copied, made)


def free(context: HostContext, attempts: Sequence[str], wanted: int = 0) -> Command[Freed]:
    """Remove the kept artifacts of these attempts in order, until `wanted` bytes of disk are free; 0 removes all."""
    body = script("artifacts/free", context, attempts=tuple(map(folder_name, attempts)), wanted=-(-wanted // 1024))
    return Command("freeing kept artifacts", body, _freed)


def _link(file: File) -> bytes:
    path = dotted(file.path)
    folder, path = quote(path.rpartition("/")[0]), quote(path)
    return line("mkdir -p", folder, "&& rm -f", path, "&& ln -s --", quote(file.link or ""), path)


def _copied(result: Result) -> dict[str, Copied]:
    found = [copied.split(" ") for copied in result.each("copied")]
    return {attempt: Copied(whole(files), whole(size)) for attempt, files, size in found}


def _freed(result: Result) -> Freed:
    left = [whole(size) * 1024 for size in result.each("disk_free") if size.isdecimal()]
    return Freed(tuple(result.each("freed")), left[0] if left else None)
