"""Removes everything that an aborted job has stored."""

from __future__ import annotations

from dstack.engine.job_on_runner import JobOnRunner


async def abandoned(placed: JobOnRunner) -> None:
    """End the collection on the runner, then remove what a sync or an interrupted collection has stored. Raises
    HostError or StorageError, after which it may be tried again."""
    job = placed.job
    if not job.definition.artifacts:
        return
    artifacts = placed.context.artifacts
    for storage in artifacts.of(job):
        await storage.abandon(placed.folder())
        await artifacts.remove(job, storage)
