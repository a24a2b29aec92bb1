"""Collects a job's artifacts into the artifact store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from dstack.artifacts.folder.store import FolderStore
from dstack.artifacts.s3.store import S3Store
from dstack.commands.artifacts.collect import ArtifactListing, fetch, made
from dstack.commands.host import Host
from dstack.engine.context import Context
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.transfer.upload import Uploader
from dstack.model.job.job import Job
from dstack.model.job.manifest import File, Manifest
from dstack.model.job.status import Status
from dstack.model.paths import attempt_id
from dstack.model.runner.runner import Runner


@dataclass(frozen=True)
class Collected:
    """How much was stored; `complaint` says in one sentence what is wrong with it."""

    files: int
    bytes: int
    complaint: str | None


class Collector:
    """Lists the artifacts, transfers what the store lacks, and writes the manifest last. Repeatable at any point.
    `tell` is called with the bytes stored so far and the total."""

    def __init__(self, context: Context, job: Job, runner: Runner, tell: Callable[[int, int], None]) -> None:
        self.context = context
        self.job = job
        self.runner = runner
        self.tell = tell
        self.found: ArtifactListing | None = None

    async def store(self) -> ArtifactListing:
        """Put all files into the store, without the manifest. Raises HostError or StorageError, after which it may be
        tried again."""
        self.found = found = await self.listed()
        storage = self.context.storage
        if found.gone:
            return found
        self.told(sum(file.size for file in found.files))
        if isinstance(storage, S3Store):
            uploader = Uploader(self.context, self.job, self.runner, storage, tell=self.told)
            if any(artifact.sync for artifact in self.job.definition.outputs):
                await uploader.earlier()  # it would overwrite what is stored now
            await uploader.run(found.files)
        else:
            await self.fetched(found, storage)
        return found

    async def commit(self, found: ArtifactListing, end: Status) -> Collected:
        """Write the manifest for what is stored now."""
        if found.gone:
            return await self.left(complaint(found))
        kept = Status.FAILED if end is Status.DONE and complaint(found) else end
        manifest = Manifest(self.job.id, self.job.run, self.job.workflow, kept.value, found.files)
        await self.context.storage.commit(manifest)
        return Collected(len(manifest.files), manifest.bytes, complaint(found))

    async def salvage(self, end: Status) -> Collected:
        """Keep what has arrived from a job whose runner is given up, through a sync or this collection."""
        before = await self.left(None)
        if self.found is None or self.found.gone or before.files:
            return before
        files = await self.arrived(self.found.files)
        return await self.commit(replace(self.found, files=files), end) if files else before

    async def arrived(self, files: Sequence[File]) -> tuple[File, ...]:
        """Those of the files whose content is known to be in the store."""
        storage, contents = self.context.storage, self.context.store.bucket_contents
        if not isinstance(storage, S3Store):
            lacking = {(file.sha256, file.size) for file in await storage.missing(files)}
            return tuple(file for file in files if file.link or (file.sha256, file.size) not in lacking)

        def there(file: File) -> bool:
            own = storage.key(self.job.run, self.job.workflow, file.path)
            return any(stored.key == own for stored in contents.find(storage.name, file.sha256, file.size))

        return tuple(file for file in files if file.link or there(file))

    async def left(self, problem: str | None) -> Collected:
        """Keep what a sync stored while the job ran: there is nothing left to collect."""
        kept = await asyncio.to_thread(self.context.storage.manifest, self.job.run, self.job.workflow)
        mine = kept is not None and kept.job == self.job.id
        files, size = (len(kept.files), kept.bytes) if kept and mine else (0, 0)
        return Collected(files, size, problem)

    def told(self, left: int) -> None:
        """Report that this many bytes are not stored yet."""
        total = sum(file.size for file in self.found.files) if self.found else 0
        self.tell(total - left, total)

    @property
    def host(self) -> Host:
        return self.context.fleet.host(self.runner)

    async def listed(self) -> ArtifactListing:
        """List what the job made, with sums from the runner."""
        if not self.job.definition.artifacts:
            return ArtifactListing((), (), ())
        on_runner = JobOnRunner(self.context, self.job.id)
        project, outputs = on_runner.snapshot.project, self.job.definition.outputs
        return await on_runner.executor.collect(on_runner.attempt, project, self.job.image, outputs)

    async def fetched(self, found: ArtifactListing, storage: FolderStore) -> None:
        """Transfer the contents that the store lacks."""
        missing = await storage.missing(found.files)
        if not missing:
            return
        host_context = self.context.fleet.host_context(self.runner)
        project = self.context.store.runs.require(self.job.run).snapshot.project
        attempt = attempt_id(self.job.id, self.job.attempt)
        stream = self.counted(self.host.stream(fetch(host_context, attempt, made(project), missing)), missing)
        await storage.receive(self.job.run, self.job.workflow, self.job.id, stream, missing)

    async def counted(self, stream: AsyncIterator[bytes], files: Sequence[File]) -> AsyncIterator[bytes]:
        """Pass the stream of these files on, and report progress."""
        left = sum(file.size for file in files)
        try:
            async for data in stream:
                left -= len(data)
                self.told(left)
                yield data
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()


def complaint(found: ArtifactListing) -> str | None:
    """Return what is wrong with the artifacts, compared with what the workflow declares."""
    problems = [f"artifact '{path}' was not produced" for path in found.missing] + list(found.refused)
    return "; ".join(problems) or None
