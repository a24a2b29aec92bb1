"""Collects a job's artifacts into the artifact store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dstack.artifacts.store import Tell
from dstack.commands.artifacts.collect import ArtifactListing
from dstack.engine.job_on_runner import JobOnRunner
from dstack.model.job.job import ExitCode
from dstack.model.job.manifest import Manifest
from dstack.model.job.status import Status

MOST = 20
"""How many complaints about artifacts a reason lists."""


@dataclass(frozen=True)
class Collected:
    """How much was stored; `complaint` says in one sentence what is wrong with it."""

    files: int
    bytes: int
    complaint: str | None


class Collector:
    """Lists the artifacts, transfers what the store lacks, and writes the manifest last. Repeatable at any point. All
    goes to one store, even if another one is set meanwhile. `tell` is called with the bytes stored so far, the total,
    and what keeps the rest from arriving, if anything."""

    def __init__(self, job_on_runner: JobOnRunner, tell: Callable[[int, int, str], None]) -> None:
        self.job_on_runner = job_on_runner
        self.artifacts = job_on_runner.context.artifacts
        self.storage = self.artifacts.current
        self.tell = tell
        self.found: ArtifactListing | None = None

    async def store(self) -> ArtifactListing:
        """Put all files into the store, without the manifest. Raises HostError or StorageError; may be tried again."""
        at, job = self.job_on_runner, self.job_on_runner.job
        self.storage = at.will_store()
        if not job.definition.artifacts:
            return ArtifactListing((), (), ())
        project, outputs = at.snapshot.project, job.definition.outputs
        self.found = found = await at.executor.collect(at.attempt, project, job.image, outputs)
        if not found.gone:
            total = sum(file.size for file in found.files)
            self.tell(0, total, "")
            await self.storage.collect(at.folder(), found.files, self.left_of(total))
        return found

    def left_of(self, total: int) -> Tell:
        """Return what tells how much of so many bytes is stored."""
        return lambda left, trouble="": self.tell(total - left, total, trouble)

    async def commit(self, found: ArtifactListing, end: Status) -> Collected:
        """Write the manifest for what is stored now."""
        job = self.job_on_runner.job
        if found.gone:
            return await self.left(None if await self.artifacts.result(job) else complaint(found))
        short = end is Status.DONE and complaint(found)
        kept, code = (Status.FAILED, ExitCode.NO_ARTIFACT) if short else (end, job.exit_code)
        manifest = Manifest(job.id, job.run, job.workflow, kept.value, found.files, job.attempt, code, found.folders)
        await self.storage.commit(manifest)
        return Collected(len(manifest.files), manifest.bytes, complaint(found))

    async def salvage(self, end: Status) -> Collected:
        """Keep what has arrived from a job whose runner is given up, through a sync or this collection."""
        before = await self.left(None)
        if self.found is None or self.found.gone or before.files:
            return before
        job = self.job_on_runner.job
        lacking = set(await self.storage.copy(job.run, job.workflow, self.found.files))
        files = tuple(file for file in self.found.files if file not in lacking)
        return await self.commit(replace(self.found, files=files), end) if files else before

    async def left(self, problem: str | None) -> Collected:
        """Keep what a sync stored while the job ran: there is nothing left to collect."""
        kept = await self.artifacts.left(self.job_on_runner.job)
        return Collected(len(kept.files), kept.bytes, problem) if kept else Collected(0, 0, problem)


async def remove_stored(job_on_runner: JobOnRunner) -> None:
    """End an aborted job's collection and remove what is stored. Raises HostError or StorageError; may be repeated."""
    job, artifacts = job_on_runner.job, job_on_runner.context.artifacts
    if not job.definition.artifacts:
        return
    for storage in artifacts.of(job):
        await storage.abandon(job_on_runner.folder())
        await artifacts.remove(job, storage)


def complaint(found: ArtifactListing) -> str | None:
    """Return what is wrong with the artifacts, compared with what the workflow declares."""
    problems = [f"artifact '{path}' was not produced" for path in found.missing] + list(found.refused)
    more = [f"and {len(problems) - MOST:,} more"] if len(problems) > MOST else []
    return "; ".join([*problems[:MOST], *more]) or None
