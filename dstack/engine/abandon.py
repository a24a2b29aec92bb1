"""What an aborted job leaves: nothing."""

from __future__ import annotations

from dstack.artifacts.s3 import S3Store
from dstack.commands.upload import abandon
from dstack.engine.placed import HOST_ANSWER, Placed
from dstack.hosts.host import ask


async def abandoned(placed: Placed) -> None:
    """End what the host still sends, then remove what was stored of the job: by a sync, or by a collection that was
    under way. Repeatable. Raises HostError or StorageError: then it may be tried again."""
    job, storage = placed.job, placed.context.storage
    if not job.definition.artifacts:
        return
    if isinstance(storage, S3Store):
        await ask(placed.host, abandon(placed.place, placed.attempt), timeout=HOST_ANSWER)
        placed.store.contents.forget_below(storage.name, storage.key(job.run, job.workflow, ""))
    await storage.remove(job.run, job.workflow)
