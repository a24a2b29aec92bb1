"""Where a job's artifacts are stored, and how they are removed."""

from __future__ import annotations

import asyncio

from dstack.artifacts.folder.store import FolderStore
from dstack.artifacts.s3.store import S3Store
from dstack.engine.context import Context
from dstack.errors import StorageError
from dstack.model.job.job import Job


def stored_in(context: Context, job: Job) -> list[FolderStore | S3Store]:
    """Every store that may have artifacts of the job, including those in use before `dstack config --storage`."""
    here = (context.storage_url, context.endpoint_url or "")
    return [context.storage_at(url, endpoint or None) for url, endpoint in job.storages or (here,)]


async def forget(context: Context, job: Job, storage: FolderStore | S3Store) -> None:
    """Remove what a job left in a store. Raises StorageError, after which it may be tried again."""
    if isinstance(storage, S3Store):
        context.store.bucket_contents.forget_below(storage.name, storage.key(job.run, job.workflow, ""))
    elif storage.name != context.storage.name and not await asyncio.to_thread(storage.root.is_dir):
        raise StorageError("the folder does not exist")
    await storage.remove(job.run, job.workflow)
