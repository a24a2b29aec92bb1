"""Removes everything that an aborted job has stored."""

from __future__ import annotations

from dstack.engine.job_on_runner import JobOnRunner


async def remove_stored(job_on_runner: JobOnRunner) -> None:
    """End the collection on the runner, then remove what a sync or an interrupted collection has stored. Raises
    HostError or StorageError, after which it may be tried again."""
    job = job_on_runner.job
    if not job.definition.artifacts:
        return
    artifacts = job_on_runner.context.artifacts
    for storage in artifacts.of(job):
        await storage.abandon(job_on_runner.folder())
        await artifacts.remove(job, storage)
