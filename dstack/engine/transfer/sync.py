"""Stores artifacts while their job runs, for those with `sync: 5m`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from operator import attrgetter

from msgspec.structs import replace

from dstack.commands.artifacts.sync import SMALL, frozen, sync
from dstack.commands.host import ask
from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import CommandError, DstackError, StorageError
from dstack.model.job.manifest import PARTIAL, File, Manifest, normal
from dstack.model.project.workflow import Artifact
from dstack.model.text.units import span

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
        self.files: dict[str, File] = {}
        self.turn = asyncio.Lock()

    async def run(self) -> None:
        """Sync until cancelled. Returns at once for a job without such artifacts."""
        asking = [artifact for artifact in self.job.definition.outputs if artifact.sync]
        if asking and (before := await self.artifacts.left(self.job)):
            self.files = {file.path: file for file in before.files}
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
        at.will_store()
        look = sync(at.host_context, at.attempt, at.snapshot.project, image, artifact, number, keep=keep)
        changes = await ask(at.host, look, timeout=TIMEOUT)
        if not (changes.found or changes.same or changes.moving):
            return False  # it may be about to be replaced: keep what was stored
        had = bare(self.files)
        missing = await self.missing([file for file in changes.found if had.get(file.path) != file], number)
        seen = {*changes.same, *changes.moving, *missing}
        stored = {path: file for path, file in self.files.items() if path in seen}
        stored |= {file.path: file for file in changes.found if file.path not in missing}
        await self.commit(normal(artifact.path), stored)
        return not missing and all(path in stored for path in changes.same)

    async def missing(self, files: Sequence[File], number: int) -> set[str]:
        """Bring these files into the store; return the paths of those that changed while they were sent."""
        changed: set[str] = set()
        for batch in batches([file for file in files if file.link is None]):
            try:
                await self.artifacts.current.collect(self.job_on_runner.folder(frozen(number)), batch)
            except (StorageError, CommandError) as trouble:
                log.info("job %s: %s; the next sync tries again", self.job.id, trouble.message)
                changed |= {file.path for file in batch}
        return changed

    async def commit(self, path: str, stored: dict[str, File]) -> None:
        """Write the manifest of what is stored now, if it has changed."""
        others = {name: file for name, file in self.files.items() if name != path and not name.startswith(f"{path}/")}
        files = {**others, **stored}
        if bare(files) == bare(self.files):
            return
        ordered = tuple(sorted(files.values(), key=attrgetter("path")))
        job = self.job
        await self.artifacts.current.commit(Manifest(job.id, job.run, job.workflow, PARTIAL, ordered, job.attempt))
        self.files = files


def batches(files: Sequence[File]) -> list[list[File]]:
    """Group the files: all small ones together, as they were copied and can't change; each large one alone."""
    small, large = [file for file in files if file.size <= SMALL], [[file] for file in files if file.size > SMALL]
    return [small, *large] if small else large


def bare(files: Mapping[str, File]) -> dict[str, File]:
    """The files as their runner listed them."""
    return {path: replace(file, etag=None) for path, file in files.items()}
