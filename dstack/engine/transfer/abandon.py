"""Removes everything that an aborted job has stored."""

from __future__ import annotations

from dstack.artifacts.s3.store import S3Store
from dstack.commands.artifacts.upload import abandon
from dstack.commands.host import ask
from dstack.engine.job_on_runner import HOST_ANSWER, JobOnRunner
from dstack.engine.retention.artifact_locations import forget, stored_in


async def abandoned(placed: JobOnRunner) -> None:
    """End the upload on the runner, then remove what a sync or an interrupted collection has stored. Repeatable. Raises
    HostError or StorageError, after which it may be tried again."""
    job = placed.job
    if not job.definition.artifacts:
        return
    storages = stored_in(placed.context, job)
    if any(isinstance(storage, S3Store) for storage in storages):
        await ask(placed.host, abandon(placed.host_context, placed.attempt), timeout=HOST_ANSWER)
    for storage in storages:
        await forget(placed.context, job, storage)
