"""Has a runner reuse the artifacts of dependencies that were made there."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.commands.artifacts.retain import Copied, reuse
from dstack.commands.host import ask
from dstack.engine.artifact_storage import without
from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.retention.clear import clear
from dstack.errors import CommandError
from dstack.model.job.manifest import Manifest


async def reused(job_on_runner: JobOnRunner, manifests: Sequence[Manifest]) -> tuple[bool, list[Manifest]]:
    """Have the runner copy the dependencies' artifacts that were made there. Returns whether it did, and which
    artifacts still have to come from elsewhere."""
    job = job_on_runner.job
    # A later attempt starts with what the previous one left, which wins.
    reusable = await made_there(job_on_runner, manifests) if job.attempt == 1 else {}
    if not reusable:
        return False, list(manifests)
    links = [file for manifest in reusable.values() for file in manifest.files if file.link is not None]
    command = reuse(job_on_runner.host_context, job_on_runner.attempt, list(reusable), links)
    try:
        copied = await ask(job_on_runner.host, command)
    except CommandError as error:
        log.warning("job %s: %s; fetching the artifacts from the storage instead", job.id, error.message)
        return False, list(manifests)
    lost = [attempt for attempt, manifest in reusable.items() if copied.get(attempt) != _expected(manifest)]
    if lost:
        log.info("job %s: artifacts that were kept on %s are gone or incomplete", job.id, job.runner)
        job_on_runner.store.retained_artifacts.remove(lost)
        return False, list(manifests)
    rest = [manifest for manifest in manifests if manifest not in reusable.values()]
    return True, without(rest, [file for manifest in reusable.values() for file in manifest.files])


async def made_there(job_on_runner: JobOnRunner, manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The manifests of the artifacts that the job's runner has kept, by attempt; also of jobs that ended just now."""
    store, runner, there = job_on_runner.store, job_on_runner.job.runner, {}
    for manifest in manifests:
        made = store.jobs.get(manifest.job)
        if made and made.runner == runner and not made.discarded:
            try:
                await clear(job_on_runner.context, made.id)
            except CommandError as error:
                log.warning("job %s: %s", made.id, error.message)
        kept = store.retained_artifacts.get(manifest.job)
        if kept and kept.runner == runner:
            there[kept.attempt] = manifest
    return there


def _expected(manifest: Manifest) -> Copied:
    regular = [file for file in manifest.files if file.link is None]
    return Copied(len(regular), sum(file.size for file in regular))
