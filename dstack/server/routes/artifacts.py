"""The artifacts of jobs: list, read, link, tag."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.responses import Response, StreamingResponse

from dstack.engine.context import Context
from dstack.errors import ConflictError, NotFoundError, UsageError
from dstack.model.api.artifacts import ArtifactView, FolderView, LinksRequest, LinksView, LinkView, TagRequest, TagView
from dstack.model.job.job import Job
from dstack.model.job.manifest import PARTIAL, Manifest
from dstack.model.text.tag import name_of
from dstack.model.text.units import rfc3339
from dstack.server.border.values import Offset
from dstack.server.roles import require_own
from dstack.server.views import shown
from dstack.store.lookup import job_named, jobs_named


@dataclass
class ArtifactRoutes:
    context: Context

    async def artifacts(self, ref: str) -> list[ArtifactView]:
        views = []
        for job, manifest in await self.manifests(ref):
            of = {"job": job.id, "workflow": job.workflow, "partial": manifest.status == PARTIAL}
            views += [shown(file, ArtifactView, **of) for file in manifest.files]
        return views

    async def folders(self, ref: str) -> list[FolderView]:
        return [
            FolderView(job=job.id, workflow=job.workflow, path=folder.path, mode=folder.mode)
            for job, manifest in await self.manifests(ref)
            for folder in manifest.folders
        ]

    async def manifests(self, ref: str) -> list[tuple[Job, Manifest]]:
        """Return the jobs that have stored artifacts, with their lists."""
        store, found = self.context.store, []
        for job in jobs_named(store, ref)[1]:
            source = store.jobs.require(job.source)
            manifest = await self.context.artifacts.left(source)
            if manifest:
                found.append((job, manifest))
        return found

    async def file(self, ref: str, path: str, offset: Offset = 0) -> Response:
        job = job_named(self.context.store, ref)
        source = self.context.store.jobs.require(job.source)
        storage = await self.context.artifacts.home(source)
        opened = storage.open(source.run, source.workflow, path, offset)
        first = await anext(opened, b"")  # a storage error can still become an error response
        return StreamingResponse(prefixed(first, opened), media_type="application/octet-stream")

    async def url(self, ref: str, path: str) -> LinkView:
        """Return a temporary URL where anyone can read a job's file. Raises UsageError if the storage has no URLs."""
        made = await self.urls(ref, LinksRequest(paths=(path,)))
        if not made.urls:
            job = job_named(self.context.store, ref)
            storage = await self.context.artifacts.home(self.context.store.jobs.require(job.source))
            raise UsageError(
                f"artifacts are stored in {storage.url}; only S3 storage has URLs",
                hint=f"dstack artifacts download {job.id} {path}",
            )
        return LinkView(url=made.urls[0], expires_at=made.expires_at)

    async def urls(self, ref: str, wish: LinksRequest) -> LinksView:
        """Return temporary URLs of a job's files; none if the storage has no URLs. Raises NotFoundError for a path that
        is not one of its files."""
        job = job_named(self.context.store, ref)
        source = self.context.store.jobs.require(job.source)
        storage = await self.context.artifacts.home(source)
        presigned = await storage.presign(source.run, source.workflow, wish.paths)
        if presigned is None:
            return LinksView(urls=[], expires_at=rfc3339(time.time()))
        known = {file.path for file in (await self.context.artifacts.manifest(source)).files if file.link is None}
        unknown = next((path for path in wish.paths if path not in known), None)
        if unknown is not None:
            raise NotFoundError(f"{job.id} has no file '{unknown}'", hint=f"dstack artifacts list {job.id}")
        return LinksView(urls=presigned.urls, expires_at=rfc3339(time.time() + presigned.lifetime))

    def tag(self, wish: TagRequest) -> TagView:
        """Tag a job. Tagging a run tags the job of the workflow that the user named."""
        store, name = self.context.store, name_of(wish.name)
        run, jobs, whole = jobs_named(store, wish.ref)
        job = next((job for job in jobs if job.workflow == run.workflow), None) if whole else jobs[0]
        if job is None:
            raise UsageError(f"{run.name} has no job of {run.workflow}")
        require_own(run)
        taken = store.tags.get(name)
        if taken and taken.job != job.id and not wish.force:
            hint = f"to move it: dstack tag {wish.ref} {name} --force"
            raise ConflictError(f"the tag ':{name}' already names {taken.run}", hint=hint)
        if taken:
            require_own(store.runs.require(taken.run))
        tag = TagView(name=name, run=run.name, job=job.id, workflow=job.workflow, created_at=rfc3339(time.time()))
        store.tags.set(tag)
        return tag

    def delete_tag(self, name: str) -> None:
        tag = self.context.store.tags.get(name)
        if tag:
            require_own(self.context.store.runs.require(tag.run))
        if not self.context.store.tags.delete(name):
            raise NotFoundError(f"no tag ':{name}'", hint="see `dstack tag`")


async def prefixed(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the first piece, which was already read, then the rest."""
    yield first
    async for piece in rest:
        yield piece
