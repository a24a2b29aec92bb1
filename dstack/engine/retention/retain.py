"""Decides what stays on a runner when a job ends: a done job's artifacts, for the jobs that depend on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from msgspec.structs import replace

from dstack.commands.artifacts.retain import Copied, keep, reuse
from dstack.commands.machine.uninstall import discard
from dstack.engine.context import Context
from dstack.errors import CommandError
from dstack.hosts.host import ask
from dstack.model.job.job import Job
from dstack.model.job.manifest import Manifest
from dstack.model.job.status import Status
from dstack.model.paths import attempt_id
from dstack.model.runner.runner import Runner
from dstack.model.text.times import rfc3339
from dstack.store.tables.retained_artifacts import KeptArtifacts

DISCARDING = 300.0
"""Seconds for removing what a job left on its runner."""

log = logging.getLogger("dstack.engine")


async def clear(context: Context, job_id: str) -> None:
    """Remove the container and the folder of an ended job, once. A done job's artifacts stay."""
    store = context.store
    async with context.clearing[job_id]:
        job = store.jobs.get(job_id)
        runner = store.runners.get(job.runner or "") if job else None
        if job is None or job.discarded or runner is None:
            return
        place, attempt = context.machines.place(runner), attempt_id(job.id, job.attempt)
        if job.status is Status.DONE and job.files:
            project = store.runs.require(job.run).snapshot.project
            command = keep(place, attempt, project, job.image, job.definition.outputs)
            stays = await ask(context.machines.host(runner), command, timeout=DISCARDING)
        else:
            await ask(context.machines.host(runner), discard(place, attempt, job.image), timeout=DISCARDING)
            stays = False
        with store.database.transaction():
            store.jobs.change(job.id, discarded=True)
            if stays:
                store.kept.add(KeptArtifacts(job.id, attempt, runner.name, rfc3339(time.time())))
    context.clearing.pop(job_id, None)


async def reused(
    context: Context, job: Job, runner: Runner, manifests: Sequence[Manifest]
) -> tuple[bool, list[Manifest]]:
    """Have the runner copy the dependencies' artifacts that were made there. Returns whether it did, and which
    artifacts still have to come from elsewhere."""
    reusable = {}
    if job.attempt == 1:  # a later attempt starts with what the previous one left, which wins
        for manifest in manifests:
            kept = await _kept(context, manifest.job, runner)
            if kept:
                reusable[kept.attempt] = manifest
    if not reusable:
        return False, list(manifests)
    links = [file for manifest in reusable.values() for file in manifest.files if file.link is not None]
    command = reuse(context.machines.place(runner), attempt_id(job.id, job.attempt), list(reusable), links)
    try:
        copied = await ask(context.machines.host(runner), command)
    except CommandError as error:
        log.warning("job %s: %s; fetching the artifacts from the storage instead", job.id, error.message)
        return False, list(manifests)
    lost = [attempt for attempt, manifest in reusable.items() if copied.get(attempt) != _expected(manifest)]
    if lost:
        log.info("job %s: artifacts that were kept on %s are gone or incomplete", job.id, runner.name)
        context.store.kept.remove(lost)
        return False, list(manifests)
    paths = {file.path for manifest in reusable.values() for file in manifest.files}
    rest = [
        replace(manifest, files=tuple(file for file in manifest.files if file.path not in paths))
        for manifest in manifests
        if manifest not in reusable.values()
    ]
    return True, [manifest for manifest in rest if manifest.files]


async def _kept(context: Context, job_id: str, runner: Runner) -> KeptArtifacts | None:
    """The artifacts of a job that are kept on the runner. A job that ended just now is cleared first."""
    job = context.store.jobs.get(job_id)
    if job and job.runner == runner.name and not job.discarded:
        try:
            await clear(context, job_id)
        except CommandError as error:
            log.warning("job %s: %s", job_id, error.message)
    kept = context.store.kept.get(job_id)
    return kept if kept and kept.runner == runner.name else None


def _expected(manifest: Manifest) -> Copied:
    regular = [file for file in manifest.files if file.link is None]
    return Copied(len(regular), sum(file.size for file in regular))
