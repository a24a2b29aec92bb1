"""URLs of stored files."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dstack.artifacts.s3.store import S3Store
from dstack.engine.context import Context
from dstack.errors import NotFoundError, UsageError
from dstack.model.api.artifacts import LinksView, LinkView
from dstack.model.job.job import Job
from dstack.model.text.units import rfc3339


async def link(context: Context, job: Job, path: str) -> LinkView:
    """Return a temporary URL where anyone can read a job's file. Raises UsageError if the storage is a folder."""
    storage = context.storage
    if not isinstance(storage, S3Store):
        raise UsageError(
            f"artifacts are stored in the folder {context.storage_url}; only S3 storage has URLs",
            hint=f"dstack artifacts download {job.id} {path}",
        )
    made = await links(context, job, [path])
    return LinkView(url=made.urls[0], expires_at=made.expires_at)


async def links(context: Context, job: Job, paths: Sequence[str]) -> LinksView:
    """Return temporary URLs of a job's files; none if the storage is a folder. Raises NotFoundError for a path that
    is not one of its files."""
    storage = context.storage
    if not isinstance(storage, S3Store):
        return LinksView(urls=[], expires_at=rfc3339(time.time()))
    source = context.store.jobs.require(job.source)
    known = {file.path for file in (await context.manifest(source)).files if file.link is None}
    unknown = next((path for path in paths if path not in known), None)
    if unknown is not None:
        raise NotFoundError(f"{job.id} has no file '{unknown}'", hint=f"dstack artifacts list {job.id}")
    expires = rfc3339(time.time() + storage.expires)
    return LinksView(urls=await storage.urls(source.run, source.workflow, paths), expires_at=expires)
