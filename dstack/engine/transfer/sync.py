"""Stores artifacts while their job runs, for those with `sync: 5m`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from dstack.commands.artifacts.sync import SMALL, frozen, sync
from dstack.commands.host import ask
from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import CommandError, DstackError, StorageError
from dstack.model.job.manifest import PARTIAL, File, Folder, Manifest, normal
from dstack.model.project.workflow import Artifact
from dstack.model.text.units import span

T = TypeVar("T")

SHORTEST = 1.0
"""The shortest interval between two syncs of an artifact, in seconds."""
TIMEOUT = 3600.0
"""Seconds for hashing what may be large files."""


class Sync:
    """Keeps a running job's stored artifacts up to date, marked as partial until the collection replaces them. A file
    that changed while it was read is left for the next sync; so is everything else if a sync fails."""

    def __init__(self, job_on_runner: JobOnRunner) -> None:
        self.job_on_runner = job_on_runner
        self.job = job_on_runner.job
        self.artifacts = job_on_runner.context.artifacts
        self.storage = self.artifacts.current
        self.files: dict[str, File] = {}
        self.folders: dict[str, Folder] = {}
        self.turn = asyncio.Lock()

    async def run(self) -> None:
        """Sync until cancelled. Returns at once for a job without such artifacts."""
        asking = [artifact for artifact in self.job.definition.outputs if artifact.sync]
        before = await self.artifacts.stored(self.job) if asking else None
        if before and before[0].name == self.storage.name:
            self.files = {file.path: file for file in before[1].files}
            self.folders = {folder.path: folder for folder in before[1].folders}
        await asyncio.gather(*(self.repeat(artifact, number) for number, artifact in enumerate(asking)))

    async def repeat(self, artifact: Artifact, number: int) -> None:
        complete = False
        while True:
            await asyncio.sleep(max(SHORTEST, span(artifact.sync or "0")))
            async with self.turn:
                keep, complete = complete, False
                try:
                    complete = await self.once(artifact, number, keep=keep)
                except DstackError as trouble:
                    log.warning("job %s: %s could not be synced: %s", self.job.id, artifact.path, trouble.message)
                except Exception:
                    log.exception("job %s: unexpected error while syncing %s", self.job.id, artifact.path)

    async def once(self, artifact: Artifact, number: int, *, keep: bool) -> bool:
        """Store what changed in an artifact; return whether everything seen is stored now."""
        at, image = self.job_on_runner, self.job.image
        storage = at.will_store()
        if storage.name != self.storage.name:  # it has nothing of the job yet
            self.storage, self.files, self.folders, keep = storage, {}, {}, False
        look = sync(at.host_context, at.attempt, at.snapshot.project, image, artifact, number, keep=keep)
        changes = await ask(at.host, look, timeout=TIMEOUT)
        if not (changes.found or changes.same or changes.moving or changes.folders):
            return False  # it may be about to be replaced: keep what was stored
        had = bare(self.files)
        missing = await self.missing([file for file in changes.found if had.get(file.path) != file], number)
        seen = {*changes.same, *changes.moving, *missing}
        stored = {path: file for path, file in self.files.items() if path in seen}
        stored |= {file.path: file for file in changes.found if file.path not in missing}
        await self.commit(normal(artifact.path), stored, {folder.path: folder for folder in changes.folders})
        return not missing and all(path in stored for path in changes.same)

    async def missing(self, files: Sequence[File], number: int) -> set[str]:
        """Bring these files into the store; return the paths of those that changed while they were sent."""
        changed: set[str] = set()
        for batch in batches([file for file in files if file.link is None]):
            try:
                await self.storage.collect(self.job_on_runner.folder(frozen(number)), batch)
            except (StorageError, CommandError) as trouble:
                log.info("job %s: %s; the next sync tries again", self.job.id, trouble.message)
                changed |= {file.path for file in batch}
        return changed

    async def commit(self, path: str, stored: Mapping[str, File], below: Mapping[str, Folder]) -> None:
        """Write the manifest of what is stored now, if it has changed."""
        files, folders = {**apart(path, self.files), **stored}, {**apart(path, self.folders), **below}
        if bare(files) == bare(self.files) and folders == self.folders:
            return
        job = self.job
        await self.storage.commit(
            Manifest(job.id, job.run, job.workflow, PARTIAL, ordered(files), job.attempt, folders=ordered(folders))
        )
        self.files, self.folders = files, folders


def apart(path: str, found: Mapping[str, T]) -> dict[str, T]:
    """Return what is neither at the path nor below it."""
    return {name: each for name, each in found.items() if name != path and not name.startswith(f"{path}/")}


def ordered(found: Mapping[str, T]) -> tuple[T, ...]:
    return tuple(each for _, each in sorted(found.items()))


def batches(files: Sequence[File]) -> list[list[File]]:
    """Group the files: all small ones together, as they were copied and can't change; each large one alone."""
    small, large = [file for file in files if file.size <= SMALL], [[file] for file in files if file.size > SMALL]
    return [small, *large] if small else large


def bare(files: Mapping[str, File]) -> dict[str, File]:
    """The files as their runner listed them."""
    return {path: replace(file, etag=None) for path, file in files.items()}
