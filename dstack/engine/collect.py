"""Brings home what a job made."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dstack.artifacts.folder import FolderStore
from dstack.artifacts.s3 import S3Store
from dstack.commands.collect import Listing, fetch, listing
from dstack.engine.context import Context
from dstack.engine.upload import Uploader
from dstack.hosts.host import Host, ask
from dstack.model.job import Job
from dstack.model.manifest import Manifest
from dstack.model.paths import attempt_id
from dstack.model.runner import Runner


@dataclass(frozen=True)
class Collected:
    """How much was stored, and what is wrong with it in one sentence, or None."""

    files: int
    bytes: int
    complaint: str | None


class Collector:
    """Lists, brings over what the store lacks, and writes the manifest last. Repeatable at any point."""

    def __init__(self, context: Context, job: Job, runner: Runner) -> None:
        self.context = context
        self.job = job
        self.runner = runner

    async def run(self) -> Collected:
        """Collect, or raise HostError or StorageError: then it may be tried again."""
        found = await self.listed()
        storage = self.context.storage
        if found.gone:
            return await self.left(found)
        if isinstance(storage, S3Store):
            uploader = Uploader(self.context, self.job, self.runner, storage)
            if any(artifact.sync for artifact in self.job.definition.outputs):
                await uploader.earlier()  # it would write over what is stored now
            await uploader.run(found.files)
        else:
            await self.fetched(found, storage)
        manifest = Manifest(
            job=self.job.id,
            run=self.job.run,
            workflow=self.job.workflow,
            status=(self.job.end.value if self.job.end else "failed") if not complaint(found) else "failed",
            files=found.files,
        )
        await storage.commit(manifest)
        return Collected(len(manifest.files), manifest.bytes, complaint(found))

    async def left(self, found: Listing) -> Collected:
        """What was stored while the job ran stays, where there is nothing any more to be collected."""
        kept = await asyncio.to_thread(self.context.storage.manifest, self.job.run, self.job.workflow)
        mine = kept is not None and kept.job == self.job.id
        files, size = (len(kept.files), kept.bytes) if kept and mine else (0, 0)
        return Collected(files, size, complaint(found))

    @property
    def host(self) -> Host:
        return self.context.machines.host(self.runner)

    async def listed(self) -> Listing:
        """What is there, hashed on the host."""
        if not self.job.definition.artifacts:
            return Listing((), (), ())
        place = self.context.machines.place(self.runner)
        project = self.context.store.runs.require(self.job.run).snapshot.project
        attempt = attempt_id(self.job.id, self.job.attempt)
        return await ask(self.host, listing(place, attempt, project, self.job.image, self.job.definition.outputs))

    async def fetched(self, found: Listing, storage: FolderStore) -> None:
        """Bring over the contents that the store does not have."""
        missing = await storage.missing(found.files)
        if not missing:
            return
        place = self.context.machines.place(self.runner)
        project = self.context.store.runs.require(self.job.run).snapshot.project
        attempt = attempt_id(self.job.id, self.job.attempt)
        stream = self.host.stream(fetch(place, attempt, project, missing))
        await storage.receive(self.job.run, self.job.workflow, self.job.id, stream, missing)


def complaint(found: Listing) -> str | None:
    """What keeps the artifacts from being what the workflow promised."""
    said = [f"artifact '{path}' was not produced" for path in found.missing] + list(found.refused)
    return "; ".join(said) or None
