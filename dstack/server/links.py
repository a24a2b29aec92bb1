"""URLs of stored files."""

from __future__ import annotations

import time

from dstack.artifacts.s3 import EXPIRES, S3Store
from dstack.engine.context import Context
from dstack.errors import NotFoundError, UsageError
from dstack.model.api import LinkView
from dstack.model.job import Job
from dstack.model.times import rfc3339


async def link(context: Context, job: Job, path: str) -> LinkView:
    """Where anybody can read a job's file for a while. Raises UsageError where the storage is a folder."""
    storage = context.storage
    if not isinstance(storage, S3Store):
        raise UsageError(
            f"the artifacts lie in a folder, {context.storage_url}: only storage on S3 gives URLs",
            hint=f"dstack artifacts download {job.id} {path}",
        )
    source = context.store.jobs.require(job.source)
    manifest = await context.manifest(source)
    if not any(file.path == path and file.link is None for file in manifest.files):
        raise NotFoundError(f"{job.id} has no file '{path}'", hint=f"dstack artifacts list {job.id}")
    expires = rfc3339(time.time() + EXPIRES)
    return LinkView(url=(await storage.urls(source.run, source.workflow, [path]))[0], expires_at=expires)
