"""URLs of stored files."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dstack.engine.context import Context
from dstack.errors import NotFoundError, UsageError
from dstack.model.api.artifacts import LinksView, LinkView
from dstack.model.job.job import Job
from dstack.model.text.units import rfc3339


async def link(context: Context, job: Job, path: str) -> LinkView:
    """Return a temporary URL where anyone can read a job's file. Raises UsageError if the storage has no URLs."""
    made = await links(context, job, [path])
    if not made.urls:
        raise UsageError(
            f"artifacts are stored in {context.artifacts.url}; only S3 storage has URLs",
            hint=f"dstack artifacts download {job.id} {path}",
        )
    return LinkView(url=made.urls[0], expires_at=made.expires_at)


async def links(context: Context, job: Job, paths: Sequence[str]) -> LinksView:
    """Return temporary URLs of a job's files; none if the storage has no URLs. Raises NotFoundError for a path that
    is not one of its files."""
    source = context.store.jobs.require(job.source)
    presigned = await context.artifacts.current.presign(source.run, source.workflow, paths)
    if presigned is None:
        return LinksView(urls=[], expires_at=rfc3339(time.time()))
    known = {file.path for file in (await context.artifacts.manifest(source)).files if file.link is None}
    unknown = next((path for path in paths if path not in known), None)
    if unknown is not None:
        raise NotFoundError(f"{job.id} has no file '{unknown}'", hint=f"dstack artifacts list {job.id}")
    return LinksView(urls=presigned.urls, expires_at=rfc3339(time.time() + presigned.lifetime))
