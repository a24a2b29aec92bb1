"""What a job leaves whose artifacts are not to be stored: nothing."""

from __future__ import annotations

import asyncio

from dstack.artifacts.s3 import S3Store
from dstack.commands.upload import abandon
from dstack.engine.placed import HOST_ANSWER, Placed
from dstack.hosts.host import ask


async def abandoned(placed: Placed, *, but_synced: bool = False) -> None:
    """End what the host still sends, then remove what was stored of the job: by a sync, unless that is to stay, or by
    a collection that was under way. Repeatable. Raises HostError or StorageError: then it may be tried again."""
    job, storage = placed.job, placed.context.storage
    if not job.definition.artifacts:
        return
    if isinstance(storage, S3Store):
        await ask(placed.host, abandon(placed.place, placed.attempt), timeout=HOST_ANSWER)
    if but_synced:
        synced = await asyncio.to_thread(storage.manifest, job.run, job.workflow)
        if synced and synced.job == job.id:
            return
    if isinstance(storage, S3Store):
        placed.store.contents.forget_below(storage.name, storage.key(job.run, job.workflow, ""))
    await storage.remove(job.run, job.workflow)
